//! Made-up frames: a moving pattern in the size in which `ingest` delivers 16:9. Not here: real video.

use crate::frame::Frame;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Pixels; `frame::reference_size` of 16:9.
pub const WIDTH: u32 = 602;
pub const HEIGHT: u32 = 336;
/// Different pictures; frames beyond share their pixels, not their numbers.
const DIFFERENT: u64 = 8;

/// A few pictures, made once.
pub struct Pictures(Vec<Bytes>);

impl Pictures {
    pub fn new() -> Self {
        let pixel = |x: u32, y: u32, n: u32| [(x * 3 + n * 40) as u8, (y * 5) as u8, ((x ^ y) + n * 11) as u8];
        let picture = |n: u32| -> Bytes {
            (0..HEIGHT).flat_map(|y| (0..WIDTH).flat_map(move |x| pixel(x, y, n))).collect::<Vec<u8>>().into()
        };
        Self((0..DIFFERENT as u32).map(picture).collect())
    }

    /// Frame number `seq`, taken now.
    pub fn frame(&self, seq: u64) -> Arc<Frame> {
        Arc::new(Frame {
            seq,
            pts: None,
            captured: Instant::now(),
            wall: SystemTime::now(),
            width: WIDTH,
            height: HEIGHT,
            rgb: self.0[(seq % DIFFERENT) as usize].clone(),
        })
    }

    /// The `count` frames that end with number `newest`, oldest first.
    pub fn window(&self, newest: u64, count: usize) -> Vec<Arc<Frame>> {
        (newest.saturating_sub(count as u64 - 1)..=newest).map(|seq| self.frame(seq)).collect()
    }
}
