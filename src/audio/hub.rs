//! Who listens to a stream's sound: every listener has a queue of its own, loses its oldest frames when it is too slow,
//! and is told how much; nobody waits for it. For each of them, exactly: offered = sent + dropped + queued.
//! Not here: where the sound comes from (`speech`, `ingest`), what a client gets of it (`web`).

use super::{FRAME_BYTES, FRAME_SAMPLES};
use crate::metrics::{Metrics, StreamLabel};
use bytes::Bytes;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, watch};

/// Frames that wait for one slow listener (2 s); beyond it the oldest goes and is counted
/// (`audio_samples_dropped`).
pub const QUEUE_FRAMES: usize = 100;

static SILENCE: Bytes = Bytes::from_static(&[0; FRAME_BYTES]);

/// 20 ms of sound.
#[derive(Debug, Clone, PartialEq)]
pub struct AudioFrame {
    /// Counts the stream's frames from 0, silent ones too, while anybody listens.
    pub seq: u64,
    /// When it was due.
    pub at: Instant,
    /// The utterance that it belongs to, pauses within it included; `None` between utterances.
    pub utterance: Option<u64>,
    /// [`FRAME_SAMPLES`] samples, s16le, mono, 48 kHz.
    pub pcm: Bytes,
}

/// What a listener is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Every frame, so that its time is everyone's time.
    Everything,
    /// Frames of utterances only.
    Speech,
}

/// What became of the samples that were made for one listener. `offered` is the sum of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Account {
    pub offered: u64,
    /// Taken by it.
    pub sent: u64,
    /// Lost because it was too slow.
    pub dropped: u64,
    /// Waiting for it now.
    pub queued: u64,
}

/// One listener as `/api/status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerStatus {
    /// Its number, as in the answer's `X-Audio-Listener`.
    pub listener: u64,
    /// Whether it gets the silence between utterances.
    pub silence: bool,
    /// In samples.
    #[serde(flatten)]
    pub account: Account,
}

/// What a listener hears next.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Frame(Arc<AudioFrame>),
    /// So many samples were lost before the next frame.
    Lagged(u64),
}

/// Whose sound it is, and so where it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Voice,
    Source,
}

/// A sound of one stream.
#[derive(Debug)]
pub struct AudioHub {
    room: Mutex<Room>,
    count: watch::Sender<usize>,
    metrics: Arc<Metrics>,
    label: StreamLabel,
    origin: Origin,
}

#[derive(Debug, Default)]
struct Room {
    seats: BTreeMap<u64, Seat>,
    last_listener: u64,
    next_seq: u64,
    closed: bool,
}

#[derive(Debug)]
struct Seat {
    wants: Wants,
    queue: VecDeque<Arc<AudioFrame>>,
    account: Account,
    /// Samples dropped that it was not told of yet.
    untold: u64,
    bell: Arc<Notify>,
}

impl AudioHub {
    /// A hub for the voice, without listeners.
    pub fn new(stream: &str, metrics: Arc<Metrics>) -> Self {
        Self::of(Origin::Voice, stream, metrics)
    }

    /// A hub for the source's own sound, without listeners. Its frames with sound are offered as those of utterance 0.
    pub fn of_source(stream: &str, metrics: Arc<Metrics>) -> Self {
        Self::of(Origin::Source, stream, metrics)
    }

    fn of(origin: Origin, stream: &str, metrics: Arc<Metrics>) -> Self {
        let label = StreamLabel::new(stream);
        Self { room: Mutex::default(), count: watch::Sender::new(0), metrics, label, origin }
    }

    /// Offers a frame to everyone; `None` is silence. Its number.
    pub fn publish(&self, at: Instant, utterance: Option<u64>, samples: Option<&[i16; FRAME_SAMPLES]>) -> u64 {
        let pcm = samples.map_or_else(|| SILENCE.clone(), to_bytes);
        let mut room = self.lock();
        let seq = room.next_seq;
        room.next_seq += 1;
        let frame = Arc::new(AudioFrame { seq, at, utterance, pcm });
        let (mut offered, mut dropped) = (0, 0);
        for seat in room.seats.values_mut().filter(|s| s.wants == Wants::Everything || utterance.is_some()) {
            offered += seat.offer(&frame);
            dropped += seat.make_room();
        }
        self.count_samples(offered, 0, dropped);
        seq
    }

    /// A listener of everything from now on.
    pub fn listen(self: &Arc<Self>, wants: Wants) -> AudioListener {
        let mut room = self.lock();
        room.last_listener += 1;
        let id = room.last_listener;
        let bell = Arc::new(Notify::new());
        let seat =
            Seat { wants, queue: VecDeque::new(), account: Account::default(), untold: 0, bell: Arc::clone(&bell) };
        room.seats.insert(id, seat);
        self.tell_count(&room);
        drop(room);
        AudioListener { hub: Arc::clone(self), id, bell }
    }

