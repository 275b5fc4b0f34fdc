//! One look in the KV cache: the kept prefix, the frames, the rest, and the answer token by token.
//! Not here: whose turn it is (`worker`), how pictures become embeddings (`vision`).

use super::ffi::{Context, Input, Model, Part, Token};
use super::template::PromptTokens;
use super::vision::{EncodedFrame, Eye};
use super::{CancelFlag, Sampling};
use crate::error::{Error, Result};
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;
use std::rc::Rc;
use std::sync::Arc;

/// Tokens that the repetition penalty looks back on.
const PENALTY_WINDOW: i32 = 64;

/// What one sequence of the cache holds.
#[derive(Debug, Default)]
struct Slot {
    stream: Option<Arc<str>>,
    /// The prefix in the cells from position 0 on.
    prefix: Vec<Token>,
    /// Rises with use; the slot with the least is taken when all are.
    used: u64,
}

/// The context with its slots, each serving one stream at a time.
pub struct Session<'m> {
    model: &'m Model,
    context: Context<'m>,
    slots: Vec<Slot>,
    clock: u64,
}

/// A prompt that is decoded and waits for its answer.
pub struct Look {
    sequence: i32,
    position: i32,
    /// Tokens decoded for it now, and those found in the cache.
    pub decoded: usize,
    pub reused: usize,
}

impl<'m> Session<'m> {
    /// A session with one slot for each sequence of `context`.
    pub fn new(model: &'m Model, context: Context<'m>, slots: usize) -> Self {
        let slots = (0..slots.max(1)).map(|_| Slot::default()).collect();
        Self { model, context, slots, clock: 0 }
    }

    /// Tokens that a prompt and its answer may take.
    pub fn budget(&self) -> usize {
        self.context.tokens_per_sequence()
    }

    /// Leaves out the oldest frames until prompt and answer fit; computed before anything is decoded.
    ///
    /// # Errors
    /// When not even one frame fits.
    pub fn fit(&self, prompt: &PromptTokens, frames: &mut Vec<Rc<EncodedFrame>>, max_tokens: u32) -> Result<usize> {
        let fixed = prompt.prefix.len() + prompt.suffix.len() + max_tokens as usize;
        let (budget, offered) = (self.budget(), frames.len());
        let mut total = fixed + frames.iter().map(|f| f.tokens).sum::<usize>();
        while total > budget && frames.len() > 1 {
            total -= frames.remove(0).tokens;
        }
        if total > budget {
            return Err(Error::invalid(
                "prompt_too_long",
                format!("the look needs {total} tokens but a stream has {budget}"),
            )
            .hint("shorten the instruction, lower MAX_TOKENS or raise CONTEXT_TOKENS"));
        }
        Ok(offered - frames.len())
    }

    /// Decodes a prompt, keeping what the stream's slot already holds of its prefix.
    ///
    /// # Errors
    /// When llama.cpp fails or `cancel` is set; the slot is then empty but usable.
    pub fn prefill(
        &mut self,
        stream: &Arc<str>,
        prompt: &PromptTokens,
        frames: &[Rc<EncodedFrame>],
        eye: &mut Eye<'_>,
        cancel: &CancelFlag,
    ) -> Result<Look> {
        let sequence = self.slot_for(stream);
        let kept = self.keep_prefix(sequence, &prompt.prefix);
        self.context.watch(cancel);
        self.context.keep_hidden(false);
        let result = self.fill(sequence, kept, prompt, frames, eye, cancel);
        let slot = &mut self.slots[sequence];
        match result {
            Ok(position) => {
                slot.prefix.clone_from(&prompt.prefix);
                let total = prompt.prefix.len() + prompt.suffix.len() + frames.iter().map(|f| f.tokens).sum::<usize>();
                Ok(Look { sequence: sequence as i32, position, decoded: total - kept, reused: kept })
            }
            Err(e) => {
                // Whatever half of it is in the cells is not what `prefix` says.
                slot.prefix.clear();
                self.context.truncate(sequence as i32, 0);
                Err(e)
            }
        }
    }

    fn fill(
        &mut self,
        sequence: usize,
        kept: usize,
        prompt: &PromptTokens,
        frames: &[Rc<EncodedFrame>],
        eye: &mut Eye<'_>,
        cancel: &CancelFlag,
    ) -> Result<i32> {
        let (sequence, mut position) = (sequence as i32, i32::try_from(kept).unwrap_or(i32::MAX));
        let helper = eye.needs_helper();
        // Everything up to the next piece that needs the helper goes into one run of full batches.
        let mut run = vec![Input::Tokens(&prompt.prefix[kept..])];
        for part in frames.iter().flat_map(|f| &f.parts) {
            match part {
                Part::Tokens(tokens) => run.push(Input::Tokens(tokens)),
                Part::Image(image) if !helper => run.push(Input::Rows(&image.rows)),
                Part::Image(image) => {
                    position = self.context.decode(sequence, position, &run, false)?;
                    run.clear();
                    position = self.context.decode_with_helper(eye.vision(), sequence, position, image)?;
                }
            }
            if cancel.is_set() {
                return Err(cancelled());
            }
        }
        run.push(Input::Tokens(&prompt.suffix));
        self.context.decode(sequence, position, &run, true)
    }

