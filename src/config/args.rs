//! The command line's shape. Not here: what the commands do (`cli`), the options' meaning (`mod`).

use super::options::Options;
use clap::{Args, Parser, Subcommand};
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
    /// What to watch: rtsp://…, http://… (MJPEG, MP4, HLS), a file, /dev/video0 or a number, or test:smpte.
    pub source: Option<String>,
    /// YAML file with any of the options by their names in small letters, and `streams:` for several cameras.
    /// Default: vidette.yaml if there is one.
    #[arg(long, env = "VIDETTE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub options: Options,
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
