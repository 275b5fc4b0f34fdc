//! The change gate: decides whether the scene has changed enough to look again.
//! Not here: when looks are due, and what becomes of them (`cycle`).

use crate::frame::Frame;

/// Tiles across and down. Of a 602 × 336 picture a tile is 12.5 × 9.3 pixels: small enough that a thing of 3 % of
/// the picture's sides fills one, large enough that a camera's noise averages out in it.
const COLUMNS: usize = 48;
const ROWS: usize = 36;
/// Rows of pixels that are read; of taller pictures only every second, third … one.
const ROWS_READ: usize = 400;
/// RGB.
const CHANNELS: usize = 3;

/// What the gate found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// True when a look is worth it.
    pub changed: bool,
    /// Greatest difference of a tile's mean in any of red, green and blue, as a share of 255. 1 when there is
    /// nothing to compare with.
    pub score: f64,
}

/// Compares each frame with the last one that was *looked at*, not with the one before it, so that slow drift
/// adds up and counts in the end.
///
/// The score is that of the tile that changed most, so a small moving thing is enough. Nothing is subtracted for
/// a change of the whole picture's brightness: a lamp that is switched on is news. A camera whose automatic
/// exposure wanders needs a threshold above that.
///
/// Independent noise with a standard deviation of 3 in every pixel scores below 0.01; something of middling contrast
/// (60 of 255) that fills a tile scores 0.24. Recommended threshold: [`ChangeGate::RECOMMENDED`]. A question costs
/// about 0.2 ms for 602 × 336 (optimised build, one core of an x86-64 cloud machine).
#[derive(Debug)]
pub struct ChangeGate {
    threshold: f64,
    looked_at: Option<Thumbnail>,
    /// What was made of the frame last asked about, as it is mostly looked at next.
    newest: Option<(u64, Thumbnail)>,
}

impl ChangeGate {
    /// Four times the score of a noisy camera, a sixth of that of a small thing of middling contrast.
    pub const RECOMMENDED: f64 = 0.04;

    /// A gate that opens from a score of `threshold` (0 to 1) on. With 0 (or below, or NaN) it is always open.
    pub fn new(threshold: f64) -> Self {
        Self { threshold, looked_at: None, newest: None }
    }

    /// Is `frame` different enough from the last one looked at? Always, when there is none or its size was another.
    pub fn changed(&mut self, frame: &Frame) -> Change {
        if self.is_off() {
            return Change { changed: true, score: 1.0 };
        }
        let thumbnail = Thumbnail::of(frame);
        let score = match &self.looked_at {
            Some(before) if before.size == thumbnail.size => before.difference(&thumbnail),
            _ => 1.0,
        };
        self.newest = Some((frame.seq, thumbnail));
        Change { changed: score >= self.threshold, score }
    }

    /// Says that the model is looking at `frame` now; the next ones are compared with it.
    pub fn looked(&mut self, frame: &Frame) {
        if self.is_off() {
            return;
        }
        self.looked_at = match self.newest.take() {
            Some((seq, thumbnail)) if seq == frame.seq => Some(thumbnail),
            _ => Some(Thumbnail::of(frame)),
        };
    }

    /// Forgets what was looked at, so that the next frame counts as changed: after new orders, or a look that failed.
    pub fn reset(&mut self) {
        self.looked_at = None;
        self.newest = None;
    }

    fn is_off(&self) -> bool {
        // Written so that NaN is off.
        !matches!(self.threshold.partial_cmp(&0.0), Some(std::cmp::Ordering::Greater))
    }
}

/// Means of all tiles, row by row, each as red, green, blue from 0 to 255.
#[derive(Debug)]
struct Thumbnail {
    size: (u32, u32),
    means: Vec<[f32; CHANNELS]>,
}

impl Thumbnail {
    fn of(frame: &Frame) -> Self {
        let (width, height) = (frame.width as usize, frame.height as usize);
        let (columns, rows) = (COLUMNS.min(width), ROWS.min(height));
        let mut sums = vec![[0u32; CHANNELS]; columns * rows];
        let mut counts = vec![0u32; columns * rows];
        // Where each column of tiles ends, in bytes of a row.
        let ends: Vec<usize> = (1..=columns).map(|c| c * width / columns * CHANNELS).collect();
        let step = height.div_ceil(ROWS_READ).max(1);
        for (y, row) in frame.rgb.chunks_exact((width * CHANNELS).max(1)).enumerate().take(height).step_by(step) {
            let first = y * rows / height * columns;
            let mut start = 0;
            for (column, end) in ends.iter().enumerate() {
                let pixels = &row[start..*end];
                let sum = &mut sums[first + column];
                for pixel in pixels.chunks_exact(CHANNELS) {
                    for (sum, value) in sum.iter_mut().zip(pixel) {
                        *sum += u32::from(*value);
                    }
                }
                counts[first + column] += (pixels.len() / CHANNELS) as u32;
                start = *end;
            }
        }
        let mean = |(sum, count): (&[u32; CHANNELS], &u32)| sum.map(|s| s as f32 / (*count).max(1) as f32);
        Self { size: (frame.width, frame.height), means: sums.iter().zip(&counts).map(mean).collect() }
    }

    /// Greatest difference of a mean, as a share of 255. Both of the same size.
    fn difference(&self, other: &Self) -> f64 {
        let pairs = self.means.iter().flatten().zip(other.means.iter().flatten());
        let greatest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        f64::from(greatest) / 255.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Instant, SystemTime};

    const WIDTH: u32 = 602;
    const HEIGHT: u32 = 336;

