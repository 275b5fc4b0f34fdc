//! The engine's thread: owns backend, model, vision tower and context in one stack frame.
//! Not here: the looks at work (`desk`), who waits (`mailbox`).

use super::backend;
use super::desk::Desk;
use super::ffi::{Context, ContextParams, Model};
use super::mailbox::{Mailbox, Ticket};
use super::session::Session;
use super::speech_tokens::SpeechTokens;
use super::template::Layout;
use super::vision::{Eye, FrameLayout};
use super::{Engine, EngineState, EngineStatus, Job, JobEvent, JobHandle};
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
    /// Answers written at once, at most `slots`; 0 takes all slots on a GPU, where a batch costs little more than a token,
    /// and one on a processor, where the first comes sooner alone.
    pub parallel: u32,
    /// Most tokens decoded in one call.
    pub batch: u32,
    /// 0 takes one for each core.
    pub threads: u32,
    /// Layers on the GPU; negative for all, 0 for none.
    pub gpu_layers: i32,
    /// Most bytes of frame embeddings kept.
    pub embedding_cache_bytes: usize,
}

impl EngineConfig {
    /// For a model of MiniCPM's layout, with the program's own defaults.
    pub fn new(language: PathBuf, projector: PathBuf) -> Self {
        Self {
            name: language.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default(),
            language,
            projector,
            frame_layout: FrameLayout::OneSlice,
            warning: None,
            notice: None,
            context_tokens: 4096,
            slots: 2,
            parallel: 0,
            batch: 512,
            threads: 0,
            gpu_layers: -1,
            embedding_cache_bytes: 64 << 20,
        }
    }

    fn at_once(&self, on_gpu: bool) -> usize {
        let slots = self.slots.max(1);
        match self.parallel {
            0 if on_gpu => slots as usize,
            0 => 1,
            n => n.min(slots) as usize,
        }
    }
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
    let eye = Eye::load(
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
    let (layout, speech) = (Layout::of(&model), SpeechTokens::of(&model));
    let session = Session::new(&model, context, config.slots.max(1) as usize).bridging(gpu.is_some());
    let at_once = config.at_once(gpu.is_some());
    let load_s = began.elapsed().as_secs_f64();
    tracing::info!(model = %config.name, device = gpu.as_deref().unwrap_or("cpu"), load_s, "engine ready");
    tell.send_modify(|status| {
        status.state = EngineState::Ready;
        status.device = Some(gpu.unwrap_or_else(|| "cpu".to_owned()));
        status.context_tokens = u32::try_from(session.budget()).unwrap_or(u32::MAX);
        status.load_s = Some(load_s);
    });
    Desk::new(layout, speech, session, eye, at_once).serve(mailbox);
    Ok(())
}
