//! The fallback voice: espeak-ng, one child process for each clause. Arguments are fixed; the text goes to its
//! standard input. Not here: the child's handling (`child`), what may be spoken (`speakable`).

use super::child::{Child, Output};
use super::{CancelFlag, Clause, ClauseEvent, ClauseHandle, Voice, VoiceState, VoiceStatus};
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

const PROGRAM: &str = "espeak-ng";
/// Clauses that wait for the thread: each stream has one at most, so this is never full; if it were, the clause
/// would fail and be counted (`speech_failed`).
const WAITING: usize = 128;
/// Longest sound of one clause. A hundred digits in a row are a minute.
const MAX_AUDIO: Duration = Duration::from_secs(30);
/// How often a missing program is looked for.
const RETRY: Duration = Duration::from_secs(10);
/// How often the child's owner is asked whether it still wants the sound.
const GLANCE: Duration = Duration::from_millis(20);
/// Bytes of the WAV header that espeak-ng writes.
const HEADER: usize = 44;
const CHUNK: usize = 8192;

/// What the voice needs to know.
#[derive(Debug, Clone)]
pub struct EspeakConfig {
    /// Folders in which the program is looked for, as in `PATH`.
    pub search_path: String,
    /// espeak-ng's name of a voice or language.
    pub voice: String,
    /// Longest time for one clause.
    pub time_limit: Duration,
}

/// espeak-ng behind the voice's door.
pub struct EspeakVoice {
    clauses: SyncSender<Ticket>,
    status: watch::Receiver<VoiceStatus>,
    closing: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Ticket {
    clause: Clause,
    events: mpsc::Sender<ClauseEvent>,
    cancel: CancelFlag,
}

impl EspeakVoice {
    /// Starts the thread, which first tries the program out.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn spawn(config: EspeakConfig) -> Result<Self> {
        let (clauses, waiting) = sync_channel(WAITING);
        let loading = VoiceStatus { state: VoiceState::Loading, name: Some(PROGRAM), ..VoiceStatus::default() };
        let (teller, status) = watch::channel(loading);
        let closing = Arc::new(AtomicBool::new(false));
        let worker = Worker { config, program: None, status: teller, closing: Arc::clone(&closing) };
        let thread = std::thread::Builder::new()
            .name("voice".to_owned())
            .spawn(move || worker.run(&waiting))
            .map_err(|e| Error::internal("voice_thread", format!("the voice's thread can't start: {e}")))?;
        Ok(Self { clauses, status, closing, thread: Mutex::new(Some(thread)) })
    }

    /// Ends the thread and the child, if there is one. Blocks for some hundredths of a second.
    pub fn stop(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the voice's thread panicked");
        }
    }
}

impl Drop for EspeakVoice {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Voice for EspeakVoice {
    fn submit(&self, clause: Clause) -> ClauseHandle {
        let (handle, events, cancel) = ClauseHandle::pair();
        if self.clauses.try_send(Ticket { clause, events: events.clone(), cancel }).is_err() {
            let error = Error::unavailable("voice_busy", "the voice takes no more clauses");
            // The channel is fresh and has room.
            let _nobody_listens = events.try_send(failed(&error));
        }
        handle
    }

