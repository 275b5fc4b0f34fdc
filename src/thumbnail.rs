//! The picture beside an utterance: a small JPEG of the newest frame of its look, and the few that a stream keeps.
//! Not here: the live picture (`bus`, made by `ingest` while somebody watches), which look gets one (`commentary`).

use crate::frame::Frame;
use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, RgbImage};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Most thumbnails kept for one stream.
pub const MAX_THUMBNAILS: usize = 64;
/// Most bytes of them.
pub const MAX_BYTES: usize = 1 << 20;
/// Longest side, pixels.
const SIDE: u32 = 320;
const QUALITY: u8 = 70;

/// One small picture.
#[derive(Debug, Clone)]
pub struct Thumbnail {
    /// Number of the frame.
    pub seq: u64,
    /// Wall clock at the frame's capture.
    pub wall: SystemTime,
    /// A whole JFIF file.
    pub jpeg: Bytes,
}

impl Thumbnail {
    /// A picture of the frame with the same shape, at most 320 pixels on its longer side. It copies,
    /// resizes and encodes, so don't call it where others wait. `None` when the frame's pixels are not as many as it says.
    pub fn of(frame: &Frame) -> Option<Self> {
        let pixels = RgbImage::from_raw(frame.width, frame.height, frame.rgb.to_vec())?;
        let longest = frame.width.max(frame.height).max(1);
        let small = |side: u32| (u64::from(side) * u64::from(SIDE.min(longest)) / u64::from(longest)).max(1) as u32;
        let (width, height) = (small(frame.width), small(frame.height));
        let image = DynamicImage::ImageRgb8(pixels).thumbnail_exact(width, height);
        let mut jpeg = Vec::with_capacity(16 * 1024);
        image.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY)).ok()?;
        Some(Self { seq: frame.seq, wall: frame.wall, jpeg: jpeg.into() })
    }
}

/// How many thumbnails there are, of how many bytes, and how many went for the bounds by one addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    pub count: usize,
    pub bytes: usize,
    pub dropped: u64,
}

/// The thumbnails of one stream by utterance; the oldest goes first.
#[derive(Debug, Default)]
pub struct Thumbnails(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_age: VecDeque<(u64, Thumbnail)>,
    bytes: usize,
}

impl Thumbnails {
    /// Keeps the picture of that utterance, in place of one that it had.
    pub fn keep(&self, utterance: u64, thumbnail: Thumbnail) -> Level {
        let mut kept = self.lock();
        if let Some(at) = kept.by_age.iter().position(|(u, _)| *u == utterance)
            && let Some((_, old)) = kept.by_age.remove(at)
        {
            kept.bytes -= old.jpeg.len();
        }
        kept.bytes += thumbnail.jpeg.len();
        kept.by_age.push_back((utterance, thumbnail));
        let mut dropped = 0;
        while kept.by_age.len() > MAX_THUMBNAILS || kept.bytes > MAX_BYTES {
            let Some((_, old)) = kept.by_age.pop_front() else { break };
            kept.bytes -= old.jpeg.len();
            dropped += 1;
        }
        Level { count: kept.by_age.len(), bytes: kept.bytes, dropped }
    }

    /// The picture of that utterance, while it is kept.
    pub fn get(&self, utterance: u64) -> Option<Thumbnail> {
        self.lock().by_age.iter().rev().find(|(u, _)| *u == utterance).map(|(_, t)| t.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing in between can panic, so a poisoned lock still holds a sound set.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Instant;

    fn frame(width: u32, height: u32, bytes: usize) -> Frame {
        Frame {
            seq: 7,
            pts: None,
            captured: Instant::now(),
            wall: SystemTime::now(),
            width,
            height,
            rgb: vec![200; bytes].into(),
        }
    }

    fn small(bytes: usize) -> Thumbnail {
        Thumbnail { seq: 0, wall: SystemTime::now(), jpeg: vec![0; bytes].into() }
    }

    #[test]
    fn it_is_a_small_jpeg_of_the_same_shape() {
        for ((width, height), expected) in
            [((602, 336), (320, 178)), ((336, 602), (178, 320)), ((100, 50), (100, 50)), ((1344, 1), (320, 1))]
        {
            let made = Thumbnail::of(&frame(width, height, (width * height * 3) as usize)).unwrap();
            let image = image::load_from_memory_with_format(&made.jpeg, image::ImageFormat::Jpeg).unwrap();
            assert_eq!((image.width(), image.height()), expected);
            assert_eq!(made.seq, 7);
        }
    }

    #[test]
    fn a_frame_that_lies_about_its_size_gets_none() {
        assert!(Thumbnail::of(&frame(602, 336, 10)).is_none());
    }

    proptest! {
        #[test]
        fn bounds_hold_and_the_newest_are_there(sizes in prop::collection::vec((1u64..100, 0usize..60_000), 1..150)) {
            let all = Thumbnails::default();
            let mut dropped = 0;
            for (utterance, bytes) in &sizes {
                let level = all.keep(*utterance, small(*bytes));
                dropped += level.dropped;
                prop_assert!(level.count <= MAX_THUMBNAILS && level.bytes <= MAX_BYTES);
                prop_assert_eq!(all.get(*utterance).unwrap().jpeg.len(), *bytes);
                let held: usize = (0..100).filter_map(|u| all.get(u)).map(|t| t.jpeg.len()).sum();
                prop_assert_eq!(held, level.bytes);
            }
            let told: std::collections::BTreeSet<_> = sizes.iter().map(|(u, _)| *u).collect();
            prop_assert!((0..100).filter(|u| all.get(*u).is_some()).count() as u64 + dropped >= told.len() as u64);
        }
    }

    #[test]
    fn one_that_is_too_large_alone_is_not_kept() {
        let all = Thumbnails::default();
        assert_eq!(all.keep(1, small(MAX_BYTES + 1)), Level { count: 0, bytes: 0, dropped: 1 });
        assert!(all.get(1).is_none());
    }
}
