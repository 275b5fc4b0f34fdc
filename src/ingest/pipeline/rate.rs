//! Lets through as many frames as are wanted, by the time at which they arrive. Pure; `videorate` is not used because
//! it drops frames without time stamps, which HTTP-MJPEG has. Not here: the pads it is asked at (`branch`).

use std::time::{Duration, Instant};

/// How far before its turn a frame may come at most: cameras jitter by some milliseconds.
const SLACK: Duration = Duration::from_millis(20);

/// A limit on frames per second that keeps its beat.
#[derive(Debug)]
pub(super) struct RateLimit {
    period: Duration,
    slack: Duration,
    due: Option<Instant>,
}

impl RateLimit {
    /// At most `fps` per second. What is no rate at all is taken as one per second.
    pub(super) fn new(fps: f64) -> Self {
        let fps = if fps.is_finite() { fps.clamp(0.01, 1000.0) } else { 1.0 };
        let period = Duration::from_secs_f64(1.0 / fps);
        Self { period, slack: SLACK.min(period / 4), due: None }
    }

    /// Tells whether the frame that arrived at `now` may pass.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        match self.due {
            Some(due) if now + self.slack < due => false,
            // On the beat: the next one is due a period after this one was, not after it came.
            Some(due) if now < due + self.period => {
                self.due = Some(due + self.period);
                true
            }
            _ => {
                self.due = Some(now + self.period);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_never_less_than_the_source(fps in 0.5f64..60.0,
                                                                  gaps in proptest::collection::vec(1u64..200, 2..300)) {
            let mut limit = RateLimit::new(fps);
            let start = Instant::now();
            let (mut now, mut passed, mut last) = (start, 0u32, None);
            for gap in gaps {
                now += Duration::from_millis(gap);
                if limit.admit(now) {
                    passed += 1;
                    last = Some(now);
                }
                // A frame is let through at the latest when a period has gone by without one.
                prop_assert!(last.is_some_and(|last| now.duration_since(last) <= limit.period + limit.slack));
            }
            let allowed = now.duration_since(start).as_secs_f64() * fps + 2.0;
            prop_assert!(f64::from(passed) <= allowed, "{passed} of {allowed}");
        }
    }

    #[test]
    fn a_source_at_the_limit_loses_nothing_to_jitter() {
        let mut limit = RateLimit::new(25.0);
        let start = Instant::now();
        let jitter = [0i64, 8, -7, 3, -9, 9, -5, 0];
        let passed = (0..200i64).filter(|i| {
            let at = 100 + i * 40 + jitter[*i as usize % jitter.len()];
            limit.admit(start + Duration::from_millis(at as u64))
        });
        assert_eq!(passed.count(), 200);
    }

    #[test]
    fn two_of_twenty_five_are_evenly_spaced() {
        let mut limit = RateLimit::new(2.0);
        let start = Instant::now();
        let passed: Vec<u64> =
            (0..100).map(|i| i * 40).filter(|ms| limit.admit(start + Duration::from_millis(*ms))).collect();
        assert_eq!(passed, [0, 480, 1000, 1480, 2000, 2480, 3000, 3480]);
    }
}
