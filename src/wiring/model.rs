//! From options to an engine at work: finds the model's files, has them inspected, starts the engine on them.
//! `run` and `ask` load a model by this one path. Not here: inspection itself (`models`), the engine (`engine`).

#[cfg(feature = "llama")]
use crate::config::EngineProcess;
use crate::config::ModelConfig;
use crate::engine::{AbsentEngine, Engine, EngineState, SamplingChoice};
#[cfg(feature = "llama")]
use crate::engine::{EngineConfig, LlamaEngine, ModelWeight};
use crate::error::{Error, Result};
use crate::models::{self, ModelFiles};
#[cfg(feature = "llama")]
use crate::wall::{Launch, ProcessEngine};
use std::path::PathBuf;
use std::sync::Arc;
#[cfg(feature = "llama")]
use std::time::Duration;

/// Time for the engine's thread to come to its end.
#[cfg(feature = "llama")]
const ENGINE_GRACE: Duration = Duration::from_secs(3);
/// The model that the advice names first, and the one for machines without a GPU.
const ADVISED: [&str; 2] = ["minicpm-o-4.5", "minicpm-v-4.6"];

/// What the demo model is, in words for the log and the page.
#[cfg(feature = "llama")]
const DEMO: &str = "This is the small built-in demo model, which only knows simple drawn scenes: coloured shapes, \
                    short texts, test pictures";

/// The engine's door, what is known of the model behind it, and how to end it.
pub struct OpenEngine {
    pub door: Arc<dyn Engine>,
    /// How the model's makers want its words chosen.
    pub sampling: SamplingChoice,
    /// The folder of the demo model, when that is what was loaded.
    pub demo: Option<PathBuf>,
    /// What the model speaks with, or what it lacks for that, in words.
    pub own_voice: std::result::Result<OwnVoice, String>,
    #[cfg(feature = "llama")]
    behind: Option<Behind>,
}

/// What is behind the door.
#[cfg(feature = "llama")]
enum Behind {
    Thread(Arc<LlamaEngine>),
    Process(Arc<ProcessEngine>),
}

#[cfg(feature = "llama")]
impl Behind {
    fn stop(&self) {
        match self {
            Self::Thread(engine) => engine.stop(),
            Self::Process(engine) => engine.stop(),
        }
    }
}

/// A model that has files to speak with its own voice; they were not looked into.
#[derive(Clone)]
#[cfg_attr(not(feature = "llama"), expect(dead_code, reason = "a build without an engine has no model to speak"))]
pub struct OwnVoice {
    pub files: ModelFiles,
    /// Width of the language model.
    pub width: usize,
    /// Tokens that it can write.
    pub tokens: usize,
    /// May use a GPU.
    pub gpu: bool,
    /// 0 takes one for each core.
    pub threads: u32,
    /// The process that the engine runs in, and the voice should; `None` for this one.
    #[cfg(feature = "llama")]
    pub process: Option<Arc<ProcessEngine>>,
}

impl OpenEngine {
    fn absent(why: &Error, failed: bool) -> Self {
        tracing::warn!("{why}");
        Self {
            door: Arc::new(AbsentEngine::new(why, failed)),
            sampling: SamplingChoice::default(),
            demo: None,
            own_voice: Err("there is no model".to_owned()),
            #[cfg(feature = "llama")]
            behind: None,
        }
    }

    /// Waits until the model is loaded.
    ///
    /// # Errors
    /// When it can't be loaded.
    pub async fn ready(&self) -> Result<()> {
        let mut status = self.door.status();
        let loaded = status.wait_for(|s| s.state != EngineState::Loading).await;
        let (state, message) = match loaded {
            Ok(status) => (status.state, status.message.clone()),
            Err(_) => (EngineState::Failed, None),
        };
        if state == EngineState::Ready {
            return Ok(());
        }
        let message = message.unwrap_or_else(|| "the engine's thread has ended".to_owned());
        Err(Error::unavailable("engine_failed", message))
    }

