//! Pictures for the vision tower: resized bit for bit as MiniCPM-o 4.5's reference processor does it with one
//! slice, and handed over in the shape in which libmtmd does not spoil that.
//! Not here: the target size (`frame::reference_size`), normalisation and patches (libmtmd), embeddings (`vision`).
//!
//! libmtmd preprocesses whatever it is given. Its first chunk, the overview, is what we keep of a frame, so
//! [`prepare`] returns a picture whose overview has the reference's pixels: mostly the picture resized here,
//! sometimes the original.

use crate::error::{Error, Result};
use crate::frame::reference_size;
use std::borrow::Cow;

/// Side of a slice (`clip.vision.image_size`).
const SLICE: u32 = 448;
/// Side of a patch (`clip.vision.patch_size`).
const PATCH: f32 = 14.0;
/// Longest side of a picture that is taken.
const MAX_SIDE: u32 = 16_384;
/// Longest side over shortest: beyond it the reference's target grows without bound.
const MAX_ASPECT: u32 = 20;
/// Fraction bits of a filter weight: 32 less 8 for the pixel and 2 for sums beyond 1 (Pillow, Resample.c).
const PRECISION: u32 = 32 - 8 - 2;
/// Pixels to either side that the bicubic filter reaches before scaling.
const SUPPORT: f64 = 2.0;
/// RGB.
const CHANNELS: usize = 3;

/// A picture to be given to libmtmd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared<'a> {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Tightly packed RGB, `height` rows of `width` × 3 bytes.
    pub rgb: Cow<'a, [u8]>,
    /// True when libmtmd's overview of this picture has exactly the reference's pixels. False for some small,
    /// nearly square or very long pictures, whose overview libmtmd rounds to a neighbouring size.
    pub exact: bool,
}

/// The picture to give to libmtmd so that its overview is what the reference processor would have made of `rgb`
/// (tightly packed, `height` rows of `width` × 3 bytes).
///
/// # Errors
/// When a side is 0 or longer than 16384, one side is more than 20 times the other, or `rgb` has another length.
pub fn prepare(rgb: &[u8], width: u32, height: u32) -> Result<Prepared<'_>> {
    check(rgb, width, height)?;
    let target = reference_size(width, height);
    if target == (width, height) {
        let exact = mtmd_overview(width, height) == target;
        return Ok(Prepared { width, height, rgb: Cow::Borrowed(rgb), exact });
    }
    let stays = mtmd_overview(target.0, target.1) == target;
    if !stays && mtmd_overview(width, height) == target {
        // libmtmd's own resize is Pillow's as well, so the original becomes the reference there.
        return Ok(Prepared { width, height, rgb: Cow::Borrowed(rgb), exact: true });
    }
    let resized = resize_bicubic(rgb, (width, height), target);
    Ok(Prepared { width: target.0, height: target.1, rgb: Cow::Owned(resized), exact: stays })
}

/// The size of the overview that libmtmd makes of a picture of `width` × `height`. Both sides at most 16384.
///
/// Source: llama.cpp, tools/mtmd/mtmd-image.cpp, `mtmd_image_preprocessor_llava_uhd::get_slice_instructions` and
/// `get_best_resize` (`slice_size` 448, `patch_size` 14, `n_merge` 1, no pinpoints). It differs from
/// `frame::reference_size` in three ways: a picture within 448 × 448 becomes 448 × 448 whatever its aspect, one
/// whose area is not over 448² is only rounded to patches, and it computes in `f32`, with halves rounded up.
pub fn mtmd_overview(width: u32, height: u32) -> (u32, u32) {
    if width <= SLICE && height <= SLICE {
        return (SLICE, SLICE);
    }
    let (mut w, mut h) = (width as f32, height as f32);
    if u64::from(width) * u64::from(height) > u64::from(SLICE * SLICE) {
        let ratio = w / h;
        h = (SLICE as f32 / ratio.sqrt()).trunc();
        w = (h * ratio).trunc();
    }
    let to_patch = |side: f32| ((side / PATCH).round() * PATCH).max(PATCH) as u32;
    (to_patch(w), to_patch(h))
}

