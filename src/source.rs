//! The words between a video source and the rest: its states, and the handle that starts and stops it.
//! Not here: how a source is opened (`ingest`), what is done with frames (`window`, `commentary`).

use crate::error::{Error, Result};
use crate::secret::Secret;
use serde::Serialize;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

/// Commands waiting for a supervisor; senders wait when it is full.
pub const COMMANDS: usize = 16;

/// What a source is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// No source is set, or it was stopped.
    #[default]
    Stopped,
    /// Being opened; no frame yet.
    Connecting,
    /// Frames arrive.
    Streaming,
    /// Connected, but frames stopped coming; about to be opened again.
    Stalled,
    /// Lost or refused; waiting for the next attempt.
    Retrying,
    /// Played to its end (a file without looping).
    Ended,
}

/// Why a source failed, in a word that programs can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceFault {
    /// The address can't be reached or the connection was lost.
    Network,
    /// User name or password missing or wrong.
    Auth,
    /// The address answers, but not at this path; or the file does not exist.
    NotFound,
    /// The server offers no transport that we can use.
    Transport,
    /// A decoder is missing.
    MissingCodec,
    /// The data is no video that can be read.
    BadStream,
    /// The device can't be opened.
    Device,
    /// Frames stopped coming.
    Stalled,
    /// Nothing came within the time to connect.
    ConnectTimeout,
    /// The server ended the stream.
    Ended,
    /// The source led to an address or scheme that is not allowed.
    Forbidden,
    /// Anything else.
    Other,
}

/// A source as `/api/status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct SourceStatus {
    pub state: SourceState,
    /// The source string with credentials removed.
    pub source: Option<String>,
    /// Why it is not streaming, in plain words.
    pub message: Option<String>,
    pub fault: Option<SourceFault>,
    /// When the present state began, ms since 1970.
    pub since_unix_ms: u64,
    /// The last failure, in plain words; it stays when frames have come back.
    pub last_error: Option<String>,
    /// When it was, ms since 1970.
    pub last_error_unix_ms: Option<u64>,
    /// Attempts since frames last were stable.
    pub attempt: u32,
    /// Seconds from the failure to the next attempt.
    pub retry_in_s: Option<f64>,
    /// Seconds from now to the next attempt; filled in where it is shown.
    pub next_attempt_in_s: Option<f64>,
    /// When the next attempt is due.
    #[serde(skip)]
    pub next_attempt: Option<Instant>,
    /// Size of the source's own picture, pixels.
    pub width: u32,
    pub height: u32,
    /// It has sound, which `/api/source-audio` gives.
    pub audio: bool,
    /// Name of the decoder in use.
    pub decoder: Option<String>,
    /// Connections that delivered frames, minus one.
    pub reconnects: u64,
    /// Pipelines that could not be closed in time and were abandoned.
    pub pipelines_abandoned: u64,
}

/// Who names a source, which decides what may be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedBy {
    /// Whoever started the program: by its command line or its configuration file.
    Operator,
    /// A client of the API.
    Client,
}

/// Asked of a supervisor.
#[derive(Debug)]
pub enum SourceCommand {
    /// Open this source instead of the present one. Replies once the string was understood.
    Start { source: Secret<String>, asked_by: AskedBy, reply: oneshot::Sender<Result<()>> },
    /// Close the present source. Replies once it is closed.
    Stop { reply: oneshot::Sender<()> },
}

/// One end of a source's supervisor; clone it freely.
#[derive(Debug, Clone)]
pub struct SourceHandle {
    commands: mpsc::Sender<SourceCommand>,
    status: watch::Receiver<SourceStatus>,
}

impl SourceHandle {
    /// Made by whoever runs the supervisor at the other ends.
    pub fn new(commands: mpsc::Sender<SourceCommand>, status: watch::Receiver<SourceStatus>) -> Self {
        Self { commands, status }
    }

    /// Opens `source`, which the operator named, in place of what is open.
    ///
    /// # Errors
    /// When the string names no source that is allowed, or the supervisor is gone.
    pub async fn start(&self, source: &str) -> Result<()> {
        self.start_for(source, AskedBy::Operator).await
    }

    /// Opens `source` in place of what is open, if whoever asks may name it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_for(&self, source: &str, asked_by: AskedBy) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let source = Secret::new(source.to_owned());
        self.commands.send(SourceCommand::Start { source, asked_by, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Closes the source. Doing it twice does no harm.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub async fn stop(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(SourceCommand::Stop { reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// The status as it changes.
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.clone()
    }
}

fn gone() -> Error {
    Error::unavailable("source_supervisor_gone", "the video source's supervisor has ended")
        .hint("the program is shutting down; start it again")
}
