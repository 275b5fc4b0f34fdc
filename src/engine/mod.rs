//! The engine: looks at frames with a vision-language model and writes text, several jobs at a time where that pays.
//! What crosses this file is plain owned data, so that a thread of this process (`worker`) or a child process
//! (`wall`) can stand behind it.
//! Not here: what to ask and when (`commentary`), where files come from (`models`).

mod absent;
#[cfg(feature = "llama")]
mod ahead;
#[cfg(feature = "llama")]
mod backend;
#[cfg(feature = "llama")]
#[path = "chat/ffi.rs"]
mod chat;
#[cfg(feature = "llama")]
mod choice;
#[cfg(feature = "llama")]
mod desk;
#[cfg(all(feature = "llama", debug_assertions))]
#[path = "fault/ffi.rs"]
pub mod fault;
#[cfg(feature = "llama")]
mod ffi;
#[cfg(feature = "llama")]
mod gpu;
#[cfg(any(test, feature = "llama"))]
mod mailbox;
#[cfg(feature = "llama")]
pub mod plain;
#[cfg(feature = "llama")]
mod plan;
pub mod preprocess;
mod pulse;
#[cfg(any(test, feature = "llama"))]
mod row;
#[cfg(feature = "llama")]
mod session;
#[cfg(feature = "llama")]
mod speech_tokens;
#[cfg(feature = "llama")]
mod template;
#[cfg(all(test, feature = "llama"))]
mod tests;
#[cfg(feature = "llama")]
#[path = "tower/ffi.rs"]
mod tower;
#[cfg(any(test, feature = "llama"))]
mod utf8;
#[cfg(feature = "llama")]
mod vision;
#[cfg(feature = "llama")]
mod worker;

pub use absent::AbsentEngine;
pub use pulse::Pulse;
#[cfg(feature = "llama")]
pub(crate) use row::{Row, Ticket};
// llama.cpp is started once for the process; speech runs on it too.
#[cfg(feature = "llama")]
pub use backend::look_in as look_for_backends_in;
#[cfg(feature = "llama")]
pub(crate) use backend::{last_words as native_last_words, on_native_abort, start as start_native};
#[cfg(feature = "llama")]
pub use plan::ModelWeight;
#[cfg(feature = "llama")]
pub use vision::FrameLayout;
#[cfg(feature = "llama")]
pub use worker::{EngineConfig, LlamaEngine};

pub use crate::cancel::CancelFlag;

use crate::error::Error;
use crate::frame::Frame;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// The code of the error of a look in which the engine's process ended.
pub const CRASHED: &str = "engine_crashed";
/// The code of the error of a look in which the engine's process hung.
pub const HUNG: &str = "engine_hung";

/// Events of one job waiting for its listener; the engine waits when it is full, so keep reading.
pub const JOB_EVENTS: usize = 64;

/// The words around the frames. The engine keeps `system` and `instruction` in its KV cache
/// from job to job, so put what changes each time into `context`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Prompt {
    /// The system turn: who the model is, and the profile.
    pub system: String,
    /// The person's instruction, before the frames.
    pub instruction: String,
    /// What changes from look to look (the last answer), after the frames.
    pub context: String,
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 takes the likeliest token always.
    pub temperature: f32,
    pub top_p: f32,
    /// 0 turns it off.
    pub top_k: i32,
    pub min_p: f32,
    /// 1 turns it off.
    pub repeat_penalty: f32,
    /// A fixed seed makes answers repeatable; `None` draws one for each job.
    pub seed: Option<u32>,
}

impl Default for Sampling {
    /// The defaults of the MiniCPM-V/o reference's `chat()` when it samples (modeling_minicpmv.py):
    /// temperature 0.7, top_p 0.8, top_k 100, repetition_penalty 1.05.
    fn default() -> Self {
        Self { temperature: 0.7, top_p: 0.8, top_k: 100, min_p: 0.0, repeat_penalty: 1.05, seed: None }
    }
}

/// How the cache keeps keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvType {
    /// 16 bits a number: exact.
    F16,
    /// 8.5 bits a number: nearly half the memory, at some error (docs/PERFORMANCE.md). The heads' width must be a
    /// multiple of 32.
    Q8_0,
}

impl KvType {
    /// As `KV_TYPE` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Bytes that `numbers` take; a multiple of 32.
    pub fn bytes(self, numbers: u64) -> u64 {
        match self {
            Self::F16 => numbers * 2,
            Self::Q8_0 => numbers / 32 * 34,
        }
    }
}

/// As much of [`Sampling`] as somebody chose: the person by options, or the model's makers in its file.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SamplingChoice {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i32>,
    pub min_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub seed: Option<u32>,
}

impl SamplingChoice {
    /// This choice, with what it leaves open taken from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            temperature: self.temperature.or(other.temperature),
            top_p: self.top_p.or(other.top_p),
            top_k: self.top_k.or(other.top_k),
            min_p: self.min_p.or(other.min_p),
            repeat_penalty: self.repeat_penalty.or(other.repeat_penalty),
            seed: self.seed.or(other.seed),
        }
    }

    /// The choice with the defaults in what it leaves open.
    pub fn complete(self) -> Sampling {
        let d = Sampling::default();
        Sampling {
            temperature: self.temperature.unwrap_or(d.temperature),
            top_p: self.top_p.unwrap_or(d.top_p),
            top_k: self.top_k.unwrap_or(d.top_k),
            min_p: self.min_p.unwrap_or(d.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(d.repeat_penalty),
            seed: self.seed,
        }
    }
}

