//! What a running pipeline's own threads note for the one that watches it: signs of life, size, decoder.
//! Not here: what is made of it (`session`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Signs of life of one pipeline.
#[derive(Debug)]
pub(super) struct Pulse {
    /// All times here count from this moment.
    pub(super) anchor: Instant,
    /// Microseconds from the anchor to the newest decoded frame, plus one; 0 before the first.
    decoded: AtomicU64,
    delivered: AtomicBool,
    hls: AtomicBool,
    facts: Mutex<Facts>,
    /// When the newest picture of a paced source was due, and its running time.
    shown: Mutex<Option<(Instant, Duration)>>,
    closing: Mutex<bool>,
    closed: Condvar,
}

/// What is known of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Size of the source's own picture, pixels.
    pub(super) width: u32,
    pub(super) height: u32,
    /// Factory name of the newest decoder.
    pub(super) decoder: Option<String>,
    /// It works on hardware.
    pub(super) hardware: bool,
    /// It has sound that can be had.
    pub(super) sound: bool,
}

impl Pulse {
    pub(super) fn new(anchor: Instant) -> Self {
        Self {
            anchor,
            decoded: AtomicU64::new(0),
            delivered: AtomicBool::new(false),
            hls: AtomicBool::new(false),
            facts: Mutex::default(),
            shown: Mutex::new(None),
            closing: Mutex::new(false),
            closed: Condvar::new(),
        }
    }

    /// Notes that a frame was decoded, or that silence until now was meant.
    pub(super) fn beat(&self, now: Instant) {
        let micros = now.saturating_duration_since(self.anchor).as_micros();
        self.decoded.store(u64::try_from(micros).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    /// When the newest frame was decoded.
    pub(super) fn last_beat(&self) -> Option<Instant> {
        let micros = self.decoded.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.anchor + Duration::from_micros(micros))
    }

    /// Notes that a frame reached the window.
    pub(super) fn set_delivered(&self) {
        self.delivered.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_delivered(&self) -> bool {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Notes that the stream comes in lumps.
    pub(super) fn set_hls(&self) {
        self.hls.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_hls(&self) -> bool {
        self.hls.load(Ordering::Relaxed)
    }

    pub(super) fn set_size(&self, width: u32, height: u32) {
        let mut facts = self.lock_facts();
        (facts.width, facts.height) = (width, height);
    }

    pub(super) fn set_decoder(&self, name: &str, hardware: bool) {
        let mut facts = self.lock_facts();
        (facts.decoder, facts.hardware) = (Some(name.to_owned()), hardware);
    }

    pub(super) fn set_sound(&self, sound: bool) {
        self.lock_facts().sound = sound;
    }

    /// Notes that a picture of a paced source goes on now.
    pub(super) fn set_shown(&self, now: Instant, running: Duration) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, running));
    }

    /// When the newest picture of a paced source went on, and its running time.
    pub(super) fn shown(&self) -> Option<(Instant, Duration)> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn facts(&self) -> Facts {
        self.lock_facts().clone()
    }

    /// Waits for `time` on a thread of the pipeline, or less when the pipeline is being closed.
    pub(super) fn sleep(&self, time: Duration) {
        let closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        let _either_way = self.closed.wait_timeout_while(closing, time, |closing| !*closing);
    }

    /// Wakes every sleeper, now and later.
    pub(super) fn close(&self) {
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.closed.notify_all();
    }

    fn lock_facts(&self) -> MutexGuard<'_, Facts> {
        // Nothing between lock and unlock can stop half-way.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_remembered_and_a_sleep_ends_with_the_pipeline() {
        let now = Instant::now();
        let pulse = Pulse::new(now);
        assert_eq!(pulse.last_beat(), None);
        pulse.beat(now);
        assert_eq!(pulse.last_beat(), Some(now));
        pulse.beat(now + Duration::from_micros(1_500_000));
        assert_eq!(pulse.last_beat(), Some(now + Duration::from_micros(1_500_000)));
        std::thread::scope(|threads| {
            let sleeper = threads.spawn(|| pulse.sleep(Duration::from_secs(60)));
            pulse.close();
            sleeper.join().unwrap();
        });
        assert!(now.elapsed() < Duration::from_secs(30));
    }
}
