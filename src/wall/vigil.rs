//! When a child counts as hung, and how long until it is started again: values without clocks or processes.
//! Not here: who asks and acts (`keeper`).

use crate::backoff::Backoff;
use std::time::Duration;

/// Looks for signs of life in the time after which a child counts as hung, at least; and the longest time between two.
const LOOKS: u32 = 20;
const LONGEST_TICK: Duration = Duration::from_millis(250);
/// Loading has steps that tell nothing in between, so it may take this many times as long.
const LOADING: u32 = 5;
/// A tick counts as this many at most, however long it took.
const LATE: u32 = 2;

/// How often to look for signs of life, which is also how often the child tells them: a hang is noticed that much
/// beyond the limit, twice.
pub(super) fn tick_of(limit: Duration) -> Duration {
    (limit / LOOKS).min(LONGEST_TICK)
}

/// Adds up the time without a sign of life. When this process itself was held up, as by a debugger, that time counts as
/// two ticks only; when its ticks come somewhat late, as on a busy machine, the time counts in full.
#[derive(Debug)]
pub(super) struct Vigil {
    limit: Duration,
    beats: u64,
    silent: Duration,
}

impl Vigil {
    /// One that lets a child be silent for `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, beats: 0, silent: Duration::ZERO }
    }

    /// The child told its pulse.
    pub(super) fn told(&mut self, beats: u64, working: bool) {
        if !working || beats != self.beats {
            self.silent = Duration::ZERO;
        }
        self.beats = beats;
    }

    /// `passed` is the time since the last tick. True when the child counts as hung.
    pub(super) fn tick(&mut self, passed: Duration, loading: bool) -> bool {
        self.silent += passed.min(tick_of(self.limit) * LATE);
        self.silent > if loading { self.limit * LOADING } else { self.limit }
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
        let limit = Duration::from_secs(4);
        let tick = tick_of(limit);
        let mut vigil = Vigil::new(limit);
        for _ in 0..100 {
            vigil.told(7, false);
            assert!(!vigil.tick(tick, false), "at rest");
        }
        for beats in 8..100 {
            vigil.told(beats, true);
            assert!(!vigil.tick(tick, false), "at work");
        }
        // It says the same again and again: its other threads live, the engine's does not. On time and late.
        for step in [tick, tick * 3 / 2] {
            vigil.told(1, false);
            vigil.told(99, true);
            let mut silent = Duration::ZERO;
            loop {
                vigil.told(99, true);
                silent += step;
                if vigil.tick(step, false) {
                    break;
                }
            }
            assert!(silent > limit && silent <= limit + step, "{silent:?}");
        }
        let mut vigil = Vigil::new(limit);
        assert_eq!((0..1000).take_while(|_| !vigil.tick(tick, true)).count() as u32, LOOKS * LOADING, "nothing at all");
        let mut vigil = Vigil::new(limit);
        assert!(!vigil.tick(Duration::from_secs(3600), false), "it was us who slept");
    }

    #[test]
    fn a_hang_is_noticed_soon_after_any_limit() {
        for limit in [0.5, 4.0, 60.0, 86_400.0].map(Duration::from_secs_f64) {
            assert!(2 * tick_of(limit) <= Duration::from_millis(500) && tick_of(limit) >= Duration::from_millis(20));
        }
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
