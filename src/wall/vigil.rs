//! When a child counts as hung, and how long until it is started again: values without clocks or processes.
//! Not here: who asks and acts (`keeper`).

use crate::backoff::Backoff;
use std::time::Duration;

/// Ticks in the time after which a child counts as hung.
pub(super) const TICKS: u32 = 10;
/// Loading has steps that tell nothing in between, so it may take this many times as long.
const LOADING: u32 = 5;

/// Counts the ticks without a sign of life. Ticks, not time: when this process itself was held up, as by a debugger,
/// only one of them is lost.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    beats: u64,
    silent: u32,
}

impl Vigil {
    /// The child told its pulse.
    pub(super) fn told(&mut self, beats: u64, working: bool) {
        if !working || beats != self.beats {
            self.silent = 0;
        }
        self.beats = beats;
    }

    /// True when it counts as hung.
    pub(super) fn tick(&mut self, loading: bool) -> bool {
        self.silent += 1;
        self.silent > if loading { TICKS * LOADING } else { TICKS }
    }
}

/// What a child achieved.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Run {
    /// From its start until it was ready.
    pub loading: Duration,
    /// From then on.
    pub ready: Duration,
    /// Looks that it answered.
    pub looks: u64,
}

/// A run that was ready for less than this was none.
const LEAST: Duration = Duration::from_secs(1);
/// The shortest and the longest wait.
const DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The waits before each start.
#[derive(Debug)]
pub(super) struct Restarts {
    backoff: Backoff,
}

impl Default for Restarts {
    fn default() -> Self {
        let Ok(backoff) = Backoff::try_new(DELAYS.0, DELAYS.1, 0.0) else { unreachable!("DELAYS is in order") };
        Self { backoff }
    }
}

impl Restarts {
    /// How long to wait after this run. One that answered a look and lasted longer than its loading begins the series
    /// anew, so that however often it ends, more than half of the time it works.
    pub(super) fn after(&mut self, run: Run) -> Duration {
        if run.looks > 0 && run.ready > run.loading.max(LEAST) {
            self.backoff.reset();
        }
        self.backoff.next(0.0)
    }

    /// Starts since the last run that was a good one.
    pub(super) fn attempts(&self) -> u32 {
        self.backoff.attempts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_while_working_is_a_hang_and_silence_at_rest_is_none() {
        let mut vigil = Vigil::default();
        for _ in 0..100 {
            vigil.told(7, false);
            assert!(!vigil.tick(false), "at rest");
        }
        for beats in 8..100 {
            vigil.told(beats, true);
            assert!(!vigil.tick(false), "at work");
        }
        let mut ticks = 0;
        loop {
            // It says the same again and again: its other threads live, the engine's does not.
            vigil.told(99, true);
            ticks += 1;
            if vigil.tick(false) {
                break;
            }
        }
        assert!((TICKS..=TICKS + 2).contains(&ticks), "{ticks}");
        let mut vigil = Vigil::default();
        assert_eq!((0..1000).take_while(|_| !vigil.tick(true)).count() as u32, TICKS * LOADING, "nothing at all");
    }

    #[test]
    fn good_runs_are_followed_at_once_and_bad_ones_ever_later() {
        let seconds = Duration::from_secs;
        let good = Run { loading: seconds(2), ready: seconds(3), looks: 1 };
        let mut restarts = Restarts::default();
        for _ in 0..50 {
            assert_eq!(restarts.after(good), DELAYS.0);
            assert_eq!(restarts.attempts(), 1);
        }
        for bad in [Run { looks: 0, ..good }, Run { ready: seconds(1), ..good }, Run::default()] {
            let mut restarts = Restarts::default();
            let waits: Vec<_> = (0..12).map(|_| restarts.after(bad)).collect();
            assert!(waits.windows(2).all(|w| w[1] == (w[0] * 2).min(DELAYS.1)), "{waits:?}");
            assert_eq!(waits[11], DELAYS.1);
            assert_eq!(restarts.after(good), DELAYS.0);
        }
    }
}