    /// How many listen, as it changes.
    pub fn listeners(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// True while somebody listens.
    pub fn is_heard(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// Frames made so far; the clock that silence-filled sound is measured against.
    pub fn frames(&self) -> u64 {
        self.lock().next_seq
    }

    /// Everyone who listens now.
    pub fn status(&self) -> Vec<ListenerStatus> {
        let room = self.lock();
        let status = |(id, seat): (&u64, &Seat)| ListenerStatus {
            listener: *id,
            silence: seat.wants == Wants::Everything,
            account: seat.account,
        };
        room.seats.iter().map(status).collect()
    }

    /// The stream is at its end: listeners get what is queued, and then `None`.
    pub fn close(&self) {
        let mut room = self.lock();
        room.closed = true;
        room.seats.values().for_each(|seat| seat.bell.notify_one());
    }

    /// `None` when nothing waits; `Some(None)` when nothing will come any more.
    fn take(&self, id: u64) -> Option<Option<Heard>> {
        let mut room = self.lock();
        let closed = room.closed;
        let Some(seat) = room.seats.get_mut(&id) else { return Some(None) };
        if seat.untold > 0 {
            return Some(Some(Heard::Lagged(std::mem::take(&mut seat.untold))));
        }
        let Some(frame) = seat.queue.pop_front() else { return closed.then_some(None) };
        let samples = FRAME_SAMPLES as u64;
        seat.account.queued -= samples;
        seat.account.sent += samples;
        self.count_samples(0, samples, 0);
        Some(Some(Heard::Frame(frame)))
    }

    /// What still waits for it when it goes was not sent.
    fn leave(&self, id: u64) {
        let mut room = self.lock();
        let left = room.seats.remove(&id);
        self.count_samples(0, 0, left.map_or(0, |seat| seat.account.queued));
        self.tell_count(&room);
    }

    fn tell_count(&self, room: &Room) {
        let listeners = room.seats.len();
        let gauge = match self.origin {
            Origin::Voice => &self.metrics.audio_listeners,
            Origin::Source => &self.metrics.source_audio_listeners,
        };
        gauge.get_or_create(&self.label).set(i64::try_from(listeners).unwrap_or(i64::MAX));
        // Under the lock, so that the last word is the true one.
        self.count.send_replace(listeners);
    }

    fn count_samples(&self, offered: u64, sent: u64, dropped: u64) {
        let m = &self.metrics;
        let counters = match self.origin {
            Origin::Voice => [&m.audio_samples, &m.audio_samples_sent, &m.audio_samples_dropped],
            Origin::Source => [&m.source_audio_samples, &m.source_audio_samples_sent, &m.source_audio_samples_dropped],
        };
        for (counter, samples) in counters.into_iter().zip([offered, sent, dropped]).filter(|(_, samples)| *samples > 0)
        {
            counter.get_or_create(&self.label).inc_by(samples);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn offer(&mut self, frame: &Arc<AudioFrame>) -> u64 {
        let samples = FRAME_SAMPLES as u64;
        self.queue.push_back(Arc::clone(frame));
        self.account.offered += samples;
        self.account.queued += samples;
        self.bell.notify_one();
        samples
    }

    /// Samples dropped.
    fn make_room(&mut self) -> u64 {
        if self.queue.len() <= QUEUE_FRAMES {
            return 0;
        }
        self.queue.pop_front();
        let samples = FRAME_SAMPLES as u64;
        self.account.queued -= samples;
        self.account.dropped += samples;
        self.untold += samples;
        samples
    }
}

fn to_bytes(samples: &[i16; FRAME_SAMPLES]) -> Bytes {
    samples.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>().into()
}

/// One listener; it leaves when dropped.
#[derive(Debug)]
pub struct AudioListener {
    hub: Arc<AudioHub>,
    id: u64,
    bell: Arc<Notify>,
}

impl AudioListener {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What comes next; `None` at the stream's end. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = self.hub.take(self.id) {
                return heard;
            }
            self.bell.notified().await;
        }
    }

    /// What waits already; `None` when nothing does.
    pub fn try_next(&mut self) -> Option<Heard> {
        self.hub.take(self.id).flatten()
    }
}

impl Drop for AudioListener {
    fn drop(&mut self) {
        self.hub.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hub() -> Arc<AudioHub> {
        Arc::new(AudioHub::new("main", Arc::new(Metrics::new())))
    }

    fn say(hub: &AudioHub, utterance: Option<u64>) {
        let samples = utterance.map(|n| [n as i16; FRAME_SAMPLES]);
        hub.publish(Instant::now(), utterance, samples.as_ref());
    }

    fn counted(hub: &AudioHub) -> [u64; 3] {
        let m = &hub.metrics;
        [&m.audio_samples, &m.audio_samples_sent, &m.audio_samples_dropped]
            .map(|counter| counter.get_or_create(&hub.label).get())
    }

    #[test]
    fn a_slow_listener_loses_its_oldest_and_others_lose_nothing() {
        let hub = hub();
        let (mut slow, mut quick) = (hub.listen(Wants::Everything), hub.listen(Wants::Everything));
        let extra = 7;
        for n in 0..(QUEUE_FRAMES + extra) as u64 {
            say(&hub, Some(n));
            let Some(Heard::Frame(frame)) = quick.try_next() else { panic!("the quick one lost a frame") };
            assert_eq!((frame.seq, frame.utterance), (n, Some(n)));
        }
        assert_eq!(slow.try_next(), Some(Heard::Lagged((extra * FRAME_SAMPLES) as u64)));
        let Some(Heard::Frame(first)) = slow.try_next() else { panic!("nothing was kept") };
        assert_eq!(first.seq, extra as u64);
        assert_eq!(hub.status()[1].account.dropped, 0);
    }

    #[tokio::test]
    async fn the_end_comes_after_what_is_queued() {
        let hub = hub();
        let mut listener = hub.listen(Wants::Everything);
        say(&hub, None);
        hub.close();
        assert!(matches!(listener.next().await, Some(Heard::Frame(_))));
        assert_eq!(listener.next().await, None);
        assert_eq!(hub.listen(Wants::Speech).next().await, None, "who comes after the end");
    }

    #[tokio::test]
    async fn a_listener_that_waits_is_woken() {
        let hub = hub();
        let mut listener = hub.listen(Wants::Speech);
        let waiting = tokio::spawn(async move { listener.next().await });
        tokio::task::yield_now().await;
        say(&hub, None);
        say(&hub, Some(3));
        let Some(Heard::Frame(frame)) = waiting.await.unwrap() else { panic!("no frame") };
        assert_eq!((frame.utterance, &frame.pcm[..4]), (Some(3), &[3, 0, 3, 0][..]));
        assert_eq!(frame.pcm.len(), FRAME_BYTES);
    }

    #[derive(Debug, Clone)]
    enum Do {
        Join(bool),
        Leave(usize),
        Publish(bool, u8),
        Read(usize, u8),
    }

    fn doing() -> impl Strategy<Value = Do> {
        prop_oneof![
            1 => any::<bool>().prop_map(Do::Join),
            1 => (0usize..6).prop_map(Do::Leave),
            4 => (any::<bool>(), 0u8..80).prop_map(|(speech, n)| Do::Publish(speech, n)),
            4 => ((0usize..6), 0u8..80).prop_map(|(who, n)| Do::Read(who, n)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_sample_is_sent_or_dropped_and_counted(deeds in prop::collection::vec(doing(), 0..60)) {
            let hub = hub();
            let frame = FRAME_SAMPLES as u64;
            // With each listener what it should have been offered, what it got and what it was told to have lost.
            let mut here: Vec<(AudioListener, bool, [u64; 3])> = Vec::new();
            let mut gone = [0u64; 2];
            for deed in deeds {
                match deed {
                    Do::Join(silence) => {
                        let wants = if silence { Wants::Everything } else { Wants::Speech };
                        here.push((hub.listen(wants), silence, [0; 3]));
                    }
                    Do::Leave(who) if who < here.len() => {
                        let (listener, _, [offered, got, _]) = here.swap_remove(who);
                        gone[0] += offered;
                        gone[1] += got;
                        drop(listener);
                    }
                    Do::Publish(speech, times) => for _ in 0..times {
                        say(&hub, speech.then_some(1));
                        here.iter_mut().filter(|l| l.1 || speech).for_each(|l| l.2[0] += frame);
                    },
                    Do::Read(who, times) if who < here.len() => {
                        let (listener, _, [_, got, lost]) = &mut here[who];
                        for _ in 0..times {
                            match listener.try_next() {
                                Some(Heard::Frame(_)) => *got += frame,
                                Some(Heard::Lagged(samples)) => *lost += samples,
                                None => break,
                            }
                        }
                    }
                    Do::Leave(_) | Do::Read(..) => {}
                }
                let (mut offered, mut sent, mut queued) = (gone[0], gone[1], 0);
                for (status, (listener, _, [wanted, got, lost])) in hub.status().iter().map(|status| {
                    (status, here.iter().find(|l| l.0.id() == status.listener).unwrap())
                }) {
                    let a = status.account;
                    prop_assert_eq!(a.offered, a.sent + a.dropped + a.queued);
                    prop_assert_eq!((a.offered, a.sent), (*wanted, *got));
                    prop_assert!(*lost <= a.dropped && a.queued <= frame * QUEUE_FRAMES as u64);
                    prop_assert_eq!(listener.id(), status.listener);
                    offered += a.offered;
                    sent += a.sent;
                    queued += a.queued;
                }
                prop_assert_eq!(counted(&hub), [offered, sent, offered - sent - queued]);
                prop_assert_eq!(*hub.listeners().borrow(), here.len());
            }
        }
    }
}
