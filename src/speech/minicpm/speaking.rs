//! MiniCPM-o's own voice behind the voice's door: a thread that owns the synthesizer and makes sound of clauses.
//!
//! The synthesizer holds one utterance at a time, from its first clause to its last. While that goes on, clauses of other
//! streams wait; an utterance whose next clause does not come gives the voice up. Not here: the stages (`synthesizer`),
//! pacing (`speaker`), which files (`wiring`).

use super::files::SpeechFiles;
use super::source::RATE;
use super::synthesizer::{Options, Synthesizer};
use crate::cancel::CancelFlag;
use crate::error::{Error, Result};
use crate::speech::threaded::{self, Ticket, failed};
use crate::speech::{Clause, ClauseEvent, ClauseHandle, OWN_VOICE, Voice, VoiceState, VoiceStatus};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Messages that wait for the thread. A stream has one clause with the voice at most; if it were full, a clause would
/// fail and be counted (`speech_failed`).
const WAITING: usize = 256;
/// How often the thread looks whether somebody's time is over.
const GLANCE: Duration = Duration::from_millis(20);
/// How long after its sound an utterance keeps the voice when its next clause does not come and another stream waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a device that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What the voice needs to know; the files must have passed [`inspect_for`](super::inspect_for).
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct MiniCpmConfig {
    pub files: SpeechFiles,
    pub options: Options,
}

/// The voice.
pub struct MiniCpmVoice {
    messages: SyncSender<Message>,
    status: watch::Receiver<VoiceStatus>,
    control: Arc<Control>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Clause(Ticket),
    Forget { stream: String, utterance: u64 },
}

/// What the owner holds of the thread.
#[derive(Default)]
struct Control {
    closing: AtomicBool,
    /// Of the clause that is being spoken.
    running: Mutex<CancelFlag>,
}

impl MiniCpmVoice {
    /// Starts the thread, which loads the files; that goes on behind it and shows in the status.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn spawn(config: MiniCpmConfig) -> Result<Self> {
        let (messages, waiting) = sync_channel(WAITING);
        let (status, watched) = watch::channel(told(VoiceState::Loading, None));
        let control = Arc::new(Control::default());
        let worker =
            Worker { status, control: Arc::clone(&control), waiting: VecDeque::new(), current: None, ill: None };
        let thread = std::thread::Builder::new()
            .name("voice".to_owned())
            .spawn(move || worker.run(&config, &waiting))
            .map_err(|e| Error::internal("voice_thread", format!("the voice's thread can't start: {e}")))?;
        Ok(Self { messages, status: watched, control, thread: Mutex::new(Some(thread)) })
    }
}

impl Voice for MiniCpmVoice {
    fn submit(&self, clause: Clause) -> ClauseHandle {
        threaded::hand_in(clause, |ticket| self.messages.try_send(Message::Clause(ticket)).is_ok())
    }

    fn forget(&self, stream: &str, utterance: u64) {
        // When there is no room the voice's patience ends it.
        let _full = self.messages.try_send(Message::Forget { stream: stream.to_owned(), utterance });
    }

    fn status(&self) -> watch::Receiver<VoiceStatus> {
        self.status.clone()
    }

    fn stop(&self) {
        self.control.closing.store(true, Ordering::Relaxed);
        self.control.running.lock().unwrap_or_else(PoisonError::into_inner).set();
        threaded::join(&self.thread);
    }
}

impl Drop for MiniCpmVoice {
    fn drop(&mut self) {
        self.stop();
    }
}

fn told(state: VoiceState, reason: Option<String>) -> VoiceStatus {
    VoiceStatus { state, name: Some(OWN_VOICE), reason, note: None, by_tokens: true }
}

/// The utterance that has the voice.
struct Current {
    stream: String,
    utterance: u64,
    /// Place of the clause that comes next.
    next: u32,
    /// It has become too long; the rest of it has no sound.
    over: bool,
    /// When its sound will have been played, and a while longer.
    until: Instant,
}

struct Worker {
    status: watch::Sender<VoiceStatus>,
    control: Arc<Control>,
    /// One of each stream at most.
    waiting: VecDeque<Ticket>,
    current: Option<Current>,
    /// Since when the device has failed.
    ill: Option<Instant>,
}

