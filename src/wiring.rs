//! Puts the rooms together: engine, streams with their sources, the HTTP face; and takes them apart in order.
//! Not here: what any of them does.

#[cfg(feature = "ingest")]
use crate::commentary::StreamParts;
use crate::commentary::Streams;
#[cfg(feature = "ingest")]
use crate::config::VideoConfig;
use crate::config::{Config, ModelConfig};
use crate::engine::{AbsentEngine, Engine};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::models::{self, ModelFiles};
use crate::shutdown::Shutdown;
use crate::web::{self, WebConfig};
#[cfg(feature = "ingest")]
use crate::window::{Bounds, SharedWindow};
use std::sync::Arc;
#[cfg(feature = "llama")]
use std::time::Duration;

/// Time for the engine's thread to come to its end.
#[cfg(feature = "llama")]
const ENGINE_GRACE: Duration = Duration::from_secs(3);

/// Runs everything until `shutdown`.
///
/// # Errors
/// When the address is taken, GStreamer can't start, or the model that was named can't be used. No model at all,
/// or a source that can't be opened, is no error here: it is told in the status, and the rest works.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<()> {
    let listener = web::bind(config.server.address)?;
    let address = listener.local_addr().map_err(|e| Error::internal("server_address", e.to_string()))?;
    let metrics = Arc::new(Metrics::new());
    let engine = open_engine(&config.model).await?;
    let streams = Arc::new(open_streams(&config, Arc::clone(&engine.door), &metrics, &shutdown)?);
    for stream in &config.streams {
        let (handle, _) = streams.ensure(&stream.name)?;
        if stream.instruction.is_some() || stream.profile.is_some() {
            handle.instruct(stream.instruction.as_deref(), stream.profile.as_deref())?;
        }
        if let Some(source) = &stream.source {
            handle.start(source.expose(), None).await?;
        }
    }
    tracing::info!("open http://{address}/ in a browser");
    let web = WebConfig {
        api_token: config.server.api_token.clone(),
        allowed_hosts: config.server.allowed_hosts.clone(),
        max_connections: config.server.max_connections,
        ..WebConfig::default()
    };
    web::serve(listener, streams, metrics, engine.door.status(), web, shutdown.clone()).await;
    engine.stop().await;
    Ok(())
}

/// The engine's door, and how to end what is behind it.
struct OpenEngine {
    door: Arc<dyn Engine>,
    #[cfg(feature = "llama")]
    llama: Option<Arc<crate::engine::LlamaEngine>>,
}

impl OpenEngine {
    fn absent(why: &Error, failed: bool) -> Self {
        tracing::warn!("{why}");
        Self {
            door: Arc::new(AbsentEngine::new(why, failed)),
            #[cfg(feature = "llama")]
            llama: None,
        }
    }

    /// Waits for the engine's thread, but not for ever: a frame that is being encoded can't be interrupted.
    async fn stop(self) {
        #[cfg(feature = "llama")]
        if let Some(llama) = self.llama {
            let stopped = tokio::task::spawn_blocking(move || llama.stop());
            if tokio::time::timeout(ENGINE_GRACE, stopped).await.is_err() {
                tracing::warn!("the engine is still at work; ending without it");
            }
        }
    }
}

/// Finds, inspects and starts the model. One that was named must work; of those found by ourselves a broken one
/// becomes the engine's status.
async fn open_engine(config: &ModelConfig) -> Result<OpenEngine> {
    let (path, dir) = (config.path.clone(), config.dir.clone());
    // Inspection reads headers from disk.
    let found = tokio::task::spawn_blocking(move || match path {
        // A file that is no language model is told so, before anything is looked for beside it.
        Some(path) if path.is_file() => models::inspect_language_model(&path).and_then(|_| models::find(&path)),
        Some(path) => models::find(&path),
        None => models::find_default(&dir),
    });
    let found = found.await.map_err(|e| Error::internal("model_search", e.to_string()))?;
    let opened = match found {
        Ok(files) => start_engine(config, files).await,
        Err(e) => Err(e),
    };
    match opened {
        Err(e) if config.path.is_none() && e.code == "model_none_installed" => {
            let hint = advice();
            Ok(OpenEngine::absent(&e.hint(hint), false))
        }
        Err(e) if config.path.is_none() => Ok(OpenEngine::absent(&e, true)),
        opened => opened,
    }
}

/// Which command gets a model, and what it weighs.
fn advice() -> String {
    let Ok(catalog) = models::Catalog::builtin() else { return "`vidette models` lists what there is".to_owned() };
    let line = |name: &str| {
        let entry = catalog.get(name).ok()?;
        let (bytes, _) = entry.known_bytes(|f| matches!(f.role, models::Role::Language | models::Role::Vision));
        Some(format!("`vidette pull {name}` gets {} ({:.1} GB)", entry.title, bytes as f64 / 1e9))
    };
    let lines: Vec<_> = ["minicpm-o-4.5", "minicpm-v-4.6"].iter().filter_map(|name| line(name)).collect();
    lines.join("; ")
}

