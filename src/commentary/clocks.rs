//! When each step of a look happened. Not here: what the steps are (`engine`), who is told (`cycle`).

use crate::bus::Stamps;
use crate::frame::Frame;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// The instants of one look, on this machine's monotonic clock.
#[derive(Debug)]
pub(super) struct Clocks {
    oldest: Arc<Frame>,
    newest: Arc<Frame>,
    pub(super) started: Option<Instant>,
    pub(super) encoded: Option<Instant>,
    pub(super) prefilled: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

impl Clocks {
    /// `None` when there are no frames.
    pub(super) fn new(frames: &[Arc<Frame>]) -> Option<Self> {
        Some(Self {
            oldest: Arc::clone(frames.first()?),
            newest: Arc::clone(frames.last()?),
            started: None,
            encoded: None,
            prefilled: None,
            first_token: None,
            last_token: None,
        })
    }

    /// A piece of text was made.
    pub(super) fn token(&mut self, at: Instant) {
        self.first_token.get_or_insert(at);
        self.last_token = Some(at);
    }

    /// The newest frame.
    pub(super) fn newest(&self) -> &Arc<Frame> {
        &self.newest
    }

    /// When the newest frame was captured.
    pub(super) fn captured(&self) -> Instant {
        self.newest.captured
    }

    /// For the utterance, whose sound may have begun. Its end comes later, with an event of its own.
    pub(super) fn stamps(&self, first_audio: Option<Instant>) -> Stamps {
        let since_newest = |at: Option<Instant>| at.map(|at| seconds(self.newest.captured, at) * 1e3);
        Stamps {
            oldest_frame: self.oldest.seq,
            newest_frame: self.newest.seq,
            newest_frame_unix_ms: unix_ms(self.newest.wall),
            window_ms: seconds(self.oldest.captured, self.newest.captured) * 1e3,
            start_ms: since_newest(self.started).unwrap_or_default(),
            encode_done_ms: since_newest(self.encoded),
            prefill_done_ms: since_newest(self.prefilled),
            first_token_ms: since_newest(self.first_token),
            last_token_ms: since_newest(self.last_token),
            first_audio_ms: since_newest(first_audio),
            last_audio_ms: None,
        }
    }

    /// Seconds from the newest frame's capture to the first token.
    pub(super) fn to_first_token(&self) -> Option<f64> {
        Some(seconds(self.newest.captured, self.first_token?))
    }

    /// Seconds from the newest frame's capture to the last token.
    pub(super) fn to_last_token(&self) -> Option<f64> {
        Some(seconds(self.newest.captured, self.last_token?))
    }

    /// Seconds from the oldest frame's capture to the last token.
    pub(super) fn window_to_text(&self) -> Option<f64> {
        Some(seconds(self.oldest.captured, self.last_token?))
    }

    /// Seconds from the newest frame's capture to the job's start in the engine.
    pub(super) fn to_start(&self) -> Option<f64> {
        Some(seconds(self.newest.captured, self.started?))
    }

    /// Seconds that the frames' encoding took.
    pub(super) fn encoding(&self) -> Option<f64> {
        Some(seconds(self.started?, self.encoded?))
    }

    /// Seconds that decoding the prompt took.
    pub(super) fn prefill(&self) -> Option<f64> {
        Some(seconds(self.encoded?, self.prefilled?))
    }

    /// Seconds that writing the answer took.
    pub(super) fn writing(&self) -> Option<f64> {
        Some(seconds(self.prefilled?, self.last_token?))
    }

    /// Seconds from the job's start in the engine to the last token.
    pub(super) fn inference(&self) -> Option<f64> {
        Some(seconds(self.started?, self.last_token?))
    }
}

/// Never negative.
fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

fn unix_ms(wall: SystemTime) -> u64 {
    // A clock before 1970 is shown as 1970.
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
