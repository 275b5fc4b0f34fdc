//! The load of several streams: each takes a frame every period, has it described, and starts the next look when this
//! one is done, with a fresh frame when it is late; one that waits for its turn gets newer frames; as in the program's
//! commentary. Then an instruction changes in some of them. Knows the engine by its trait only. Not here: looks one after
//! the other (`looks`).

use super::machine::Power;
use super::numbers::Spread;
use super::pictures::Pictures;
use super::{INSTRUCTION, NEW_INSTRUCTION, Plan, prompt};
use crate::commentary::REFRESH;
use crate::engine::{Engine, Job, JobEvent, JobHandle, Sampling};
use crate::error::{Error, Result};
use crate::frame::Frame;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Changes of instruction that are measured, each in another stream.
const CHANGES: usize = 3;
/// How much longer than asked for a phase may take when the engine is slow, and how long it may take at any rate.
const PATIENCE: u32 = 4;
const LEAST_PATIENCE: Duration = Duration::from_secs(30);

/// A number of streams to be served at once.
#[derive(Debug, Clone)]
pub struct Load {
    /// Tells this load's streams from those of another.
    pub round: usize,
    pub streams: usize,
    pub plan: Plan,
}

/// How they were served.
#[derive(Debug, Clone, Serialize)]
pub struct LoadFigures {
    pub streams: usize,
    pub seconds: f64,
    /// All streams together.
    pub looks_per_s: f64,
    pub tokens_per_s: f64,
    /// Looks done, as a share of those that were due.
    pub kept_up: f64,
    /// From the newest frame's capture to the first token, and to the end of the text.
    pub first_token: Option<Spread>,
    pub last_token: Option<Spread>,
    /// From a new instruction to the first token under it.
    pub instruction: Option<Spread>,
    /// Changes of instruction that got no answer in time.
    pub unanswered: usize,
    /// Streams whose first look was not done when measuring began: the engine was too slow.
    pub cold: usize,
    pub watts: Option<f64>,
    pub joules_per_look: Option<f64>,
    pub joules_per_token: Option<f64>,
}

/// The instruction in force, and since when.
#[derive(Debug, Clone, Copy)]
struct Order {
    instruction: &'static str,
    since: Option<Instant>,
}

/// A look that was done.
struct Done {
    captured: Instant,
    first: Option<Instant>,
    last: Instant,
    tokens: u32,
}

/// What all streams of a load share.
struct Shared {
    engine: Arc<dyn Engine>,
    load: Load,
    pictures: Pictures,
    began: Instant,
    /// Looks done, stream by stream.
    done: Vec<AtomicUsize>,
    answered: mpsc::Sender<Duration>,
}

/// Puts the load on the engine and measures.
///
/// # Errors
/// When a look fails.
pub(super) async fn measure(engine: Arc<dyn Engine>, load: &Load, power: Option<&Power>) -> Result<LoadFigures> {
    let (answered, mut answers) = mpsc::channel(CHANGES);
    let shared = Arc::new(Shared {
        engine,
        load: load.clone(),
        pictures: Pictures::new(),
        began: Instant::now(),
        done: (0..load.streams).map(|_| AtomicUsize::new(0)).collect(),
        answered,
    });
    let (stop, stopped) = watch::channel(false);
    let (mut tasks, mut orders) = (JoinSet::new(), Vec::new());
    for number in 0..load.streams {
        let (order, ordered) = watch::channel(Order { instruction: INSTRUCTION, since: None });
        orders.push(order);
        tasks.spawn(stream(Arc::clone(&shared), number, ordered, stopped.clone()));
    }
    let least = load.plan.measure;
    let most = (least * PATIENCE).max(LEAST_PATIENCE);
    let waiting = |looks: usize| {
        let shared = Arc::clone(&shared);
        move || shared.done.iter().filter(|n| n.load(Ordering::Relaxed) < looks).count()
    };
    // The first look of each encodes all its frames and decodes all its prompt: that is no steady state.
    let cold = until(&mut tasks, waiting(1), Duration::ZERO, most).await?;
    let from = Instant::now();
    until(&mut tasks, waiting(2), least, most).await?;
    let to = Instant::now();

    let mut changes = Vec::new();
    let mut unanswered = 0;
    for change in 0..CHANGES.min(load.streams) {
        let order = &orders[change * load.streams / CHANGES.min(load.streams)];
        order.send_replace(Order { instruction: NEW_INSTRUCTION, since: Some(Instant::now()) });
        match tokio::time::timeout(most, answers.recv()).await {
            Ok(Some(after)) => changes.push(after),
            _ => unanswered += 1,
        }
    }
    stop.send_replace(true);
    let mut looks = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        looks.extend(joined(ended)?);
    }
    looks.retain(|look| (from..to).contains(&look.last));

    let seconds = (to - from).as_secs_f64();
    let count = looks.len() as f64;
    let tokens = f64::from(looks.iter().map(|l| l.tokens).sum::<u32>());
    let due = load.streams as f64 * seconds / load.plan.period.as_secs_f64();
    let watts = power.and_then(|p| p.mean(from, to));
    let joules = |of: f64| watts.filter(|_| of > 0.0).map(|w| w * seconds / of);
    Ok(LoadFigures {
        streams: load.streams,
        seconds,
        looks_per_s: count / seconds,
        tokens_per_s: tokens / seconds,
        kept_up: (count / due).min(1.0),
        first_token: Spread::of(looks.iter().filter_map(|l| Some(l.first? - l.captured))),
        last_token: Spread::of(looks.iter().map(|l| l.last - l.captured)),
        instruction: Spread::of(changes),
        unanswered,
        cold,
        watts,
        joules_per_look: joules(count),
        joules_per_token: joules(tokens),
    })
}

