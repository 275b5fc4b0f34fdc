//! The vocoder's signal parts: sines of the pitch and its multiples, the short Fourier transform of 16 points and its
//! inverse, the cross-fade. Plain Rust, because the phase must be added up in 64-bit floats, and because transforms of 16
//! points and window sums are less work than handing them to a device.
//!
//! Source: `SineGen2`, `_stft`, `_istft` of `HiFTGenerator` (minicpmo-utils 1.0.7, `stepaudio2/flashcosyvoice/modules`).

use std::f64::consts::{PI, TAU};

/// Samples a second.
pub const RATE: u32 = 24_000;
/// Samples for each mel frame.
pub const HOP: usize = 480;
/// The pitch and its first eight multiples.
pub const HARMONICS: usize = 9;
/// A frame with a higher pitch is voiced, Hz.
const VOICED: f32 = 10.0;
/// Points of the transform, samples between two, and numbers for each (real parts, then imaginary ones).
const POINTS: usize = 16;
const STEP: usize = 4;
pub const BINS: usize = POINTS / 2 + 1;
/// Largest magnitude of a bin.
const LOUDEST: f32 = 100.0;
/// Largest sample.
const LIMIT: f32 = 0.99;

/// Sines of every harmonic of `f0` (Hz, one for each frame), `[HARMONICS, samples]`; `noise` gives N(0, 1).
pub fn sines(f0: &[f32], mut noise: impl FnMut() -> f32) -> Vec<f32> {
    let mut phase = vec![[0.0f64; HARMONICS]; f0.len()];
    let mut sum = [0.0f64; HARMONICS];
    for (f0, phase) in f0.iter().zip(&mut phase) {
        for (h, sum) in sum.iter_mut().enumerate() {
            *sum += (f64::from(*f0) * (h + 1) as f64 / f64::from(RATE)) % 1.0;
            phase[h] = *sum * TAU * HOP as f64;
        }
    }
    let mut out = Vec::with_capacity(f0.len() * HOP * HARMONICS);
    // Phases stand for the middle of their frames; between them they are interpolated, so that from one sample to the next
    // a sine turns by the same angle.
    let half = HOP / 2;
    let mut turn: [Turning; HARMONICS] = std::array::from_fn(|_| Turning::default());
    for n in 0..f0.len() * HOP {
        if n == 0 || n % HOP == half {
            let left = (n + half) / HOP - usize::from(n >= half);
            let (left, right) = if n < half { (0, 0) } else { (left, (left + 1).min(f0.len() - 1)) };
            let part = if n < half { 0.0 } else { 0.5 / HOP as f64 };
            for (h, turn) in turn.iter_mut().enumerate() {
                let step = (phase[right][h] - phase[left][h]) / HOP as f64;
                *turn = Turning::new(phase[left][h] * (1.0 - part) + phase[right][h] * part, step);
            }
        }
        let voiced = f0[n / HOP] > VOICED;
        let level = if voiced { 0.003 } else { 0.1 / 3.0 };
        for turn in &mut turn {
            let sine = if voiced { 0.1 * turn.sine } else { 0.0 };
            out.push((sine + f64::from(noise()) * level) as f32);
            turn.step();
        }
    }
    out
}

/// A sine that turns by the same angle with each step.
#[derive(Debug, Clone, Copy, Default)]
struct Turning {
    sine: f64,
    cosine: f64,
    step: (f64, f64),
}

impl Turning {
    fn new(phase: f64, step: f64) -> Self {
        let (sine, cosine) = phase.sin_cos();
        Self { sine, cosine, step: step.sin_cos() }
    }

    fn step(&mut self) {
        let (s, c) = self.step;
        (self.sine, self.cosine) = (self.sine * c + self.cosine * s, self.cosine * c - self.sine * s);
    }
}

/// A periodic Hann window.
fn window() -> [f64; POINTS] {
    std::array::from_fn(|i| 0.5 - 0.5 * (TAU * i as f64 / POINTS as f64).cos())
}

