//! Encoded pictures on their way from the room to the decoder: which of them can be decoded, and when a key frame has
//! to be asked for. A value; time is an argument. Not here: the queue (`crate::webcam`), packets (`peer`).

use crate::webcam::{Codec, Encoded};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// Between two requests for a key frame.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A picture as it came from the room.
#[derive(Debug, Clone)]
pub(super) struct Arrived {
    pub(super) codec: Codec,
    pub(super) keyframe: bool,
    /// Nothing was lost between the one before and this one.
    pub(super) contiguous: bool,
    /// The track's own clock.
    pub(super) time: Duration,
    pub(super) data: Bytes,
}

/// One stream's pictures, over all cameras and connections.
#[derive(Debug, Default)]
pub(super) struct Intake {
    track: u64,
    sid: String,
    codec: Option<Codec>,
    /// The track's clock at its first picture, and the stamp given last.
    begin: Option<Duration>,
    last: Duration,
    needs_keyframe: bool,
    asked: Option<Instant>,
    /// Over all cameras and connections.
    asks: u64,
    undecodable: u64,
}

impl Intake {
    /// Another camera, or the same one over another connection, begins.
    pub(super) fn begin(&mut self, sid: &str) {
        self.track += 1;
        self.sid = sid.to_owned();
        (self.codec, self.begin, self.last) = (None, None, Duration::ZERO);
        (self.needs_keyframe, self.asked) = (true, None);
    }

    /// The camera whose pictures are taken.
    #[cfg(test)]
    fn sid(&self) -> &str {
        &self.sid
    }

    /// The decoder lost its way.
    pub(super) fn need_keyframe(&mut self) {
        self.needs_keyframe = true;
    }

    /// Whether a key frame is to be asked for now.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        let waited = self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_EVERY);
        let ask = self.needs_keyframe && waited;
        if ask {
            self.asked = Some(now);
            self.asks += 1;
        }
        ask
    }

    /// Key frames asked for, and pictures that were of no use for a loss before them, so far.
    pub(super) fn losses(&self) -> (u64, u64) {
        (self.asks, self.undecodable)
    }

    /// The picture for the decoder, if it can make anything of it.
    pub(super) fn take(&mut self, arrived: Arrived) -> Option<Encoded> {
        if self.codec.is_some_and(|codec| codec != arrived.codec) {
            let sid = std::mem::take(&mut self.sid);
            self.begin(&sid);
        }
        self.codec = Some(arrived.codec);
        if arrived.keyframe {
            self.needs_keyframe = false;
        } else if !arrived.contiguous {
            self.needs_keyframe = true;
        }
        if self.needs_keyframe || arrived.data.is_empty() {
            // Before its first key frame nothing of a track was lost.
            self.undecodable += u64::from(self.begin.is_some());
            return None;
        }
        let begin = *self.begin.get_or_insert(arrived.time);
        // Never backwards, whatever the sender's clock does.
        let pts = arrived.time.saturating_sub(begin).max(self.last);
        self.last = pts;
        Some(Encoded { track: self.track, codec: arrived.codec, keyframe: arrived.keyframe, pts, data: arrived.data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(keyframe: bool, contiguous: bool, ms: u64) -> Arrived {
        let time = Duration::from_millis(ms);
        Arrived { codec: Codec::Vp8, keyframe, contiguous, time, data: Bytes::from_static(b"x") }
    }

    #[test]
    fn nothing_is_taken_until_a_key_frame_and_after_a_loss_again() {
        let now = Instant::now();
        let mut intake = Intake::default();
        intake.begin("TR_a");
        assert!(intake.take(arrived(false, true, 5000)).is_none());
        assert!(intake.ask(now) && !intake.ask(now + Duration::from_millis(499)));
        assert!(intake.ask(now + ASK_EVERY));
        let first = intake.take(arrived(true, true, 5100)).unwrap();
        assert_eq!((first.pts, first.track, first.keyframe), (Duration::ZERO, 1, true));
        assert!(!intake.ask(now + ASK_EVERY * 9));
        assert_eq!(intake.take(arrived(false, true, 5140)).unwrap().pts, Duration::from_millis(40));
        assert!(intake.take(arrived(false, false, 5180)).is_none());
        assert!(intake.take(arrived(false, true, 5220)).is_none() && intake.ask(now + ASK_EVERY * 10));
        assert_eq!(
            intake.take(arrived(true, false, 100)).unwrap().pts,
            Duration::from_millis(40),
            "a clock that jumps"
        );
        let other = Arrived { codec: Codec::H264, ..arrived(true, true, 6000) };
        let other = intake.take(other);
        assert_eq!(other.map(|p| (p.track, p.pts)), Some((2, Duration::ZERO)), "another codec is another track");
        assert_eq!(intake.sid(), "TR_a");
        assert_eq!(intake.losses(), (3, 2), "what came before the first key frame is no loss");
    }
}
