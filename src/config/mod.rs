//! Configuration: flags over environment over file over defaults, checked before anything starts.
//! The only room that knows clap and reads the environment. Not here: what is done with the values.

mod args;
mod livekit;
mod options;

pub use args::{
    Arguments, AskArguments, BenchArguments, Command, ModelsArguments, PullArguments, RandomChoice, RunArguments,
    WeightChoice,
};
pub use livekit::LiveKitOptions;
pub use options::{Options, StreamOptions};

use crate::commentary::{PROFILES, Profile, Settings};
use crate::engine::{KvType, SamplingChoice};
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::window::{Bounds, Pick};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Read when `--config` names no other.
const DEFAULT_FILE: &str = "vidette.yaml";
/// Largest configuration file that is read, bytes.
const MAX_FILE: u64 = 1 << 20;
/// Shortest API token that is taken.
const MIN_TOKEN: usize = 16;

/// RTP transport of RTSP sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtspTransport {
    Auto,
    Tcp,
    Udp,
}

/// Which decoders to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    Auto,
    Hardware,
    Software,
}

/// One camera.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamConfig {
    pub name: String,
    /// `None` waits for `POST /api/start`.
    pub source: Option<Secret<String>>,
    pub instruction: Option<String>,
    pub profile: Option<String>,
}

/// Values of the video edge.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoConfig {
    pub capture_fps: f64,
    pub jpeg_fps: f64,
    /// 0 keeps the source's width.
    pub jpeg_width: u32,
    pub jpeg_quality: u32,
    pub looping: bool,
    /// Files that clients of the API may name lie here.
    pub media_dir: PathBuf,
    /// Clients of the API may name addresses of private networks.
    pub private_sources: bool,
    /// The source's own sound is offered.
    pub sound: bool,
    pub rtsp_transport: RtspTransport,
    pub decoder: Decoder,
    pub reconnect_delay: Duration,
    pub max_reconnect_delay: Duration,
    pub stall_timeout: Duration,
}

/// Where the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineProcess {
    Child,
    Inside,
}

/// Values of the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `None` looks through `dir`.
    pub path: Option<PathBuf>,
    pub dir: PathBuf,
    pub context_tokens: u32,
    pub slots: u32,
    pub parallel: u32,
    pub threads: u32,
    pub gpu_layers: i32,
    pub kv: KvType,
    /// Where GPU backends lie; `None` for the place beside the program.
    pub backends: Option<PathBuf>,
    pub embedding_cache_bytes: usize,
    /// Frames are encoded beside the language model; `None` does so on a GPU.
    pub encode_ahead: Option<bool>,
    pub process: EngineProcess,
    pub stall_timeout: Duration,
}

/// Which voice speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoiceChoice {
    /// The model's own if its files are there, else espeak-ng.
    Auto,
    MiniCpmO,
    Espeak,
}

/// Values of the voice.
#[derive(Debug, Clone, PartialEq)]
pub struct VoiceConfig {
    pub choice: VoiceChoice,
    pub espeak_voice: String,
    /// The voice file that was chosen for the model's own voice, in place of the one that came with it.
    pub ref_audio_path: Option<PathBuf>,
    /// Where programs are found; empty when `PATH` is not set.
    pub search_path: String,
    pub pause_after: Duration,
    pub max_delay: Duration,
    /// How long pictures wait at first so that they agree with the voice; `None` when they do not.
    pub picture_delay: Option<Duration>,
}

/// How HTTPS is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsChoice {
    Off,
    /// With a certificate that is made and kept in this folder.
    SelfSigned(PathBuf),
    Files {
        cert: PathBuf,
        key: PathBuf,
    },
}

/// Values of the HTTP face.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    pub address: SocketAddr,
    pub api_token: Option<Secret<String>>,
    pub tls: TlsChoice,
    pub allowed_hosts: Vec<String>,
    pub max_connections: usize,
}

/// All that `run` needs: units parsed, ranges checked, nothing left open by accident.
#[derive(Debug, Clone)]
pub struct Config {
    pub streams: Vec<StreamConfig>,
    pub video: VideoConfig,
    pub window: Bounds,
    pub model: ModelConfig,
    pub commentary: Settings,
    /// `None` when it is off.
    pub voice: Option<VoiceConfig>,
    /// `None` when it is off.
    pub livekit: Option<LiveKitOptions>,
    pub server: ServerConfig,
    pub log: String,
}