/// One look.
#[derive(Debug, Clone)]
pub struct Job {
    /// Whose look it is; the engine keeps a prefix and a waiting place for each.
    pub stream: Arc<str>,
    pub prompt: Prompt,
    /// Oldest first. Embeddings are cached by (stream, seq).
    pub frames: Vec<Arc<Frame>>,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    pub sampling: Sampling,
    /// The model's own voice will speak the answer: [`JobEvent::Text`] has hidden states, and what can't be pronounced
    /// (brackets, markup, line breaks) is not chosen. Text comes one token later.
    pub for_voice: bool,
    /// A person waits for this very answer (their instruction is new): it goes before the others that wait.
    pub urgent: bool,
    /// How much of the scene changed since the stream's last look, 0 to 1: of those that wait, that weighs with how long.
    pub novelty: f32,
}

/// What became of a job so far. Instants are on this machine's monotonic clock.
#[derive(Debug, Clone)]
pub enum JobEvent {
    /// The engine took it up.
    Started { at: Instant },
    /// All frames have embeddings; `encoded` of them were made now, the others were cached.
    Encoded { at: Instant, encoded: u32 },
    /// The prompt is decoded.
    Prefilled { at: Instant, tokens: u32 },
    /// Whole characters, never empty.
    Text {
        at: Instant,
        text: String,
        /// The tokens that it was made of, and those before it that made no text; several when a character took several.
        tokens: Vec<i32>,
        /// For a job with `for_voice`, the language model's last layer after the final norm at the position that
        /// consumed each token: row after row, `tokens.len()` × the model's width. Else empty.
        hidden: Vec<f32>,
    },
    /// The last event of a job that ran.
    Done { at: Instant, tokens: u32, finish: JobFinish },
    /// The last event of a job that a newer one of the same stream replaced before it ran.
    Replaced,
    /// The last event of a job that failed.
    Failed(Error),
}

impl JobEvent {
    /// True when no event of the job follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Replaced | Self::Failed(_))
    }
}

/// How a job's answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobFinish {
    Stop,
    Length,
    Cancelled,
}

/// Cancels a job between two tokens; dropping it cancels as well.
#[derive(Debug)]
pub struct JobHandle {
    /// What becomes of the job; ends after its last event.
    pub events: mpsc::Receiver<JobEvent>,
    cancel: CancelFlag,
}

impl JobHandle {
    /// A handle and what the engine holds of it.
    pub fn pair() -> (Self, mpsc::Sender<JobEvent>, CancelFlag) {
        Self::pair_of(JOB_EVENTS, CancelFlag::default())
    }

    /// As [`pair`](Self::pair), with room for that many events and a flag of the caller's making.
    pub fn pair_of(room: usize, cancel: CancelFlag) -> (Self, mpsc::Sender<JobEvent>, CancelFlag) {
        let (sender, events) = mpsc::channel(room);
        (Self { events, cancel: cancel.clone() }, sender, cancel)
    }

    /// Asks the engine to stop after the present token.
    pub fn cancel(&self) {
        self.cancel.set();
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        self.cancel.set();
    }
}

/// How the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum EngineState {
    /// No model is set.
    #[default]
    Absent,
    Loading,
    Ready,
    /// Its process ended or hung; it is being started again.
    Restarting,
    /// It could not load, or its thread ended.
    Failed,
}

/// The engine as `/api/status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct EngineStatus {
    pub state: EngineState,
    /// Name of the model from its file.
    pub model: Option<String>,
    /// Something that everyone who sees answers must know (for instance that the weights are random).
    pub warning: Option<String>,
    /// Something good to know about the model, said calmly (for instance that it is the demo model).
    pub notice: Option<String>,
    /// Why it failed, and what to do.
    pub message: Option<String>,
    /// Where it computes: "cpu" or the GPU's name.
    pub device: Option<String>,
    /// The memory of that GPU; `None` without one, or when its driver tells nothing.
    pub gpu_memory: Option<GpuMemory>,
    /// Tokens that one stream's prompt and answer may take together.
    pub context_tokens: u32,
    pub load_s: Option<f64>,
    /// Number of the process that it runs in, when that is one of its own.
    pub process: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
    /// Why it was started again the last time; stays when it is well again.
    pub last_restart: Option<Restart>,
}

/// Memory of a GPU, bytes; what other programs hold of it is among what is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuMemory {
    pub used_bytes: u64,
    pub total_bytes: u64,
}

/// Why and when the engine's process had to be started again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Restart {
    /// What became of the process, in plain words.
    pub reason: String,
    /// What llama.cpp said last, if it said anything.
    pub last_words: Option<String>,
    /// When that was found, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Seconds from then to the next start.
    pub retry_in_s: f64,
    /// Starts since the engine last worked well.
    pub attempt: u32,
}

/// The engine's door.
pub trait Engine: Send + Sync {
    /// Hands in a look. A look of the same stream that still waits is replaced ([`JobEvent::Replaced`]).
    /// Never blocks; what is wrong with the job comes as [`JobEvent::Failed`].
    fn submit(&self, job: Job) -> JobHandle;

    /// How the engine is, as it changes.
    fn status(&self) -> watch::Receiver<EngineStatus>;
}