    /// The slot of this stream, or the one that was used longest ago.
    fn slot_for(&mut self, stream: &Arc<str>) -> usize {
        let own = self.slots.iter().position(|s| s.stream.as_deref() == Some(stream));
        let oldest = self.slots.iter().enumerate().min_by_key(|(_, s)| s.used).map_or(0, |(i, _)| i);
        let i = own.unwrap_or(oldest);
        self.clock += 1;
        self.slots[i].used = self.clock;
        self.slots[i].stream = Some(Arc::clone(stream));
        i
    }

    /// Cuts the slot's cells back to what it shares with `prefix`; returns how many tokens stay.
    fn keep_prefix(&mut self, slot: usize, prefix: &[Token]) -> usize {
        let held = &self.slots[slot].prefix;
        let shared = held.iter().zip(prefix).take_while(|(a, b)| a == b).count();
        let from = i32::try_from(shared).unwrap_or(0);
        let kept = if self.context.truncate(slot as i32, from) { shared } else { 0 };
        self.slots[slot].prefix.truncate(kept);
        kept
    }

    #[cfg(test)]
    /// Logits after the last decoded token.
    ///
    /// # Errors
    /// When nothing was decoded.
    pub fn logits(&self) -> Result<&[f32]> {
        self.context.logits()
    }

    /// The next token of an answer; none of those that are marked in `banned`.
    ///
    /// # Errors
    /// When nothing was decoded before, or no token can be chosen.
    pub fn sample(&self, sampler: &mut LlamaSampler, banned: &[bool]) -> Result<Token> {
        let logits = self.context.logits()?;
        let allowed = banned.iter().map(|banned| !banned).chain(std::iter::repeat(true));
        let candidates: Vec<_> = (0i32..)
            .zip(logits)
            .zip(allowed)
            .filter(|(_, allowed)| *allowed)
            .map(|((id, logit), _)| LlamaTokenData::new(LlamaToken::new(id), *logit, 0.0))
            .collect();
        let mut candidates = LlamaTokenDataArray::new(candidates, false);
        sampler.apply(&mut candidates);
        let token = candidates
            .selected_token()
            .ok_or_else(|| Error::internal("engine_sample", "the sampler chose no token (are the weights broken?)"))?;
        sampler.accept(token);
        Ok(token.0)
    }

    /// Puts an answer's token into the cache and makes the logits for the next.
    ///
    /// # Errors
    /// When llama.cpp fails.
    pub fn advance(&mut self, look: &mut Look, token: Token) -> Result<()> {
        look.position = self.context.decode(look.sequence, look.position, &[Input::Tokens(&[token])], true)?;
        Ok(())
    }

    /// As [`advance`](Self::advance), and the token's hidden state: the last layer after the final norm.
    ///
    /// # Errors
    /// When llama.cpp fails.
    pub fn advance_with_hidden(&mut self, look: &mut Look, token: Token) -> Result<&[f32]> {
        self.context.keep_hidden(true);
        self.advance(look, token)?;
        self.context.hidden()
    }

    /// The model that this session decodes with.
    pub fn model(&self) -> &'m Model {
        self.model
    }
}

/// A prompt was given up because its owner wants no more.
pub fn cancelled() -> Error {
    Error::unavailable("engine_aborted", "decoding was cancelled")
}

/// The sampler chain in llama.cpp's customary order.
pub fn sampler(sampling: &Sampling, n_vocab: usize, fresh_seed: u32) -> LlamaSampler {
    let mut chain = Vec::new();
    if sampling.repeat_penalty != 1.0 {
        let n_vocab = i32::try_from(n_vocab).unwrap_or(i32::MAX);
        chain.push(LlamaSampler::penalties(n_vocab, PENALTY_WINDOW, sampling.repeat_penalty, 0.0, 0.0));
    }
    if sampling.temperature <= 0.0 {
        chain.push(LlamaSampler::greedy());
        return LlamaSampler::chain_simple(chain);
    }
    if sampling.top_k > 0 {
        chain.push(LlamaSampler::top_k(sampling.top_k));
    }
    chain.push(LlamaSampler::top_p(sampling.top_p, 1));
    if sampling.min_p > 0.0 {
        chain.push(LlamaSampler::min_p(sampling.min_p, 1));
    }
    chain.push(LlamaSampler::temp(sampling.temperature));
    chain.push(LlamaSampler::dist(sampling.seed.unwrap_or(fresh_seed)));
    LlamaSampler::chain_simple(chain)
}
