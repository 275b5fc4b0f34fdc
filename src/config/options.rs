//! Every option once: flag, environment variable, key of the file and help text are this struct's fields.
//! Not here: what the values mean together (`mod`), the subcommands (`args`).
//!
//! All fields are optional, so that "not given" can be told from "given as the default": a flag goes over
//! the environment, that over the file, that over the default. The first words of a help text after
//! "Default:" are the default, in the table of `docs/CONFIGURATION.md` as in `--help`.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

macro_rules! options {
    ($( $(#[doc = $doc:literal])* $( {$($attr:meta),+} )? $name:ident : $type:ty = $env:literal ),* $(,)?) => {
        /// What a person may set. See the module's words.
        #[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Options {
            $( $(#[doc = $doc])* $( $(#[$attr])+ )? #[arg(long, env = $env, hide_env_values = true)] pub $name: Option<$type>, )*

            /// Several cameras: a map from names to `{source, instruction, profile}`. File only.
            #[arg(skip)]
            pub streams: BTreeMap<String, StreamOptions>,
        }

        impl Options {
            /// These options, with what they lack taken from `other`.
            pub fn or(self, other: Options) -> Options {
                Options {
                    $( $name: self.$name.or(other.$name), )*
                    streams: if self.streams.is_empty() { other.streams } else { self.streams },
                }
            }
        }
    };
}

options! {
    /// GGUF file or folder of the model; vision and speech files are found beside it. Default: the best model in MODELS_DIR.
    {arg(value_name = "PATH", help_heading = "Model")}
    model_path: PathBuf = "MODEL_PATH",
    /// Folder of downloaded models. Default: gguf
    {arg(value_name = "DIR", help_heading = "Model")}
    models_dir: PathBuf = "MODELS_DIR",
    /// Tokens that one stream's prompt and answer may take together; more takes memory (144 KiB a token with the 8B model). Default: 4096
    {arg(value_name = "N", help_heading = "Model")}
    context_tokens: u32 = "CONTEXT_TOKENS",
    /// How the model's cache keeps keys and values: f16, or q8_0 for nearly half the memory and some error. Default: f16
    {arg(value_name = "TYPE", help_heading = "Model")}
    kv_type: String = "KV_TYPE",
    /// Streams that keep their prompt in the model's cache at once; raise it to the number of cameras. Default: 2
    {arg(value_name = "N", help_heading = "Model")}
    engine_slots: u32 = "ENGINE_SLOTS",
    /// Answers written at once, at most ENGINE_SLOTS; 0 takes all slots on a GPU and one on a processor. Default: 0
    {arg(value_name = "N", help_heading = "Model")}
    engine_parallel: u32 = "ENGINE_PARALLEL",
    /// CPU threads of the model; 0 takes one for each core. Default: 0
    {arg(value_name = "N", help_heading = "Model")}
    threads: u32 = "THREADS",
    /// Layers of the model on the GPU; -1 for as many as fit its free memory, 0 for none. Default: -1
    {arg(value_name = "N", allow_negative_numbers = true, help_heading = "Model")}
    gpu_layers: i32 = "GPU_LAYERS",
    /// Folder of GPU backends (libggml-cuda.so and the like). Default: the folder backends beside the program
    {arg(value_name = "DIR", help_heading = "Model")}
    backends_dir: PathBuf = "BACKENDS_DIR",
    /// Frames are encoded beside the language model instead of before it: on, off, or auto, which does so on a GPU. Default: auto
    {arg(value_name = "HOW", help_heading = "Model")}
    encode_ahead: String = "ENCODE_AHEAD",
    /// MiB of frame embeddings kept, so that no frame is encoded twice. Default: 64
    {arg(value_name = "MIB", help_heading = "Model")}
    embedding_cache_mib: u32 = "EMBEDDING_CACHE_MIB",
    /// Where the model runs: in a child process, which is started again when it crashes or hangs, or inside this one. Default: child
    {arg(value_name = "WHERE", help_heading = "Model")}
    engine_process: String = "ENGINE_PROCESS",
    /// Seconds after which a child process that shows no progress within its work counts as hung; five times that while it loads. Default: 60
    {arg(value_name = "SECONDS", help_heading = "Model")}
    engine_stall_timeout: f64 = "ENGINE_STALL_TIMEOUT",

    /// Frames a second that the model may look at. Default: 2
    {arg(value_name = "FPS", help_heading = "Watching")}
    capture_fps: f64 = "CAPTURE_FPS",
    /// Frames in one look; more shows longer movements and costs time. Default: 4
    {arg(value_name = "N", help_heading = "Watching")}
    frames_per_inference: usize = "FRAMES_PER_INFERENCE",
    /// Every how many captured frames one is looked at, beside the newest. Default: 2
    {arg(value_name = "N", help_heading = "Watching")}
    frame_stride: usize = "FRAME_STRIDE",
    /// Seconds from the end of one look to the start of the next. Default: 1
    {arg(value_name = "SECONDS", help_heading = "Watching")}
    inference_interval: f64 = "INFERENCE_INTERVAL",
    /// Share of full brightness by which some part of the picture must change before the model looks again; 0 looks always. Default: 0.04
    {arg(value_name = "SHARE", help_heading = "Watching")}
    change_threshold: f64 = "CHANGE_THRESHOLD",
    /// MiB of frames kept for each stream. Default: 64
    {arg(value_name = "MIB", help_heading = "Watching")}
    window_mib: u32 = "WINDOW_MIB",
    /// What the commentary should be about, until another instruction is given. Default: the profile's
    {arg(value_name = "TEXT", help_heading = "Watching")}
    instruction: String = "INSTRUCTION",
    /// Manner of watching: default, sports, security, nature or descriptive. Default: default
    {arg(value_name = "NAME", help_heading = "Watching")}
    profile: String = "PROFILE",

    /// Most tokens of one answer. Default: 128
    {arg(value_name = "N", help_heading = "Answers")}
    max_tokens: u32 = "MAX_TOKENS",
    /// How freely words are chosen; 0 takes the likeliest always. Default: the model file's, else 0.7
    {arg(value_name = "T", help_heading = "Answers")}
    temperature: f32 = "TEMPERATURE",
    /// Share of probability to choose from. Default: the model file's, else 0.8
    {arg(value_name = "P", help_heading = "Answers")}
    top_p: f32 = "TOP_P",
    /// Number of likeliest tokens to choose from; 0 for all. Default: the model file's, else 100
    {arg(value_name = "K", help_heading = "Answers")}
    top_k: u32 = "TOP_K",
    /// Least probability, relative to the likeliest token's; 0 for none. Default: the model file's, else 0
    {arg(value_name = "P", help_heading = "Answers")}
    min_p: f32 = "MIN_P",
    /// Penalty on repeated tokens; 1 for none. Default: the model file's, else 1.05
    {arg(value_name = "X", help_heading = "Answers")}
    repeat_penalty: f32 = "REPEAT_PENALTY",
    /// Makes answers repeatable. Default: another for each answer
    {arg(value_name = "N", help_heading = "Answers")}
    seed: u32 = "SEED",

    /// Speak the commentary: `/api/audio-stream` and the page's Listen button. Default: false
    {arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Voice")}
    enable_tts: bool = "ENABLE_TTS",
    /// Who speaks: auto (the model's own voice if it can, else espeak-ng), minicpm-o, espeak or off. Default: auto
    {arg(value_name = "WHICH", help_heading = "Voice")}
    voice: String = "VOICE",
    /// Who the model's own voice sounds like: a prompt_cache.gguf that scripts/tts/make_voice.py made of a recording. Default: none, the voice that comes with the model
    {arg(value_name = "FILE", help_heading = "Voice")}
    ref_audio_path: PathBuf = "REF_AUDIO_PATH",
    /// Voice or language of espeak-ng, as `espeak-ng --voices` lists them. Default: en
    {arg(value_name = "NAME", help_heading = "Voice")}
    espeak_voice: String = "ESPEAK_VOICE",
    /// Seconds of silence after each spoken utterance, at least. Default: 0.5
    {arg(value_name = "SECONDS", help_heading = "Voice")}
    tts_pause_after: f64 = "TTS_PAUSE_AFTER",
    /// Seconds from an utterance's first whole clause to its sound; one that would start later is not spoken. Default: 6
    {arg(value_name = "SECONDS", help_heading = "Voice")}
    tts_max_delay: f64 = "TTS_MAX_DELAY",
    /// Seconds that viewers' pictures wait at first so that picture and voice agree; adapted to what the voice takes. 0 does not delay them. Default: 0
    {arg(value_name = "SECONDS", help_heading = "Voice")}
    stream_delay_init: f64 = "STREAM_DELAY_INIT",

    /// Most frames a second for viewers. Default: 25
    {arg(value_name = "FPS", help_heading = "Video")}
    jpeg_fps: f64 = "JPEG_FPS",
    /// Widest picture for viewers, pixels; 0 keeps the source's. Default: 1280
    {arg(value_name = "PIXELS", help_heading = "Video")}
    jpeg_width: u32 = "JPEG_WIDTH",
    /// JPEG quality for viewers, 1 to 100. Default: 80
    {arg(value_name = "Q", help_heading = "Video")}
    jpeg_quality: u32 = "JPEG_QUALITY",
    /// End when a file has been played, instead of starting again. Default: false
    {arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Video")}
    no_loop: bool = "NO_LOOP",
    /// Folder whose files may be opened over the API and the page; what the command line and the configuration file name may lie anywhere. Default: media
    {arg(value_name = "DIR", help_heading = "Video")}
    media_dir: PathBuf = "MEDIA_DIR",
    /// Let the API and the page open addresses of this machine and of private networks, where most cameras are. Default: true
    {arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Video")}
    allow_private_sources: bool = "ALLOW_PRIVATE_SOURCES",
    /// Leave the source's own sound alone: it is neither fetched nor offered. Default: false
    {arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Video")}
    no_source_audio: bool = "NO_SOURCE_AUDIO",
    /// RTP over tcp, udp, or auto (TCP first, then UDP when the server refuses it). Default: auto
    {arg(value_name = "HOW", help_heading = "Video")}
    rtsp_transport: String = "RTSP_TRANSPORT",
    /// Decoders: auto (hardware when it works), hardware or software. Default: auto
    {arg(value_name = "WHICH", help_heading = "Video")}
    decoder: String = "DECODER",
    /// Seconds before the first attempt to reconnect; doubled each time. Default: 1
    {arg(value_name = "SECONDS", help_heading = "Video")}
    reconnect_delay: f64 = "RECONNECT_DELAY",
    /// Longest wait between attempts, seconds. Default: 30
    {arg(value_name = "SECONDS", help_heading = "Video")}
    max_reconnect_delay: f64 = "MAX_RECONNECT_DELAY",
    /// Seconds without a frame after which a source counts as stalled. Default: 5
    {arg(value_name = "SECONDS", help_heading = "Video")}
    stall_timeout: f64 = "STALL_TIMEOUT",

    /// Take browsers' cameras through a LiveKit server, as the source `webcam`. Default: false
    {arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "LiveKit")}
    livekit_enabled: bool = "LIVEKIT_ENABLED",
    /// Address of the LiveKit server, ws:// or wss://. Default: none
    {arg(value_name = "URL", help_heading = "LiveKit")}
    livekit_url: String = "LIVEKIT_URL",
    /// The same address as browsers reach it, where it is another one. Default: LIVEKIT_URL
    {arg(value_name = "URL", help_heading = "LiveKit")}
    livekit_public_url: String = "LIVEKIT_PUBLIC_URL",
    /// The server's API key; `make livekit-keys` makes one with its secret. Default: none
    {arg(value_name = "KEY", help_heading = "LiveKit")}
    livekit_api_key: String = "LIVEKIT_API_KEY",
    /// The key's secret, at least 32 characters; better given by the environment than on the command line. Default: none
    {arg(value_name = "SECRET", help_heading = "LiveKit")}
    livekit_api_secret: String = "LIVEKIT_API_SECRET",
    /// What the rooms' names begin with. Default: made from the secret, so that nobody can guess it
    {arg(value_name = "TEXT", help_heading = "LiveKit")}
    livekit_room_prefix: String = "LIVEKIT_ROOM_PREFIX",
    /// Seconds that the program stays in a room without people. Default: 600
    {arg(value_name = "SECONDS", help_heading = "LiveKit")}
    livekit_empty_grace: f64 = "LIVEKIT_EMPTY_GRACE",

    /// Address to listen on. Default: 127.0.0.1
    {arg(value_name = "ADDRESS", help_heading = "Server")}
    server_host: String = "SERVER_HOST",
    /// Port to listen on; 0 takes a free one. Default: 8199
    {arg(value_name = "PORT", help_heading = "Server")}
    server_port: u16 = "SERVER_PORT",
    /// Token that clients must send; needed when others can reach the address. Default: none
    {arg(value_name = "TOKEN", help_heading = "Server")}
    api_token: String = "API_TOKEN",
    /// Let everyone who reaches the address in without a token. Default: false
    {arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Server")}
    allow_no_token: bool = "ALLOW_NO_TOKEN",
    /// HTTPS: off, or self-signed with a certificate that is made at the first start; TLS_CERT and TLS_KEY give another. Default: off
    {arg(value_name = "HOW", help_heading = "Server")}
    tls: String = "TLS",
    /// PEM file with the server's certificate and its chain; turns HTTPS on. Default: none
    {arg(value_name = "FILE", help_heading = "Server")}
    tls_cert: PathBuf = "TLS_CERT",
    /// PEM file with the private key to it. Default: none
    {arg(value_name = "FILE", help_heading = "Server")}
    tls_key: PathBuf = "TLS_KEY",
    /// Folder for what is made once and kept, such as the self-signed certificate. Default: state
    {arg(value_name = "DIR", help_heading = "Server")}
    state_dir: PathBuf = "STATE_DIR",
    /// Further host names under which the page may be opened, separated by commas. Default: none
    {arg(value_name = "NAMES", help_heading = "Server")}
    allowed_hosts: String = "ALLOWED_HOSTS",
    /// Most HTTP connections at once. Default: 64
    {arg(value_name = "N", help_heading = "Server")}
    max_connections: usize = "MAX_CONNECTIONS",
    /// What is logged: error, warn, info, debug or trace, or a tracing filter. Default: info
    {arg(value_name = "FILTER", help_heading = "Server")}
    log: String = "VIDETTE_LOG",
}

/// One camera in the file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// The source string; `${NAME}` takes an environment variable.
    pub source: String,
    /// What the commentary should be about.
    pub instruction: Option<String>,
    /// Manner of watching.
    pub profile: Option<String>,
}
