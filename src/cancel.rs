//! A word from whoever wanted something to whoever does it: no more is wanted. Not here: whole programs' ends
//! (`shutdown`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once and for all; its clones are one flag. Whoever works looks at it every now and then: the engine between
/// tokens, a voice at least every 20 ms.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Wants no more.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once nobody wants the rest.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