    /// Ends the engine's process; waits for its thread, but not for ever: a frame that is being encoded can't be
    /// interrupted.
    pub async fn stop(self) {
        #[cfg(feature = "llama")]
        if let Some(behind) = self.behind {
            let stopped = tokio::task::spawn_blocking(move || behind.stop());
            if tokio::time::timeout(ENGINE_GRACE, stopped).await.is_err() {
                tracing::warn!("the engine is still at work; ending without it");
            }
        }
    }
}

/// Finds, inspects and starts the model inside this process.
///
/// # Errors
/// When there is no model, or the one that was found can't be used.
pub async fn open(config: &ModelConfig) -> Result<OpenEngine> {
    open_at(config, None).await
}

/// As [`open`], in a process of its own when `log` gives what that process logs.
async fn open_at(config: &ModelConfig, log: Option<&str>) -> Result<OpenEngine> {
    let (path, dir) = (config.path.clone(), config.dir.clone());
    // Inspection reads headers from disk.
    let found = tokio::task::spawn_blocking(move || match path {
        // A file that is no language model is told so, before anything is looked for beside it.
        Some(path) if path.is_file() => models::inspect_language_model(&path).and_then(|_| models::find(&path)),
        Some(path) => models::find(&path),
        None => models::find_default(&dir),
    });
    let found = found.await.map_err(|e| Error::internal("model_search", e.to_string()))?;
    let files = found.map_err(|e| if e.code == NONE { e.hint(advice(&ADVISED)) } else { e })?;
    start(config, files, log).await
}

/// The code of there being no model at all.
const NONE: &str = "model_none_installed";

/// As [`open`], for a program that goes on without a model: one that was named must work; of those found by
/// ourselves a broken one becomes the engine's status. It runs where the configuration wants it; `log` is what a
/// process of its own logs.
///
/// # Errors
/// When the model that was named can't be used.
pub async fn open_or_tell(config: &ModelConfig, log: &str) -> Result<OpenEngine> {
    match open_at(config, Some(log)).await {
        Err(e) if config.path.is_none() => Ok(OpenEngine::absent(&e, e.code != NONE)),
        opened => opened,
    }
}

/// Which commands get these models, and what they weigh.
fn advice(names: &[&str]) -> String {
    let Ok(catalog) = models::Catalog::builtin() else { return "`vidette models` lists what there is".to_owned() };
    let line = |name: &&str| {
        let entry = catalog.get(name).ok()?;
        let (bytes, _) = entry.known_bytes(|f| matches!(f.role, models::Role::Language | models::Role::Vision));
        Some(format!("`vidette pull {name}` gets {} ({:.1} GB)", entry.title, bytes as f64 / 1e9))
    };
    names.iter().filter_map(line).collect::<Vec<_>>().join("; ")
}

/// What is missing beside the model for its own voice.
#[cfg(feature = "llama")]
fn lacks_to_speak(files: &ModelFiles) -> Option<String> {
    let folder = files.language.parent().unwrap_or(std::path::Path::new("."));
    let parts = [
        (files.tts.is_none(), "tts/…-tts-….gguf"),
        (files.tts_projector.is_none(), "tts/…-projector-….gguf"),
        (files.token2wav.is_none(), "token2wav-gguf/ with its five files"),
    ];
    let missing: Vec<_> = parts.into_iter().filter(|(missing, _)| *missing).map(|(_, file)| file).collect();
    (!missing.is_empty()).then(|| format!("{} has no {}", folder.display(), missing.join(", no ")))
}

#[cfg(feature = "llama")]
/// The advice of the model's file in the engine's words.
fn choice(advice: models::SamplingAdvice) -> SamplingChoice {
    SamplingChoice {
        temperature: advice.temperature,
        top_p: advice.top_p,
        top_k: advice.top_k,
        min_p: advice.min_p,
        repeat_penalty: advice.repeat_penalty,
        seed: None,
    }
}

/// Has llama.cpp look for its plugins where the configuration says. Only before it starts.
#[cfg(feature = "llama")]
pub fn find_backends(config: &ModelConfig) {
    if let Some(folder) = &config.backends {
        crate::engine::look_for_backends_in(folder.clone());
    }
}