/// Whether a picture of this size can be prepared.
///
/// # Errors
/// When a side is 0 or longer than 16384, or one side is more than 20 times the other.
pub fn check_size(width: u32, height: u32) -> Result<()> {
    let (short, long) = (width.min(height), width.max(height));
    if short == 0 || long > MAX_SIDE || long > short * MAX_ASPECT {
        return Err(Error::invalid(
            "picture_size",
            format!("a picture of {width}x{height} can't be shown to the model"),
        )
        .hint(format!("sides from 1 to {MAX_SIDE} pixels, one at most {MAX_ASPECT} times the other")));
    }
    Ok(())
}

fn check(rgb: &[u8], width: u32, height: u32) -> Result<()> {
    check_size(width, height)?;
    let expected = width as usize * height as usize * CHANNELS;
    if rgb.len() != expected {
        return Err(Error::internal(
            "picture_length",
            format!("a picture of {width}x{height} has {expected} bytes of RGB, not {}", rgb.len()),
        ));
    }
    Ok(())
}

/// Pillow's `Image.resize(to, BICUBIC)` on 8-bit RGB, bit for bit: across first, then down, each with 22-bit
/// fixed-point weights and rounded to 8 bits. Source of the method: Pillow, src/libImaging/Resample.c.
///
/// `fast_image_resize` (6.1, `CatmullRom`, `U8x3`) is no substitute: on the golden pictures with hard edges it
/// is off by up to 26 of 255. This one takes 3 to 4 ms for 640 × 360 to 602 × 336 and 11 ms for 1920 × 1080 on one
/// core of an x86-64 cloud machine.
///
/// `rgb` has `from.1` rows of `from.0` × 3 bytes; sides must not be 0 ([`prepare`] checks both).
pub fn resize_bicubic(rgb: &[u8], from: (u32, u32), to: (u32, u32)) -> Vec<u8> {
    let (from_w, from_h) = (from.0 as usize, from.1 as usize);
    let (to_w, to_h) = (to.0 as usize, to.1 as usize);
    let across = if from_w == to_w { Cow::Borrowed(rgb) } else { Cow::Owned(resize_across(rgb, from_w, to_w)) };
    if from_h == to_h { across.into_owned() } else { resize_down(&across, to_w * CHANNELS, from_h, to_h) }
}

/// The source pixels of one target pixel: where they start, and what each weighs.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

/// Taps of every target position along one side.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    // Shrinking widens the filter over all source pixels that fall into one; growing keeps it as it is.
    let stretch = scale.max(1.0);
    let reach = SUPPORT * stretch;
    (0..to)
        .map(|i| {
            let centre = (i as f64 + 0.5) * scale;
            let start = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let raw: Vec<f64> = (start..end).map(|x| bicubic((x as f64 - centre + 0.5) * (1.0 / stretch))).collect();
            let sum: f64 = raw.iter().sum();
            Taps { start, weights: raw.iter().map(|w| fixed(if sum == 0.0 { *w } else { w / sum })).collect() }
        })
        .collect()
}

/// Keys' cubic with a = -1/2.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Half is added before truncation, as in Pillow, not rounded: the two differ just below one half.
fn fixed(weight: f64) -> i32 {
    let half = if weight < 0.0 { -0.5 } else { 0.5 };
    (weight * f64::from(1u32 << PRECISION) + half) as i32
}

