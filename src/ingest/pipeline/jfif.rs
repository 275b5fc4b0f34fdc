//! Brings a picture's numbers to what JFIF means by them: full range, and the matrix of BT.601.
//!
//! `jpegenc` writes whatever it is given, so that pictures look pale; `videoconvert` gets it right for 3 ms a picture of
//! 720 lines (and 1.22 does nothing where only the range differs). This takes a tenth of that, because it works on the
//! small whole numbers that vector units like. Not here: where in the pipeline it is called (`branch`).

use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoColorimetry};

/// Fraction bits of all factors here: sums of products still fit 16 bits.
const BITS: i16 = 6;
const ONE: f64 = 64.0;
const HALF: i16 = 1 << (BITS - 1);

/// Weights of red and blue in brightness, for JFIF.
const JFIF: (f64, f64) = (0.299, 0.114);

/// Factors that turn one kind of numbers into JFIF's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ToJfif {
    /// Brightness from brightness, with one fraction bit more than the others.
    y: u16,
    y_offset: i16,
    y_from_u: i16,
    y_from_v: i16,
    u_from_u: i16,
    u_from_v: i16,
    v_from_u: i16,
    v_from_v: i16,
}

impl ToJfif {
    /// The factors for pictures of `colours`; `None` when they are JFIF's already.
    pub(super) fn new(colours: &VideoColorimetry) -> Option<Self> {
        let full = colours.range() == VideoColorRange::Range0_255;
        let (red, blue) = match colours.matrix() {
            VideoColorMatrix::Bt709 => (0.2126, 0.0722),
            VideoColorMatrix::Bt2020 => (0.2627, 0.0593),
            VideoColorMatrix::Smpte240m => (0.212, 0.087),
            VideoColorMatrix::Fcc => (0.3, 0.11),
            // What says nothing of itself is taken as it is.
            _ => JFIF,
        };
        if full && (red, blue) == JFIF {
            return None;
        }
        let (y, chroma, offset) = if full { (1.0, 1.0, 0.0) } else { (255.0 / 219.0, 255.0 / 224.0, 16.0) };
        // Colour to red, green and blue by the one matrix, and back by the other.
        let green = 1.0 - red - blue;
        let (r_v, b_u) = (2.0 * (1.0 - red), 2.0 * (1.0 - blue));
        let (g_u, g_v) = (-b_u * blue / green, -r_v * red / green);
        let (to_red, to_blue) = JFIF;
        let to_green = 1.0 - to_red - to_blue;
        let (y_u, y_v) = (to_green * g_u + to_blue * b_u, to_red * r_v + to_green * g_v);
        let (u_part, v_part) = (2.0 * (1.0 - to_blue), 2.0 * (1.0 - to_red));
        let factor = |value: f64| (value * chroma * ONE).round() as i16;
        let y = (y * ONE * 2.0).round();
        Some(Self {
            y: y as u16,
            y_offset: HALF - (offset * y / 2.0).round() as i16,
            y_from_u: factor(y_u),
            y_from_v: factor(y_v),
            u_from_u: factor((b_u - y_u) / u_part),
            u_from_v: factor(-y_v / u_part),
            v_from_u: factor(-y_u / v_part),
            v_from_v: factor((r_v - y_v) / v_part),
        })
    }

    /// Converts an I420 picture in place. Each plane comes with its bytes a row; `width` and `height` are brightness's.
    pub(super) fn convert(self, [y, u, v]: [(&mut [u8], usize); 3], width: usize, height: usize) {
        let half = width.div_ceil(2);
        let mut shift = vec![0i16; half * 2];
        let rows = y.0.chunks_mut((y.1 * 2).max(1)).take(height.div_ceil(2));
        for ((rows, u), v) in rows.zip(u.0.chunks_mut(u.1.max(1))).zip(v.0.chunks_mut(v.1.max(1))) {
            self.colours(u, v, half, &mut shift);
            for row in rows.chunks_mut(y.1.max(1)) {
                for (y, shift) in row.iter_mut().take(width).zip(&shift) {
                    let scaled = ((u16::from(*y) * self.y) >> 1) as i16;
                    *y = (scaled.saturating_add(*shift) >> BITS).clamp(0, 255) as u8;
                }
            }
        }
    }

