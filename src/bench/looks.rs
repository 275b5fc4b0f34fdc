//! Looks one after the other: the plain path and the engine in turn, on the same frames and words, in one run.
//! Not here: several streams at once (`load`).

use super::machine::Memory;
use super::numbers::Spread;
use super::pictures::Pictures;
use super::{INSTRUCTION, Plan, prompt};
use crate::engine::plain::{self, FrameCost, PlainConfig, PlainLook, PlainPath};
use crate::engine::{Engine, Job, JobEvent, Prompt, Sampling};
use crate::error::{Error, Result};
use crate::frame::Frame;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Looks of each path that do not count.
const WARM_UP: usize = 2;
/// Steps of the bare decode loop, for each look that counts.
const BARE_STEPS: u32 = 16;
/// The likeliest token always: the same work on both paths, and the same answers.
const GREEDY: Sampling =
    Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repeat_penalty: 1.0, seed: Some(1) };

/// What looks one after the other cost.
#[derive(Debug, Clone, Serialize)]
pub struct Looks {
    pub frames: usize,
    pub tokens: u32,
    /// Tokens of the prompt, frames included, and those before the first frame, which the engine keeps. Without the
    /// plain path the second is not known and 0.
    pub prompt_tokens: usize,
    pub prefix_tokens: usize,
    pub frame: Option<FrameFigures>,
    pub plain: Option<PathFigures>,
    pub ours: PathFigures,
    /// Looks in which both began with the same token, in which both wrote the same tokens, and all that count. With
    /// random weights many tokens are nearly as likely as the likeliest, and other shapes of batches round otherwise.
    pub same_answers: Option<(usize, usize, usize)>,
    pub decode_loop: LoopFigures,
}

/// One frame's way to embeddings.
#[derive(Debug, Clone, Serialize)]
pub struct FrameFigures {
    /// Our own resize, on the processor.
    pub resize: Option<Spread>,
    /// libmtmd's preprocessing, on the processor.
    pub preprocess: Option<Spread>,
    /// The vision tower and the projector.
    pub tower: Option<Spread>,
}

/// The steps of one path's looks.
#[derive(Debug, Clone, Serialize)]
pub struct PathFigures {
    /// Frames encoded in each look.
    pub encoded: f64,
    /// All frames of the look to embeddings.
    pub embeddings: Option<Spread>,
    /// From there to the first token: the prompt decoded, one token chosen.
    pub prompt: Option<Spread>,
    /// From the newest frame's capture to the first token.
    pub first_token: Option<Spread>,
    /// For each further token.
    pub token: Option<Spread>,
    /// From the newest frame's capture to the last token.
    pub last_token: Option<Spread>,
}

/// Each token's time in the engine, beside llama.cpp's alone.
#[derive(Debug, Clone, Serialize)]
pub struct LoopFigures {
    /// Decode and wait for the logits, nothing else.
    pub bare: Option<Spread>,
    /// The engine, which takes the likeliest token.
    pub greedy: Option<Spread>,
    /// The engine with the program's default sampling.
    pub sampled: Option<Spread>,
}

/// One look's steps, whichever path took it.
struct Taken {
    encoded: u32,
    embeddings: Duration,
    prompt: Duration,
    first_token: Duration,
    token: Option<Duration>,
    last_token: Duration,
    prompt_tokens: usize,
    tokens: Vec<i32>,
}

/// Looks in turn. With the plain path its model is loaded for as long as this takes.
pub(super) fn measure(
    engine: &dyn Engine,
    plain: Option<&PlainConfig>,
    plan: &Plan,
    memory: &mut Memory,
) -> Result<Looks> {
    let Some(config) = plain else { return in_turn(engine, None, plan) };
    plain::with(config, |path| {
        memory.plain_loaded();
        in_turn(engine, Some(path), plan)
    })
}

