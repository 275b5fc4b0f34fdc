//! The engine's thread: owns backend, model, vision tower and context in one stack frame.
//! Not here: the looks at work (`desk`), who waits (`mailbox`).

use super::backend;
use super::desk::Desk;
use super::ffi::{Context, ContextParams, Model};
use super::gpu;
use super::mailbox::Mailbox;
use super::plan::{self, ModelWeight, Plan};
use super::row::Ticket;
use super::session::Session;
use super::speech_tokens::SpeechTokens;
use super::template::Layout;
use super::vision::{Eye, FrameLayout};
use super::{CancelFlag, Engine, EngineState, EngineStatus, JOB_EVENTS, Job, JobEvent, JobHandle, KvType, Pulse};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::watch;

/// What the engine needs to know; the files must have passed `models::inspect`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Layers on the GPU; negative for as many as fit, 0 for none.
    pub gpu_layers: i32,
    /// What the model takes, so that it can be planned what fits; `None` has everything tried.
    pub weight: Option<ModelWeight>,
    /// How the cache keeps keys and values.
    pub kv: KvType,
    /// Most bytes of frame embeddings kept.
    pub embedding_cache_bytes: usize,
    /// Frames are encoded on threads of their own, beside the language model; `None` does so where the tower is on a GPU.
    pub encode_ahead: Option<bool>,
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
            weight: None,
            kv: KvType::F16,
            embedding_cache_bytes: 64 << 20,
            encode_ahead: None,
        }
    }

    /// The status of an engine that has this to load.
    pub(crate) fn loading(&self) -> EngineStatus {
        EngineStatus {
            state: EngineState::Loading,
            model: Some(self.name.clone()),
            warning: self.warning.clone(),
            notice: self.notice.clone(),
            ..EngineStatus::default()
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
    pulse: Arc<Pulse>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LlamaEngine {
    /// Starts the thread; loading goes on behind it and shows in the status.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn spawn(config: EngineConfig) -> Result<Self> {
        let mailbox = Arc::new(Mailbox::default());
        let pulse = Arc::new(Pulse::default());
        let (tell, status) = watch::channel(config.loading());
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn({
                let (mailbox, pulse) = (Arc::clone(&mailbox), Arc::clone(&pulse));
                move || run(&config, &mailbox, &tell, &pulse)
            })
            .map_err(|e| Error::internal("engine_thread", format!("no thread for the engine: {e}")))?;
        Ok(Self { mailbox, status, pulse, thread: Mutex::new(Some(thread)) })
    }

    /// Its thread's signs of life.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// As [`Engine::submit`], with room for that many events, for an owner who lets them gather.
    pub fn submit_with_room(&self, job: Job, room: usize) -> JobHandle {
        let (handle, events, cancel) = JobHandle::pair_of(room, CancelFlag::default());
        if let Err(ticket) = self.mailbox.put(Ticket { job, events, cancel }) {
            let why = self.status.borrow().message.clone().unwrap_or_else(|| "the engine has ended".to_owned());
            // The channel is new, so there is room for this.
            let _told = ticket.events.try_send(JobEvent::Failed(Error::unavailable("engine_ended", why)));
        }
        handle
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
        self.submit_with_room(job, JOB_EVENTS)
    }

    fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.clone()
    }
}

/// The thread's body: load, serve, and say so when it ends.
fn run(config: &EngineConfig, mailbox: &Mailbox, tell: &watch::Sender<EngineStatus>, pulse: &Arc<Pulse>) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(config, mailbox, tell, pulse)));
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

fn serve(
    config: &EngineConfig,
    mailbox: &Mailbox,
    tell: &watch::Sender<EngineStatus>,
    pulse: &Arc<Pulse>,
) -> Result<()> {
    let began = Instant::now();
    pulse.work(true);
    let threads = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n as usize,
    };
    let threads = i32::try_from(threads.min(512)).unwrap_or(1);
    backend::start()?;
    let gpu = if config.gpu_layers == 0 { None } else { backend::gpu_name() };
    let memory = gpu.as_ref().and_then(|_| backend::gpu_memory());
    let plan = match (&config.weight, memory) {
        _ if gpu.is_none() => Plan::asked(0),
        (Some(weight), Some((free, _))) if config.gpu_layers < 0 => {
            plan::plan(weight, u64::from(config.context_tokens) * u64::from(config.slots.max(1)), free)
        }
        _ => Plan::asked(config.gpu_layers),
    };
    if let Some(sentence) = &plan.sentence {
        tracing::warn!("{sentence}");
        tell.send_modify(|status| {
            let notice = status.notice.take().map_or_else(String::new, |notice| format!("{notice}; "));
            status.notice = Some(notice + sentence);
        });
    }
    let model = Model::load_telling(&config.language, plan.layers, pulse)?;
    pulse.beat();
    let eye =
        Eye::load(&config.projector, &model, config.frame_layout, plan.vision, threads, config.embedding_cache_bytes)?;
    let trained = model.n_ctx_train();
    let tokens_per_sequence = if trained > 0 { config.context_tokens.min(trained) } else { config.context_tokens };
    let kv = config.kv;
    let params =
        ContextParams { tokens_per_sequence, sequences: config.slots.max(1), batch: config.batch, threads, kv };
    let context = Context::new(&model, params)?;
    let (layout, speech) = (Layout::of(&model), SpeechTokens::of(&model));
    let mut session = Session::new(&model, context, config.slots.max(1) as usize).bridging(plan.layers != 0);
    session.tell(pulse);
    let at_once = config.at_once(plan.layers != 0);
    let load_s = began.elapsed().as_secs_f64();
    let device = gpu.as_deref().unwrap_or("cpu");
    let memory = gpu.as_ref().and_then(|_| gpu::memory());
    match memory {
        Some(memory) => tracing::info!(
            model = %config.name,
            device,
            layers = %plan.share(config.weight.map(|w| w.layers)),
            vision_on_gpu = plan.vision,
            gpu_used_mib = memory.used_bytes >> 20,
            gpu_mib = memory.total_bytes >> 20,
            kv = kv.name(),
            // llama.cpp's own choice, by what the device has.
            flash_attention = "auto",
            encode_ahead = config.encode_ahead.unwrap_or(plan.vision),
            load_s,
            "engine ready"
        ),
        None => tracing::info!(model = %config.name, device, load_s, "engine ready"),
    }
    tell.send_modify(|status| {
        status.state = EngineState::Ready;
        status.device = Some(gpu.unwrap_or_else(|| "cpu".to_owned()));
        status.gpu_memory = memory;
        status.context_tokens = u32::try_from(session.budget()).unwrap_or(u32::MAX);
        status.load_s = Some(load_s);
    });
    let _meter = memory.map(|_| gpu::Meter::start(tell.clone()));
    let mut desk = Desk::new(layout, speech, session, eye, at_once, Arc::clone(pulse));
    // A processor has nothing to spare while it computes everything.
    if !config.encode_ahead.unwrap_or(plan.vision) {
        desk.serve(mailbox);
        return Ok(());
    }
    std::thread::scope(|scope| {
        // Moved in, so that the thread is told to end before it is waited for.
        let mut desk = desk;
        desk.work_ahead(scope)?;
        desk.serve(mailbox);
        Ok(())
    })
}