/// Where environment variables come from; tests give their own.
pub trait Environment {
    /// The variable's value, if it is set.
    fn get(&self, name: &str) -> Option<String>;
}

/// The process's own environment.
#[derive(Debug, Clone, Copy)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Variables that a child process needs to find libraries and devices, and to be as this one is.
const CHILD_NAMES: [&str; 8] =
    ["PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "RUST_BACKTRACE"];
/// Beginnings of the names of such variables: of llama.cpp, GPU runtimes, threads and memory.
const CHILD_PREFIXES: [&str; 12] =
    ["GGML_", "LLAMA_", "MTMD_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "VK_", "OMP_", "GOMP_", "MALLOC_"];

/// What of the process's own environment the engine's process gets: no camera's password, no token.
pub fn child_environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_for_child)).collect()
}

fn is_for_child(name: &str) -> bool {
    CHILD_NAMES.contains(&name) || name.starts_with("LC_") || CHILD_PREFIXES.iter().any(|p| name.starts_with(p))
}

impl Config {
    /// The configuration of a command line (with the environment already taken in by clap) and its file.
    ///
    /// # Errors
    /// When a value is out of range, the file can't be read, or the whole would be unsafe.
    pub fn load(arguments: RunArguments, environment: &dyn Environment) -> Result<Self> {
        let options = with_file(arguments.options, arguments.config.as_deref())?;
        Self::new(arguments.source, options, environment)
    }