fn in_turn(engine: &dyn Engine, mut plain: Option<&mut PlainPath<'_>>, plan: &Plan) -> Result<Looks> {
    let pictures = Pictures::new();
    let words = prompt(INSTRUCTION);
    let stream: Arc<str> = Arc::from("bench");
    let (mut theirs, mut ours, mut costs, mut bare, mut sampled) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut same_first, mut same, mut prefix_tokens) = (0, 0, 0);
    for i in 0..WARM_UP + plan.looks {
        let counts = i >= WARM_UP;
        // The window slides by one frame a look. Both paths get the same pixels, each its own capture.
        let newest = (plan.frames + i) as u64;
        let mut said = None;
        if let Some(path) = &mut plain {
            let frames = pictures.window(newest, plan.frames);
            let look = path.look(&words, &frames, plan.tokens)?;
            prefix_tokens = look.prefix_tokens;
            let depth = look.prompt_tokens;
            let taken = Taken::plain(look, plan.frames);
            let cost = path.frame_cost(&frames[0])?;
            let alone = path.bare_decode(depth, BARE_STEPS)?;
            if counts {
                said = Some(taken.tokens.clone());
                theirs.push(taken);
                costs.push(cost);
                bare.push(alone);
            }
        }
        let taken = look(engine, &stream, &words, pictures.window(newest, plan.frames), plan.tokens, GREEDY)?;
        if counts {
            let said: Option<Vec<i32>> = said;
            same_first += usize::from(said.as_ref().is_some_and(|said| said.first() == taken.tokens.first()));
            same += usize::from(said.as_ref() == Some(&taken.tokens));
            ours.push(taken);
        }
    }
    for i in 0..plan.looks.div_ceil(2) {
        let newest = (2 * plan.frames + WARM_UP + plan.looks + i) as u64;
        let sampling = Sampling { seed: Some(1), ..Sampling::default() };
        sampled.push(look(engine, &stream, &words, pictures.window(newest, plan.frames), plan.tokens, sampling)?);
    }
    let compared = plain.is_some().then_some((same_first, same, plan.looks));
    Ok(Looks {
        frames: plan.frames,
        tokens: plan.tokens,
        prompt_tokens: ours.first().map_or(0, |l| l.prompt_tokens),
        prefix_tokens,
        frame: compared.map(|_| FrameFigures::of(&costs)),
        plain: compared.map(|_| PathFigures::of(&theirs)),
        same_answers: compared,
        decode_loop: LoopFigures {
            bare: Spread::of(bare),
            greedy: Spread::of(ours.iter().filter_map(|l| l.token)),
            sampled: Spread::of(sampled.iter().filter_map(|l| l.token)),
        },
        ours: PathFigures::of(&ours),
    })
}

/// One look of the engine.
fn look(
    engine: &dyn Engine,
    stream: &Arc<str>,
    words: &Prompt,
    frames: Vec<Arc<Frame>>,
    tokens: u32,
    sampling: Sampling,
) -> Result<Taken> {
    let captured = frames.last().map_or_else(Instant::now, |frame| frame.captured);
    let mut handle = engine.submit(Job {
        stream: Arc::clone(stream),
        prompt: words.clone(),
        frames,
        max_tokens: tokens,
        sampling,
        for_voice: false,
        urgent: false,
        novelty: 0.0,
    });
    let (mut start, mut encoded_at, mut first) = (captured, captured, None);
    let (mut encoded, mut prompt_tokens, mut said) = (0, 0, Vec::new());
    while let Some(event) = handle.events.blocking_recv() {
        match event {
            JobEvent::Started { at } => start = at,
            JobEvent::Encoded { at, encoded: n } => (encoded_at, encoded) = (at, n),
            JobEvent::Prefilled { tokens, .. } => prompt_tokens = tokens as usize,
            JobEvent::Text { at, tokens, .. } => {
                first = first.or(Some((at, tokens.len())));
                said.extend(tokens);
            }
            JobEvent::Done { at, tokens, .. } => {
                let (first, with_first) =
                    first.ok_or_else(|| Error::unavailable("bench_silent", "the model ended its answer at once"))?;
                let further = (tokens as usize).saturating_sub(with_first);
                return Ok(Taken {
                    encoded,
                    embeddings: encoded_at.saturating_duration_since(start),
                    prompt: first.saturating_duration_since(encoded_at),
                    first_token: first.saturating_duration_since(captured),
                    token: (further > 0).then(|| at.saturating_duration_since(first) / further as u32),
                    last_token: at.saturating_duration_since(captured),
                    prompt_tokens,
                    tokens: said,
                });
            }
            JobEvent::Failed(e) => return Err(e),
            JobEvent::Replaced => break,
        }
    }
    Err(Error::unavailable("bench_engine", "the engine gave a look up"))
}

impl Taken {
    fn plain(look: PlainLook, frames: usize) -> Self {
        let first_token = look.encode + look.prefill + look.first;
        let further = look.tokens.len().saturating_sub(1);
        Self {
            encoded: frames as u32,
            embeddings: look.encode,
            prompt: look.prefill + look.first,
            first_token,
            token: (further > 0).then(|| look.decode / further as u32),
            last_token: first_token + look.decode,
            prompt_tokens: look.prompt_tokens,
            tokens: look.tokens,
        }
    }
}

impl PathFigures {
    fn of(looks: &[Taken]) -> Self {
        Self {
            encoded: f64::from(looks.iter().map(|l| l.encoded).sum::<u32>()) / looks.len().max(1) as f64,
            embeddings: Spread::of(looks.iter().map(|l| l.embeddings)),
            prompt: Spread::of(looks.iter().map(|l| l.prompt)),
            first_token: Spread::of(looks.iter().map(|l| l.first_token)),
            token: Spread::of(looks.iter().filter_map(|l| l.token)),
            last_token: Spread::of(looks.iter().map(|l| l.last_token)),
        }
    }
}

impl FrameFigures {
    fn of(costs: &[FrameCost]) -> Self {
        Self {
            resize: Spread::of(costs.iter().map(|c| c.resize)),
            preprocess: Spread::of(costs.iter().map(|c| c.preprocess)),
            tower: Spread::of(costs.iter().map(|c| c.tower)),
        }
    }
}
