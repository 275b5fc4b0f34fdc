//! Any rate to 48 kHz, piece by piece, by libsamplerate's band-limited interpolation (SRC_SINC_MEDIUM_QUALITY).
//! Not here: whose sound it is (`speech`), framing (`playout`).

use super::SAMPLE_RATE;
use super::ffi::Converter;
use crate::error::{Error, Result};

/// Rates that a voice may have.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;
/// Most samples that are converted in one call.
const CHUNK: usize = 1 << 15;

/// One continuous sound on its way from its rate to [`SAMPLE_RATE`].
pub struct Resampler {
    rate: u32,
    /// `None` when there is nothing to convert.
    converter: Option<Converter>,
    /// Samples after which both rates meet again. The crate does not say how much of its input was used, and all
    /// of it certainly is only where the output's length is whole.
    period: usize,
    pending: Vec<f32>,
}

impl Resampler {
    /// A resampler from `rate` samples a second, one channel.
    ///
    /// # Errors
    /// When no voice has such a rate.
    pub fn new(rate: u32) -> Result<Self> {
        if !RATES.contains(&rate) {
            return Err(Error::invalid("audio_rate", format!("{rate} samples a second are no rate of a voice")));
        }
        let converter = (rate != SAMPLE_RATE).then(|| Converter::new(rate, SAMPLE_RATE)).transpose().map_err(broken)?;
        let period = (rate / gcd(rate, SAMPLE_RATE)) as usize;
        Ok(Self { rate, converter, period, pending: Vec::new() })
    }

    /// The rate of what goes in.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Takes samples and returns what is ready. Up to some milliseconds stay inside until more comes.
    ///
    /// # Errors
    /// When libsamplerate fails.
    pub fn push(&mut self, samples: &[i16]) -> Result<Vec<i16>> {
        let Some(converter) = &mut self.converter else { return Ok(samples.to_vec()) };
        self.pending.extend(samples.iter().map(|s| f32::from(*s) / 32768.0));
        let whole = self.pending.len() / self.period * self.period;
        let step = (CHUNK / self.period).max(1) * self.period;
        let mut out = Vec::new();
        for chunk in self.pending[..whole].chunks(step) {
            out.extend(converter.process(chunk).map_err(broken)?.into_iter().map(to_sample));
        }
        self.pending.drain(..whole);
        Ok(out)
    }

    /// Nothing more comes: returns what was still inside. What is pushed after it is another sound.
    ///
    /// # Errors
    /// When libsamplerate fails.
    pub fn finish(mut self) -> Result<Vec<i16>> {
        let Some(converter) = &mut self.converter else { return Ok(Vec::new()) };
        let out = converter.process_last(&self.pending).map_err(broken)?;
        Ok(out.into_iter().map(to_sample).collect())
    }
}

fn to_sample(value: f32) -> i16 {
    // Interpolation overshoots what is near full scale; `as` keeps it within the range.
    (value * 32768.0).round() as i16
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn broken(error: samplerate::Error) -> Error {
    Error::internal("resampler", format!("the sound can't be converted to {SAMPLE_RATE} Hz: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::f64::consts::TAU;

    fn sine(rate: u32, hertz: f64, samples: usize) -> Vec<i16> {
        (0..samples).map(|n| ((n as f64 * hertz * TAU / f64::from(rate)).sin() * 20_000.0).round() as i16).collect()
    }

    fn whole(rate: u32, samples: &[i16]) -> Vec<i16> {
        let mut resampler = Resampler::new(rate).unwrap();
        let mut out = resampler.push(samples).unwrap();
        out.extend(resampler.finish().unwrap());
        out
    }

    #[test]
    fn a_tone_stays_that_tone() {
        for rate in [8_000, 16_000, 22_050, 24_000, 44_100, 48_000] {
            let out = whole(rate, &sine(rate, 440.0, rate as usize));
            let ideal = sine(SAMPLE_RATE, 440.0, SAMPLE_RATE as usize);
            assert!(out.len().abs_diff(ideal.len()) <= 1, "{rate}: {}", out.len());
            // Away from both ends, where the tone is switched on and off.
            let middle = 4_000..44_000;
            let error = middle.clone().map(|n| f64::from(i32::from(out[n]) - i32::from(ideal[n])).powi(2)).sum::<f64>();
            let power = middle.map(|n| f64::from(ideal[n]).powi(2)).sum::<f64>();
            let ratio = 10.0 * (power / error.max(1.0)).log10();
            assert!(ratio > 60.0, "{rate}: {ratio:.1} dB");
        }
    }

    #[test]
    fn full_scale_does_not_wrap_around() {
        let square: Vec<i16> = (0..22_050).map(|n| if n / 50 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let out = whole(22_050, &square);
        // Wrapped samples would have the other sign in the middle of a half-wave.
        let middle = |half: usize| (half as f64 + 0.5) * 50.0 * 48_000.0 / 22_050.0;
        for half in 10..400 {
            let sample = out[middle(half) as usize];
            assert_eq!(sample > 0, half % 2 == 0, "half-wave {half}: {sample}");
        }
    }

    #[test]
    fn rates_of_no_voice_are_refused() {
        for rate in [0, 1, 3_999, 192_001, u32::MAX] {
            assert_eq!(Resampler::new(rate).err().unwrap().code, "audio_rate");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn however_it_is_cut_the_sound_is_the_same(
            rate in prop::sample::select(vec![16_000u32, 22_050, 24_000, 44_100, 48_000]),
            cuts in prop::collection::vec(1usize..3_000, 1..12),
        ) {
            let samples = sine(rate, 313.0, cuts.iter().sum());
            let mut resampler = Resampler::new(rate).unwrap();
            let (mut out, mut from) = (Vec::new(), 0);
            for cut in cuts {
                out.extend(resampler.push(&samples[from..from + cut]).unwrap());
                from += cut;
            }
            out.extend(resampler.finish().unwrap());
            prop_assert_eq!(out, whole(rate, &samples));
        }
    }
}
