//! One look at picture files instead of a live source: the same words, the same engine, one answer.
//! Not here: printing and arguments (`cli`), how a model is found and loaded (`wiring`).

pub mod batch;
mod pictures;

use crate::commentary::{self, Answer, History, Profile};
use crate::engine::{Engine, EngineState, Job, JobEvent, JobFinish, Sampling};
use crate::error::{Error, Result};
use pictures::Pictures;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Most pictures in one look.
pub const MAX_FRAMES: usize = 64;
/// Whose look it is when the question names no stream.
const STREAM: &str = "ask";

/// What serves where a question leaves something open.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    pub profile: &'static Profile,
    /// The profile's own when absent.
    pub instruction: Option<String>,
    pub max_tokens: u32,
    pub sampling: Sampling,
}

/// One question. What is left open comes from the [`Defaults`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Question {
    /// The engine keeps the beginning of the prompt for each stream.
    pub stream: Option<String>,
    /// PNG or JPEG files, oldest first.
    pub frames: Vec<PathBuf>,
    /// The frames' numbers, one for each. A file under another number counts as another frame.
    pub seqs: Option<Vec<u64>>,
    pub instruction: Option<String>,
    /// A profile alone brings its own instruction.
    pub profile: Option<String>,
    /// Earlier answers, oldest first; the model is told not to repeat them.
    pub last_answers: Vec<String>,
    pub max_tokens: Option<u32>,
}

/// An answer and what it took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reply {
    /// All of it, "..." as well.
    pub answer: String,
    /// `stop` or `length`.
    pub finish: &'static str,
    pub tokens: u32,
    /// Frames that were encoded for this answer; the others' embeddings were there from before.
    pub frames_encoded: u32,
    pub encode_ms: f64,
    pub prefill_ms: f64,
    pub decode_ms: f64,
    /// From the job's start; `None` when nothing was written.
    pub first_token_ms: Option<f64>,
}

/// Takes one question after another to the engine.
pub struct Asker {
    engine: Arc<dyn Engine>,
    defaults: Defaults,
    pictures: Pictures,
}

impl Asker {
    /// An asker of this engine.
    pub fn new(engine: Arc<dyn Engine>, defaults: Defaults) -> Self {
        Self { engine, defaults, pictures: Pictures::default() }
    }

    /// Asks, hands the answer to `show` piece by piece as it is written, and returns all of it. Blocks; must not
    /// be called on an async runtime.
    ///
    /// # Errors
    /// When a picture can't be read (the message names it), something in the question is not acceptable, the
    /// engine fails, or `show` does.
    pub fn ask(&mut self, question: &Question, show: &mut dyn FnMut(&str) -> Result<()>) -> Result<Reply> {
        let job = self.job(question)?;
        let mut handle = self.engine.submit(job);
        let mut answer = Answer::default();
        let mut clock = Clock::default();
        loop {
            let event = handle.events.blocking_recv();
            match event.ok_or_else(|| Error::unavailable("engine_ended", "the engine ended within the look"))? {
                JobEvent::Started { at } => clock.started = Some(at),
                JobEvent::Encoded { at, encoded } => (clock.encoded, clock.frames_encoded) = (Some(at), encoded),
                JobEvent::Prefilled { at, .. } => clock.prefilled = Some(at),
                JobEvent::Text { at, text, .. } => {
                    clock.first_token.get_or_insert(at);
                    if let Some(piece) = answer.push(&text) {
                        show(&piece)?;
                    }
                }
                JobEvent::Done { at, tokens, finish } => {
                    if let Some(piece) = answer.finish() {
                        show(&piece)?;
                    } else if !answer.is_shown() {
                        // Commentary keeps "..." to itself; who asks is told.
                        show(answer.text())?;
                    }
                    return clock.reply(at, answer.text(), tokens, finish);
                }
                JobEvent::Replaced => {
                    return Err(Error::internal("look_replaced", "another look took this one's place"));
                }
                JobEvent::Failed(error) => return Err(error),
            }
        }
    }

