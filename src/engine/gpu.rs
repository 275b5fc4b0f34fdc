//! The GPU's memory, asked of its driver every few seconds while the engine lives, and told in the engine's status.
//! Not here: how a driver is asked (`backend`), what of a model goes to the GPU (`plan`).

use super::{EngineStatus, GpuMemory, backend};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// As often as the page asks for the status.
const EVERY: Duration = Duration::from_secs(5);

/// The memory now; `None` when the driver tells nothing.
pub(super) fn memory() -> Option<GpuMemory> {
    let (free, total) = backend::gpu_memory().filter(|(_, total)| *total > 0)?;
    Some(GpuMemory { used_bytes: total.saturating_sub(free), total_bytes: total })
}

/// Asks until it is dropped, and never after: a driver must not be asked while its library goes away.
pub(super) struct Meter {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    /// Begins to ask. Without a thread for it, what was told first stays.
    pub(super) fn start(tell: watch::Sender<EngineStatus>) -> Self {
        let (stop, stopped) = sync_channel::<()>(0);
        let body = move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = memory();
                tell.send_if_modified(|status| std::mem::replace(&mut status.gpu_memory, now) != now);
            }
        };
        let thread = std::thread::Builder::new().name("gpu-memory".to_owned()).spawn(body);
        if let Err(error) = &thread {
            tracing::warn!(%error, "no thread to ask for the GPU's memory");
        }
        Self { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("what asks for the GPU's memory panicked");
        }
    }
}