/// `cos` and `sin` of `2πi / 16`.
fn circle() -> ([f64; POINTS], [f64; POINTS]) {
    (
        std::array::from_fn(|i| (TAU * i as f64 / POINTS as f64).cos()),
        std::array::from_fn(|i| (TAU * i as f64 / POINTS as f64).sin()),
    )
}

/// Short Fourier transform with reflected ends: `[samples / 4 + 1, 2 · BINS]` (time is fastest), real parts first.
pub fn stft(signal: &[f32]) -> Vec<f32> {
    let (window, (cos, sin)) = (window(), circle());
    let half = POINTS / 2;
    let frames = signal.len() / STEP + 1;
    let basis = |circle: [f64; POINTS]| -> [[f64; POINTS]; BINS] {
        std::array::from_fn(|bin| std::array::from_fn(|i| circle[bin * i % POINTS] * window[i]))
    };
    let (real, imaginary) = (basis(cos), basis(sin.map(|x| -x)));
    let sample = |at: usize| {
        let i = at.abs_diff(half);
        let i = if i < signal.len() { i } else { 2 * (signal.len() - 1) - i };
        f64::from(signal[i])
    };
    let mut out = vec![0.0; frames * 2 * BINS];
    for frame in 0..frames {
        let from = frame * STEP;
        let x: [f64; POINTS] = match from.checked_sub(half).and_then(|from| signal.get(from..from + POINTS)) {
            Some(inside) => std::array::from_fn(|i| f64::from(inside[i])),
            None => std::array::from_fn(|i| sample(from + i)),
        };
        let dot = |row: &[f64; POINTS]| -> f64 {
            let mut sums = [0.0; 4];
            for i in 0..POINTS {
                sums[i % 4] += x[i] * row[i];
            }
            sums[0] + sums[1] + sums[2] + sums[3]
        };
        for bin in 0..BINS {
            out[bin * frames + frame] = dot(&real[bin]) as f32;
            out[(BINS + bin) * frames + frame] = dot(&imaginary[bin]) as f32;
        }
    }
    out
}

/// Samples from log magnitudes and phase arguments `[2 · BINS, frames]` (bins are fastest): the phase of a bin is the sine
/// of its argument. Gives `(frames − 1) · 4` samples.
pub fn istft(spectrum: &[f32]) -> Vec<f32> {
    let (window, (cos, sin)) = (window(), circle());
    let frames = spectrum.len() / (2 * BINS);
    let mut sum = vec![0.0f64; POINTS + STEP * frames.saturating_sub(1)];
    let mut weight = vec![0.0f64; sum.len()];
    // The first and last bin are real; the others stand for their mirror images too.
    let share = |bin: usize| if bin == 0 || bin == BINS - 1 { 1.0 } else { 2.0 } / POINTS as f64;
    let basis = |circle: [f64; POINTS]| -> [[f64; POINTS]; BINS] {
        std::array::from_fn(|bin| std::array::from_fn(|i| share(bin) * circle[bin * i % POINTS] * window[i]))
    };
    let (real, imaginary) = (basis(cos), basis(sin.map(|x| -x)));
    for (frame, row) in spectrum.chunks_exact(2 * BINS).enumerate() {
        let mut x = [0.0f64; POINTS];
        for bin in 0..BINS {
            let magnitude = f64::from(row[bin].exp().min(LOUDEST));
            let (s, c) = f64::from(row[BINS + bin].sin()).sin_cos();
            let (re, im) = (magnitude * c, magnitude * s);
            for i in 0..POINTS {
                x[i] += re * real[bin][i] + im * imaginary[bin][i];
            }
        }
        for i in 0..POINTS {
            sum[frame * STEP + i] += x[i];
            weight[frame * STEP + i] += window[i] * window[i];
        }
    }
    let cut = POINTS / 2;
    let inner = sum.iter().zip(&weight).skip(cut).take(sum.len().saturating_sub(2 * cut));
    inner.map(|(x, w)| ((x / w.max(1e-11)) as f32).clamp(-LIMIT, LIMIT)).collect()
}