#[cfg(feature = "llama")]
async fn start_engine(config: &ModelConfig, files: ModelFiles) -> Result<OpenEngine> {
    use crate::engine::{EngineConfig, FrameLayout, LlamaEngine};
    for note in &files.notes {
        tracing::info!("{note}");
    }
    let inspected = tokio::task::spawn_blocking(move || {
        let language = models::inspect_language_model(&files.language)?;
        let projector = models::inspect_projector(&files.projector)?;
        models::check_pair(&language, &projector)?;
        Ok::<_, Error>((language, projector))
    });
    let (language, projector) = inspected.await.map_err(|e| Error::internal("model_inspection", e.to_string()))??;
    let file_name = || language.path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let name = language.name.clone().unwrap_or_else(file_name);
    let warning =
        language.random.then(|| format!("{name} has RANDOM WEIGHTS: what it writes means nothing; {}", advice()));
    if let Some(warning) = &warning {
        tracing::warn!("{warning}");
    }
    let resampler = projector.projector_type == "resampler";
    let engine = Arc::new(LlamaEngine::spawn(EngineConfig {
        frame_layout: if resampler { FrameLayout::OneSlice } else { FrameLayout::Whole },
        name,
        warning,
        context_tokens: config.context_tokens,
        slots: config.slots,
        batch: 512,
        threads: config.threads,
        gpu_layers: config.gpu_layers,
        embedding_cache_bytes: config.embedding_cache_bytes,
        language: language.path,
        projector: projector.path,
    })?);
    Ok(OpenEngine { door: Arc::clone(&engine) as Arc<dyn Engine>, llama: Some(engine) })
}

#[cfg(not(feature = "llama"))]
async fn start_engine(_: &ModelConfig, _: ModelFiles) -> Result<OpenEngine> {
    Err(Error::unavailable("engine_not_built", "this build has no engine").hint("build with the feature `llama`"))
}

#[cfg(feature = "ingest")]
fn open_streams(
    config: &Config,
    engine: Arc<dyn Engine>,
    metrics: &Arc<Metrics>,
    shutdown: &Shutdown,
) -> Result<Streams> {
    use crate::bus::Bus;
    crate::ingest::init()?;
    let video = ingest_config(&config.video);
    let bounds: Bounds = config.window;
    let (make_metrics, make_shutdown) = (Arc::clone(metrics), shutdown.clone());
    let make = move |name: &str| {
        let (window, bus) = (Arc::new(SharedWindow::new(bounds)), Arc::new(Bus::new()));
        let (source, _task) = crate::ingest::spawn(
            name,
            video.clone(),
            Arc::clone(&window),
            Arc::clone(&bus),
            Arc::clone(&make_metrics),
            make_shutdown.clone(),
        );
        StreamParts { window, bus, source }
    };
    Ok(Streams::new(Box::new(make), config.commentary.clone(), engine, Arc::clone(metrics), shutdown.clone()))
}

#[cfg(feature = "ingest")]
fn ingest_config(video: &VideoConfig) -> crate::ingest::IngestConfig {
    use crate::config::{Decoder, RtspTransport};
    use crate::ingest::{DecoderChoice, IngestConfig, RtspTransport as Transport};
    IngestConfig {
        capture_fps: video.capture_fps,
        jpeg_fps: video.jpeg_fps,
        jpeg_width: video.jpeg_width,
        jpeg_quality: u8::try_from(video.jpeg_quality).unwrap_or(80),
        reconnect_delay: video.reconnect_delay,
        max_reconnect_delay: video.max_reconnect_delay,
        stall_timeout: video.stall_timeout,
        looping: video.looping,
        rtsp_transport: match video.rtsp_transport {
            RtspTransport::Auto => Transport::Auto,
            RtspTransport::Tcp => Transport::Tcp,
            RtspTransport::Udp => Transport::Udp,
        },
        decoder: match video.decoder {
            Decoder::Auto => DecoderChoice::Auto,
            Decoder::Hardware => DecoderChoice::Hardware,
            Decoder::Software => DecoderChoice::Software,
        },
        ..IngestConfig::default()
    }
}

#[cfg(not(feature = "ingest"))]
fn open_streams(_: &Config, _: Arc<dyn Engine>, _: &Arc<Metrics>, _: &Shutdown) -> Result<Streams> {
    Err(Error::unavailable("ingest_not_built", "this build has no video sources")
        .hint("build with the feature `ingest`"))
}
