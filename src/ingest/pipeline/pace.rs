//! Plays a file at its own speed: how long a frame has to wait before it goes on. Pure.
//!
//! `clocksync` would do the same by the pipeline's clock, but starts anew wrongly after the seek that loops a file, and
//! hurries through everything that came late from a server. Not here: the waiting itself (`Pulse::sleep`).

use gstreamer as gst;
use std::time::{Duration, Instant};

/// A frame that is later than this means that time stood still: playing goes on from here, not in a hurry.
const LATE: Duration = Duration::from_millis(500);
/// A frame that is earlier than this means that time stamps jumped.
const EARLY: Duration = Duration::from_secs(10);

/// The pace of one stream.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// A moment, and the running time of the frame that was due then.
    anchor: Option<(Instant, Duration)>,
}

impl Pacer {
    /// Another piece of the stream begins, with time stamps of its own.
    pub(super) fn set_segment(&mut self, segment: &gst::FormattedSegment<gst::ClockTime>) {
        self.segment = Some(segment.clone());
        self.anchor = None;
    }

    /// How long the frame stamped `pts` has to wait. Frames without a time stamp don't.
    pub(super) fn wait(&mut self, now: Instant, pts: Option<gst::ClockTime>) -> Option<Duration> {
        self.wait_until(now, self.running(pts)?)
    }

    /// The running time of the frame stamped `pts`.
    pub(super) fn running(&self, pts: Option<gst::ClockTime>) -> Option<Duration> {
        let running = self.segment.as_ref()?.to_running_time(pts?)?;
        Some(Duration::from_nanos(running.nseconds()))
    }

    fn wait_until(&mut self, now: Instant, running: Duration) -> Option<Duration> {
        let due = self.anchor.and_then(|(start, first)| {
            let due = start.checked_add(running.checked_sub(first)?)?;
            let late = now.saturating_duration_since(due);
            let early = due.saturating_duration_since(now);
            (late <= LATE && early <= EARLY).then_some(due)
        });
        match due {
            Some(due) => Some(due.saturating_duration_since(now)).filter(|wait| !wait.is_zero()),
            None => {
                self.anchor = Some((now, running));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn frames_wait_for_their_time_and_jumps_start_anew() {
        let (mut pacer, now) = (Pacer::default(), Instant::now());
        assert_eq!(pacer.wait_until(now, ms(1000)), None);
        assert_eq!(pacer.wait_until(now + ms(5), ms(1040)), Some(ms(35)));
        // A little late: no wait, and the next one is due by the same count.
        assert_eq!(pacer.wait_until(now + ms(100), ms(1080)), None);
        assert_eq!(pacer.wait_until(now + ms(110), ms(1120)), Some(ms(10)));
        // Far late: from here on as if this one were on time.
        assert_eq!(pacer.wait_until(now + ms(5000), ms(1160)), None);
        assert_eq!(pacer.wait_until(now + ms(5000), ms(1200)), Some(ms(40)));
        // Back to the start, and a leap ahead.
        assert_eq!(pacer.wait_until(now + ms(5040), ms(0)), None);
        assert_eq!(pacer.wait_until(now + ms(5040), ms(60_000)), None);
    }

    #[test]
    fn without_time_stamps_nothing_waits() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.wait(Instant::now(), None), None);
        assert_eq!(pacer.wait(Instant::now(), Some(gst::ClockTime::SECOND)), None);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_bound(times in proptest::collection::vec((0u64..30_000, any::<u32>()), 1..100)) {
            let (mut pacer, start) = (Pacer::default(), Instant::now());
            for (at, running) in times {
                let wait = pacer.wait_until(start + ms(at), ms(u64::from(running)));
                prop_assert!(wait.is_none_or(|wait| wait <= EARLY));
            }
        }
    }
}
