//! A clock burnt into a picture as a strip of black and white blocks, which survives compression and scaling.
//! Test pictures carry it, and latency is measured with it. Not here: who paints or measures.

/// Blocks in the strip; one bit each, the lowest at the left.
const BITS: u32 = 40;
/// The strip's share of the picture's height.
const HEIGHT_SHARE: usize = 15;
const BLACK: u8 = 16;
const WHITE: u8 = 235;

/// Burns the low 40 bits of `micros` into the top of a plane of brightness, `stride` bytes a row.
/// A picture too narrow for the strip stays as it is.
pub fn burn(luma: &mut [u8], stride: usize, width: usize, height: usize, micros: u64) {
    let edge = |bit: u32| bit as usize * width / BITS as usize;
    if stride < width || edge(1) == 0 {
        return;
    }
    for row in luma.chunks_mut(stride).take(height / HEIGHT_SHARE) {
        for bit in 0..BITS {
            if let Some(pixels) = row.get_mut(edge(bit)..edge(bit + 1)) {
                pixels.fill(if micros >> bit & 1 == 1 { WHITE } else { BLACK });
            }
        }
    }
}

/// Reads the strip back from tightly packed RGB. `None` when the picture is too small for one.
pub fn read(rgb: &[u8], width: usize, height: usize) -> Option<u64> {
    let block = width as f64 / f64::from(BITS);
    let row = height / HEIGHT_SHARE / 2;
    if block < 2.0 || row == 0 {
        return None;
    }
    (0..BITS).try_fold(0, |micros, bit| {
        let column = ((f64::from(bit) + 0.5) * block) as usize;
        let green = rgb.get((row * width + column) * 3 + 1)?;
        Some(micros | u64::from(*green > 127) << bit)
    })
}

/// Microseconds between two readings of the strip, which wraps every twelve days.
pub fn between(earlier: u64, later: u64) -> u64 {
    later.wrapping_sub(earlier) & ((1 << BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_burnt_is_read(micros in any::<u64>(), width in 80usize..2000, height in 30usize..200, pad in 0usize..9) {
            let stride = width + pad;
            let mut luma = vec![128; stride * height];
            burn(&mut luma, stride, width, height, micros);
            let rows = luma.chunks(stride).flat_map(|row| &row[..width]);
            let rgb: Vec<u8> = rows.flat_map(|y| [*y; 3]).collect();
            prop_assert_eq!(read(&rgb, width, height), Some(micros & ((1 << 40) - 1)));
        }
    }

    #[test]
    fn the_wrap_is_no_jump() {
        assert_eq!(between((1 << 40) - 5, 7), 12);
    }
}
