//! A word from whoever wanted something to whoever does it: no more is wanted. Not here: whole programs' ends
//! (`shutdown`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Set once and for all; its clones are one flag. Whoever works looks at it every now and then: the engine between
/// tokens, a voice at least every 20 ms.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag {
    set: Arc<AtomicBool>,
    bell: Option<Arc<Notify>>,
}

impl CancelFlag {
    /// A flag that rings `bell` when it is set, for whoever can't look at it all the time.
    pub fn ringing(bell: Arc<Notify>) -> Self {
        Self { set: Arc::default(), bell: Some(bell) }
    }

    /// Wants no more.
    pub fn set(&self) {
        let before = self.set.swap(true, Ordering::Relaxed);
        if let Some(bell) = self.bell.as_ref().filter(|_| !before) {
            bell.notify_one();
        }
    }

    /// True once nobody wants the rest.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_one_flag() {
        let flag = CancelFlag::default();
        let other = flag.clone();
        assert!(!other.is_set());
        flag.set();
        assert!(other.is_set() && !CancelFlag::default().is_set());
    }
}