    /// The configuration of `ask`: what concerns cameras and the server is left out, so that nothing about them
    /// can be wrong, and by default only warnings are logged.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn for_asking(arguments: AskArguments, environment: &dyn Environment) -> Result<Self> {
        let options = with_file(arguments.options, arguments.config.as_deref())?;
        let options = Options {
            streams: BTreeMap::new(),
            server_host: None,
            api_token: None,
            livekit_enabled: None,
            log: options.log.or_else(|| Some("warn".to_owned())),
            ..options
        };
        Self::new(None, options, environment)
    }

    /// The configuration of these options; see [`load`](Self::load).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn new(source: Option<String>, o: Options, environment: &dyn Environment) -> Result<Self> {
        let profile = find_profile(o.profile.as_deref().unwrap_or(PROFILES[0].name))?;
        let pick = Pick {
            frames: within("FRAMES_PER_INFERENCE", o.frames_per_inference.unwrap_or(4), 1, 64)?,
            stride: within("FRAME_STRIDE", o.frame_stride.unwrap_or(2), 1, 64)?,
        };
        let reconnect_delay = seconds("RECONNECT_DELAY", o.reconnect_delay.unwrap_or(1.0), 0.05, 3600.0)?;
        let max_reconnect_delay =
            seconds("MAX_RECONNECT_DELAY", o.max_reconnect_delay.unwrap_or(30.0), 0.05, 86_400.0)?;
        if max_reconnect_delay < reconnect_delay {
            return Err(bad("MAX_RECONNECT_DELAY", "must not be less than RECONNECT_DELAY"));
        }
        let mib = |name, value: Option<u32>| {
            Ok::<_, Error>(within(name, value.unwrap_or(64), 1, 65_536)? as usize * (1 << 20))
        };
        let commentary = Settings {
            pick,
            interval: seconds("INFERENCE_INTERVAL", o.inference_interval.unwrap_or(1.0), 0.0, 3600.0)?,
            change_threshold: within("CHANGE_THRESHOLD", o.change_threshold.unwrap_or(0.04), 0.0, 1.0)?,
            max_tokens: within("MAX_TOKENS", o.max_tokens.unwrap_or(128), 1, 4096)?,
            sampling: sampling(&o)?,
            profile,
            instruction: o.instruction.clone(),
        };
        Ok(Self {
            streams: streams(source, &o, environment)?,
            video: VideoConfig {
                capture_fps: within("CAPTURE_FPS", o.capture_fps.unwrap_or(2.0), 0.05, 60.0)?,
                jpeg_fps: within("JPEG_FPS", o.jpeg_fps.unwrap_or(25.0), 0.1, 60.0)?,
                jpeg_width: within("JPEG_WIDTH", o.jpeg_width.unwrap_or(1280), 0, 8192)?,
                jpeg_quality: within("JPEG_QUALITY", o.jpeg_quality.unwrap_or(80), 1, 100)?,
                looping: !o.no_loop.unwrap_or(false),
                media_dir: o.media_dir.clone().unwrap_or_else(|| PathBuf::from("media")),
                private_sources: o.allow_private_sources.unwrap_or(true),
                sound: !o.no_source_audio.unwrap_or(false),
                rtsp_transport: one_of(
                    "RTSP_TRANSPORT",
                    o.rtsp_transport.as_deref().unwrap_or("auto"),
                    &[("auto", RtspTransport::Auto), ("tcp", RtspTransport::Tcp), ("udp", RtspTransport::Udp)],
                )?,
                decoder: one_of(
                    "DECODER",
                    o.decoder.as_deref().unwrap_or("auto"),
                    &[("auto", Decoder::Auto), ("hardware", Decoder::Hardware), ("software", Decoder::Software)],
                )?,
                reconnect_delay,
                max_reconnect_delay,
                stall_timeout: seconds("STALL_TIMEOUT", o.stall_timeout.unwrap_or(5.0), 0.5, 3600.0)?,
            },
            // Room for a whole look and a little more, so that a slow reader still finds its frames.
            window: Bounds { frames: pick.frames * pick.stride + 4, bytes: mib("WINDOW_MIB", o.window_mib)? },
            model: ModelConfig {
                path: o.model_path.clone(),
                dir: o.models_dir.clone().unwrap_or_else(|| PathBuf::from("gguf")),
                kv: kv_type(o.kv_type.as_deref().unwrap_or("f16"))?,
                encode_ahead: encode_ahead(o.encode_ahead.as_deref().unwrap_or("auto"))?,
                context_tokens: within("CONTEXT_TOKENS", o.context_tokens.unwrap_or(4096), 512, 1 << 20)?,
                slots: within("ENGINE_SLOTS", o.engine_slots.unwrap_or(2), 1, 64)?,
                parallel: within("ENGINE_PARALLEL", o.engine_parallel.unwrap_or(0), 0, 64)?,
                threads: within("THREADS", o.threads.unwrap_or(0), 0, 512)?,
                gpu_layers: within("GPU_LAYERS", o.gpu_layers.unwrap_or(-1), -1, 10_000)?,
                backends: o.backends_dir.clone(),
                embedding_cache_bytes: mib("EMBEDDING_CACHE_MIB", o.embedding_cache_mib)?,
                process: one_of(
                    "ENGINE_PROCESS",
                    o.engine_process.as_deref().unwrap_or("child"),
                    &[("child", EngineProcess::Child), ("inside", EngineProcess::Inside)],
                )?,
                stall_timeout: seconds("ENGINE_STALL_TIMEOUT", o.engine_stall_timeout.unwrap_or(60.0), 0.5, 86_400.0)?,
            },
            commentary,
            voice: voice(&o, environment)?,
            livekit: livekit::livekit(&o, environment)?,
            server: server(&o, environment)?,
            log: o.log.clone().unwrap_or_else(|| "info".to_owned()),
        })
    }
}

/// The options that were given, with what they lack taken from the file.
fn with_file(given: Options, file: Option<&Path>) -> Result<Options> {
    let file = match file {
        Some(path) => read_file(path)?,
        None if Path::new(DEFAULT_FILE).exists() => read_file(Path::new(DEFAULT_FILE))?,
        None => Options::default(),
    };
    Ok(given.or(file))
}

