//! Puts the rooms together: engine, voice, streams with their sources, the HTTP face; and takes them apart in order.
//! Not here: what any of them does; from options to an engine (`model`), to a voice (`voice`), to LiveKit rooms (`rooms`);
//! what the service manager is told (`service`).

pub(crate) mod model;
mod rooms;
mod service;
mod voice;

#[cfg(feature = "ingest")]
use crate::commentary::StreamParts;
use crate::commentary::Streams;
#[cfg(feature = "ingest")]
use crate::config::VideoConfig;
use crate::config::{Config, ServerConfig, TlsChoice, VoiceConfig};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::speech::Pacing;
use crate::web::{self, Certificate, Tls, WebConfig};
#[cfg(feature = "ingest")]
use crate::window::{Bounds, SharedWindow};
use model::OpenEngine;
use rooms::Rooms;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// How often is said that there is no token.
const OPENNESS_WARNING: Duration = Duration::from_secs(3600);
/// The demo model's clip, beside its language model.
const CLIP: &str = "clip.webm";

/// Runs everything until `shutdown`.
///
/// # Errors
/// When the address is taken, GStreamer can't start, or the model that was named can't be used. No model at all,
/// or a source that can't be opened, is no error here: it is told in the status, and the rest works.
pub async fn run(mut config: Config, shutdown: Shutdown) -> Result<()> {
    let listener = web::bind(config.server.address)?;
    let tls = open_tls(&config.server).await?;
    let metrics = Arc::new(Metrics::new());
    let engine = model::open_or_tell(&config.model, &config.log).await?;
    config.commentary.sampling = config.commentary.sampling.or(engine.sampling);
    let outcome = serve(config, listener, tls, metrics, &engine, shutdown).await;
    // Also when nothing came of it: a process must not end under a thread that is loading a model.
    engine.stop().await;
    outcome
}

/// The engine is at work; everything else is opened, and closed at the end.
async fn serve(
    config: Config,
    listener: TcpListener,
    tls: Option<Tls>,
    metrics: Arc<Metrics>,
    engine: &OpenEngine,
    shutdown: Shutdown,
) -> Result<()> {
    let address = listener.local_addr().map_err(|e| Error::internal("server_address", e.to_string()))?;
    let named = named_files(&config, engine.demo.as_deref());
    let sources = Sources { own_port: address.port(), named };
    let voice = match &config.voice {
        Some(voice) => Some((voice::open(voice, engine.own_voice.clone()).await?, pacing(voice))),
        None => None,
    };
    let rooms = rooms::open(&config)?;
    let mut streams = open_streams(&config, &sources, rooms.clone(), Arc::clone(&engine.door), &metrics, &shutdown)?;
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
    let scheme = if tls.is_some() { "https" } else { "http" };
    tracing::info!("open {scheme}://{address}/ in a browser");
    let warned = tokio::spawn(warn_of_openness(config.server.clone(), address, shutdown.clone()));
    let web = WebConfig {
        api_token: config.server.api_token.clone(),
        tls,
        allowed_hosts: config.server.allowed_hosts.clone(),
        max_connections: config.server.max_connections,
        tickets: rooms.as_ref().map(Rooms::tickets),
        ..WebConfig::default()
    };
    let status = engine.door.status();
    let service = service::watch(status.clone(), Arc::clone(&streams), Arc::clone(&metrics), shutdown.clone());
    let service = tokio::spawn(service);
    web::serve(listener, streams, metrics, status, web, shutdown.clone()).await;
    if let Err(error) = service.await {
        tracing::error!(%error, "the service manager's task failed");
    }
    warned.abort();
    if let Some((voice, _)) = voice {
        voice.stop().await;
    }
    Ok(())
}

fn certificate(server: &ServerConfig) -> Option<Certificate> {
    match &server.tls {
        TlsChoice::Off => None,
        TlsChoice::SelfSigned(folder) => Some(Certificate::SelfSigned { folder: folder.clone() }),
        TlsChoice::Files { cert, key } => Some(Certificate::Files { chain: cert.clone(), key: key.clone() }),
    }
}