/// Fades from the end of the last chunk, `before`, into the start of `wave`, with the halves of a symmetric Hamming
/// window of twice the length of `before`.
pub fn cross_fade(wave: &mut [f32], before: &[f32]) {
    let n = before.len();
    let hamming = |i: usize| 0.54 - 0.46 * (2.0 * PI * i as f64 / (2 * n - 1) as f64).cos();
    for (i, (x, old)) in wave.iter_mut().zip(before).enumerate() {
        *x = (f64::from(*x) * hamming(i) + f64::from(*old) * hamming(n + i)) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_pitch_is_a_sine_and_silence_has_none() {
        let f0 = vec![240.0f32; 6];
        let out = sines(&f0, || 0.0);
        // Between the middles of the first and the last frame the phase rises by 2π·240/24000 a sample.
        for n in HOP..5 * HOP {
            let phase = TAU * 240.0 * (n as f64 + 0.5 + HOP as f64 / 2.0) / f64::from(RATE);
            assert!((f64::from(out[n * HARMONICS]) - 0.1 * phase.sin()).abs() < 1e-6, "sample {n}");
        }
        assert!(sines(&[10.0; 3], || 0.0).iter().all(|x| *x == 0.0), "10 Hz is not voiced");
        assert!(sines(&[0.0; 2], || 3.0).iter().all(|x| (*x - 0.1).abs() < 1e-6), "noise of what is not voiced");
    }

    #[test]
    fn the_transform_finds_a_tone() {
        let signal: Vec<f32> = (0..480).map(|n| 0.3 * (TAU * n as f64 * 3.0 / 16.0).cos() as f32).collect();
        let spectrum = stft(&signal);
        let frames = 121;
        assert_eq!(spectrum.len(), frames * 18);
        // Bin 3, in the middle: half the window's sum (8) times the amplitude.
        let (re, im) = (spectrum[3 * frames + 60], spectrum[12 * frames + 60]);
        assert!((re.hypot(im) - 0.3 * 4.0).abs() < 1e-5);
    }

    #[test]
    fn the_inverse_adds_up_windows_and_keeps_its_limits() {
        let said = |ln_magnitude: f32, argument: f32| {
            let mut row = [-40.0f32; 2 * BINS];
            (row[0], row[BINS]) = (ln_magnitude, argument);
            istft(&row.repeat(30))
        };
        // Bin 0 alone: each frame is the window over 16; four windows overlap, which add up to 2, their squares to 3/2.
        let flat = said(0.0, 0.0);
        assert_eq!(flat.len(), 29 * 4);
        assert!(flat[8..100].iter().all(|x| (x - 1.0 / 12.0).abs() < 1e-6), "{flat:?}");
        // The phase is the sine of the argument.
        let turned = said(0.0, 0.5);
        assert!((turned[50] - 0.5f32.sin().cos() / 12.0).abs() < 1e-6);
        // 100 is the largest magnitude, 0.99 the largest sample.
        assert!(said(9.0, 0.0).iter().all(|x| *x == LIMIT));
        assert!((said(2.0, 0.0)[50] - 2.0f32.exp() / 12.0).abs() < 1e-5);
    }

    #[test]
    fn the_fade_goes_from_the_old_to_the_new() {
        let mut wave = vec![1.0f32; 8];
        cross_fade(&mut wave, &[0.0; 8]);
        assert!((wave[0] - 0.08).abs() < 1e-6 && wave.windows(2).all(|w| w[0] < w[1]));
        let mut wave = vec![0.0f32; 8];
        cross_fade(&mut wave, &[1.0; 8]);
        assert!((wave[7] - 0.08).abs() < 1e-6 && wave.windows(2).all(|w| w[0] > w[1]));
    }
}
