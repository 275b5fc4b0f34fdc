//! What one stream tells its listeners: the newest JPEG, and the events of its commentary with ids.
//! Not here: HTTP and SSE bytes (`web`), who writes the text (`commentary`).

use crate::frame::Jpeg;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};

/// Live events waiting for one slow listener; beyond it the listener is told how many it missed.
const LIVE_EVENTS: usize = 512;
/// Events kept for listeners that come back with the last id they saw.
const REPLAY_EVENTS: usize = 1024;

/// Milliseconds from the newest frame's capture to each step; the oldest frame's age has its own field.
/// A step that did not happen is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Stamps {
    /// Number of the oldest frame of the look.
    pub oldest_frame: u64,
    /// Number of the newest frame of the look.
    pub newest_frame: u64,
    /// Wall clock at the capture of the newest frame, ms since 1970.
    pub newest_frame_unix_ms: u64,
    /// From the oldest frame's capture to the newest's.
    pub window_ms: f64,
    /// From the newest frame's capture to the job's start in the engine.
    pub start_ms: f64,
    /// … to the last frame encoded.
    pub encode_done_ms: Option<f64>,
    /// … to the prompt decoded.
    pub prefill_done_ms: Option<f64>,
    /// … to the first token.
    pub first_token_ms: Option<f64>,
    /// … to the last token.
    pub last_token_ms: Option<f64>,
    /// … to the first audio sample, when the voice began before the text ended.
    pub first_audio_ms: Option<f64>,
    /// … to the last audio sample; the sound ends after the text, so it comes with `speech`.
    pub last_audio_ms: Option<f64>,
}

/// Why an utterance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended its turn.
    Stop,
    /// The token limit was reached.
    Length,
    /// A new instruction or a stop cut it off.
    Cancelled,
    /// The engine failed.
    Error,
}

/// One whole answer of the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Utterance {
    /// Counts the stream's utterances from 1.
    pub utterance: u64,
    /// What the model said. Untrusted: show it as text only.
    pub text: String,
    /// True when the model had nothing to say ("...").
    pub skipped: bool,
    pub finish: Finish,
    /// The instruction that it answers.
    pub instruction: String,
    /// Tokens generated.
    pub tokens: u32,
    /// Frames in the look, and how many of them had to be encoded now.
    pub frames: u32,
    pub frames_encoded: u32,
    pub stamps: Stamps,
}

/// What became of an utterance's sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeechPhase {
    /// Its first sample goes out now; its text may still be being written.
    Begun,
    /// Spoken to its end.
    Spoken,
    /// A new instruction or a stop cut it off, or kept it from being spoken.
    Cancelled,
    /// Not spoken: it would have started too late.
    Late,
    /// Not spoken: a newer one came while it waited.
    Replaced,
    /// Cut off, because nobody listens any more.
    Unheard,
    /// The voice failed; see its status.
    Failed,
}

/// A step of an utterance's sound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speech {
    /// The utterance that is spoken.
    pub utterance: u64,
    pub phase: SpeechPhase,
    /// Milliseconds from the newest frame's capture to the first sample, when there was one.
    pub first_audio_ms: Option<f64>,
    /// … to the last sample, once it is over.
    pub last_audio_ms: Option<f64>,
    /// Length of what was to be heard, milliseconds; 0 at its beginning.
    pub audio_ms: f64,
}

/// What happens on a stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A piece of an utterance, as it is written.
    Token { utterance: u64, text: String },
    /// The end of an utterance.
    Utterance(Box<Utterance>),
    /// A step of an utterance's sound; it may come before or after the end of the text.
    Speech(Speech),
    /// Something in the status changed; read it from the status.
    Status,
}

/// An event with its id: rising by one, from 1, within the life of the bus.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbered {
    pub id: u64,
    pub event: Event,
}

/// A listener's place in the events.
#[derive(Debug)]
pub struct Subscription {
    /// Events after the id that the listener named, still kept.
    pub replay: Vec<Arc<Numbered>>,
    /// Events after the named id that are gone.
    pub missed: u64,
    /// Everything from now on; `Lagged(n)` when the listener was too slow.
    pub live: broadcast::Receiver<Arc<Numbered>>,
}

