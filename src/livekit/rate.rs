//! A limit on how often something may be done, as a value: a bucket of permits that fills with time.
//! Not here: what is limited.

use std::time::{Duration, Instant};

/// At most `most` at once, and one more every `every`.
#[derive(Debug)]
pub(super) struct Rate {
    most: u32,
    every: Duration,
    left: u32,
    /// When the bucket began to fill; `None` while it is full.
    filling: Option<Instant>,
}

impl Rate {
    /// A full bucket.
    pub(super) fn new(most: u32, every: Duration) -> Self {
        Self { most, every, left: most, filling: None }
    }

    /// Takes a permit at `now`.
    ///
    /// # Errors
    /// The wait until there is one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while let Some(since) = self.filling
            && now.saturating_duration_since(since) >= self.every
        {
            self.left += 1;
            self.filling = (self.left < self.most).then(|| since + self.every);
        }
        if self.left == 0 {
            return Err(self.filling.map_or(self.every, |since| (since + self.every).saturating_duration_since(now)));
        }
        self.left -= 1;
        self.filling.get_or_insert(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_run_out_and_come_back_one_by_one() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut rate = Rate::new(2, Duration::from_secs(6));
        assert_eq!((rate.take(start), rate.take(at(1.0))), (Ok(()), Ok(())));
        assert_eq!(rate.take(at(2.0)), Err(Duration::from_secs(4)));
        assert_eq!(rate.take(at(6.0)), Ok(()));
        assert_eq!(rate.take(at(11.0)), Err(Duration::from_secs(1)));
        assert_eq!((rate.take(at(1000.0)), rate.take(at(1000.0))), (Ok(()), Ok(())));
        assert!(rate.take(at(1000.0)).is_err());
    }
}
