//! Which audio code comes next: the reference's processors in the reference's order, then one draw.
//!
//! Source: `TTSStreamingGenerator` and `gen_logits` of MiniCPM-o 4.5's own Python, with the top-p and top-k warpers of
//! transformers. Not here: logits (`language`).

use super::noise::Random;
use crate::error::{Error, Result};

/// How codes are chosen; the defaults are the reference's.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SpeechSampling {
    pub temperature: f32,
    /// A code's logit is divided by this to the power of its count among the last codes (multiplied if negative).
    pub repetition_penalty: f32,
    /// How many of the last codes count.
    pub repetition_window: usize,
    pub top_p: f32,
    pub top_k: usize,
    /// Codes that top-p and top-k leave at least.
    pub keep: usize,
}

impl Default for SpeechSampling {
    fn default() -> Self {
        Self { temperature: 0.8, repetition_penalty: 1.05, repetition_window: 16, top_p: 0.85, top_k: 25, keep: 3 }
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut out: Vec<f32> = logits.iter().map(|x| (x - most).exp()).collect();
    let sum: f32 = out.iter().sum();
    out.iter_mut().for_each(|x| *x /= sum);
    out
}

impl SpeechSampling {
    /// What the next code is drawn from. `history` are the codes of the reply so far; while it is empty only the
    /// temperature counts.
    pub fn probabilities(&self, logits: &[f32], history: &[i32]) -> Vec<f32> {
        let mut x: Vec<f32> = logits.iter().map(|l| l / self.temperature).collect();
        if history.is_empty() {
            return softmax(&x);
        }
        let recent = &history[history.len().saturating_sub(self.repetition_window)..];
        let mut counts = vec![0i32; x.len()];
        for code in recent {
            if let Some(count) = usize::try_from(*code).ok().and_then(|c| counts.get_mut(c)) {
                *count += 1;
            }
        }
        for (x, count) in x.iter_mut().zip(counts).filter(|(_, count)| *count > 0) {
            let alpha = self.repetition_penalty.powi(count);
            *x = if *x < 0.0 { *x * alpha } else { *x / alpha };
        }
        // Only the likeliest `k` can be left, with those as likely as the last of them; the others count by their sum alone.
        let k = self.top_k.max(self.keep).clamp(1, x.len().max(1));
        let mut likeliest = x.clone();
        let Some((_, least, _)) =
            (k <= x.len()).then(|| likeliest.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)))
        else {
            return x;
        };
        let least = *least;
        let mut left: Vec<usize> = (0..x.len()).filter(|i| x[*i] >= least).collect();
        left.sort_unstable_by(|a, b| x[*b].total_cmp(&x[*a]).then(b.cmp(a)));
        let most = left.first().map_or(0.0, |i| x[*i]);
        let whole: f64 = x.iter().map(|x| f64::from((x - most).exp())).sum();
        // From the least likely on, codes go while they add up to 1 − p at most: seen from the likeliest, a code goes when
        // it and all less likely ones do.
        let (mut rest, mut kept) = (whole, 0);
        for i in &left {
            if kept >= self.keep && rest <= (1.0 - f64::from(self.top_p)) * whole {
                break;
            }
            rest -= f64::from((x[*i] - most).exp());
            kept += 1;
        }
        left.truncate(kept);
        left.sort_unstable();
        let powers: Vec<f32> = left.iter().map(|i| (x[*i] - most).exp()).collect();
        let sum: f32 = powers.iter().sum();
        let mut out = vec![0.0; x.len()];
        left.iter().zip(powers).for_each(|(i, power)| out[*i] = power / sum);
        out
    }

    /// Draws a code.
    ///
    /// # Errors
    /// `speech_not_finite` when the logits hold no number somewhere.
    pub fn draw(&self, logits: &[f32], history: &[i32], random: &mut Random) -> Result<i32> {
        if logits.is_empty() || logits.iter().any(|x| !x.is_finite()) {
            return Err(Error::internal("speech_not_finite", "the speech model's logits hold no number somewhere")
                .hint("check the files with `vidette inspect`, or fetch them again with `vidette pull --voice`"));
        }
        let p = self.probabilities(logits, history);
        let at = random.uniform() * p.iter().map(|x| f64::from(*x)).sum::<f64>();
        let mut sum = 0.0;
        let mut chosen = 0;
        for (i, p) in p.iter().enumerate().filter(|(_, p)| **p > 0.0) {
            chosen = i;
            sum += f64::from(*p);
            if at < sum {
                break;
            }
        }
        Ok(i32::try_from(chosen).unwrap_or(i32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_probabilities() {
        let s = SpeechSampling::default();
        let logits = [0.0, 2.0, 1.0, -1.0, 0.5];
        let p = s.probabilities(&logits, &[]);
        let mut random = Random::new(3, 3);
        let mut counts = [0u32; 5];
        for _ in 0..20_000 {
            counts[s.draw(&logits, &[], &mut random).unwrap() as usize] += 1;
        }
        for (count, p) in counts.iter().zip(&p) {
            assert!((f64::from(*count) / 20_000.0 - f64::from(*p)).abs() < 0.015, "{counts:?} for {p:?}");
        }
    }

    #[test]
    fn what_can_not_be_drawn_from_is_an_error() {
        let mut random = Random::new(1, 1);
        for logits in [&[f32::NAN, 1.0][..], &[f32::INFINITY, 1.0], &[]] {
            let error = SpeechSampling::default().draw(logits, &[], &mut random).unwrap_err();
            assert_eq!(error.code, "speech_not_finite");
        }
    }
}
