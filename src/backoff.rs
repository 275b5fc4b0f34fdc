//! Exponential backoff with jitter, as a value. Not here: sleeping, and what is retried.

use std::time::Duration;

/// Doubling waits between a least and a greatest, with jitter added on top of the base.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    jitter: f64,
    attempt: u32,
}

/// Why a [`Backoff`] can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackoff {
    #[error("the shortest wait must be longer than zero")]
    ZeroMin,
    #[error("the longest wait must not be shorter than the shortest")]
    MaxBelowMin,
    #[error("jitter must be from 0 to 1")]
    Jitter,
}

impl Backoff {
    /// Waits of `min`, 2·`min`, 4·`min` … up to `max`; each shortened by up to `jitter` of itself,
    /// but never below `min`.
    pub fn try_new(min: Duration, max: Duration, jitter: f64) -> Result<Self, InvalidBackoff> {
        if min.is_zero() {
            return Err(InvalidBackoff::ZeroMin);
        }
        if max < min {
            return Err(InvalidBackoff::MaxBelowMin);
        }
        if !(0.0..=1.0).contains(&jitter) {
            return Err(InvalidBackoff::Jitter);
        }
        Ok(Self { min, max, jitter, attempt: 0 })
    }

    /// The next wait. `random` is uniform in `[0, 1)` and given by the caller, so that tests decide it.
    pub fn next(&mut self, random: f64) -> Duration {
        let factor = 2u32.checked_pow(self.attempt.min(31)).unwrap_or(u32::MAX);
        let base = self.min.saturating_mul(factor).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        base.mul_f64(1.0 - self.jitter * random.clamp(0.0, 1.0)).clamp(self.min, self.max)
    }

    /// The longest wait, for failures that waiting rarely mends (a wrong password).
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Attempts since the last [`reset`](Self::reset).
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// Starts again from the shortest wait.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_wait_is_within_its_bounds(min_ms in 1u64..5_000, extra in 0u64..100_000, jitter in 0.0f64..=1.0,
                                           random in proptest::collection::vec(0.0f64..1.0, 1..80)) {
            let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(min_ms + extra));
            let mut backoff = Backoff::try_new(min, max, jitter).unwrap();
            for r in random {
                let wait = backoff.next(r);
                prop_assert!(min <= wait && wait <= max);
            }
        }
    }

    #[test]
    fn doubles_to_the_longest_and_starts_again() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::try_new(second, second * 30, 0.0).unwrap();
        let waits: Vec<u64> = (0..7).map(|_| backoff.next(0.5).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), second);
    }

    #[test]
    fn nonsense_is_refused() {
        let second = Duration::from_secs(1);
        assert_eq!(Backoff::try_new(Duration::ZERO, second, 0.0), Err(InvalidBackoff::ZeroMin));
        assert_eq!(Backoff::try_new(second, Duration::from_millis(1), 0.0), Err(InvalidBackoff::MaxBelowMin));
        assert_eq!(Backoff::try_new(second, second, 1.5), Err(InvalidBackoff::Jitter));
    }
}
