//! The command line's shape. Not here: what the commands do (`cli`), the options' meaning (`mod`).

use super::options::Options;
use clap::{Arg, Args, Parser, Subcommand};
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
    /// Check the configuration and end: 0 when it is sound, 64 when not.
    CheckConfig(Box<RunArguments>),
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
