//! The voice: makes sound of clauses, one at a time, for all streams; and each stream's speaker, which decides what is
//! said when. This file is the wall: what crosses it is plain owned data that can be serialised, so that a thread
//! (today) or a child process can stand behind it.
//! Not here: what is commented on (`commentary`), who listens and resampling (`audio`), HTTP (`web`).

mod absent;
mod child;
mod clauses;
mod espeak;
#[cfg(feature = "llama")]
pub mod minicpm;
mod preferred;
mod script;
mod speakable;
mod speaker;
mod threaded;
mod token_queue;

pub use absent::AbsentVoice;
pub use clauses::{MAX_CLAUSE, Splitter};
pub use espeak::{EspeakConfig, EspeakVoice};
pub use preferred::PreferredVoice;
pub use script::{MAX_UTTERANCE, Pacing};
pub use speakable::speakable;
pub use speaker::{Speaker, SpeechStatus};
pub use token_queue::MAX_TOKENS;

pub use crate::cancel::CancelFlag;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

/// Events of one clause waiting for its speaker; the voice waits when it is full, so keep reading.
pub const CLAUSE_EVENTS: usize = 64;

/// Name of the model's own voice in the status.
pub const OWN_VOICE: &str = "minicpm-o";

/// Tokens of a clause for a voice that goes by them; the last clause of an utterance has 1 to so many.
pub const CHUNK: usize = 10;

/// Last-layer rows of the language model, one for each token of a clause, for voices that are steered by them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HiddenStates {
    /// Numbers in a row.
    pub width: usize,
    /// Row after row.
    pub rows: Vec<f32>,
}

/// A piece of an utterance as the language model writes it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Piece {
    pub text: String,
    /// The tokens that `text` was made of, for voices that go by them; else empty.
    pub tokens: Vec<i32>,
    /// Row after row, one for each of `tokens`, for voices that go by them; else empty.
    pub hidden: Vec<f32>,
}

impl From<&str> for Piece {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }
}

/// Some words to be spoken. A stream has one clause with the voice at a time, and gives its clauses in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Clause {
    pub stream: String,
    /// The utterance that it belongs to; a clause of another one means that the former is over or was cut off.
    pub utterance: u64,
    /// Its place in the utterance, from 0.
    pub index: u32,
    /// At most [`MAX_CLAUSE`] characters that passed [`speakable()`]; empty only in a `last` clause, or where tokens say
    /// nothing that can be pronounced.
    pub text: String,
    /// The text's token ids, for voices that go by them; else empty.
    pub tokens: Vec<i32>,
    /// A row for each of `tokens`, for voices that go by them.
    pub hidden: Option<HiddenStates>,
    /// Nothing of this utterance follows.
    pub last: bool,
}

/// What became of a clause so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ClauseEvent {
    /// Sound of it, one channel. The rate stays the same within an utterance.
    Pcm { rate: u32, samples: Vec<i16> },
    /// The last event of a clause that was spoken; `cut` when its end was left out for its length.
    Done { cut: bool },
    /// The last event of a clause that could not be spoken: what is wrong, and what to do.
    Failed { code: String, message: String },
}

/// A clause with the voice. Dropping it cancels.
#[derive(Debug)]
pub struct ClauseHandle {
    /// What becomes of it; ends after its last event.
    pub events: mpsc::Receiver<ClauseEvent>,
    /// Looked at by the voice at least every 20 ms.
    cancel: CancelFlag,
}

impl ClauseHandle {
    /// A handle and what the voice holds of it.
    pub fn pair() -> (Self, mpsc::Sender<ClauseEvent>, CancelFlag) {
        Self::pair_of(CLAUSE_EVENTS, CancelFlag::default())
    }

    /// As [`pair`](Self::pair), with room for that many events and a flag of the caller's making.
    pub fn pair_of(room: usize, cancel: CancelFlag) -> (Self, mpsc::Sender<ClauseEvent>, CancelFlag) {
        let (sender, events) = mpsc::channel(room);
        (Self { events, cancel: cancel.clone() }, sender, cancel)
    }
}

impl Drop for ClauseHandle {
    fn drop(&mut self) {
        self.cancel.set();
    }
}

/// How the voice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum VoiceState {
    /// Not wanted; nothing was loaded.
    #[default]
    Off,
    /// Being loaded or tried out.
    Loading,
    /// It can speak.
    Ready,
    /// It can't speak now; the text goes on without it.
    Unavailable,
}

/// The voice as its users see it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct VoiceStatus {
    pub state: VoiceState,
    /// "espeak-ng" or "minicpm-o".
    pub name: Option<&'static str>,
    /// Why it does not speak, and what to do about it.
    pub reason: Option<String>,
    /// Why it is not another voice that speaks, when one was to be preferred.
    pub note: Option<String>,
    /// It goes by tokens and hidden states; its clauses are chunks of [`CHUNK`] tokens.
    pub by_tokens: bool,
}

/// The voice's door. One voice serves all streams.
pub trait Voice: Send + Sync {
    /// Hands in a clause. Never blocks; what is wrong comes as [`ClauseEvent::Failed`].
    fn submit(&self, clause: Clause) -> ClauseHandle;

    /// The utterance is over though its last clause was not handed in: it was cut off. A voice that keeps nothing
    /// between clauses need not care.
    fn forget(&self, stream: &str, utterance: u64) {
        let _ = (stream, utterance);
    }

    /// Ends its thread, and whatever it started. May block for a moment.
    fn stop(&self) {}

    /// How the voice is, as it changes.
    fn status(&self) -> watch::Receiver<VoiceStatus>;
}
