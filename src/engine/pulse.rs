//! Signs of life of the engine's thread, for whoever has to tell work from a hang, and a bell for the end of looks.
//! Not here: what is done about a hang (`wall`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Counts steps of work: a part of a file read, a node of a graph, a frame, a token.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    working: AtomicBool,
    ended: Notify,
}

impl Pulse {
    /// A step was done.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Work begins or ends; both are steps.
    pub fn work(&self, on: bool) {
        self.working.store(on, Ordering::Relaxed);
        self.beat();
    }

    /// Steps so far.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Whether steps are to be expected.
    pub fn is_working(&self) -> bool {
        self.working.load(Ordering::Relaxed)
    }

    /// The last event of a look was told.
    pub fn end_of_look(&self) {
        self.ended.notify_waiters();
    }

    /// Ends with the next look that ends, whosever it is; for listeners who let other events gather.
    pub fn ended(&self) -> Notified<'_> {
        self.ended.notified()
    }
}
