//! Puts the rooms together: engine, voice, streams with their sources, the HTTP face; and takes them apart in order.
//! Not here: what any of them does; from options to an engine (`model`), to a voice (`voice`), to LiveKit rooms (`rooms`).

pub(crate) mod model;
mod rooms;
mod voice;

#[cfg(feature = "ingest")]
use crate::commentary::StreamParts;
use crate::commentary::Streams;
#[cfg(feature = "ingest")]
use crate::config::VideoConfig;
use crate::config::{Config, VoiceConfig};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::speech::Pacing;
use crate::web::{self, WebConfig};
#[cfg(feature = "ingest")]
use crate::window::{Bounds, SharedWindow};
use model::OpenEngine;
use rooms::Rooms;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The demo model's clip, beside its language model.
const CLIP: &str = "clip.webm";

/// Runs everything until `shutdown`.
///
/// # Errors
/// When the address is taken, GStreamer can't start, or the model that was named can't be used. No model at all,
/// or a source that can't be opened, is no error here: it is told in the status, and the rest works.
pub async fn run(mut config: Config, shutdown: Shutdown) -> Result<()> {
    let listener = web::bind(config.server.address)?;
    let metrics = Arc::new(Metrics::new());
    let engine = model::open_or_tell(&config.model).await?;
    config.commentary.sampling = config.commentary.sampling.or(engine.sampling);
    let outcome = serve(config, listener, metrics, &engine, shutdown).await;
    // Also when nothing came of it: a process must not end under a thread that is loading a model.
    engine.stop().await;
    outcome
}

/// The engine is at work; everything else is opened, and closed at the end.
async fn serve(
    config: Config,
    listener: TcpListener,
    metrics: Arc<Metrics>,
    engine: &OpenEngine,
    shutdown: Shutdown,
) -> Result<()> {
    let address = listener.local_addr().map_err(|e| Error::internal("server_address", e.to_string()))?;
    let voice = config.voice.as_ref().map(|v| Ok::<_, Error>((voice::open(v, engine.mute.as_deref())?, pacing(v))));
    let voice = voice.transpose()?;
    let rooms = rooms::open(&config)?;
    let mut streams = open_streams(&config, rooms.clone(), Arc::clone(&engine.door), &metrics, &shutdown)?;
    if let Some((voice, pacing)) = &voice {
        streams = streams.with_voice(Arc::clone(&voice.door), *pacing);
    }
    let streams = Arc::new(streams);
    for stream in &config.streams {
        let (handle, _) = streams.ensure(&stream.name)?;
        if stream.instruction.is_some() || stream.profile.is_some() {
            handle.instruct(stream.instruction.as_deref(), stream.profile.as_deref())?;
        }
        if let Some(source) = &stream.source {
            handle.start(source.expose(), None).await?;
        }
    }
    if let Some(folder) = engine.demo.as_deref().filter(|_| config.streams.iter().all(|s| s.source.is_none())) {
        play_clip(&streams, folder).await;
    }
    tracing::info!("open http://{address}/ in a browser");
    let web = WebConfig {
        api_token: config.server.api_token.clone(),
        allowed_hosts: config.server.allowed_hosts.clone(),
        max_connections: config.server.max_connections,
        tickets: rooms.as_ref().map(Rooms::tickets),
        ..WebConfig::default()
    };
    web::serve(listener, streams, metrics, engine.door.status(), web, shutdown.clone()).await;
    if let Some((voice, _)) = voice {
        voice.stop().await;
    }
    Ok(())
}

fn pacing(config: &VoiceConfig) -> Pacing {
    Pacing { pause_after: config.pause_after, max_delay: config.max_delay }
}

/// Nobody named a source, so the demo model shows itself on the clip that comes with it. Without the clip there is
/// nothing to show, and nothing is wrong.
async fn play_clip(streams: &Streams, folder: &Path) {
    let clip = folder.join(CLIP);
    let Some(source) = clip.to_str().filter(|_| clip.is_file()) else { return };
    let started = match streams.list().first() {
        Some(stream) => stream.start(source, None).await,
        None => return,
    };
    match started {
        Ok(()) => tracing::info!("no source was named: playing the demo model's own clip, {source}"),
        Err(e) => tracing::warn!("the demo model's clip can't be played: {e}"),
    }
}

#[cfg(feature = "ingest")]
fn open_streams(
    config: &Config,
    rooms: Option<Rooms>,
    engine: Arc<dyn Engine>,
    metrics: &Arc<Metrics>,
    shutdown: &Shutdown,
) -> Result<Streams> {
    use crate::audio::AudioHub;
    use crate::bus::Bus;
    crate::ingest::init()?;
    let video = ingest_config(&config.video);
    let bounds: Bounds = config.window;
    let (make_metrics, make_shutdown) = (Arc::clone(metrics), shutdown.clone());
    let make = move |name: &str| {
        let (window, bus) = (Arc::new(SharedWindow::new(bounds)), Arc::new(Bus::new()));
        let sound = Arc::new(AudioHub::of_source(name, Arc::clone(&make_metrics)));
        let (camera, room) = rooms.as_ref().and_then(|rooms| rooms.join(name, &make_shutdown)).unzip();
        let (source, _task) = crate::ingest::spawn_with_sound(
            name,
            video.clone(),
            Arc::clone(&window),
            (Arc::clone(&bus), Arc::clone(&sound)),
            Arc::clone(&make_metrics),
            camera,
            make_shutdown.clone(),
        );
        StreamParts { window, bus, source, sound: Some(sound), room }
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
        sound: video.sound,
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
fn open_streams(_: &Config, _: Option<Rooms>, _: Arc<dyn Engine>, _: &Arc<Metrics>, _: &Shutdown) -> Result<Streams> {
    Err(Error::unavailable("ingest_not_built", "this build has no video sources")
        .hint("build with the feature `ingest`"))
}
