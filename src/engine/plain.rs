//! The plain path, to measure the engine against: every look encodes all its frames and decodes its whole prompt piece
//! by piece into an empty cache, as a program on libmtmd's helpers does. It loads a model of its own.
//! Not here: the engine (`worker`), what is made of the figures (`bench`).

use super::KvType;
use super::backend;
use super::ffi::{Context, ContextParams, Input, Model, Token};
use super::template::Layout;
use super::tower::{Part, Vision};
use super::vision::FrameLayout;
use super::{Prompt, preprocess};
use crate::error::{Error, Result};
use crate::frame::Frame;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the path needs to know; the files must have passed `models::inspect`.
#[derive(Debug, Clone)]
pub struct PlainConfig {
    pub language: PathBuf,
    pub projector: PathBuf,
    pub frame_layout: FrameLayout,
    pub context_tokens: u32,
    /// Most tokens decoded in one call.
    pub batch: u32,
    /// 0 takes one for each core.
    pub threads: u32,
    /// Layers on the GPU; negative for all, 0 for none.
    pub gpu_layers: i32,
}

/// One look's steps, each as long as it took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainLook {
    /// All frames: resized, then libmtmd's preprocessing and the vision tower, to embeddings on the host.
    pub encode: Duration,
    /// The prompt, until the logits after it are on the host.
    pub prefill: Duration,
    /// Choosing the first token.
    pub first: Duration,
    /// The other tokens.
    pub decode: Duration,
    /// Tokens of the prompt, frames included.
    pub prompt_tokens: usize,
    /// Those of them before the first frame.
    pub prefix_tokens: usize,
    pub tokens: Vec<Token>,
}

/// What preparing and encoding one frame takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCost {
    /// Our own resize on the processor ([`preprocess::prepare`]).
    pub resize: Duration,
    /// libmtmd's preprocessing on the processor.
    pub preprocess: Duration,
    /// The vision tower and the projector, with what libmtmd preprocesses once more taken off.
    pub tower: Duration,
}

/// The loaded path.
pub struct PlainPath<'m> {
    model: &'m Model,
    vision: Vision<'m>,
    context: Context<'m>,
    template: Layout,
    frames: FrameLayout,
    image_start: Vec<Token>,
    image_end: Vec<Token>,
}

/// Loads model and vision tower, has `work` done with them, and frees them.
///
/// # Errors
/// When a file can't be loaded or there is not enough memory; else what `work` says.
pub fn with<T>(config: &PlainConfig, work: impl FnOnce(&mut PlainPath<'_>) -> Result<T>) -> Result<T> {
    let threads = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n as usize,
    };
    let threads = i32::try_from(threads.min(512)).unwrap_or(1);
    backend::start()?;
    let gpu = config.gpu_layers != 0 && backend::gpu_name().is_some();
    let model = Model::load(&config.language, if gpu { config.gpu_layers } else { 0 })?;
    let token = |text: &str| {
        // Without these libmtmd aborts the process at the first picture.
        let missing = || Error::invalid("model_pair_tokens", format!("the language model has no {text} token"));
        model.special(text).map(|token| vec![token]).ok_or_else(missing)
    };
    let (image_start, image_end) = match config.frame_layout {
        FrameLayout::OneSlice => (token("<image>")?, token("</image>")?),
        FrameLayout::Whole => (Vec::new(), Vec::new()),
    };
    let params = ContextParams {
        tokens_per_sequence: config.context_tokens,
        sequences: 1,
        batch: config.batch,
        threads,
        kv: KvType::F16,
    };
    let mut path = PlainPath {
        vision: Vision::load(&config.projector, &model, gpu, threads)?,
        context: Context::new(&model, params)?,
        template: Layout::of(&model),
        frames: config.frame_layout,
        image_start,
        image_end,
        model: &model,
    };
    work(&mut path)
}

/// Bytes free and in all of the memory of the first GPU, as its driver tells; `None` without one.
pub fn gpu_memory() -> Option<(u64, u64)> {
    backend::start().ok()?;
    backend::gpu_memory()
}

