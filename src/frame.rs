//! Frames as everyone sees them, and the size in which the model wants them.
//! Not here: where frames come from (`ingest`), how many are kept (`window`), resampling (`engine`).

use bytes::Bytes;
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

/// One decoded picture for the model.
#[derive(Clone)]
pub struct Frame {
    /// Counts the frames of one stream from 0, across reconnects; never reused while the program runs.
    pub seq: u64,
    /// Presentation time stamp of the source, if it has one.
    pub pts: Option<Duration>,
    /// When the frame left the decoder, on this machine's monotonic clock.
    pub captured: Instant,
    /// The same moment on the wall clock.
    pub wall: SystemTime,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Tightly packed RGB, `height` rows of `width` × 3 bytes, top row first.
    pub rgb: Bytes,
}

impl Frame {
    /// Bytes of pixel data.
    pub fn bytes(&self) -> usize {
        self.rgb.len()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame {{ seq: {}, {}x{} }}", self.seq, self.width, self.height)
    }
}

/// One JPEG for viewers.
#[derive(Clone)]
pub struct Jpeg {
    /// Counts the JPEGs of one stream from 0.
    pub seq: u64,
    /// When the frame left the decoder.
    pub captured: Instant,
    /// The compressed picture, a whole JFIF file.
    pub data: Bytes,
}

impl fmt::Debug for Jpeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jpeg {{ seq: {}, {} bytes }}", self.seq, self.data.len())
    }
}

/// Side of the square whose area one slice has (MiniCPM-o 4.5 `preprocessor_config.json`, `scale_resolution`).
const SCALE_RESOLUTION: f64 = 448.0;
/// Both sides are multiples of the vision tower's patch (same file, `patch_size`).
const PATCH: f64 = 14.0;
/// Longest side of a frame that is handed on larger than the tower takes it.
const MAX_SIDE: u32 = 1344;

/// The size to which the reference processor resizes a picture when it makes one slice of it:
/// area close to 448², aspect kept, both sides multiples of 14.
///
/// Source: `MiniCPMVImageProcessor.find_best_resize` with `allow_upscale=True` (image_processing_minicpmv.py).
pub fn reference_size(width: u32, height: u32) -> (u32, u32) {
    let ratio = f64::from(width.max(1)) / f64::from(height.max(1));
    let scaled_height = (SCALE_RESOLUTION / ratio.sqrt()).trunc();
    let scaled_width = (scaled_height * ratio).trunc();
    // Python's round() goes to the even neighbour at one half.
    let to_patch = |side: f64| ((side / PATCH).round_ties_even() * PATCH).max(PATCH) as u32;
    (to_patch(scaled_width), to_patch(scaled_height))
}

/// The size in which `ingest` delivers frames of a source of `width` × `height`.
///
/// It is [`reference_size`] when a frame of that size would be left as it is by the processor.
/// For the few aspect ratios where rounding moves it again, the source's own shape is kept
/// (bounded), so that only one resize decides.
pub fn delivered_size(width: u32, height: u32) -> (u32, u32) {
    let target = reference_size(width, height);
    if reference_size(target.0, target.1) == target {
        return target;
    }
    let longest = width.max(height).max(1);
    if longest <= MAX_SIDE {
        return (width, height);
    }
    let scale = |side: u32| ((u64::from(side) * u64::from(MAX_SIDE)) / u64::from(longest)).max(1) as u32;
    (scale(width), scale(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_cameras_get_the_reference_size() {
        // Computed with the reference's own Python.
        for (source, expected) in [
            ((1920, 1080), (602, 336)),
            ((1280, 720), (602, 336)),
            ((640, 480), (518, 392)),
            ((720, 576), (504, 406)),
            ((1080, 1920), (336, 602)),
            ((352, 288), (490, 406)),
            ((640, 272), (686, 294)),
            ((2688, 1520), (588, 336)),
            ((448, 448), (448, 448)),
        ] {
            assert_eq!(reference_size(source.0, source.1), expected, "{source:?}");
            assert_eq!(delivered_size(source.0, source.1), expected, "{source:?}");
        }
    }

    #[test]
    fn a_size_that_would_move_again_keeps_the_sources_shape() {
        // 616x336 is resized to 602x336 when it is offered a second time.
        assert_eq!(reference_size(1000, 540), (616, 336));
        assert_eq!(delivered_size(1000, 540), (1000, 540));
        let (w, h) = delivered_size(4000, 2160);
        assert_eq!((w, h), (1344, 725));
    }

    #[test]
    fn degenerate_sizes_do_not_panic() {
        for (w, h) in [(0, 0), (1, 100_000), (100_000, 1)] {
            let (a, b) = delivered_size(w, h);
            assert!(reference_size(w, h).0 >= 14 && a <= 100_000 && b <= 100_000);
        }
    }
}
