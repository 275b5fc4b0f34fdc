//! Which token comes next: llama.cpp's samplers, given only the candidates that can win. Among 150,000 tokens these are
//! few, and finding them is one pass over the logits. Not here: logits (`session`), defaults (`Sampling`).

use super::Sampling;
use super::ffi::Token;
use crate::error::{Error, Result};
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;
use std::borrow::Cow;
use std::collections::VecDeque;

/// Tokens that the repetition penalty looks back on.
const PENALTY_WINDOW: usize = 64;
/// Tokens whose likeliest is looked up at once.
const GROUP: usize = 64;

/// Chooses the tokens of one answer.
pub struct Chooser {
    samplers: LlamaSampler,
    /// So many of the likeliest can win before the penalty; `None` when all can.
    likeliest: Option<usize>,
    /// What the penalty falls on; empty without one.
    recent: VecDeque<Token>,
    penalty: bool,
}

impl Chooser {
    /// The samplers in llama.cpp's customary order. `fresh_seed` is taken when none was chosen.
    pub fn new(sampling: &Sampling, n_vocab: usize, fresh_seed: u32) -> Self {
        let mut chain = Vec::new();
        let penalty = sampling.repeat_penalty != 1.0;
        if penalty {
            let (n_vocab, window) = (i32::try_from(n_vocab).unwrap_or(i32::MAX), PENALTY_WINDOW as i32);
            chain.push(LlamaSampler::penalties(n_vocab, window, sampling.repeat_penalty, 0.0, 0.0));
        }
        let likeliest = if sampling.temperature <= 0.0 {
            chain.push(LlamaSampler::greedy());
            Some(1)
        } else {
            if sampling.top_k > 0 {
                chain.push(LlamaSampler::top_k(sampling.top_k));
            }
            chain.push(LlamaSampler::top_p(sampling.top_p, 1));
            if sampling.min_p > 0.0 {
                chain.push(LlamaSampler::min_p(sampling.min_p, 1));
            }
            chain.push(LlamaSampler::temp(sampling.temperature));
            chain.push(LlamaSampler::dist(sampling.seed.unwrap_or(fresh_seed)));
            usize::try_from(sampling.top_k).ok().filter(|k| *k > 0)
        };
        Self { samplers: LlamaSampler::chain_simple(chain), likeliest, recent: VecDeque::new(), penalty }
    }

    /// The next token; none of those that are marked in `banned`.
    ///
    /// # Errors
    /// `engine_sample` when no token can be chosen.
    pub fn choose(&mut self, logits: &[f32], banned: &[bool]) -> Result<Token> {
        let mut candidates = LlamaTokenDataArray::new(self.candidates(logits, banned), false);
        self.samplers.apply(&mut candidates);
        let token = candidates
            .selected_token()
            .ok_or_else(|| Error::internal("engine_sample", "the sampler chose no token (are the weights broken?)"))?;
        self.samplers.accept(token);
        if self.penalty {
            if self.recent.len() == PENALTY_WINDOW {
                self.recent.pop_front();
            }
            self.recent.push_back(token.0);
        }
        Ok(token.0)
    }

    /// Those that can win, in the order of their numbers: the likeliest, as many more as the penalty can throw back, and
    /// those that it falls on, which it may also raise.
    fn candidates(&self, logits: &[f32], banned: &[bool]) -> Vec<LlamaTokenData> {
        let mut logits = Cow::Borrowed(logits);
        if !banned.is_empty() {
            let banned = logits.to_mut().iter_mut().zip(banned).filter(|(_, banned)| **banned);
            banned.for_each(|(x, _)| *x = f32::NEG_INFINITY);
        }
        let data = |id: usize| LlamaTokenData::new(LlamaToken::new(id as i32), logits[id], 0.0);
        let wanted = self.likeliest.map(|k| k + self.recent.len());
        let Some(mut found) = wanted.and_then(|wanted| likeliest(&logits, wanted)) else {
            return (0..logits.len()).map(data).collect();
        };
        let recent = self.recent.iter().filter_map(|token| usize::try_from(*token).ok());
        found.extend(recent.filter(|id| *id < logits.len()));
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(data).collect()
    }
}