impl PlainPath<'_> {
    /// One look: `frames` (oldest first) and the prompt, then the likeliest tokens up to `tokens`, or to the end of the
    /// turn, into an empty cache.
    ///
    /// # Errors
    /// When the look does not fit the context, or llama.cpp fails.
    pub fn look(&mut self, prompt: &Prompt, frames: &[Arc<Frame>], tokens: u32) -> Result<PlainLook> {
        let began = Instant::now();
        let mut parts = Vec::new();
        for frame in frames {
            parts.extend(self.encode(frame)?);
        }
        let encoded = Instant::now();
        let words = self.template.tokens(self.model, prompt, false);
        let room = self.context.tokens_per_sequence();
        let prompt_tokens = words.prefix.len() + words.suffix.len() + parts.iter().map(Part::positions).sum::<usize>();
        if prompt_tokens + tokens as usize > room {
            let message = format!("the look needs {} tokens but there are {room}", prompt_tokens + tokens as usize);
            return Err(Error::invalid("prompt_too_long", message).hint("raise --context-tokens"));
        }
        self.context.truncate(0, 0);
        let mut at = self.context.decode(0, 0, &[Input::Tokens(&words.prefix)], false)?;
        let helper = self.vision.needs_helper();
        for part in &parts {
            at = match part {
                Part::Tokens(tokens) => self.context.decode(0, at, &[Input::Tokens(tokens)], false)?,
                Part::Image(image) if helper => self.context.decode_with_helper(&mut self.vision, 0, at, image)?,
                Part::Image(image) => self.context.decode(0, at, &[Input::Rows(&image.rows)], false)?,
            };
        }
        at = self.context.decode(0, at, &[Input::Tokens(&words.suffix)], true)?;
        self.context.logits_at(-1)?;
        let prefilled = Instant::now();
        let mut said = vec![likeliest(self.context.logits_at(-1)?)];
        let first = Instant::now();
        while said.len() < tokens as usize && !said.last().is_some_and(|t| self.model.ends_turn(*t)) {
            let last = said[said.len() - 1];
            at = self.context.decode(0, at, &[Input::Tokens(&[last])], true)?;
            said.push(likeliest(self.context.logits_at(-1)?));
        }
        if said.last().is_some_and(|t| self.model.ends_turn(*t)) {
            // The engine does not count the end either.
            said.pop();
        }
        Ok(PlainLook {
            encode: encoded - began,
            prefill: prefilled - encoded,
            first: first - prefilled,
            decode: first.elapsed(),
            prompt_tokens,
            prefix_tokens: words.prefix.len(),
            tokens: said,
        })
    }

    /// Time a token of nothing but llama.cpp's decode: `steps` tokens, one by one, into a cache that holds `depth`
    /// already, waiting for the logits each time but not looking at them.
    ///
    /// # Errors
    /// When they do not fit the context, or llama.cpp fails.
    pub fn bare_decode(&mut self, depth: usize, steps: u32) -> Result<Duration> {
        if depth + steps as usize > self.context.tokens_per_sequence() || depth == 0 || steps == 0 {
            return Err(Error::invalid("bench_depth", "the decode loop does not fit the context")
                .hint("raise --context-tokens"));
        }
        let n_vocab = self.model.n_vocab().max(1);
        // Different tokens, so that no cache flatters the look-up.
        let token = |i: usize| Token::try_from(i.wrapping_mul(7919) % n_vocab).unwrap_or(0);
        let before: Vec<Token> = (0..depth).map(token).collect();
        self.context.truncate(0, 0);
        let mut at = self.context.decode(0, 0, &[Input::Tokens(&before)], true)?;
        self.context.logits_at(-1)?;
        let began = Instant::now();
        for i in 0..steps {
            at = self.context.decode(0, at, &[Input::Tokens(&[token(depth + i as usize)])], true)?;
            self.context.logits_at(-1)?;
        }
        Ok(began.elapsed() / steps)
    }

    /// What one frame costs, step by step.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub fn frame_cost(&mut self, frame: &Frame) -> Result<FrameCost> {
        let began = Instant::now();
        let prepared = preprocess::prepare(&frame.rgb, frame.width, frame.height)?;
        let resized = Instant::now();
        self.vision.splitter().split(&prepared.rgb, prepared.width, prepared.height)?;
        let split = Instant::now();
        let one = self.frames == FrameLayout::OneSlice;
        self.vision.encode(&prepared.rgb, prepared.width, prepared.height, one)?;
        let preprocess = split - resized;
        Ok(FrameCost { resize: resized - began, preprocess, tower: split.elapsed().saturating_sub(preprocess) })
    }

    fn encode(&mut self, frame: &Frame) -> Result<Vec<Part>> {
        if self.frames == FrameLayout::Whole {
            return self.vision.encode(&frame.rgb, frame.width, frame.height, false);
        }
        let prepared = preprocess::prepare(&frame.rgb, frame.width, frame.height)?;
        let mut parts = vec![Part::Tokens(self.image_start.clone())];
        parts.extend(self.vision.encode(&prepared.rgb, prepared.width, prepared.height, true)?);
        parts.push(Part::Tokens(self.image_end.clone()));
        Ok(parts)
    }
}

impl Part {
    fn positions(&self) -> usize {
        match self {
            Part::Tokens(tokens) => tokens.len(),
            Part::Image(image) => image.tokens,
        }
    }
}

/// The token with the greatest logit, the first of equals.
fn likeliest(logits: &[f32]) -> Token {
    let best = logits.iter().enumerate().fold((0, f32::MIN), |best, (i, x)| if *x > best.1 { (i, *x) } else { best });
    Token::try_from(best.0).unwrap_or(0)
}
