//! One signal that everything ends. Not here: signal handlers (`cli`), grace periods (`lib::run`).

use tokio::sync::watch;

/// Ends everything when triggered or dropped.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// A view of the signal; clone it freely, wait for it in a task or ask it from a thread.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A fresh pair.
pub fn pair() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Says that it is time to end. Saying it twice does no harm.
    pub fn fire(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// True once the trigger was fired or dropped.
    pub fn is_shutdown(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns when it is time to end.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        // An error means that the trigger is gone, which ends things as well.
        let _ended_either_way = receiver.wait_for(|fired| *fired).await;
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn fire_and_drop_both_end_the_wait() {
        let (trigger, shutdown) = super::pair();
        assert!(!shutdown.is_shutdown());
        trigger.fire();
        shutdown.wait().await;
        assert!(shutdown.is_shutdown());
        let (trigger, shutdown) = super::pair();
        drop(trigger);
        shutdown.wait().await;
        assert!(shutdown.is_shutdown());
    }
}
