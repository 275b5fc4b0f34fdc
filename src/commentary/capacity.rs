//! How busy the model is, and how many streams it can serve: from the looks of the last minute, of all streams together.
//! Not here: whose look comes first (`engine::row`), how long each step took (`clocks`).

use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is looked back at: so many seconds.
const SECONDS: usize = 60;
/// Looks from which an estimate is made.
const LEAST_LOOKS: u32 = 3;
/// From this share of the time on the model counts as full.
const FULL: f64 = 0.95;
/// A full model is told to the log so often at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The model's load as `/api/status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Load {
    /// Share of the last minute in which the model had a look at work, 0 to 1.
    pub busy: f64,
    /// Looks answered in a second.
    pub looks_per_s: f64,
    /// Seconds that a look waited for its turn, on average; `None` when there was none.
    pub wait_s: Option<f64>,
    /// Streams that were looked at.
    pub streams: usize,
    /// Streams that could be, each as soon after its last look as `INFERENCE_INTERVAL` says; `None` until a few looks were
    /// done. What several streams gain by sharing a batch counts as far as they already do.
    pub streams_that_fit: Option<usize>,
    /// What to do when there are too many streams, in plain words.
    pub advice: Option<String>,
}

/// What all streams' looks are counted in.
#[derive(Debug)]
pub struct Capacity {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    began: Instant,
    /// Looks at work.
    working: usize,
    /// Up to where `seconds` are kept.
    until: Instant,
    /// The last ones, the present one last; together at most `SECONDS`.
    seconds: VecDeque<Second>,
    /// When each stream's last look began.
    streams: BTreeMap<Arc<str>, Instant>,
    told: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Second {
    number: u64,
    busy: Duration,
    begun: u32,
    waited: Duration,
    done: u32,
    took: Duration,
}

/// A look at work. Dropped without [`done`](Self::done), it was none that counts.
pub struct Working {
    capacity: Arc<Capacity>,
    began: Instant,
    took: Option<Duration>,
}

impl Capacity {
    /// Nothing counted yet. `interval`: the least time from a look's end to the next.
    pub fn new(interval: Duration) -> Self {
        Self::from(interval, Instant::now())
    }

    fn from(interval: Duration, now: Instant) -> Self {
        let state = State {
            began: now,
            working: 0,
            until: now,
            seconds: VecDeque::new(),
            streams: BTreeMap::new(),
            told: None,
        };
        Self { interval, state: Mutex::new(state) }
    }

    /// The engine took up a look of this stream, which had waited so long.
    pub fn begin(self: &Arc<Self>, stream: &Arc<str>, waited: Duration) -> Working {
        let now = Instant::now();
        self.lock().begin(now, stream, waited);
        Working { capacity: Arc::clone(self), began: now, took: None }
    }

    /// The load now.
    pub fn load(&self) -> Load {
        let mut state = self.lock();
        state.pass(Instant::now());
        state.load(self.interval)
    }