    /// False when no further question can be answered.
    pub fn is_alive(&self) -> bool {
        self.engine.status().borrow().state == EngineState::Ready
    }

    fn job(&mut self, question: &Question) -> Result<Job> {
        let profile = match &question.profile {
            Some(name) => commentary::find_profile(name)?,
            None => self.defaults.profile,
        };
        let instruction = commentary::check_instruction(self.instruction(question, profile))?;
        let mut history = History::default();
        for answer in question.last_answers.iter().filter(|a| !commentary::says_nothing(a)) {
            history.push(answer);
        }
        let stream = question.stream.as_deref().unwrap_or(STREAM);
        commentary::check_name(stream)?;
        let max_tokens = question.max_tokens.unwrap_or(self.defaults.max_tokens);
        if max_tokens == 0 {
            return Err(Error::invalid("max_tokens", "an answer of no tokens can't be given").hint("ask for 1 or more"));
        }
        Ok(Job {
            stream: Arc::from(stream),
            prompt: commentary::prompt(profile, &instruction, &history),
            frames: self.frames(question)?,
            max_tokens,
            sampling: self.defaults.sampling,
            for_voice: false,
            urgent: false,
            novelty: 0.0,
        })
    }

    fn instruction<'a>(&'a self, question: &'a Question, profile: &'static Profile) -> &'a str {
        let configured = self.defaults.instruction.as_deref().filter(|_| question.profile.is_none());
        question.instruction.as_deref().or(configured).unwrap_or(profile.instruction)
    }

    fn frames(&mut self, question: &Question) -> Result<Vec<Arc<crate::frame::Frame>>> {
        let count = question.frames.len();
        if !(1..=MAX_FRAMES).contains(&count) {
            return Err(Error::invalid("frames_count", format!("a look has 1 to {MAX_FRAMES} frames, not {count}"))
                .hint("name the picture files, oldest first"));
        }
        if let Some(seqs) = question.seqs.as_ref().filter(|seqs| seqs.len() != count) {
            return Err(Error::invalid("seqs_count", format!("there are {} seqs for {count} frames", seqs.len()))
                .hint("give one number for each frame, or none at all"));
        }
        let number = |i: usize| question.seqs.as_ref().and_then(|seqs| seqs.get(i)).copied();
        question.frames.iter().enumerate().map(|(i, path)| self.pictures.frame(path, number(i))).collect()
    }
}

/// The error of an output that takes no more.
pub fn unwritable(e: std::io::Error) -> Error {
    Error::unavailable("output_closed", format!("the answer can't be written: {e}"))
}

/// The moments of one job.
#[derive(Default)]
struct Clock {
    started: Option<Instant>,
    encoded: Option<Instant>,
    prefilled: Option<Instant>,
    first_token: Option<Instant>,
    frames_encoded: u32,
}

impl Clock {
    fn reply(&self, done: Instant, text: &str, tokens: u32, finish: JobFinish) -> Result<Reply> {
        let finish = match finish {
            JobFinish::Stop => "stop",
            JobFinish::Length => "length",
            JobFinish::Cancelled => return Err(Error::unavailable("look_cancelled", "the engine gave the look up")),
        };
        let between = |from: Option<Instant>, to: Option<Instant>| {
            let seconds = to?.checked_duration_since(from?)?.as_secs_f64();
            // Hundredths of a millisecond are enough.
            Some((seconds * 1e5).round() / 100.0)
        };
        Ok(Reply {
            answer: text.trim().to_owned(),
            finish,
            tokens,
            frames_encoded: self.frames_encoded,
            encode_ms: between(self.started, self.encoded).unwrap_or(0.0),
            prefill_ms: between(self.encoded, self.prefilled).unwrap_or(0.0),
            decode_ms: between(self.prefilled, Some(done)).unwrap_or(0.0),
            first_token_ms: between(self.started, self.first_token),
        })
    }
}