type Ended = std::result::Result<Result<Vec<Done>>, tokio::task::JoinError>;

fn joined(ended: Ended) -> Result<Vec<Done>> {
    ended.map_err(|e| Error::internal("bench_stream", e.to_string()))?
}

/// Waits until `waiting` is 0 and `least` has passed, but not longer than `most`; returns what `waiting` is then.
async fn until(
    tasks: &mut JoinSet<Result<Vec<Done>>>,
    waiting: impl Fn() -> usize,
    least: Duration,
    most: Duration,
) -> Result<usize> {
    let began = Instant::now();
    loop {
        let (left, passed) = (waiting(), began.elapsed());
        if (left == 0 && passed >= least) || passed >= most {
            return Ok(left);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            // A stream only ends by itself when a look failed.
            Some(ended) = tasks.join_next() => { joined(ended)?; }
        }
    }
}

/// One stream, until it is stopped; returns its looks but the first.
async fn stream(
    shared: Arc<Shared>,
    number: usize,
    mut ordered: watch::Receiver<Order>,
    mut stopped: watch::Receiver<bool>,
) -> Result<Vec<Done>> {
    let plan = &shared.load.plan;
    let name: Arc<str> = Arc::from(format!("load-{}-{number}", shared.load.round));
    let mut looks = Vec::new();
    // The streams' moments are spread over the period.
    let mut next = shared.began + plan.period.mul_f64(number as f64 / shared.load.streams as f64);
    let mut newest = plan.frames as u64;
    let mut order = *ordered.borrow_and_update();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            changed = ordered.changed() => {
                // It is sent once at most, by one who lives longer than this.
                if changed.is_err() { return Ok(looks); }
                order = *ordered.borrow_and_update();
            }
            _ = stopped.changed() => return Ok(looks),
        }
        let mut frames = shared.pictures.window(newest, plan.frames);
        newest += 1;
        let submit = |order: Order, frames: &[Arc<Frame>]| -> JobHandle {
            shared.engine.submit(Job {
                stream: Arc::clone(&name),
                prompt: prompt(order.instruction),
                frames: frames.to_vec(),
                max_tokens: plan.tokens,
                sampling: Sampling { seed: Some(1), ..Sampling::default() },
                for_voice: false,
                // As the commentary marks it: a new instruction that nothing was said under yet.
                urgent: order.since.is_some(),
                novelty: 0.0,
            })
        };
        let mut handle = submit(order, &frames);
        let (mut first, mut begun, mut handed_in) = (None, false, Instant::now());
        loop {
            tokio::select! {
                _ = stopped.changed() => return Ok(looks),
                changed = ordered.changed() => {
                    if changed.is_err() { return Ok(looks); }
                    // The running answer is under an instruction that no longer holds.
                    order = *ordered.borrow_and_update();
                    handle = submit(order, &frames);
                    (first, begun, handed_in) = (None, false, Instant::now());
                }
                () = tokio::time::sleep_until((handed_in + REFRESH).into()), if !begun => {
                    frames = shared.pictures.window(newest, plan.frames);
                    newest += 1;
                    handle = submit(order, &frames);
                    handed_in = Instant::now();
                }
                event = handle.events.recv() => match event {
                    Some(JobEvent::Started { .. }) => begun = true,
                    Some(JobEvent::Text { at, .. }) => {
                        first = first.or(Some(at));
                        if let Some(since) = order.since.take() {
                            // There is room: no more changes than places.
                            let _nobody_waits = shared.answered.try_send(at.saturating_duration_since(since));
                        }
                    }
                    Some(JobEvent::Done { at, tokens, .. }) => {
                        let captured = frames.last().map_or(at, |frame| frame.captured);
                        if shared.done[number].fetch_add(1, Ordering::Relaxed) > 0 {
                            looks.push(Done { captured, first, last: at, tokens });
                        }
                        break;
                    }
                    Some(JobEvent::Failed(e)) => return Err(e),
                    Some(JobEvent::Replaced) | None => {
                        return Err(Error::unavailable("bench_engine", "the engine gave a look up"));
                    }
                    Some(_) => {}
                },
            }
        }
        // Late ones start at once, with a frame of that moment; they do not catch up.
        next = (next + plan.period).max(Instant::now());
    }
}
