//! Sound on its way to listeners: numbered frames of 48 kHz mono, who listens and what each of them lost; resampling
//! to that rate; the samples that wait to be played.
//! Not here: who speaks (`speech`), HTTP (`web`), when a frame is due (the speaker's clock, in `speech`).

mod ffi;
mod hub;
mod picture_delay;
mod playout;
mod resample;

pub use hub::{Account, AudioFrame, AudioHub, AudioListener, Heard, ListenerStatus, QUEUE_FRAMES, Wants};
pub use picture_delay::PictureDelay;
pub use playout::{FADE_SAMPLES, Playout};
pub use resample::Resampler;

use std::time::Duration;

/// Samples a second of everything that leaves here; one channel.
pub const SAMPLE_RATE: u32 = 48_000;
/// Samples of a frame.
pub const FRAME_SAMPLES: usize = 960;
/// Bytes of a frame: each sample is a signed 16-bit integer, the low byte first.
pub const FRAME_BYTES: usize = FRAME_SAMPLES * 2;
/// How long a frame lasts.
pub const FRAME_TIME: Duration = Duration::from_millis(20);