/// Numbers of at least the `wanted` greatest logits, rising. `None` when that would be a good part of all of them, or
/// when some are no numbers.
fn likeliest(logits: &[f32], wanted: usize) -> Option<Vec<usize>> {
    let groups = logits.len().div_ceil(GROUP);
    if wanted == 0 || wanted * 4 > groups {
        return None;
    }
    // Without a rule for NaN this compiles to one instruction for many numbers.
    let greatest = |group: &[f32]| group.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    let tops: Vec<f32> = logits.chunks(GROUP).map(greatest).collect();
    let mut sorted = tops.clone();
    // `wanted` groups reach this bound, so at least that many logits do.
    let (_, bound, _) = sorted.select_nth_unstable_by(wanted - 1, |a, b| b.total_cmp(a));
    let bound = *bound;
    if !bound.is_finite() {
        return None;
    }
    let reach = tops.iter().enumerate().filter(|(_, top)| **top >= bound).map(|(i, _)| i * GROUP);
    let mut found = Vec::with_capacity(wanted * 2);
    for from in reach {
        let group = &logits[from..(from + GROUP).min(logits.len())];
        found.extend(group.iter().enumerate().filter(|(_, x)| **x >= bound).map(|(i, _)| from + i));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VOCABULARY: usize = 40_000;

    /// Logits of some spread. Among ties llama.cpp's order, and so its draw, depends on where the others stand.
    fn logits(seed: u64, spread: f32) -> Vec<f32> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let mut all: Vec<f32> = (0..VOCABULARY).map(|_| (next() + next() + next() - 1.5) * spread).collect();
        let mut order: Vec<usize> = (0..VOCABULARY).collect();
        order.sort_by(|a, b| all[*a].total_cmp(&all[*b]));
        for pair in order.windows(2) {
            if all[pair[1]] <= all[pair[0]] {
                all[pair[1]] = all[pair[0]].next_up();
            }
        }
        all
    }

    /// As llama.cpp chooses from all tokens.
    fn from_all(chooser: &mut Chooser, logits: &[f32]) -> Token {
        let all = (0..).zip(logits).map(|(id, x)| LlamaTokenData::new(LlamaToken::new(id), *x, 0.0));
        let mut all = LlamaTokenDataArray::new(all.collect(), false);
        chooser.samplers.apply(&mut all);
        let token = all.selected_token().unwrap();
        chooser.samplers.accept(token);
        token.0
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
        #[test]
        fn from_few_candidates_comes_what_comes_from_all(
            seed in any::<u64>(),
            temperature in prop::sample::select(vec![0.0f32, 0.7, 2.0]),
            top_k in prop::sample::select(vec![0, 1, 20, 100]),
            repeat_penalty in prop::sample::select(vec![1.0f32, 1.05, 1.8, 0.7]),
            min_p in prop::sample::select(vec![0.0f32, 0.05]),
        ) {
            let sampling = Sampling { temperature, top_p: 0.8, top_k, min_p, repeat_penalty, seed: Some(9) };
            let (mut few, mut all) = (Chooser::new(&sampling, VOCABULARY, 0), Chooser::new(&sampling, VOCABULARY, 0));
            let same = logits(seed, 8.0);
            let mut other = same.clone();
            for step in 0..70 {
                // The same logits again and again bring the penalty to bear on what is likeliest.
                other.rotate_left(step);
                let logits = if step % 3 == 0 { &other } else { &same };
                prop_assert_eq!(few.choose(logits, &[]).unwrap(), from_all(&mut all, logits));
            }
        }
    }

    #[test]
    fn the_likeliest_are_all_there_and_few_besides() {
        let logits = logits(5, 8.0);
        let found = likeliest(&logits, 100).unwrap();
        assert!((100..400).contains(&found.len()), "{}", found.len());
        let mut sorted: Vec<_> = (0..VOCABULARY).collect();
        sorted.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        assert!(sorted[..100].iter().all(|id| found.contains(id)));
        assert!(found.is_sorted());
    }

    #[test]
    fn odd_logits_are_left_to_the_samplers() {
        assert_eq!(likeliest(&[f32::NAN; VOCABULARY], 5), None);
        assert_eq!(likeliest(&[f32::NEG_INFINITY; VOCABULARY], 5), None);
        assert_eq!(likeliest(&[1.0; 500], 5), None);
        assert_eq!(likeliest(&[1.0; VOCABULARY], 5).unwrap().len(), VOCABULARY);
        let mut one = vec![f32::NEG_INFINITY; VOCABULARY];
        one[VOCABULARY - 1] = 3.0;
        assert_eq!(likeliest(&one, 1).unwrap(), [VOCABULARY - 1]);
    }

    #[test]
    fn what_is_banned_is_never_chosen() {
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        let mut chooser = Chooser::new(&sampling, VOCABULARY, 0);
        let logits = logits(3, 8.0);
        let best = chooser.choose(&logits, &[]).unwrap();
        let mut banned = vec![false; VOCABULARY];
        banned[best as usize] = true;
        assert_ne!(Chooser::new(&sampling, VOCABULARY, 0).choose(&logits, &banned).unwrap(), best);
    }
}