fn read_file(path: &Path) -> Result<Options> {
    let cannot = |why: String| {
        Error::invalid("config_file", format!("the configuration file {} can't be used: {why}", path.display()))
            .hint("the keys are the options' names in small letters; see docs/CONFIGURATION.md")
    };
    let size = std::fs::metadata(path).map_err(|e| cannot(e.to_string()))?.len();
    if size > MAX_FILE {
        return Err(cannot(format!("it has {size} bytes; the most is {MAX_FILE}")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| cannot(e.to_string()))?;
    if text.trim().is_empty() {
        return Ok(Options::default());
    }
    // The parser's own words may quote the file, and the file may hold secrets: keep place and kind only.
    serde_saphyr::from_str(&text).map_err(|e| {
        let said = e.to_string();
        let first = said.lines().next().unwrap_or("it is no YAML map").to_owned();
        cannot(first)
    })
}

fn streams(source: Option<String>, o: &Options, environment: &dyn Environment) -> Result<Vec<StreamConfig>> {
    let mut by_name: BTreeMap<String, StreamConfig> = BTreeMap::new();
    for (name, stream) in &o.streams {
        let source = Secret::new(expand(&stream.source, environment)?);
        if let Some(profile) = &stream.profile {
            find_profile(profile)?;
        }
        let config = StreamConfig {
            name: name.clone(),
            source: Some(source),
            instruction: stream.instruction.clone(),
            profile: stream.profile.clone(),
        };
        by_name.insert(name.clone(), config);
    }
    if let Some(source) = source {
        // The command line's source is the default stream.
        let main = StreamConfig {
            name: "main".to_owned(),
            source: Some(Secret::new(source)),
            instruction: None,
            profile: None,
        };
        by_name.insert(main.name.clone(), main);
    }
    if !by_name.contains_key("main") {
        let main = StreamConfig { name: "main".to_owned(), source: None, instruction: None, profile: None };
        by_name.insert(main.name.clone(), main);
    }
    Ok(by_name.into_values().collect())
}

fn server(o: &Options, environment: &dyn Environment) -> Result<ServerConfig> {
    let host = o.server_host.as_deref().unwrap_or("127.0.0.1");
    let ip: IpAddr = match host {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        _ => host.parse().map_err(|_| bad("SERVER_HOST", "must be an IP address such as 127.0.0.1 or 0.0.0.0"))?,
    };
    let api_token = o.api_token.as_deref().map(|t| expand(t, environment)).transpose()?;
    if api_token.as_ref().is_some_and(|t| t.len() < MIN_TOKEN) {
        return Err(bad(
            "API_TOKEN",
            &format!("must have at least {MIN_TOKEN} characters; `openssl rand -hex 16` makes one"),
        ));
    }
    if !ip.is_loopback() && api_token.is_none() && !o.allow_no_token.unwrap_or(false) {
        return Err(Error::invalid(
            "server_open",
            format!("SERVER_HOST {ip} can be reached by others, and there is no API_TOKEN"),
        )
        .hint("set API_TOKEN, or ALLOW_NO_TOKEN=true if everyone who reaches it may watch and steer"));
    }
    let hosts = o.allowed_hosts.as_deref().unwrap_or("");
    Ok(ServerConfig {
        address: SocketAddr::new(ip, o.server_port.unwrap_or(8199)),
        api_token: api_token.map(Secret::new),
        tls: tls(o)?,
        allowed_hosts: hosts.split(',').map(str::trim).filter(|h| !h.is_empty()).map(str::to_owned).collect(),
        max_connections: within("MAX_CONNECTIONS", o.max_connections.unwrap_or(64), 4, 4096)?,
    })
}

fn tls(o: &Options) -> Result<TlsChoice> {
    let own = one_of("TLS", o.tls.as_deref().unwrap_or("off"), &[("off", false), ("self-signed", true)])?;
    match (&o.tls_cert, &o.tls_key) {
        (Some(_), Some(_)) if own => Err(bad("TLS", "is self-signed, and TLS_CERT gives a certificate; choose one")),
        (Some(cert), Some(key)) => Ok(TlsChoice::Files { cert: cert.clone(), key: key.clone() }),
        (Some(_), None) => Err(bad("TLS_KEY", "must be set together with TLS_CERT")),
        (None, Some(_)) => Err(bad("TLS_CERT", "must be set together with TLS_KEY")),
        (None, None) if own => Ok(TlsChoice::SelfSigned(o.state_dir.clone().unwrap_or_else(|| PathBuf::from("state")))),
        (None, None) => Ok(TlsChoice::Off),
    }
}

/// Wrong values are told even while the voice is off.
fn voice(o: &Options, environment: &dyn Environment) -> Result<Option<VoiceConfig>> {
    let choices = [
        ("auto", Some(VoiceChoice::Auto)),
        ("minicpm-o", Some(VoiceChoice::MiniCpmO)),
        ("espeak", Some(VoiceChoice::Espeak)),
        ("off", None),
    ];
    let choice = one_of("VOICE", o.voice.as_deref().unwrap_or("auto"), &choices)?;
    let espeak_voice = o.espeak_voice.as_deref().unwrap_or("en");
    // It becomes an argument of a program.
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '_');
    let begins_well = espeak_voice.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins_well || espeak_voice.len() > 64 || !espeak_voice.chars().all(fits) {
        return Err(bad("ESPEAK_VOICE", "must be a voice's name such as en, en-us or en+f3"));
    }
    let pause_after = seconds("TTS_PAUSE_AFTER", o.tts_pause_after.unwrap_or(0.5), 0.0, 60.0)?;
    let max_delay = seconds("TTS_MAX_DELAY", o.tts_max_delay.unwrap_or(6.0), 0.1, 600.0)?;
    let picture_delay = seconds("STREAM_DELAY_INIT", o.stream_delay_init.unwrap_or(0.0), 0.0, 15.0)?;
    Ok(choice.filter(|_| o.enable_tts.unwrap_or(false)).map(|choice| VoiceConfig {
        choice,
        espeak_voice: espeak_voice.to_owned(),
        ref_audio_path: o.ref_audio_path.clone(),
        search_path: environment.get("PATH").unwrap_or_default(),
        pause_after,
        max_delay,
        picture_delay: Some(picture_delay).filter(|delay| !delay.is_zero()),
    }))
}

/// What was not given stays open: the model's file may have a say in it.
fn sampling(o: &Options) -> Result<SamplingChoice> {
    let float = |name, value: Option<f32>, least, most| value.map(|x| within(name, x, least, most)).transpose();
    let top_k = o.top_k.map(|k| within("TOP_K", k, 0, 1_000_000)).transpose()?;
    Ok(SamplingChoice {
        temperature: float("TEMPERATURE", o.temperature, 0.0, 5.0)?,
        top_p: float("TOP_P", o.top_p, 0.0, 1.0)?,
        top_k: top_k.and_then(|k| i32::try_from(k).ok()),
        min_p: float("MIN_P", o.min_p, 0.0, 1.0)?,
        repeat_penalty: float("REPEAT_PENALTY", o.repeat_penalty, 0.5, 2.0)?,
        seed: o.seed,
    })
}

/// Replaces `${NAME}` by environment variables; the value itself is never shown.
fn expand(text: &str, environment: &dyn Environment) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) =
            after.split_once('}').ok_or_else(|| bad("${", "has no closing brace in the configuration file"))?;
        let value = environment.get(name).ok_or_else(|| {
            Error::invalid("config_variable", format!("the configuration file uses ${{{name}}}, which is not set"))
                .hint("set the variable before the program starts")
        })?;
        out.push_str(before);
        out.push_str(&value);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