#[cfg(feature = "llama")]
async fn start(config: &ModelConfig, files: ModelFiles, log: Option<&str>) -> Result<OpenEngine> {
    use crate::engine::FrameLayout;
    for note in &files.notes {
        tracing::info!("{note}");
    }
    let (mute, voice_files) = (lacks_to_speak(&files), files.clone());
    let inspected = tokio::task::spawn_blocking(move || {
        let language = models::inspect_language_model(&files.language)?;
        let projector = models::inspect_projector(&files.projector)?;
        models::check_pair(&language, &projector)?;
        Ok::<_, Error>((language, projector))
    });
    let (language, projector) = inspected.await.map_err(|e| Error::internal("model_inspection", e.to_string()))??;
    let file_name = || language.path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let name = language.name.clone().unwrap_or_else(file_name);
    let warning = language
        .random
        .then(|| format!("{name} has RANDOM WEIGHTS: what it writes means nothing; {}", advice(&ADVISED)));
    if let Some(warning) = &warning {
        tracing::warn!("{warning}");
    }
    let notice = language.demo.then(|| format!("{DEMO}; {}", advice(&ADVISED[..1])));
    if let Some(notice) = &notice {
        tracing::info!("{notice}");
    }
    if !language.sampling.is_empty() {
        tracing::info!("{name} recommends {}; options that are set go over that", language.sampling);
    }
    let resampler = projector.projector_type == "resampler";
    let demo = language.demo.then(|| language.path.parent().map(std::path::Path::to_owned)).flatten();
    let sampling = choice(language.sampling);
    let (width, tokens) = (language.n_embd as usize, language.n_vocab as usize);
    let weight = ModelWeight {
        language_bytes: language.bytes,
        vision_bytes: projector.bytes,
        layers: language.n_layer,
        cell_bytes: config.kv.bytes(2 * u64::from(language.n_head_kv) * u64::from(language.head_dim)),
    };
    let engine = EngineConfig {
        weight: Some(weight),
        kv: config.kv,
        frame_layout: if resampler { FrameLayout::OneSlice } else { FrameLayout::Whole },
        name,
        warning,
        notice,
        context_tokens: config.context_tokens,
        slots: config.slots,
        parallel: config.parallel,
        threads: config.threads,
        gpu_layers: config.gpu_layers,
        embedding_cache_bytes: config.embedding_cache_bytes,
        encode_ahead: config.encode_ahead,
        ..EngineConfig::new(language.path, projector.path)
    };
    let (door, behind): (Arc<dyn Engine>, _) = match log.filter(|_| config.process == EngineProcess::Child) {
        Some(log) => {
            let engine = Arc::new(ProcessEngine::spawn(launch(config, log), engine)?);
            (Arc::clone(&engine) as _, Behind::Process(engine))
        }
        None => {
            find_backends(config);
            let engine = Arc::new(LlamaEngine::spawn(engine)?);
            (Arc::clone(&engine) as _, Behind::Thread(engine))
        }
    };
    let process = match &behind {
        Behind::Process(engine) => Some(Arc::clone(engine)),
        Behind::Thread(_) => None,
    };
    let own_voice = match mute {
        None => Ok(OwnVoice {
            files: voice_files,
            width,
            tokens,
            gpu: config.gpu_layers != 0,
            threads: config.threads,
            process,
        }),
        Some(lack) => Err(lack),
    };
    Ok(OpenEngine { door, sampling, demo, own_voice, behind: Some(behind) })
}

#[cfg(feature = "llama")]
fn launch(config: &ModelConfig, log: &str) -> Launch {
    Launch {
        program: Launch::own_program(),
        environment: crate::config::child_environment(),
        log: log.to_owned(),
        stall: config.stall_timeout,
        backends: config.backends.clone(),
    }
}

#[cfg(not(feature = "llama"))]
async fn start(_: &ModelConfig, _: ModelFiles, _: Option<&str>) -> Result<OpenEngine> {
    Err(Error::unavailable("engine_not_built", "this build has no engine").hint("build with the feature `llama`"))
}