/// One half in fixed point, so that the shift rounds.
const HALF: i32 = 1 << (PRECISION - 1);

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Every row from `from` to `to` pixels.
fn resize_across(rgb: &[u8], from: usize, to: usize) -> Vec<u8> {
    let taps = taps(from, to);
    let mut out = Vec::with_capacity(rgb.len() / from * to);
    for row in rgb.chunks_exact(from * CHANNELS) {
        for Taps { start, weights } in &taps {
            let mut sum = [HALF; CHANNELS];
            for (pixel, weight) in row[start * CHANNELS..].chunks_exact(CHANNELS).zip(weights) {
                for (sum, value) in sum.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            out.extend(sum.map(clip));
        }
    }
    out
}

/// `from` rows of `stride` bytes to `to` rows.
fn resize_down(rows: &[u8], stride: usize, from: usize, to: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(stride * to);
    let mut sums = vec![HALF; stride];
    for Taps { start, weights } in taps(from, to) {
        sums.fill(HALF);
        for (row, weight) in rows[start * stride..].chunks_exact(stride).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| clip(*sum)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Overviews computed from libmtmd's source by hand for each of its branches.
    #[test]
    fn the_overview_follows_libmtmd() {
        for (size, expected) in [
            ((1, 1), (448, 448)),
            ((448, 448), (448, 448)),
            ((448, 434), (448, 448)),
            // Area not over 448²: only rounded to patches, halves up.
            ((602, 330), (602, 336)),
            ((455, 441), (462, 448)),
            ((490, 406), (490, 406)),
            ((449, 3), (448, 14)),
            // Over it: scaled.
            ((602, 336), (602, 336)),
            ((616, 336), (602, 336)),
            ((1920, 1080), (602, 336)),
            ((630, 340), (616, 336)),
            ((620, 600), (448, 434)),
        ] {
            assert_eq!(mtmd_overview(size.0, size.1), expected, "{size:?}");
        }
    }

    #[test]
    fn sizes_of_cameras_stay_as_they_are_resized_here() {
        for (w, h) in [
            (176, 144),
            (320, 240),
            (352, 288),
            (400, 400),
            (448, 448),
            (480, 480),
            (640, 272),
            (640, 360),
            (640, 480),
            (704, 480),
            (704, 576),
            (720, 480),
            (720, 576),
            (800, 600),
            (854, 480),
            (1024, 768),
            (1080, 1920),
            (1280, 720),
            (1280, 960),
            (1280, 1024),
            (1600, 1200),
            (1920, 1080),
            (2560, 1440),
            (2592, 1944),
            (2688, 1520),
            (3840, 2160),
        ] {
            let (tw, th) = reference_size(w, h);
            assert_eq!(mtmd_overview(tw, th), (tw, th), "{w}x{h}");
        }
    }

    /// How often libmtmd can be given the reference's pixels at all: 96.5 % of sizes up to 2048 and 20:1.
    #[test]
    fn few_sizes_are_inexact() {
        let (mut resized, mut original, mut inexact) = (0, 0, 0);
        for w in (64u32..=2048).step_by(16) {
            for h in (64u32..=2048).step_by(16).filter(|h| w <= h * MAX_ASPECT && *h <= w * MAX_ASPECT) {
                let target = reference_size(w, h);
                if mtmd_overview(target.0, target.1) == target {
                    resized += 1;
                } else if mtmd_overview(w, h) == target {
                    original += 1;
                } else {
                    inexact += 1;
                }
            }
        }
        assert_eq!((resized, original, inexact), (13_616, 1_295, 546));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (w, h) in [(0, 0), (0, 5), (5, 0), (1, 21), (20_000, 20_000)] {
            assert_eq!(prepare(&[], w, h).unwrap_err().code, "picture_size");
        }
        assert_eq!(prepare(&[0; 11], 2, 2).unwrap_err().code, "picture_length");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_prepared_fits_together(w in 1u32..500, h in 1u32..500, shade in any::<u8>()) {
            let picture = vec![shade; w as usize * h as usize * CHANNELS];
            match prepare(&picture, w, h) {
                Err(error) => prop_assert!(error.code == "picture_size" && w.max(h) > 20 * w.min(h)),
                Ok(p) => {
                    prop_assert_eq!(p.rgb.len(), p.width as usize * p.height as usize * CHANNELS);
                    // A flat picture stays flat: the weights sum to one, at the borders as well.
                    prop_assert!(p.rgb.iter().all(|v| *v == shade));
                    prop_assert!(!p.exact || mtmd_overview(p.width, p.height) == reference_size(w, h));
                }
            }
        }
    }
}
