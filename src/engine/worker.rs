//! The engine's thread: owns backend, model, vision tower and context in one stack frame, and runs jobs.
//! Not here: what a look consists of (`session`, `vision`), who waits (`mailbox`).

use super::backend;
use super::ffi::{Context, ContextParams, Model, Token};
use super::mailbox::{Mailbox, Ticket};
use super::session::{Session, sampler};
use super::speech_tokens::SpeechTokens;
use super::template::Layout;
use super::utf8::Utf8Stream;
use super::vision::{Eye, FrameLayout};
use super::{Engine, EngineState, EngineStatus, Job, JobEvent, JobFinish, JobHandle};
use crate::error::{Error, Result};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::watch;

/// What the engine needs to know; the files must have passed `models::inspect`.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    pub language: PathBuf,
    pub projector: PathBuf,
    /// How the projector wants its frames.
    pub frame_layout: FrameLayout,
    /// Name to show.
    pub name: String,
    /// What everyone who sees answers must know.
    pub warning: Option<String>,
    /// What is good to know about the model.
    pub notice: Option<String>,
    /// Tokens that one stream's prompt and answer may take together.
    pub context_tokens: u32,
    /// Streams that keep their prefix in the cache at once.
    pub slots: u32,
    /// Most tokens decoded in one call.
    pub batch: u32,
    /// 0 takes one for each core.
    pub threads: u32,
    /// Layers on the GPU; negative for all, 0 for none.
    pub gpu_layers: i32,
    /// Most bytes of frame embeddings kept.
    pub embedding_cache_bytes: usize,
}

/// llama.cpp behind the engine's door.
pub struct LlamaEngine {
    mailbox: Arc<Mailbox>,
    status: watch::Receiver<EngineStatus>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LlamaEngine {
    /// Starts the thread; loading goes on behind it and shows in the status.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn spawn(config: EngineConfig) -> Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let (tell, status) = watch::channel(EngineStatus {
            state: EngineState::Loading,
            model: Some(config.name.clone()),
            warning: config.warning.clone(),
            notice: config.notice.clone(),
            ..EngineStatus::default()
        });
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn({
                let mailbox = Arc::clone(&mailbox);
                move || run(&config, &mailbox, &tell)
            })
            .map_err(|e| Error::internal("engine_thread", format!("no thread for the engine: {e}")))?;
        Ok(Self { mailbox, status, thread: Mutex::new(Some(thread)) })
    }

    /// Takes no more jobs and waits for the thread; the running job ends at its next token. Blocks.
    pub fn stop(&self) {
        self.mailbox.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic in the thread was told in the status already.
            let _ended = thread.join();
        }
    }
}

impl Drop for LlamaEngine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Engine for LlamaEngine {
    fn submit(&self, job: Job) -> JobHandle {
        let (handle, events, cancel) = JobHandle::pair();
        if let Err(ticket) = self.mailbox.put(Ticket { job, events, cancel }) {
            let why = self.status.borrow().message.clone().unwrap_or_else(|| "the engine has ended".to_owned());
            // The channel is new, so there is room for this.
            let _told = ticket.events.try_send(JobEvent::Failed(Error::unavailable("engine_ended", why)));
        }
        handle
    }

    fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.clone()
    }
}

/// The thread's body: load, serve, and say so when it ends.
fn run(config: &EngineConfig, mailbox: &Mailbox, tell: &watch::Sender<EngineStatus>) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(config, mailbox, tell)));
    let message = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(e.to_string()),
        Err(_) => Some("the engine's thread stopped on a defect; restart the program and report the log".to_owned()),
    };
    if let Some(message) = message {
        tracing::error!(reason = %message, "engine failed");
        tell.send_modify(|status| {
            status.state = EngineState::Failed;
            status.message = Some(message);
        });
    }
    mailbox.close();
}

fn serve(config: &EngineConfig, mailbox: &Mailbox, tell: &watch::Sender<EngineStatus>) -> Result<()> {
    let began = Instant::now();
    let threads = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n as usize,
    };
    let threads = i32::try_from(threads.min(512)).unwrap_or(1);
    backend::start()?;
    let gpu = if config.gpu_layers == 0 { None } else { backend::gpu_name() };
    let model = Model::load(&config.language, if gpu.is_some() { config.gpu_layers } else { 0 })?;
    let mut eye = Eye::load(
        &config.projector,
        &model,
        config.frame_layout,
        gpu.is_some(),
        threads,
        config.embedding_cache_bytes,
    )?;
    let trained = model.n_ctx_train();
    let tokens_per_sequence = if trained > 0 { config.context_tokens.min(trained) } else { config.context_tokens };
    let params = ContextParams { tokens_per_sequence, sequences: config.slots.max(1), batch: config.batch, threads };
    let context = Context::new(&model, params)?;
    let layout = Layout::of(&model);
    let mut speech = SpeechTokens::of(&model);
    let mut session = Session::new(&model, context, config.slots.max(1) as usize);
    let load_s = began.elapsed().as_secs_f64();
    tracing::info!(model = %config.name, device = gpu.as_deref().unwrap_or("cpu"), load_s, "engine ready");
    tell.send_modify(|status| {
        status.state = EngineState::Ready;
        status.device = Some(gpu.unwrap_or_else(|| "cpu".to_owned()));
        status.context_tokens = u32::try_from(session.budget()).unwrap_or(u32::MAX);
        status.load_s = Some(load_s);
    });
    while let Some(ticket) = mailbox.take() {
        answer(&ticket, &layout, &mut speech, &mut session, &mut eye);
    }
    Ok(())
}

