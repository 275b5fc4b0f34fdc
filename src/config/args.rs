//! The command line's shape. Not here: what the commands do (`cli`), the options' meaning (`mod`).

use super::options::Options;
use clap::{Arg, Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Watches any live video and tells you what it sees.
#[derive(Debug, Parser)]
#[command(name = "vidette", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArguments,
}

/// What to do; `run` when nothing is said.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch a source and serve the page (the default command).
    Run(Box<RunArguments>),
    /// Look once at picture files and print the answer: no server, no video source.
    #[command(mut_args(hide_what_only_run_needs))]
    Ask(Box<AskArguments>),
    /// Download a model by name.
    Pull(PullArguments),
    /// List the models that can be downloaded, and those that are here.
    Models(ModelsArguments),
    /// Say what a GGUF file is and whether it can be used.
    Inspect {
        /// The file to look at.
        file: PathBuf,
    },
    /// Measure this machine: speed of every step against the plain use of llama.cpp, memory, several streams at once.
    Bench(Box<BenchArguments>),
    /// Ask the program that runs with this configuration whether it lives: 0 when it does. For containers and supervisors.
    Health(Box<RunArguments>),
    /// Check the configuration and end: 0 when it is sound, 64 when not.
    CheckConfig(Box<RunArguments>),
    /// The engine's own process, started by `run`.
    #[command(hide = true)]
    EngineChild,
}

/// The arguments of `run`.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArguments {
    /// What to watch: rtsp://…, http://… (MJPEG, MP4, HLS), a file, /dev/video0 or a number, webcam, or test:smpte.
    pub source: Option<String>,
    /// YAML file with any of the options by their names in small letters, and `streams:` for several cameras.
    /// Default: vidette.yaml if there is one.
    #[arg(long, env = "VIDETTE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub options: Options,
}

/// The arguments of `ask`.
#[derive(Debug, Clone, Default, Args)]
pub struct AskArguments {
    /// PNG or JPEG pictures, oldest first.
    #[arg(value_name = "FRAME", required_unless_present = "batch")]
    pub frames: Vec<PathBuf>,
    /// An earlier answer, which is not to be repeated; may be given several times, oldest first.
    #[arg(long = "last-answer", value_name = "TEXT")]
    pub last_answers: Vec<String>,
    /// Answer JSON lines, one for one, instead: {"id", "frames": [paths from the file's folder], "instruction",
    /// "profile", "context": [earlier answers], "max_tokens", "stream", "seqs"}; `-` reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["frames", "last_answers"])]
    pub batch: Option<PathBuf>,
    /// YAML file with any of the options. Default: vidette.yaml if there is one.
    #[arg(long, env = "VIDETTE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub options: Options,
}

/// The help of `--log` in `ask`, which has another default.
const ASK_LOG: &str = "What is logged: error, warn, info, debug or trace, or a tracing filter. Default: warn";

/// `ask` takes every option, so that one environment and one file serve both; its help shows those that matter.
fn hide_what_only_run_needs(arg: Arg) -> Arg {
    let matters = match arg.get_help_heading() {
        Some("Watching") => matches!(arg.get_id().as_str(), "instruction" | "profile"),
        Some("Video" | "Voice" | "LiveKit") => false,
        Some("Server") if arg.get_id() == "log" => return arg.help(ASK_LOG),
        Some("Server") => false,
        _ => true,
    };
    arg.hide(!matters)
}

/// The arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArguments {
    /// Name of the model, as `vidette models` lists it.
    pub model: String,
    /// Also download the files that only speaking needs.
    #[arg(long)]
    pub voice: bool,
    /// Folder of downloaded models. Default: gguf
    #[arg(long, env = "MODELS_DIR", value_name = "DIR")]
    pub models_dir: Option<PathBuf>,
    /// Address of the Hugging Face hub or a mirror of it.
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,
    /// Token for the hub; better given by HF_TOKEN than on the command line.
    #[arg(long, env = "HF_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// The arguments of `models`.
#[derive(Debug, Args)]
pub struct ModelsArguments {
    /// Folder of downloaded models. Default: gguf
    #[arg(long, env = "MODELS_DIR", value_name = "DIR")]
    pub models_dir: Option<PathBuf>,
}

/// Shapes of a model with random weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RandomChoice {
    /// A few megabytes, for tests.
    Tiny,
    /// Full size: 6 GB with Q4_K_M.
    #[value(name = "minicpm-o-4.5")]
    MiniCpmO45,
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightChoice {
    #[value(name = "F16", alias = "f16")]
    F16,
    #[value(name = "Q8_0", alias = "q8_0")]
    Q8_0,
    #[value(name = "Q4_K_M", alias = "q4_k_m")]
    Q4KM,
}