    /// Converts a row of colours, and notes what each adds to the brightness of its two columns.
    fn colours(self, u: &mut [u8], v: &mut [u8], half: usize, shift: &mut [i16]) {
        for ((u, v), shift) in u.iter_mut().zip(v).take(half).zip(shift.chunks_exact_mut(2)) {
            let (from_u, from_v) = (i16::from(*u) - 128, i16::from(*v) - 128);
            shift.fill(self.y_offset + from_u * self.y_from_u + from_v * self.y_from_v);
            let full = |sum: i16| (((sum + HALF) >> BITS) + 128).clamp(0, 255) as u8;
            *u = full((from_u * self.u_from_u).saturating_add(from_v * self.u_from_v));
            *v = full((from_u * self.v_from_u).saturating_add(from_v * self.v_from_v));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gstreamer_video::{VideoColorPrimaries, VideoTransferFunction};
    use proptest::prelude::*;

    fn colours(range: VideoColorRange, matrix: VideoColorMatrix) -> VideoColorimetry {
        VideoColorimetry::new(range, matrix, VideoTransferFunction::Bt709, VideoColorPrimaries::Bt709)
    }

    fn one_pixel(from: &VideoColorimetry, yuv: [u8; 3]) -> [u8; 3] {
        let ([mut y, mut u, mut v], to) = (yuv.map(|c| [c; 4]), ToJfif::new(from).unwrap());
        to.convert([(&mut y, 2), (&mut u, 1), (&mut v, 1)], 2, 2);
        assert!(y.iter().all(|one| *one == y[0]));
        [y[0], u[0], v[0]]
    }

    /// Red, green and blue, each from 0 to 1, as numbers of the given kind.
    fn encode([r, g, b]: [f64; 3], (red, blue): (f64, f64), full: bool) -> [f64; 3] {
        let y = red * r + (1.0 - red - blue) * g + blue * b;
        let (u, v) = ((b - y) / (2.0 * (1.0 - blue)), (r - y) / (2.0 * (1.0 - red)));
        if full {
            [y * 255.0, u * 255.0 + 128.0, v * 255.0 + 128.0]
        } else {
            [y * 219.0 + 16.0, u * 224.0 + 128.0, v * 224.0 + 128.0]
        }
    }

    proptest! {
        #[test]
        fn colours_stay_what_they_are(rgb in proptest::array::uniform3(0.0f64..=1.0), hd in any::<bool>(), full in any::<bool>()) {
            prop_assume!(hd || !full);
            let (matrix, weights) = if hd { (VideoColorMatrix::Bt709, (0.2126, 0.0722)) } else { (VideoColorMatrix::Bt601, JFIF) };
            let range = if full { VideoColorRange::Range0_255 } else { VideoColorRange::Range16_235 };
            let given = encode(rgb, weights, full).map(|c| c.round() as u8);
            let wanted = encode(rgb, JFIF, true);
            for (made, wanted) in one_pixel(&colours(range, matrix), given).into_iter().zip(wanted) {
                prop_assert!((f64::from(made) - wanted).abs() <= 3.0, "{made} for {wanted}");
            }
        }

        #[test]
        fn no_numbers_break_it(y in any::<u8>(), u in any::<u8>(), v in any::<u8>(), width in 1usize..9, height in 1usize..9,
                               pad in 0usize..4) {
            let to = ToJfif::new(&colours(VideoColorRange::Range16_235, VideoColorMatrix::Bt2020)).unwrap();
            let (stride, half) = (width + pad, width.div_ceil(2) + pad);
            let rows = height.div_ceil(2);
            let (mut y, mut u, mut v) = (vec![y; stride * height], vec![u; half * rows], vec![v; half * rows]);
            to.convert([(&mut y, stride), (&mut u, half), (&mut v, half)], width, height);
        }
    }

    #[test]
    fn black_and_white_are_black_and_white() {
        for matrix in [VideoColorMatrix::Bt601, VideoColorMatrix::Bt709, VideoColorMatrix::Bt2020] {
            let from = colours(VideoColorRange::Range16_235, matrix);
            assert_eq!(one_pixel(&from, [16, 128, 128]), [0, 128, 128]);
            assert_eq!(one_pixel(&from, [235, 128, 128]), [255, 128, 128]);
        }
        assert_eq!(ToJfif::new(&colours(VideoColorRange::Range0_255, VideoColorMatrix::Bt601)), None);
    }
}