    fn frame(seq: u64, width: u32, height: u32, pixel: impl FnMut(u32, u32) -> [u8; 3]) -> Frame {
        let mut pixel = pixel;
        let rgb: Vec<u8> =
            (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
        Frame { seq, pts: None, captured: Instant::now(), wall: SystemTime::now(), width, height, rgb: rgb.into() }
    }

    /// A scene with some structure.
    fn scene(x: u32, y: u32) -> [u8; 3] {
        [(x / 3 % 200) as u8, (y / 2 % 180) as u8, ((x / 40 + y / 30) % 2 * 120) as u8]
    }

    /// Roughly Gaussian: the sum of 12 uniform numbers.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self, sigma: f64) -> f64 {
            let mut uniform = || {
                self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (self.0 >> 33) as f64 / (1u64 << 31) as f64
            };
            ((0..12).map(|_| uniform()).sum::<f64>() - 6.0) * sigma
        }
    }

    fn noisy(seq: u64, seed: u64, sigma: f64) -> Frame {
        let mut noise = Noise(seed);
        frame(seq, WIDTH, HEIGHT, |x, y| {
            scene(x, y).map(|v| (f64::from(v) + noise.next(sigma)).round().clamp(0.0, 255.0) as u8)
        })
    }

    fn looked_at(frame: &Frame, threshold: f64) -> ChangeGate {
        let mut gate = ChangeGate::new(threshold);
        assert!(gate.changed(frame).changed);
        gate.looked(frame);
        gate
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn the_same_picture_has_not_changed(width in 1u32..200, height in 1u32..200) {
            let mut gate = looked_at(&frame(0, width, height, scene), 0.001);
            prop_assert_eq!(gate.changed(&frame(1, width, height, scene)), Change { changed: false, score: 0.0 });
        }

        #[test]
        fn noise_is_not_a_change(seed in any::<u64>(), sigma in 0.0f64..3.0) {
            let mut gate = looked_at(&noisy(0, seed, sigma), ChangeGate::RECOMMENDED);
            let change = gate.changed(&noisy(1, !seed, sigma));
            prop_assert!(!change.changed && change.score < 0.01, "{change:?}");
        }

        /// 3 % of the width by 3 % of the height, 60 levels from its ground, anywhere; even over one tile's corner.
        #[test]
        fn a_small_thing_is_a_change(x0 in 0u32..WIDTH - 18, y0 in 0u32..HEIGHT - 10, sign in prop::bool::ANY) {
            let there = |x: u32, y: u32| (x0..x0 + 18).contains(&x) && (y0..y0 + 10).contains(&y);
            let thing = if sign { 160 } else { 40 };
            let empty = frame(0, WIDTH, HEIGHT, |_, _| [100; 3]);
            let with = frame(1, WIDTH, HEIGHT, |x, y| if there(x, y) { [thing; 3] } else { [100; 3] });
            let mut gate = looked_at(&empty, ChangeGate::RECOMMENDED);
            prop_assert!(gate.changed(&with).changed);
            gate.looked(&with);
            prop_assert!(gate.changed(&empty).changed);
        }
    }

    #[test]
    fn a_thing_that_moves_by_its_own_width_is_a_change() {
        let at = |seq, x0: u32| {
            frame(seq, WIDTH, HEIGHT, move |x, y| {
                if (x0..x0 + 18).contains(&x) && (150..160).contains(&y) { [200; 3] } else { scene(x, y) }
            })
        };
        let mut gate = looked_at(&at(0, 300), ChangeGate::RECOMMENDED);
        assert!(gate.changed(&at(1, 318)).changed);
    }

    #[test]
    fn a_lamp_switched_on_is_a_change() {
        let mut gate = looked_at(&frame(0, 64, 48, |_, _| [50; 3]), ChangeGate::RECOMMENDED);
        assert!(gate.changed(&frame(1, 64, 48, |_, _| [70; 3])).changed);
    }

    #[test]
    fn a_change_of_colour_alone_is_a_change() {
        // Red and green of the same brightness, as a traffic light far away.
        let mut gate = looked_at(&frame(0, 64, 48, |_, _| [150, 20, 20]), ChangeGate::RECOMMENDED);
        assert!(gate.changed(&frame(1, 64, 48, |_, _| [20, 86, 20])).changed);
    }

    #[test]
    fn slow_drift_adds_up() {
        let mut gate = looked_at(&frame(0, 64, 48, |_, _| [100; 3]), ChangeGate::RECOMMENDED);
        let opened = (1u8..30).find(|i| gate.changed(&frame(u64::from(*i), 64, 48, |_, _| [100 + *i; 3])).changed);
        assert_eq!(opened, Some(11));
    }

    #[test]
    fn another_size_and_a_reset_are_changes() {
        let mut gate = looked_at(&frame(0, 64, 48, scene), 0.5);
        assert!(gate.changed(&frame(1, 48, 64, scene)).changed);
        assert!(!gate.changed(&frame(2, 64, 48, scene)).changed);
        gate.reset();
        assert!(gate.changed(&frame(3, 64, 48, scene)).changed);
    }

    #[test]
    fn zero_turns_it_off() {
        for threshold in [0.0, -1.0, f64::NAN] {
            let mut gate = looked_at(&frame(0, 64, 48, scene), threshold);
            assert!(gate.changed(&frame(1, 64, 48, scene)).changed);
        }
    }

    #[test]
    fn a_frame_without_pixels_does_not_panic() {
        let mut gate = looked_at(&frame(0, 0, 0, scene), 0.5);
        let short = Frame { width: 64, height: 48, rgb: vec![7; 100].into(), ..frame(1, 0, 0, scene) };
        assert!(gate.changed(&short).changed);
    }
}
