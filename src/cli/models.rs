//! `pull`, `models` and `inspect`. Not here: downloads and checks themselves (`crate::models`).

use crate::config::{ModelsArguments, PullArguments};
use crate::error::{Error, Result};
use crate::models::{self, Catalog, Entry, PullOptions, Role};
use crate::secret::{self, Secret};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn models_dir(given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| PathBuf::from("gguf"))
}

/// Bytes to see and, apart, to speak.
fn weight(entry: &Entry) -> (u64, u64) {
    let sees = |role| matches!(role, Role::Language | Role::Vision);
    (entry.known_bytes(|f| sees(f.role)).0, entry.known_bytes(|f| f.role.is_voice()).0)
}

pub(super) fn list(arguments: &ModelsArguments) -> Result<ExitCode> {
    let dir = models_dir(arguments.models_dir.clone());
    for entry in Catalog::builtin()?.entries() {
        let here = entry.files.iter().filter(|f| matches!(f.role, Role::Language | Role::Vision));
        let here = here.into_iter().all(|f| dir.join(&entry.dir).join(&f.local).exists());
        let (sees, speaks) = weight(entry);
        println!("{}{}", entry.name, if here { "  (here)" } else { "" });
        if !entry.aliases.is_empty() {
            println!("  also: {}", entry.aliases.join(", "));
        }
        let voice =
            if speaks > 0 { format!(", {:.1} GB more with --voice", speaks as f64 / 1e9) } else { String::new() };
        println!("  {}\n  {:.1} GB to download{voice}; needs {}", entry.summary, sees as f64 / 1e9, entry.needs.text);
        println!("  {} · https://huggingface.co/{}", entry.licence, entry.repo);
    }
    println!("\n`vidette pull NAME` downloads one into {}.", dir.display());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn inspect(file: &Path) -> Result<ExitCode> {
    println!("{}", models::inspect_file(file)?);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn pull(arguments: PullArguments) -> Result<ExitCode> {
    let entry = Catalog::builtin()?.get(&arguments.model)?;
    let mut options = PullOptions::new(models_dir(arguments.models_dir));
    options.voice = arguments.voice;
    if let Some(endpoint) = arguments.endpoint {
        options.endpoint = endpoint;
    }
    options.token = arguments.token.map(|token| {
        secret::remember(&token);
        Secret::new(token)
    });
    let stopped = watch_for_signals()?;
    options.cancel = Arc::new(move || stopped.load(Ordering::Relaxed));
    println!("{}: {}", entry.title, entry.summary);
    println!("licence: {} · needs {}", entry.licence, entry.needs.text);
    let pulled = models::pull(entry, &options, &mut models::progress::Bar::default())?;
    for note in &pulled.notes {
        println!("{note}");
    }
    println!(
        "{} is in {} ({:.1} GB downloaded now)",
        entry.title,
        pulled.dir.display(),
        pulled.downloaded as f64 / 1e9
    );
    println!("start it: vidette run SOURCE --model-path {}", pulled.language.display());
    Ok(ExitCode::SUCCESS)
}

/// A flag that SIGINT or SIGTERM sets, so that a download ends in order and can go on later.
fn watch_for_signals() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::internal("runtime", e.to_string()))?;
    let set = Arc::clone(&flag);
    std::thread::spawn(move || {
        if runtime.block_on(super::signal()).is_ok() {
            set.store(true, Ordering::Relaxed);
        }
    });
    Ok(flag)
}