    fn status(&self) -> watch::Receiver<VoiceStatus> {
        self.status.clone()
    }
}

fn failed(error: &Error) -> ClauseEvent {
    ClauseEvent::Failed { code: error.code.to_owned(), message: error.to_string() }
}

struct Worker {
    config: EspeakConfig,
    /// `None` while it can't speak.
    program: Option<PathBuf>,
    status: watch::Sender<VoiceStatus>,
    closing: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self, waiting: &Receiver<Ticket>) {
        self.try_out();
        let mut tried = Instant::now();
        while !self.closing.load(Ordering::Relaxed) {
            let ticket = match waiting.recv_timeout(GLANCE * 5) {
                Ok(ticket) => Some(ticket),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.program.is_none() && tried.elapsed() >= RETRY {
                self.try_out();
                tried = Instant::now();
            }
            let Some(ticket) = ticket.filter(|ticket| !ticket.cancel.is_set()) else { continue };
            let told = |event| ticket.events.blocking_send(event).is_ok();
            let wanted = || !ticket.cancel.is_set() && !self.closing.load(Ordering::Relaxed);
            let last_word = match self.speak(&ticket.clause.text, &wanted, &told) {
                Ok(Some(end)) => ClauseEvent::Done { cut: end == End::Cut },
                Ok(None) => continue,
                Err(error) => {
                    self.lost(&error);
                    failed(&error)
                }
            };
            // When nobody wants to know, nobody is told.
            let _told = ticket.events.blocking_send(last_word);
        }
    }

    /// Looks for the program and has it say a word to nobody.
    fn try_out(&mut self) {
        let found = std::env::split_paths(&self.config.search_path)
            .map(|folder| folder.join(PROGRAM))
            .find(|path| path.is_absolute() && path.is_file());
        let Some(program) = found else {
            let error = Error::unavailable("espeak_missing", "espeak-ng, which speaks, is not installed")
                .hint("install it (`apt-get install espeak-ng`); the text goes on without it");
            return self.lost(&error);
        };
        self.program = Some(program);
        let heard = std::cell::Cell::new(false);
        let hear = |_| {
            heard.set(true);
            true
        };
        match self.speak("ok", &|| !self.closing.load(Ordering::Relaxed), &hear) {
            Ok(_) if heard.get() => {
                tracing::info!("espeak-ng speaks");
                self.status.send_replace(VoiceStatus {
                    state: VoiceState::Ready,
                    name: Some(PROGRAM),
                    ..VoiceStatus::default()
                });
            }
            Ok(_) => self.lost(&Error::unavailable("espeak_silent", "espeak-ng made no sound of a word")),
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&mut self, error: &Error) {
        self.program = None;
        let reason = Some(error.to_string());
        self.status.send_if_modified(|status| {
            let news = status.reason != reason;
            if news {
                tracing::warn!("no voice: {error}");
                *status = VoiceStatus {
                    state: VoiceState::Unavailable,
                    name: Some(PROGRAM),
                    reason,
                    ..VoiceStatus::default()
                };
            }
            news
        });
    }

    /// Speaks a text to `tell`; how it ended, `None` when it was not wanted any more.
    fn speak(&self, text: &str, wanted: &dyn Fn() -> bool, tell: &dyn Fn(ClauseEvent) -> bool) -> Result<Option<End>> {
        if text.is_empty() {
            return Ok(Some(End::Whole));
        }
        let Some(program) = &self.program else {
            return Err(Error::unavailable("voice_unavailable", "there is no voice now"));
        };
        // -b 1: the text is UTF-8. Without -m no markup is obeyed.
        let arguments = ["-v", &self.config.voice, "-b", "1", "--stdin", "--stdout"];
        let environment = [("PATH", OsStr::new(&self.config.search_path))];
        let broken = |e: std::io::Error| Error::unavailable("espeak_failed", format!("espeak-ng can't be run: {e}"));
        let mut child = Child::start(program, &arguments, environment, text.as_bytes()).map_err(broken)?;
        let begun = Instant::now();
        let mut sound = Sound::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            if !wanted() {
                return Ok(None);
            }
            if begun.elapsed() > self.config.time_limit {
                let limit = self.config.time_limit.as_secs_f64();
                return Err(Error::unavailable("espeak_slow", format!("espeak-ng took longer than {limit} s")));
            }
            match child.read(&mut buffer, GLANCE).map_err(broken)? {
                Output::Quiet => {}
                Output::End => break,
                Output::Bytes(length) => {
                    let Some(samples) = sound.take(&buffer[..length])? else { continue };
                    if !tell(ClauseEvent::Pcm { rate: sound.rate, samples }) {
                        return Ok(None);
                    }
                    if sound.samples > u64::from(sound.rate) * MAX_AUDIO.as_secs() {
                        return Ok(Some(End::Cut));
                    }
                }
            }
        }
        match child.end().map_err(broken)? {
            Some((status, complaint)) if !status.success() => Err(complained(&complaint)),
            _ => Ok(Some(End::Whole)),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// The rest was left out.
    Cut,
}

fn complained(complaint: &str) -> Error {
    let line: String = complaint.lines().next().unwrap_or("").chars().filter(|c| !c.is_control()).take(200).collect();
    let said = if line.is_empty() { "without a word".to_owned() } else { format!("saying \"{line}\"") };
    Error::unavailable("espeak_failed", format!("espeak-ng failed, {said}"))
        .hint("`espeak-ng --voices` lists what ESPEAK_VOICE may be")
}

/// The child's output so far: a WAV header, then samples.
#[derive(Default)]
struct Sound {
    rate: u32,
    samples: u64,
    /// The header, or half a sample.
    kept: Vec<u8>,
}

impl Sound {
    /// The samples that these bytes complete.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<Vec<i16>>> {
        self.kept.extend_from_slice(bytes);
        if self.rate == 0 {
            let Some(header) = self.kept.get(..HEADER) else { return Ok(None) };
            self.rate = rate(header).ok_or_else(|| {
                Error::unavailable("espeak_output", "what espeak-ng wrote is no WAV of one channel and 16 bits")
                    .hint("is the program of that name another one?")
            })?;
            self.kept.drain(..HEADER);
        }
        let whole = self.kept.len() / 2 * 2;
        let samples: Vec<i16> = self.kept[..whole].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
        self.kept.drain(..whole);
        self.samples += samples.len() as u64;
        Ok((!samples.is_empty()).then_some(samples))
    }
}

/// Samples a second, of a header as espeak-ng writes it: PCM, one channel, 16 bits.
fn rate(header: &[u8]) -> Option<u32> {
    let number = |at: usize| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
    let is = |at: usize, word: &[u8]| header.get(at..at + word.len()) == Some(word);
    let fits = is(0, b"RIFF") && is(8, b"WAVEfmt ") && is(36, b"data");
    let fits = fits && (number(20)?, number(22)?, number(34)?) == (1, 1, 16);
    let rate = u32::from(number(24)?) | u32::from(number(26)?) << 16;
    (fits && (4_000..=192_000).contains(&rate)).then_some(rate)
}

#[cfg(test)]
#[path = "espeak_tests.rs"]
mod tests;