/// The bus of one stream.
#[derive(Debug)]
pub struct Bus {
    jpeg: watch::Sender<Option<Arc<Jpeg>>>,
    live: broadcast::Sender<Arc<Numbered>>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last_id: u64,
    events: VecDeque<Arc<Numbered>>,
}

impl Default for Bus {
    fn default() -> Self {
        Self { jpeg: watch::Sender::new(None), live: broadcast::Sender::new(LIVE_EVENTS), kept: Mutex::default() }
    }
}

impl Bus {
    /// A bus without listeners.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the newest JPEG.
    pub fn show(&self, jpeg: Arc<Jpeg>) {
        self.jpeg.send_replace(Some(jpeg));
    }

    /// Forgets the newest JPEG, as when another source starts.
    pub fn clear_picture(&self) {
        self.jpeg.send_replace(None);
    }

    /// The newest JPEG as it changes. While any such receiver lives, JPEGs are made.
    pub fn pictures(&self) -> watch::Receiver<Option<Arc<Jpeg>>> {
        self.jpeg.subscribe()
    }

    /// How many are watching; no JPEG needs to be made for nobody.
    pub fn viewers(&self) -> usize {
        self.jpeg.receiver_count()
    }

    /// Tells everyone, and keeps the event for those who come back. Returns its id.
    pub fn publish(&self, event: Event) -> u64 {
        let mut kept = self.lock();
        kept.last_id += 1;
        let numbered = Arc::new(Numbered { id: kept.last_id, event });
        if kept.events.len() == REPLAY_EVENTS {
            kept.events.pop_front();
        }
        kept.events.push_back(Arc::clone(&numbered));
        // Sent under the lock, so that ids reach listeners in order. No listener is no error.
        let _nobody_listens = self.live.send(numbered);
        kept.last_id
    }

    /// Listens from now on, or from just after event `last_seen`.
    pub fn subscribe(&self, last_seen: Option<u64>) -> Subscription {
        let kept = self.lock();
        let live = self.live.subscribe();
        // An id from the future is from a former life of the program: start afresh.
        let Some(last_seen) = last_seen.filter(|id| *id <= kept.last_id) else {
            return Subscription { replay: Vec::new(), missed: 0, live };
        };
        let replay: Vec<_> = kept.events.iter().filter(|e| e.id > last_seen).cloned().collect();
        let missed = kept.last_id - last_seen - replay.len() as u64;
        Subscription { replay, missed, live }
    }

    /// The newest utterance with words that is still kept.
    pub fn last_said(&self) -> Option<Utterance> {
        self.lock().events.iter().rev().find_map(|numbered| match &numbered.event {
            Event::Utterance(u) if !u.skipped => Some(Utterance::clone(u)),
            _ => None,
        })
    }

    /// Listeners to events now.
    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_id_is_replayed_or_counted_as_missed(published in 0u64..1500, seen in 0u64..1600) {
            let bus = Bus::new();
            (0..published).for_each(|_| { bus.publish(Event::Status); });
            let sub = bus.subscribe(Some(seen));
            if seen > published {
                prop_assert!(sub.replay.is_empty() && sub.missed == 0);
            } else {
                prop_assert_eq!(seen + sub.missed + sub.replay.len() as u64, published);
                let first = seen + sub.missed + 1;
                prop_assert!(sub.replay.iter().enumerate().all(|(i, e)| e.id == first + i as u64));
            }
        }
    }

    #[test]
    fn a_slow_listener_learns_how_much_it_missed() {
        let bus = Bus::new();
        let mut sub = bus.subscribe(None);
        (0..LIVE_EVENTS + 10).for_each(|_| {
            bus.publish(Event::Status);
        });
        assert_eq!(sub.live.try_recv().unwrap_err(), broadcast::error::TryRecvError::Lagged(10));
        assert_eq!(sub.live.try_recv().unwrap().id, 11);
    }

    #[test]
    fn viewers_are_counted() {
        let bus = Bus::new();
        assert_eq!(bus.viewers(), 0);
        let pictures = bus.pictures();
        assert_eq!(bus.viewers(), 1);
        drop(pictures);
        assert_eq!(bus.viewers(), 0);
    }
}