/// The arguments of `bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArguments {
    /// Make a model with random weights in these shapes; speed and memory are those of the real one.
    #[arg(long, value_name = "SHAPES", required_unless_present = "model", conflicts_with = "model")]
    pub random: Option<RandomChoice>,
    /// GGUF file or folder of a model.
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// How the random language model's weights are stored.
    #[arg(long, value_name = "TYPE", default_value = "Q4_K_M")]
    pub quant: WeightChoice,
    /// Folder for the random model, which then stays there and is used again. Default: a temporary one
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Make the model, print where its files are, and end.
    #[arg(long, requires = "random")]
    pub write_only: bool,
    /// Looks that count, of each path.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = within(1, 10_000))]
    pub looks: usize,
    /// Frames in a look.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = within(1, 64))]
    pub frames: usize,
    /// Tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=4096))]
    pub tokens: u32,
    /// Numbers of streams to serve at once, one after the other; 0 leaves this out.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "1,2,4", value_parser = within(0, 256))]
    pub streams: Vec<usize>,
    /// Seconds from one look of a stream to its next.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = between::<1, 3_600_000>)]
    pub period: f64,
    /// Seconds that each number of streams is measured, at least; up to four times as long, or 30, where the engine is slow.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = between::<100, 600_000>)]
    pub seconds: f64,
    /// Leave the plain path out; it needs memory for a second copy of the model.
    #[arg(long)]
    pub ours_only: bool,
    /// Tokens that one stream's prompt and answer may take together. Default: what a look needs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(256..=1 << 20))]
    pub context_tokens: Option<u32>,
    /// Streams that keep their prompt in the model's cache. Default: as many as are served at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub slots: Option<u32>,
    /// Answers written at once, at most as many as slots; 0 takes all slots on a GPU and one on a processor.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=256))]
    pub parallel: u32,
    /// How the cache keeps keys and values: f16 or q8_0.
    #[arg(long, env = "KV_TYPE", value_name = "TYPE", default_value = "f16")]
    pub kv_type: String,
    /// Frames are encoded beside the language model instead of before it: on, off, or auto, which does so on a GPU.
    #[arg(long, env = "ENCODE_AHEAD", value_name = "HOW", default_value = "auto")]
    pub encode_ahead: String,
    /// CPU threads of the model; 0 takes one for each core.
    #[arg(long, env = "THREADS", value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=512))]
    pub threads: u32,
    /// Layers of the model on the GPU; -1 for all, 0 for none.
    #[arg(long, env = "GPU_LAYERS", value_name = "N", allow_negative_numbers = true, default_value_t = -1)]
    pub gpu_layers: i32,
    /// Folder of plugins for GPUs. Default: `backends` beside the program
    #[arg(long, env = "BACKENDS_DIR", value_name = "DIR")]
    pub backends_dir: Option<PathBuf>,
    /// GB a second that the memory delivers, for the floors' times.
    #[arg(long, value_name = "GB/S", value_parser = between::<1, 1_000_000_000>)]
    pub bandwidth: Option<f64>,
    /// Tera-operations a second, for the floors' times.
    #[arg(long, value_name = "TFLOP/S", value_parser = between::<1, 1_000_000_000>)]
    pub flops: Option<f64>,
    /// GPUs that CUDA may use, by number or UUID; the first one's power is measured.
    #[arg(long, env = "CUDA_VISIBLE_DEVICES", value_name = "LIST", hide = true)]
    pub visible_gpus: Option<String>,
    /// File for all figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// End with exit code 1 when the first token is not this many times as fast as on the plain path.
    #[arg(long, value_name = "RATIO", value_parser = between::<1, 1_000_000>)]
    pub at_least: Option<f64>,
    /// What is logged: error, warn, info, debug or trace, or a tracing filter.
    #[arg(long, env = "VIDETTE_LOG", value_name = "FILTER", default_value = "error")]
    pub log: String,
}

/// A whole number from `least` to `most`.
fn within(least: usize, most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        _ => Err(format!("must be a whole number from {least} to {most}")),
    }
}

/// A number from `LEAST` to `MOST` thousandths.
fn between<const LEAST: u32, const MOST: u32>(text: &str) -> Result<f64, String> {
    let (least, most) = (f64::from(LEAST) / 1e3, f64::from(MOST) / 1e3);
    match text.parse() {
        Ok(x) if (least..=most).contains(&x) => Ok(x),
        _ => Err(format!("must be a number from {least} to {most}")),
    }
}
