//! How long viewers' pictures wait so that picture and voice agree: a moving mean of what passes between a frame's
//! capture and the first sound about it. Not here: the waiting (`web::mjpeg`), the clock of the sound (`speech`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest wait. Pictures wait in memory: at 25 a second these are 375 of them.
pub const MOST: Duration = Duration::from_secs(15);
/// How much the newest utterance counts.
const SHARE: f64 = 0.2;

/// Shared by the speaker, which adapts it, and the viewers, who keep to it.
#[derive(Debug)]
pub struct PictureDelay(AtomicU64);

impl PictureDelay {
    /// With the wait to begin with, in whole milliseconds, at most [`MOST`].
    pub fn new(first: Duration) -> Self {
        Self(AtomicU64::new(millis(first)))
    }

    /// How long pictures wait now.
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// An utterance's first sound came `took` after its newest frame was captured. Called by one task only.
    pub fn heard(&self, took: Duration) {
        let (old, new) = (self.now().as_secs_f64(), took.min(MOST).as_secs_f64());
        let mean = Duration::from_secs_f64(old + SHARE * (new - old));
        self.0.store(millis(mean), Ordering::Relaxed);
    }
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.min(MOST).as_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_goes_where_the_voice_is_and_no_further() {
        let delay = PictureDelay::new(Duration::from_secs(5));
        assert_eq!(delay.now(), Duration::from_secs(5));
        delay.heard(Duration::from_secs(3));
        assert_eq!(delay.now(), Duration::from_millis(4600));
        for _ in 0..40 {
            delay.heard(Duration::from_secs(2));
        }
        let settled = delay.now().as_millis();
        assert!((1995..=2005).contains(&settled), "{settled}");
        for _ in 0..100 {
            delay.heard(Duration::from_secs(3600));
        }
        assert!(delay.now() <= MOST);
        assert_eq!(PictureDelay::new(Duration::MAX).now(), MOST);
    }
}
