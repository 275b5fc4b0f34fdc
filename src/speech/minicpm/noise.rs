//! Seeded random numbers: the sampler's, the flow's noise, the vocoder's. Own code, because the same seed must give the
//! same sound in every version and on every machine; a library promises that for its generators at most.

/// SplitMix64 (Steele, Lea, Flood 2014): a counter through a mixing function.
#[derive(Debug, Clone, PartialEq)]
pub struct Random {
    state: u64,
    /// The second normal number of a pair.
    spare: Option<f32>,
}

impl Random {
    /// A stream of its own for each seed and purpose.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut mixed = Self { state: seed ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03), spare: None };
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

    /// N(0, 1), by Box and Muller.
    pub fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (self.uniform() * std::f64::consts::TAU).sin_cos();
        self.spare = Some((radius * sin) as f32);
        (radius * cos) as f32
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
        let beyond = one.iter().filter(|x| x.abs() > 2.0).count();
        assert!((600..1200).contains(&beyond), "{beyond} of 20000 beyond two deviations");
        assert_eq!(Random::new(1, 1).bits(), Random::new(1, 1).bits());
    }
}