/// Runs one job to its last event. Whatever goes wrong is told to the job's owner and harms no other job.
fn answer(ticket: &Ticket, layout: &Layout, speech: &mut SpeechTokens, session: &mut Session<'_>, eye: &mut Eye<'_>) {
    let last = match look(ticket, layout, speech, session, eye) {
        Ok(last) => last,
        Err(_) if ticket.cancel.is_set() => {
            JobEvent::Done { at: Instant::now(), tokens: 0, finish: JobFinish::Cancelled }
        }
        Err(e) => JobEvent::Failed(e),
    };
    say(ticket, last);
}

/// Waits for the owner when its queue is full: it always reads, or is gone.
fn say(ticket: &Ticket, event: JobEvent) {
    // An owner that is gone has set the cancel flag by dropping its handle.
    let _owner_is_gone = ticket.events.blocking_send(event);
}

fn look(
    ticket: &Ticket,
    layout: &Layout,
    speech: &mut SpeechTokens,
    session: &mut Session<'_>,
    eye: &mut Eye<'_>,
) -> Result<JobEvent> {
    let Ticket { job, cancel, .. } = ticket;
    say(ticket, JobEvent::Started { at: Instant::now() });
    if job.frames.is_empty() {
        return Err(Error::invalid("job_without_frames", "there is no frame to look at"));
    }
    let cancelled = |tokens| JobEvent::Done { at: Instant::now(), tokens, finish: JobFinish::Cancelled };
    let mut frames = Vec::with_capacity(job.frames.len());
    let mut encoded = 0;
    for frame in &job.frames {
        if cancel.is_set() {
            return Ok(cancelled(0));
        }
        let (embedded, fresh) = eye.look(&job.stream, frame)?;
        encoded += u32::from(fresh);
        frames.push(embedded);
    }
    say(ticket, JobEvent::Encoded { at: Instant::now(), encoded });

    let prompt = layout.tokens(session.model(), &job.prompt, job.for_voice);
    let left_out = session.fit(&prompt, &mut frames, job.max_tokens)?;
    if left_out > 0 {
        tracing::debug!(left_out, "oldest frames left out: the context is too short for all");
    }
    let mut at = session.prefill(&job.stream, &prompt, &frames, eye, cancel)?;
    let tokens = u32::try_from(at.decoded + at.reused).unwrap_or(u32::MAX);
    say(ticket, JobEvent::Prefilled { at: Instant::now(), tokens });

    let mut sampler = sampler(&job.sampling, session.model().n_vocab(), fresh_seed());
    let end_of_speech = speech.end;
    let banned = if job.for_voice { speech.unspeakable(session.model()) } else { &[] };
    let mut piece = Piece::default();
    let mut written = 0;
    let finish = loop {
        if cancel.is_set() {
            break JobFinish::Cancelled;
        }
        if written == job.max_tokens {
            break JobFinish::Length;
        }
        let token = session.sample(&mut sampler, banned)?;
        if session.model().ends_turn(token) || end_of_speech == Some(token) {
            break JobFinish::Stop;
        }
        written += 1;
        piece.tokens.push(token);
        let text = piece.utf8.push(&session.model().piece(token));
        if job.for_voice {
            // The state is that of the position that consumes the token, so the token's text waits for that.
            piece.hidden.extend_from_slice(session.advance_with_hidden(&mut at, token)?);
            piece.say(ticket, text);
        } else {
            piece.say(ticket, text);
            if written < job.max_tokens {
                session.advance(&mut at, token)?;
            }
        }
    };
    let rest = piece.utf8.finish();
    if finish != JobFinish::Cancelled {
        piece.say(ticket, rest);
    }
    Ok(JobEvent::Done { at: Instant::now(), tokens: written, finish })
}

/// The tokens that have made no text yet.
#[derive(Default)]
struct Piece {
    utf8: Utf8Stream,
    tokens: Vec<Token>,
    hidden: Vec<f32>,
}

impl Piece {
    /// Tells the text with what it was made of, if there is any.
    fn say(&mut self, ticket: &Ticket, text: String) {
        if text.is_empty() {
            return;
        }
        let (tokens, hidden) = (std::mem::take(&mut self.tokens), std::mem::take(&mut self.hidden));
        say(ticket, JobEvent::Text { at: Instant::now(), text, tokens, hidden });
    }
}

/// A seed that differs from job to job; it only has to vary, not to be secret.
fn fresh_seed() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0) & 0xffff_ffff) as u32
}