fn find_profile(name: &str) -> Result<&'static Profile> {
    Profile::find(name).ok_or_else(|| {
        let known: Vec<_> = PROFILES.iter().map(|p| p.name).collect();
        bad("PROFILE", &format!("must be one of {}", known.join(", ")))
    })
}

/// `KV_TYPE`, or an option of that meaning.
///
/// # Errors
/// When there is no such type.
pub fn kv_type(value: &str) -> Result<KvType> {
    one_of("KV_TYPE", value, &[KvType::F16, KvType::Q8_0].map(|kv| (kv.name(), kv)))
}

/// `ENCODE_AHEAD`, or an option of that meaning.
///
/// # Errors
/// When there is no such way.
pub fn encode_ahead(value: &str) -> Result<Option<bool>> {
    one_of("ENCODE_AHEAD", value, &[("auto", None), ("on", Some(true)), ("off", Some(false))])
}

fn one_of<T: Copy>(name: &str, value: &str, choices: &[(&str, T)]) -> Result<T> {
    choices.iter().find(|(word, _)| *word == value).map(|(_, choice)| *choice).ok_or_else(|| {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        bad(name, &format!("must be one of {}", words.join(", ")))
    })
}

fn within<T: PartialOrd + std::fmt::Display>(name: &str, value: T, least: T, most: T) -> Result<T> {
    // Written so that NaN, which compares with nothing, is refused.
    if value >= least && value <= most {
        return Ok(value);
    }
    Err(bad(name, &format!("is {value}, but must be from {least} to {most}")))
}

fn seconds(name: &str, value: f64, least: f64, most: f64) -> Result<Duration> {
    within(name, value, least, most).map(Duration::from_secs_f64)
}

fn bad(name: &str, what: &str) -> Error {
    Error::invalid("config_value", format!("{name} {what}")).hint("see docs/CONFIGURATION.md or --help")
}

#[cfg(test)]
mod tests;
