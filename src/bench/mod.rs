//! Measures the engine on this machine, without camera and page: look by look against the plain path in alternation,
//! then under the load of several streams; each figure beside the floor that the model's size sets.
//! The engine stands behind its trait, so that another one is measured by the same code.
//! Not here: options and printing (`cli`), making models (`models::random`).

mod floor;
mod load;
mod looks;
mod machine;
mod numbers;
mod pictures;
mod table;

pub use floor::{Floors, Limits, Work};
pub use load::{Load, LoadFigures};
pub use looks::{FrameFigures, Looks, LoopFigures, PathFigures};
pub use machine::{Memory, Power};
pub use numbers::Spread;

use crate::engine::plain::PlainConfig;
use crate::engine::{Engine, FrameLayout, Prompt};
use crate::error::Result;
use crate::models::{LanguageModel, Projector};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is measured, and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Frames in a look.
    pub frames: usize,
    /// Looks of each path that count, after two that do not.
    pub looks: usize,
    /// Tokens of an answer.
    pub tokens: u32,
    /// Numbers of streams to serve at once, one after the other.
    pub streams: Vec<usize>,
    /// From one look of a stream to its next.
    pub period: Duration,
    /// How long each number of streams is measured, at least.
    pub measure: Duration,
    /// False leaves the plain path out; it needs a second copy of the model.
    pub plain: bool,
    pub context_tokens: u32,
    /// Streams that the engine keeps a prompt of, and answers that it writes at once (0 leaves that to it); told, not
    /// set here.
    pub slots: u32,
    pub parallel: u32,
    pub threads: u32,
    pub gpu_layers: i32,
    pub limits: Limits,
}

/// The model as the report names it.
#[derive(Debug, Clone, Serialize)]
pub struct ModelFacts {
    pub name: String,
    pub random_weights: bool,
    pub quantisation: String,
    pub parameters: u64,
    pub language_bytes: u64,
    pub vision_bytes: u64,
}

/// Everything that was measured. Times are milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub model: ModelFacts,
    /// "cpu" or the GPU's name.
    pub device: String,
    pub cores: usize,
    pub load_s: Option<f64>,
    pub slots: u32,
    /// Answers that may be written at once; 0 is all slots on a GPU and one on a processor.
    pub parallel: u32,
    pub looks: Looks,
    pub floors: Floors,
    pub streams: Vec<LoadFigures>,
    pub memory: Memory,
    /// Watts before the model was loaded; `None` when nothing tells.
    pub idle_w: Option<f64>,
    /// Watts while looks were measured one after the other.
    pub looking_w: Option<f64>,
}

/// The machine before the engine was loaded.
pub struct Before {
    memory: Memory,
    power: Option<Power>,
    idle_w: Option<f64>,
}

impl Before {
    /// Looks at the machine. To be called before the engine is opened; takes a second where power can be told.
    /// `visible`: see [`Power::start`].
    pub fn look(visible: Option<&str>) -> Self {
        let power = Power::start(visible);
        let began = Instant::now();
        if power.is_some() {
            std::thread::sleep(Duration::from_secs(1));
        }
        let idle_w = power.as_ref().and_then(|p| p.mean(began, Instant::now()));
        Self { memory: Memory::before(), power, idle_w }
    }
}

/// Measures. `engine` is ready and was opened on these two files. Blocks; `runtime` drives the streams. `keep` gets the
/// report as far as it is after each step: a run that is ended early loses nothing that was measured.
///
/// # Errors
/// When the engine or the plain path fails.
pub fn run(
    engine: &Arc<dyn Engine>,
    model: (&LanguageModel, &Projector),
    plan: &Plan,
    before: Before,
    runtime: &tokio::runtime::Handle,
    keep: &mut dyn FnMut(&Report) -> Result<()>,
) -> Result<Report> {
    let (language, projector) = model;
    let status = engine.status().borrow().clone();
    let Before { mut memory, power, idle_w } = before;
    memory.engine_loaded();
    let floors = Floors::of(language, projector, plan)?;

    let began = Instant::now();
    let plain = plan.plain.then(|| plain_config(language, projector, plan));
    let looks = looks::measure(engine.as_ref(), plain.as_ref(), plan, &mut memory)?;
    let looking_w = power.as_ref().and_then(|p| p.mean(began, Instant::now()));
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        model: ModelFacts {
            name: language.name.clone().unwrap_or_else(|| language.architecture.clone()),
            random_weights: language.random,
            quantisation: language.quantisation.clone(),
            parameters: language.parameters,
            language_bytes: language.bytes,
            vision_bytes: projector.bytes,
        },
        device: status.device.unwrap_or_else(|| "cpu".to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        load_s: status.load_s,
        slots: plan.slots,
        parallel: plan.parallel,
        floors: floors.with_prompt(&looks, plan),
        looks,
        streams: Vec::new(),
        memory,
        idle_w,
        looking_w,
    };
    report.memory.end();
    keep(&report)?;
    for (round, count) in plan.streams.iter().enumerate() {
        let load = Load { round, streams: *count, plan: plan.clone() };
        let figures = runtime.block_on(load::measure(Arc::clone(engine), &load, power.as_ref()))?;
        report.streams.push(figures);
        report.memory.end();
        keep(&report)?;
    }
    Ok(report)
}

fn plain_config(language: &LanguageModel, projector: &Projector, plan: &Plan) -> PlainConfig {
    let resampler = projector.projector_type == "resampler";
    PlainConfig {
        language: language.path.clone(),
        projector: projector.path.clone(),
        frame_layout: if resampler { FrameLayout::OneSlice } else { FrameLayout::Whole },
        context_tokens: plan.context_tokens,
        batch: 512,
        threads: plan.threads,
        gpu_layers: plan.gpu_layers,
    }
}

/// The words around the frames, about as many as the program's own; all of them are single tokens in the vocabulary of
/// `models::random`.
fn prompt(instruction: &str) -> Prompt {
    Prompt {
        system: " you are a sentry that watches live video. each time you see the latest frames, the oldest first. \
                 comment on what happens in one or two short sentences. when there is nothing new to say, answer \
                 nothing else."
            .to_owned(),
        instruction: instruction.to_owned(),
        context: " your last comment was: the dog sleeps under the table, and a man in a black room walks to the \
                  window. do not repeat it."
            .to_owned(),
    }
}

/// The instruction that is in force at first.
const INSTRUCTION: &str = " only tell me what the dog does and where it goes.";
/// The one that replaces it.
const NEW_INSTRUCTION: &str = " now tell me about the people near the door.";