    fn end(&self, took: Option<Duration>) {
        let now = Instant::now();
        let mut state = self.lock();
        state.end(now, took);
        let tell = state.told.is_none_or(|told| now - told >= TELL_EVERY);
        if let (true, Some(advice)) = (tell, state.load(self.interval).advice) {
            state.told = Some(now);
            tracing::warn!("{advice}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Working {
    /// It was answered.
    pub fn done(mut self) {
        self.took = Some(self.began.elapsed());
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.capacity.end(self.took);
    }
}

impl State {
    /// Lets the time up to `now` pass.
    fn pass(&mut self, now: Instant) {
        while self.until < now {
            let number = (self.until - self.began).as_secs();
            let ends = self.began + Duration::from_secs(number + 1);
            let to = ends.min(now);
            if self.seconds.back().is_none_or(|last| last.number != number) {
                self.seconds.push_back(Second { number, ..Second::default() });
            }
            if let Some(second) = self.seconds.back_mut().filter(|_| self.working > 0) {
                second.busy += to - self.until;
            }
            // A long pause needs no second of its own for each.
            self.until = if self.working == 0 && now - to > Duration::from_secs(SECONDS as u64) { now } else { to };
        }
        let oldest = (self.until - self.began).as_secs().saturating_sub(SECONDS as u64);
        while self.seconds.front().is_some_and(|first| first.number < oldest) {
            self.seconds.pop_front();
        }
        let window = Duration::from_secs(SECONDS as u64);
        self.streams.retain(|_, began| now.saturating_duration_since(*began) <= window);
    }

    fn present(&mut self) -> &mut Second {
        let number = (self.until - self.began).as_secs();
        if self.seconds.back().is_none_or(|last| last.number != number) {
            self.seconds.push_back(Second { number, ..Second::default() });
        }
        let last = self.seconds.len() - 1;
        &mut self.seconds[last]
    }

    fn begin(&mut self, now: Instant, stream: &Arc<str>, waited: Duration) {
        self.pass(now);
        self.working += 1;
        self.streams.insert(Arc::clone(stream), now);
        let second = self.present();
        second.begun += 1;
        second.waited += waited;
    }

    fn end(&mut self, now: Instant, took: Option<Duration>) {
        self.pass(now);
        self.working = self.working.saturating_sub(1);
        if let Some(took) = took {
            let second = self.present();
            second.done += 1;
            second.took += took;
        }
    }

    fn load(&self, interval: Duration) -> Load {
        let sum = self.seconds.iter().fold(Second::default(), |sum, second| Second {
            number: 0,
            busy: sum.busy + second.busy,
            begun: sum.begun + second.begun,
            waited: sum.waited + second.waited,
            done: sum.done + second.done,
            took: sum.took + second.took,
        });
        let span = (self.until - self.began).as_secs_f64().clamp(1e-3, SECONDS as f64);
        let busy = (sum.busy.as_secs_f64() / span).min(1.0);
        let fit = (sum.done >= LEAST_LOOKS && !sum.busy.is_zero()).then(|| {
            // Looks a second if the model never rested, times the seconds from a stream's look to its next.
            let rate = f64::from(sum.done) / sum.busy.as_secs_f64();
            let period = interval.as_secs_f64() + sum.took.as_secs_f64() / f64::from(sum.done);
            ((rate * period + 1e-6) as usize).max(1)
        });
        let streams = self.streams.len();
        let advice = fit.filter(|fit| busy >= FULL && streams > *fit).map(|fit| {
            format!(
                "the model is full: {streams} streams are watched, and about {fit} would get each look in time; watch \
                 fewer, raise INFERENCE_INTERVAL or lower MAX_TOKENS"
            )
        });
        Load {
            busy,
            looks_per_s: f64::from(sum.done) / span,
            wait_s: (sum.begun > 0).then(|| sum.waited.as_secs_f64() / f64::from(sum.begun)),
            streams,
            streams_that_fit: fit,
            advice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute and a half of streams that are served one at a time: each look takes `took` and comes when the model is
    /// free and `interval` is over.
    fn served(streams: usize, interval: f64, took: f64) -> Load {
        let began = Instant::now();
        let at = |s: f64| began + Duration::from_secs_f64(s);
        let capacity = Capacity::from(Duration::from_secs_f64(interval), began);
        let names: Vec<Arc<str>> = (0..streams).map(|i| Arc::from(format!("s{i}"))).collect();
        let mut due = vec![0.0f64; streams];
        let mut now = 0.0f64;
        while now < 90.0 {
            let next = (0..streams).min_by(|a, b| due[*a].total_cmp(&due[*b])).unwrap();
            let begins = now.max(due[next]);
            let mut state = capacity.lock();
            state.begin(at(begins), &names[next], Duration::from_secs_f64(begins - due[next]));
            state.end(at(begins + took), Some(Duration::from_secs_f64(took)));
            now = begins + took;
            due[next] = now + interval;
        }
        capacity.lock().load(capacity.interval)
    }

    #[test]
    fn what_fits_is_what_can_be_served() {
        // A look of 0.4 s and 1.6 s of rest: five at a time fill the model, and fewer say so already.
        for streams in [1, 3, 5] {
            let load = served(streams, 1.6, 0.4);
            assert_eq!(load.streams_that_fit, Some(5), "{load:?}");
            assert!((load.busy - streams as f64 / 5.0).abs() < 0.03, "{load:?}");
            assert!((load.looks_per_s - streams as f64 / 2.0).abs() < 0.1, "{load:?}");
            assert!(load.wait_s.is_some_and(|s| s < 0.02) && load.advice.is_none(), "{load:?}");
        }
        let load = served(9, 1.6, 0.4);
        assert_eq!((load.streams, load.streams_that_fit), (9, Some(5)), "{load:?}");
        assert!(load.busy > 0.99 && load.wait_s.is_some_and(|s| s > 1.0), "{load:?}");
        assert!(load.advice.is_some_and(|a| a.contains("9 streams") && a.contains("about 5")));
    }

    #[test]
    fn two_at_once_count_as_what_they_are_together() {
        let began = Instant::now();
        let at = |s: f64| began + Duration::from_secs_f64(s);
        let capacity = Capacity::from(Duration::from_secs(1), began);
        let (a, b): (Arc<str>, Arc<str>) = (Arc::from("a"), Arc::from("b"));
        for second in 0..30u32 {
            let t = f64::from(second);
            let mut state = capacity.lock();
            state.begin(at(t), &a, Duration::ZERO);
            state.begin(at(t + 0.1), &b, Duration::ZERO);
            state.end(at(t + 0.4), Some(Duration::from_secs_f64(0.4)));
            state.end(at(t + 0.5), Some(Duration::from_secs_f64(0.4)));
        }
        let load = capacity.lock().load(capacity.interval);
        // Four looks in each busy second, each 1.4 s after the one before.
        assert_eq!(load.streams_that_fit, Some(5), "{load:?}");
        assert!((load.busy - 0.5).abs() < 0.03, "{load:?}");
    }

    #[test]
    fn the_past_is_forgotten_and_given_up_looks_do_not_count() {
        let capacity = Arc::new(Capacity::new(Duration::from_secs(1)));
        let name: Arc<str> = Arc::from("a");
        for _ in 0..5 {
            drop(capacity.begin(&name, Duration::from_secs(1)));
        }
        let load = capacity.load();
        assert_eq!((load.streams_that_fit, load.streams), (None, 1));
        for _ in 0..5 {
            capacity.begin(&name, Duration::ZERO).done();
        }
        assert!(capacity.load().streams_that_fit.is_some());
        let mut state = capacity.lock();
        assert_eq!(state.working, 0);
        let later = state.until + Duration::from_secs(1000);
        state.pass(later);
        let load = state.load(capacity.interval);
        assert_eq!((load.streams, load.streams_that_fit, load.wait_s), (0, None, None));
        assert!(state.seconds.len() <= SECONDS + 1);
    }
}
