//! Seeded random numbers: the sampler's, the flow's noise, the vocoder's. Own code, because the same seed must give the
//! same sound in every version and on every machine; a library promises that for its generators at most.

use std::sync::LazyLock;

/// SplitMix64 (Steele, Lea, Flood 2014): a counter through a mixing function.
#[derive(Debug, Clone, PartialEq)]
pub struct Random {
    state: u64,
}

/// Layers of equal area under the half bell; the lowest has the tail.
const LAYERS: usize = 256;
/// Where the tail begins, and the area of a layer.
const TAIL: f64 = 3.654_152_885_361_009;
const AREA: f64 = 0.004_928_673_233_99;

/// Widths of the layers, from the lowest, which is counted as wide as its area wants, to that at the top.
static WIDTHS: LazyLock<[f64; LAYERS + 1]> = LazyLock::new(|| {
    let bell = |x: f64| (-0.5 * x * x).exp();
    let mut widths = [0.0; LAYERS + 1];
    (widths[0], widths[1]) = (AREA / bell(TAIL), TAIL);
    for i in 2..LAYERS {
        widths[i] = (-2.0 * (AREA / widths[i - 1] + bell(widths[i - 1])).ln()).sqrt();
    }
    widths
});

impl Random {
    /// A stream of its own for each seed and purpose.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut mixed = Self { state: seed ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03) };
        mixed.state = mixed.bits();
        mixed
    }

    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// N(0, 1), by the ziggurat of Marsaglia and Tsang in Doornik's form (2005): a vocoder's window takes 250,000.
    pub fn normal(&mut self) -> f32 {
        loop {
            let bits = self.bits();
            let layer = (bits % LAYERS as u64) as usize;
            let side = (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
            let (wide, narrow) = (WIDTHS[layer], WIDTHS[layer + 1]);
            let x = side * wide;
            if x.abs() < narrow {
                return x as f32;
            }
            if layer == 0 {
                return self.tail(side < 0.0);
            }
            let (low, high) = ((-0.5 * (wide * wide - x * x)).exp(), (-0.5 * (narrow * narrow - x * x)).exp());
            if low + self.uniform() * (high - low) < 1.0 {
                return x as f32;
            }
        }
    }

    fn tail(&mut self, negative: bool) -> f32 {
        loop {
            let (x, y) = ((1.0 - self.uniform()).ln() / TAIL, (1.0 - self.uniform()).ln());
            if -2.0 * y > x * x {
                return if negative { (x - TAIL) as f32 } else { (TAIL - x) as f32 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_seeded_and_normal() {
        let draw = |seed, purpose| -> Vec<f32> {
            let mut random = Random::new(seed, purpose);
            (0..20_000).map(|_| random.normal()).collect()
        };
        let one = draw(7, 1);
        assert_eq!(one, draw(7, 1));
        assert_ne!(one, draw(8, 1));
        assert_ne!(one, draw(7, 2));
        let mean = one.iter().sum::<f32>() / 20_000.0;
        let square = one.iter().map(|x| x * x).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.05, "{mean} {square}");
        // Shares beyond one, two, three and three and seven tenths deviations; the last is in the tail.
        let mut random = Random::new(7, 1);
        let many: Vec<f32> = (0..1_000_000).map(|_| random.normal()).collect();
        for (bound, share) in [(1.0, 0.317_31), (2.0, 0.045_50), (3.0, 0.002_700), (3.7, 0.000_215_6)] {
            let beyond = many.iter().filter(|x| x.abs() > bound).count() as f64 / 1e6;
            let spread = (share / 1e6f64).sqrt();
            assert!((beyond - share).abs() < 5.0 * spread, "{beyond} beyond {bound}, {share} expected");
        }
        let above = many.iter().filter(|x| **x > 0.0).count();
        assert!((498_000..502_000).contains(&above), "{above} of a million above zero");
        assert_eq!(Random::new(1, 1).bits(), Random::new(1, 1).bits());
    }
}