/// What the program that runs with this configuration says of its life.
///
/// # Errors
/// When it can't be reached, or a restart would help it.
pub async fn health(server: &ServerConfig) -> Result<String> {
    let ip = match server.address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    web::probe(SocketAddr::new(ip, server.address.port()), certificate(server).as_ref()).await
}

/// The certificate, when there is to be one.
async fn open_tls(server: &ServerConfig) -> Result<Option<Tls>> {
    let Some(certificate) = certificate(server) else { return Ok(None) };
    let mut names: Vec<_> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(Some(server.address.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()));
    names.extend(server.allowed_hosts.iter().filter(|host| *host != "*").cloned());
    names.dedup();
    let opened = tokio::task::spawn_blocking(move || Tls::open(&certificate, &names));
    let tls = opened.await.map_err(|e| Error::internal("tls_start", e.to_string()))??;
    tracing::info!("the certificate's SHA-256 fingerprint is {}", tls.fingerprint());
    Ok(Some(tls))
}

/// Says what an open address means, at the start and from then on every hour where there is no token.
async fn warn_of_openness(server: ServerConfig, address: SocketAddr, shutdown: Shutdown) {
    if address.ip().is_loopback() {
        return;
    }
    if server.api_token.is_some() {
        if server.tls == TlsChoice::Off {
            tracing::warn!("API_TOKEN crosses the network unencrypted: set TLS=self-signed, or put a proxy in front");
        }
        return;
    }
    loop {
        tracing::warn!("ALLOW_NO_TOKEN: EVERYONE who reaches {address} may watch every camera and steer everything");
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(OPENNESS_WARNING) => {}
        }
    }
}

fn pacing(config: &VoiceConfig) -> Pacing {
    Pacing { pause_after: config.pause_after, max_delay: config.max_delay, picture_delay: config.picture_delay }
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

/// What the sources' rules depend on beside the options.
#[cfg_attr(not(feature = "ingest"), expect(dead_code, reason = "there are no sources to rule over"))]
struct Sources {
    own_port: u16,
    /// Files that the operator named: clients may open them again.
    named: Vec<PathBuf>,
}

/// Paths among the sources that were named at the start, and the demo model's clip. That some are no paths does no harm.
fn named_files(config: &Config, demo: Option<&Path>) -> Vec<PathBuf> {
    let named = config.streams.iter().filter_map(|s| s.source.as_ref()).map(|source| {
        let text = source.expose();
        PathBuf::from(text.strip_prefix("file://").unwrap_or(text))
    });
    named.filter(|path| path.is_file()).chain(demo.map(|folder| folder.join(CLIP))).collect()
}

#[cfg(feature = "ingest")]
fn open_streams(
    config: &Config,
    sources: &Sources,
    rooms: Option<Rooms>,
    engine: Arc<dyn Engine>,
    metrics: &Arc<Metrics>,
    shutdown: &Shutdown,
) -> Result<Streams> {
    use crate::audio::AudioHub;
    use crate::bus::Bus;
    crate::ingest::init()?;
    let video = ingest_config(&config.video, sources);
    crate::ingest::guard_connections(&video.client_policy);
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
fn ingest_config(video: &VideoConfig, sources: &Sources) -> crate::ingest::IngestConfig {
    use crate::config::{Decoder, RtspTransport};
    use crate::ingest::{DecoderChoice, Files, IngestConfig, Policy, RtspTransport as Transport};
    let policy = Policy { own_port: Some(sources.own_port), ..Policy::default() };
    let mut folders = vec![video.media_dir.clone()];
    folders.extend(sources.named.iter().cloned());
    IngestConfig {
        client_policy: Policy { private: video.private_sources, files: Files::Under(folders), ..policy.clone() },
        policy,
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
fn open_streams(
    _: &Config,
    _: &Sources,
    _: Option<Rooms>,
    _: Arc<dyn Engine>,
    _: &Arc<Metrics>,
    _: &Shutdown,
) -> Result<Streams> {
    Err(Error::unavailable("ingest_not_built", "this build has no video sources")
        .hint("build with the feature `ingest`"))
}
