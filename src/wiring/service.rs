//! Tells the service manager (systemd: `Type=notify`, `WatchdogSec=`) when the program is able, that it is alive, and
//! when it ends; and counts the engine's restarts. Without a service manager nothing is told.
//! Not here: HTTP's `/live` and `/ready`, which tell the same (`web`).

use crate::commentary::Streams;
use crate::engine::{EngineState, EngineStatus};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// Runs until `shutdown`. The server must be listening.
pub(super) async fn watch(
    mut engine: watch::Receiver<EngineStatus>,
    streams: Arc<Streams>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) {
    // The manager waits for that long; half of it leaves room for a late one.
    let mut clock = sd_notify::watchdog_enabled().map(|limit| tokio::time::interval((limit / 2).max(LEAST)));
    if let Some(clock) = &mut clock {
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let (mut ready, mut been_ready, mut restarts, mut engine_lives) = (false, false, 0, true);
    loop {
        let now = engine.borrow_and_update().clone();
        metrics.engine_restarts.inc_by(now.restarts - restarts);
        restarts = now.restarts;
        been_ready |= now.state == EngineState::Ready;
        let words = words(&now);
        // Able: listening, and the engine said what it is, if only that there is none.
        let able = !matches!(now.state, EngineState::Loading | EngineState::Restarting);
        if able && !std::mem::replace(&mut ready, true) {
            tell(&[NotifyState::Ready, NotifyState::Status(&words)]);
        } else {
            tell(&[NotifyState::Status(&words)]);
        }
        loop {
            tokio::select! {
                () = shutdown.wait() => return tell(&[NotifyState::Stopping]),
                () = tick(&mut clock) => {
                    // A status takes every lock that pictures, frames, words and sound pass, so this does not come
                    // back when one of them is stuck; nor does this task run when the runtime is.
                    let alive = streams.list().iter().all(|stream| !stream.status().stream.is_empty());
                    // What `/live` calls dead: an engine inside that ran and failed.
                    if alive && !(been_ready && now.state == EngineState::Failed) {
                        tell(&[NotifyState::Watchdog]);
                    }
                }
                changed = engine.changed(), if engine_lives => {
                    engine_lives = changed.is_ok();
                    break;
                }
            }
        }
    }
}

/// No watchdog is fed more often.
const LEAST: Duration = Duration::from_millis(50);

async fn tick(clock: &mut Option<tokio::time::Interval>) {
    match clock {
        Some(clock) => {
            clock.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// One line for `systemctl status`.
fn words(engine: &EngineStatus) -> String {
    let model = engine.model.as_deref().unwrap_or("the model");
    let words = match engine.state {
        EngineState::Ready => format!("watching with {model}"),
        EngineState::Loading => format!("loading {model}"),
        EngineState::Absent | EngineState::Restarting | EngineState::Failed => {
            engine.message.clone().unwrap_or_else(|| "without a model".to_owned())
        }
    };
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager can't be told");
    }
}
