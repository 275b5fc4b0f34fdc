//! The source's own sound between its decoder and its listeners: a little of it waits, so that it can be played by a
//! steady clock, however unevenly it comes. Not here: decoding it (`pipeline::sound`), who listens (`audio`).

use crate::audio::{AudioHub, FRAME_SAMPLES, FRAME_TIME, SAMPLE_RATE};
use crate::metrics::{Metrics, StreamLabel};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::time::MissedTickBehavior;

/// So much is collected before it is played: what the network's unevenness may be. 160 ms.
const LEAD: usize = SAMPLE_RATE as usize * 16 / 100;
/// Of more than this the oldest goes, down to the lead, and is counted (`source_audio_samples_skipped`). 1 s.
const MOST: usize = SAMPLE_RATE as usize;

/// The sound of one stream's source.
#[derive(Debug)]
pub(super) struct Sound {
    hub: Arc<AudioHub>,
    waiting: Mutex<Waiting>,
    metrics: Arc<Metrics>,
    label: StreamLabel,
}

/// Samples of 48 kHz that wait to be played.
#[derive(Debug, Default)]
struct Waiting {
    samples: VecDeque<i16>,
    /// The lead was there, and has not run out.
    playing: bool,
}

impl Waiting {
    /// How many had to go.
    fn push(&mut self, samples: &[i16]) -> usize {
        self.samples.extend(samples);
        if self.samples.len() <= MOST {
            return 0;
        }
        let over = self.samples.len() - LEAD;
        self.samples.drain(..over);
        over
    }

    /// The next 20 ms; `None` while there is not enough.
    fn next(&mut self) -> Option<[i16; FRAME_SAMPLES]> {
        self.playing = self.samples.len() >= if self.playing { FRAME_SAMPLES } else { LEAD };
        if !self.playing {
            return None;
        }
        let mut frame = [0; FRAME_SAMPLES];
        for (to, from) in frame.iter_mut().zip(self.samples.drain(..FRAME_SAMPLES)) {
            *to = from;
        }
        Some(frame)
    }
}

impl Sound {
    pub(super) fn new(hub: Arc<AudioHub>, metrics: Arc<Metrics>, label: StreamLabel) -> Self {
        Self { hub, waiting: Mutex::default(), metrics, label }
    }

    /// True while somebody listens, so that it is worth decoding.
    pub(super) fn is_wanted(&self) -> bool {
        self.hub.is_heard()
    }

    /// Takes samples of 48 kHz, one channel. Never waits.
    pub(super) fn push(&self, samples: &[i16]) {
        let skipped = if self.is_wanted() { self.lock().push(samples) } else { 0 };
        self.skipped(skipped);
    }

    /// Counts samples that were not played.
    pub(super) fn skipped(&self, samples: usize) {
        if samples > 0 {
            let counter = self.metrics.source_audio_samples_skipped.get_or_create(&self.label);
            counter.inc_by(u64::try_from(samples).unwrap_or(u64::MAX));
        }
    }

    /// Forgets what waits: it is another source's.
    pub(super) fn clear(&self) {
        *self.lock() = Waiting::default();
    }

    /// Plays while anybody listens: one frame every 20 ms, silence where nothing came. Never ends by itself; dropped, it
    /// ends the sound for those who listen.
    pub(super) async fn play(&self) {
        let _closing = CloseOnDrop(&self.hub);
        let mut listeners = self.hub.listeners();
        loop {
            // The hub is ours, so its word does not cease.
            if listeners.wait_for(|count| *count > 0).await.is_err() {
                return;
            }
            self.clear();
            let mut clock = tokio::time::interval(FRAME_TIME);
            clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
            while *listeners.borrow_and_update() > 0 {
                clock.tick().await;
                let frame = self.lock().next();
                self.hub.publish(Instant::now(), frame.is_some().then_some(0), frame.as_ref());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing between lock and unlock can stop half-way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct CloseOnDrop<'a>(&'a AudioHub);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{Heard, Wants};

    fn sound() -> Sound {
        let metrics = Arc::new(Metrics::new());
        let hub = Arc::new(AudioHub::of_source("main", Arc::clone(&metrics)));
        Sound::new(hub, metrics, StreamLabel::new("main"))
    }

    #[test]
    fn it_waits_for_the_lead_and_anew_after_it_ran_dry() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.push(&vec![1; LEAD - 1]), 0);
        assert_eq!(waiting.next(), None);
        waiting.push(&[1]);
        let played = std::iter::from_fn(|| waiting.next()).count();
        assert_eq!(played, LEAD / FRAME_SAMPLES);
        waiting.push(&[2; FRAME_SAMPLES]);
        assert_eq!(waiting.next(), None, "one frame is no lead");
    }

    #[test]
    fn too_much_goes_oldest_first() {
        let mut waiting = Waiting::default();
        let samples: Vec<i16> = (0..=MOST).map(|n| (n % 30_000) as i16).collect();
        assert_eq!(waiting.push(&samples), MOST + 1 - LEAD);
        assert_eq!(waiting.next().unwrap()[0], samples[MOST + 1 - LEAD]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_plays_by_the_clock_while_somebody_listens() {
        let sound = sound();
        sound.push(&[5; LEAD]);
        assert_eq!(sound.lock().samples.len(), 0, "nobody listens");
        let hub = Arc::clone(&sound.hub);
        let listening = async {
            let mut listener = hub.listen(Wants::Everything);
            let mut heard = Vec::new();
            for n in 0..20 {
                let Some(Heard::Frame(frame)) = listener.next().await else { panic!("no frame") };
                heard.push(frame.utterance.is_some());
                if n == 4 {
                    sound.push(&[5; LEAD]);
                }
            }
            heard
        };
        let heard = tokio::select! {
            () = sound.play() => panic!("it ended"),
            heard = listening => heard,
        };
        assert_eq!(heard.iter().filter(|sound| **sound).count(), LEAD / FRAME_SAMPLES);
        assert!(heard[5] && !heard[4] && !heard[19], "{heard:?}");
        assert_eq!(hub.listen(Wants::Speech).next().await, None, "the sound's end is told");
    }
}