impl Worker {
    fn run(mut self, config: &MiniCpmConfig, messages: &Receiver<Message>) {
        let serve = std::panic::AssertUnwindSafe(|| self.serve(config, messages));
        let error = match std::panic::catch_unwind(serve) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::internal("voice_thread", "the voice's thread stopped on a defect")
                .hint("restart the program and report the log"),
        };
        self.unwell(&error);
        // Whoever comes is told, until the owner ends it.
        while !self.control.closing.load(Ordering::Relaxed) {
            for ticket in self.waiting.drain(..) {
                let _nobody_listens = ticket.events.try_send(failed(&error));
            }
            match messages.recv_timeout(GLANCE * 5) {
                Ok(Message::Clause(ticket)) => self.waiting.push_back(ticket),
                Ok(Message::Forget { .. }) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn serve(&mut self, config: &MiniCpmConfig, messages: &Receiver<Message>) -> Result<()> {
        let began = Instant::now();
        let mut voice = Synthesizer::load(&config.files, &config.options)?;
        tracing::info!(device = voice.device(), load_s = began.elapsed().as_secs_f64(), "MiniCPM-o's own voice speaks");
        self.status.send_replace(told(VoiceState::Ready, None));
        while !self.control.closing.load(Ordering::Relaxed) {
            match messages.recv_timeout(if self.waiting.is_empty() { GLANCE * 5 } else { GLANCE }) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            if self.ill.is_some_and(|since| since.elapsed() >= RETRY) {
                self.try_again(&mut voice);
            }
            if let Some(ticket) = self.next() {
                self.speak(&mut voice, &ticket);
                // What the last utterance has left goes now, and not when somebody waits for the next one.
                if self.current.is_none()
                    && self.ill.is_none()
                    && let Err(error) = voice.rest()
                {
                    self.unwell(&error);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Clause(ticket) => self.waiting.push_back(ticket),
            Message::Forget { stream, utterance } => {
                self.current.take_if(|c| c.stream == stream && c.utterance == utterance);
            }
        }
    }

    /// The clause that is spoken next: one of the utterance that has the voice; another's when that is over.
    fn next(&mut self) -> Option<Ticket> {
        self.waiting.retain(|ticket| !ticket.cancel.is_set());
        if let Some(current) = &self.current {
            if let Some(i) = self.waiting.iter().position(|ticket| ticket.clause.stream == current.stream) {
                return self.waiting.remove(i);
            }
            if Instant::now() < current.until {
                return None;
            }
        }
        let next = self.waiting.pop_front()?;
        self.current = None;
        Some(next)
    }

    fn speak(&mut self, voice: &mut Synthesizer, ticket: &Ticket) {
        let Ticket { clause, events, cancel } = ticket;
        *self.control.running.lock().unwrap_or_else(PoisonError::into_inner) = cancel.clone();
        if self.control.closing.load(Ordering::Relaxed) {
            cancel.set();
        }
        let event = match self.clause(voice, clause, events, cancel) {
            Ok(cut) => ClauseEvent::Done { cut },
            Err(error) => {
                self.current = None;
                if error.code == "speech_cancelled" {
                    return;
                }
                if matches!(error.code, "speech_compute" | "speech_memory" | "speech_device") {
                    self.unwell(&error);
                }
                failed(&error)
            }
        };
        // When nobody wants to know, nobody is told.
        let _told = events.blocking_send(event);
    }

    /// Speaks a clause; true when its end was left out.
    fn clause(
        &mut self,
        voice: &mut Synthesizer,
        clause: &Clause,
        events: &mpsc::Sender<ClauseEvent>,
        cancel: &CancelFlag,
    ) -> Result<bool> {
        if clause.index == 0 {
            // The same words of the same utterance sound the same.
            voice.begin(clause.utterance)?;
            let (stream, utterance, until) = (clause.stream.clone(), clause.utterance, Instant::now() + PATIENCE);
            self.current = Some(Current { stream, utterance, next: 0, over: false, until });
        }
        let goes_on =
            |c: &&mut Current| c.stream == clause.stream && c.utterance == clause.utterance && c.next == clause.index;
        let Some(current) = self.current.as_mut().filter(goes_on) else {
            return Err(Error::unavailable("voice_taken", "the voice speaks for another stream now")
                .hint("the model's own voice speaks one utterance at a time"));
        };
        current.next += 1;
        let mut samples = 0;
        let mut sink = |wave: Vec<f32>| {
            samples += wave.len();
            // An owner that is gone has set the flag.
            let _gone = events.blocking_send(ClauseEvent::Pcm { rate: RATE, samples: to_samples(&wave) });
        };
        voice.watch(cancel);
        let rows = clause.hidden.as_ref().map_or(&[][..], |hidden| &hidden.rows);
        let done = match (current.over, clause.tokens.is_empty()) {
            (true, _) => Ok(()),
            (false, true) if clause.last => voice.finish_with(&mut sink),
            (false, _) => voice.chunk_with(&clause.tokens, rows, clause.last, &mut sink),
        };
        let cut = match done {
            Err(error) if error.code == "speech_too_long" => {
                current.over = true;
                voice.finish_with(&mut sink)?;
                true
            }
            done => done.map(|()| false)?,
        };
        let sound = Duration::from_secs_f64(samples as f64 / f64::from(RATE));
        current.until = current.until.max(Instant::now() + PATIENCE) + sound;
        if clause.last {
            let times = voice.times();
            tracing::debug!(stream = clause.stream, utterance = clause.utterance, ?times, "spoken");
            self.current = None;
        }
        Ok(cut)
    }

    fn unwell(&mut self, error: &Error) {
        self.ill = Some(Instant::now());
        tracing::warn!("no voice: {error}");
        self.status.send_replace(told(VoiceState::Unavailable, Some(error.to_string())));
    }

    fn try_again(&mut self, voice: &mut Synthesizer) {
        match voice.begin(0) {
            Ok(_) => {
                self.ill = None;
                self.status.send_replace(told(VoiceState::Ready, None));
            }
            Err(_) => self.ill = Some(Instant::now()),
        }
    }
}

/// Samples of 16 bits.
pub fn to_samples(wave: &[f32]) -> Vec<i16> {
    // `as` keeps what is beyond full scale within the range.
    wave.iter().map(|x| (x * 32767.0).round() as i16).collect()
}
