//! What the commands do and with which exit code they end: 0 well, 64 for a wrong use, 1 for anything else.
//! The only room that prints. Not here: the options (`config`), the work itself (`wiring`, `models`).

mod ask;
#[cfg(feature = "llama")]
mod bench;
mod models;

use crate::config::{Arguments, Command, Config, ProcessEnvironment, RunArguments};
use crate::error::{Error, Kind, Result};
use crate::{secret, shutdown, telemetry};
use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;

/// The customary exit code for a wrong use of the command (`EX_USAGE`).
const USAGE: u8 = 64;
/// After the second signal.
const INTERRUPTED: u8 = 130;
/// Time for everything to end in order.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the command line and gives back the exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let code = if e.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            // Nothing is left to do when even the terminal is gone.
            let _terminal_gone = e.print();
            return code;
        }
    };
    let outcome = match arguments.command {
        None => run(arguments.run),
        Some(Command::Run(run_arguments)) => run(*run_arguments),
        Some(Command::CheckConfig(run_arguments)) => check(*run_arguments),
        #[cfg(feature = "llama")]
        Some(Command::EngineChild) => engine_child(),
        #[cfg(not(feature = "llama"))]
        Some(Command::EngineChild) => Err(Error::unavailable("engine_not_built", "this build has no engine")),
        Some(Command::Health(run_arguments)) => health(*run_arguments),
        Some(Command::Ask(question)) => ask::ask(*question),
        Some(Command::Pull(pull)) => models::pull(pull),
        Some(Command::Models(list)) => models::list(&list),
        Some(Command::Inspect { file }) => models::inspect(&file),
        #[cfg(feature = "llama")]
        Some(Command::Bench(arguments)) => bench::bench(*arguments),
        #[cfg(not(feature = "llama"))]
        Some(Command::Bench(_)) => no_engine(),
    };
    outcome.unwrap_or_else(|e| ExitCode::from(failure(&e)))
}

#[cfg(not(feature = "llama"))]
fn no_engine() -> Result<ExitCode> {
    Err(Error::unavailable("engine_not_built", "this build has no engine").hint("build with the feature `llama`"))
}

/// Says why it failed; gives back the exit code.
fn failure(e: &Error) -> u8 {
    complain(e);
    if matches!(e.kind, Kind::Invalid | Kind::Denied) { USAGE } else { 1 }
}

/// Says an error to the person at the terminal, without secrets.
fn complain(e: &Error) {
    let mut text = format!("error: {}", e.message);
    if let Some(hint) = &e.hint {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    eprintln!("{}", secret::mask(&text));
}

/// Loads the configuration and has its secrets masked from then on.
fn configuration(arguments: RunArguments) -> Result<Config> {
    let config = Config::load(arguments, &ProcessEnvironment)?;
    if let Some(token) = &config.server.api_token {
        secret::remember(token.expose());
    }
    if let Some(livekit) = &config.livekit {
        secret::remember(livekit.api_secret.expose());
    }
    Ok(config)
}

fn check(arguments: RunArguments) -> Result<ExitCode> {
    let config = configuration(arguments)?;
    let names: Vec<_> = config.streams.iter().map(|s| s.name.as_str()).collect();
    println!("the configuration is sound; streams: {}; address: {}", names.join(", "), config.server.address);
    Ok(ExitCode::SUCCESS)
}

fn health(arguments: RunArguments) -> Result<ExitCode> {
    let config = configuration(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::internal("runtime", format!("the runtime can't start: {e}")))?;
    println!("{}", runtime.block_on(crate::wiring::health(&config.server))?);
    Ok(ExitCode::SUCCESS)
}

fn run(arguments: RunArguments) -> Result<ExitCode> {
    let config = configuration(arguments)?;
    telemetry::start(&config.log)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "vidette");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("vidette")
        .build()
        .map_err(|e| Error::internal("runtime", format!("the runtime can't start: {e}")))?;
    let code = runtime.block_on(until_told(config)).unwrap_or_else(|e| failure(&e));
    // Threads that are still in a library's hands must not keep the process alive; and where a library has to be left
    // at work (a model that loads, a camera that does not let go), its own clean-up at exit must not run beside it:
    // ggml would abort. Nothing is buffered: the log goes straight to standard error.
    signal_hook::low_level::exit(code.into())
}

/// The engine's own process. Its exit runs no clean-up either.
#[cfg(feature = "llama")]
fn engine_child() -> Result<ExitCode> {
    let ended = crate::wall::child::serve(telemetry::start);
    let code = ended.map_or_else(|e| failure(&e), |()| 0);
    signal_hook::low_level::exit(code.into())
}

/// Runs until the work ends, or a signal and its grace have passed.
async fn until_told(config: Config) -> Result<u8> {
    let (trigger, shutdown) = shutdown::pair();
    let work = crate::run(config, shutdown);
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return done.map(|()| 0),
        signal = signal() => signal?,
    }
    tracing::info!("ending; a second signal ends at once");
    trigger.fire();
    tokio::select! {
        done = &mut work => {
            tracing::info!("ended");
            done.map(|()| 0)
        }
        () = tokio::time::sleep(GRACE) => {
            tracing::warn!("not everything ended within {} s", GRACE.as_secs());
            Ok(1)
        }
        _ = signal() => {
            tracing::warn!("second signal");
            Ok(INTERRUPTED)
        }
    }
}

/// Returns on SIGINT or SIGTERM.
async fn signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let install = |kind| signal(kind).map_err(|e| Error::internal("signal", format!("signals can't be caught: {e}")));
    let (mut interrupt, mut terminate) = (install(SignalKind::interrupt())?, install(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
