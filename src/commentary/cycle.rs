//! The loop of one stream: waits until a look is due, hands it to the engine, tells the bus what comes of it.
//! Not here: which words go into a look (`prompt`), what of an answer is shown (`answer`), whether the scene has
//! changed (`change`), how frames get into the window (`ingest`).
//!
//! Everything that can happen wakes the loop, and each time it asks anew what there is to do; so no order of
//! events needs a case of its own. What the person orders comes before everything else.

use super::answer::{Answer, Unsaid};
use super::capacity::{Capacity, Working};
use super::change::ChangeGate;
use super::clocks::Clocks;
use super::prompt::{History, prompt};
use super::stream::{CommentaryState, Orders, Settings, Stream};
use crate::backoff::Backoff;
use crate::bus::{Event, Finish, Utterance};
use crate::engine::{CRASHED, Engine, EngineState, EngineStatus, HUNG, Job, JobEvent, JobFinish, JobHandle};
use crate::error::Error;
use crate::frame::Frame;
use crate::metrics::{Metrics, StreamLabel};
use crate::shutdown::Shutdown;
use crate::source::{SourceState, SourceStatus};
use crate::thumbnail::Thumbnail;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Waits after failed looks: the shortest, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// So often at most the engine may crash at the same frames; then newer ones are waited for.
const CRASHES: u32 = 2;
/// How long a look may wait for the engine, which has other streams to serve.
const IN_LINE: Duration = Duration::from_secs(600);
/// How long a look waits for the engine until newer frames, when there are any, take the place of its own.
pub const REFRESH: Duration = Duration::from_secs(1);
/// How long the engine may work on a look without a sign of life. Reading the prompt is one such step, and
/// takes minutes where a large model runs on few processor cores.
const SILENCE: Duration = Duration::from_secs(180);

/// Runs the stream's loop until `shutdown`.
pub(super) fn spawn(
    stream: Arc<Stream>,
    engine: Arc<dyn Engine>,
    settings: Settings,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut cycle = Cycle::new(Arc::clone(&stream), engine, settings, metrics);
        // Dropping the loop drops the running job, which cancels it.
        tokio::select! {
            biased;
            () = shutdown.wait() => {}
            () = cycle.run() => {}
        }
        stream.note(|status| status.state = CommentaryState::Stopped);
    })
}

struct Cycle {
    stream: Arc<Stream>,
    engine: Arc<dyn Engine>,
    settings: Settings,
    metrics: Arc<Metrics>,
    capacity: Arc<Capacity>,
    name: Arc<str>,
    label: StreamLabel,

    orders: watch::Receiver<Orders>,
    engine_status: watch::Receiver<EngineStatus>,
    source: watch::Receiver<SourceStatus>,
    bell: watch::Receiver<Option<u64>>,

    /// The orders that all below was done under.
    serial: u64,
    /// No look was asked for under them yet: somebody waits for its answer.
    urgent: bool,
    gate: ChangeGate,
    history: History,
    backoff: Backoff,
    /// No look before this.
    due: Option<Instant>,
    /// Newest frame that was looked at or found unchanged; the next look needs a newer one.
    seen: Option<u64>,
    /// How much changed since the last look, 0 to 1.
    novelty: f32,
    /// What to call the wait for that newer frame.
    resting: CommentaryState,
    /// Utterances told.
    told: u64,
    /// The newest frame of the last look that the engine crashed at, and how often it did.
    crash: Option<(u64, u32)>,
}

enum Step {
    /// Nothing to do until something happens.
    Wait(CommentaryState),
    Look(Vec<Arc<Frame>>),
}

/// A look on its way.
struct Look {
    /// In force when it was taken.
    orders: Orders,
    /// The number of its utterance, if there is going to be one.
    number: u64,
    frames: u32,
    encoded: u32,
    /// Pieces of text so far; tokens, once the engine has counted them.
    tokens: u32,
    clocks: Clocks,
    answer: Answer,
    unsaid: Unsaid,
    /// The newest frame's small picture in the making, from the first word that was shown.
    thumbnail: Option<JoinHandle<Option<Thumbnail>>>,
    /// Nothing was said under its orders yet.
    urgent: bool,
}

/// How a look ended.
enum End {
    Answered(Finish),
    /// The engine gave up by itself.
    GivenUp,
    /// New orders came.
    Superseded,
    Replaced,
    Failed(Error),
}

impl Cycle {
    fn new(stream: Arc<Stream>, engine: Arc<dyn Engine>, settings: Settings, metrics: Arc<Metrics>) -> Self {
        let Ok(backoff) = Backoff::try_new(RETRY.0, RETRY.1, 0.0) else { unreachable!("RETRY is in order") };
        Self {
            label: StreamLabel::new(stream.name()),
            orders: stream.orders(),
            engine_status: stream.engine_status(),
            source: stream.source_status(),
            bell: stream.window().bell(),
            serial: 0,
            urgent: false,
            gate: ChangeGate::new(settings.change_threshold),
            history: History::default(),
            backoff,
            due: None,
            seen: None,
            novelty: 0.0,
            resting: CommentaryState::Pausing,
            told: 0,
            crash: None,
            capacity: Arc::clone(stream.capacity()),
            name: Arc::from(stream.name()),
            stream,
            engine,
            settings,
            metrics,
        }
    }

    async fn run(&mut self) {
        loop {
            let orders = self.take_orders();
            match self.step(&orders) {
                Step::Wait(state) => {
                    self.show(state);
                    self.wait().await;
                }
                Step::Look(frames) => self.look(orders, frames).await,
            }
        }
    }

    /// The orders in force. Under new ones nothing of the past counts: no pause, no history, no "unchanged".
    fn take_orders(&mut self) -> Orders {
        let orders = self.orders.borrow_and_update().clone();
        if orders.serial != self.serial {
            self.serial = orders.serial;
            self.urgent = true;
            if let Some(speaker) = self.stream.speaker() {
                speaker.cancel();
            }
            self.gate.reset();
            self.history.clear();
            self.due = None;
            self.seen = None;
            self.resting = CommentaryState::Pausing;
        }
        orders
    }

    fn step(&mut self, orders: &Orders) -> Step {
        if !orders.running {
            return Step::Wait(CommentaryState::Stopped);
        }
        if self.engine_status.borrow_and_update().state != EngineState::Ready {
            return Step::Wait(CommentaryState::WaitingForEngine);
        }
        // Frames that stay in the window of a lost source are old news.
        if self.source.borrow_and_update().state != SourceState::Streaming {
            return Step::Wait(CommentaryState::WaitingForFrames);
        }
        if self.due.is_some_and(|due| due > Instant::now()) {
            return Step::Wait(CommentaryState::Pausing);
        }
        // Before the pick, so that a frame that comes after it rings again.
        self.bell.borrow_and_update();
        let frames = self.stream.window().pick(self.settings.pick);
        let Some(newest) = frames.last() else {
            return Step::Wait(CommentaryState::WaitingForFrames);
        };
        if self.seen == Some(newest.seq) {
            return Step::Wait(self.resting);
        }
        let changes: Vec<_> = self.unseen().iter().map(|frame| self.gate.changed(frame)).collect();
        self.seen = Some(newest.seq);
        if !changes.iter().any(|change| change.changed) {
            self.metrics.unchanged.get_or_create(&self.label).inc();
            self.stream.note(|status| status.unchanged += 1);
            self.resting = CommentaryState::Unchanged;
            return Step::Wait(CommentaryState::Unchanged);
        }
        self.novelty = changes.iter().map(|change| change.score).fold(0.0, f64::max).clamp(0.0, 1.0) as f32;
        self.gate.looked(newest);
        self.resting = CommentaryState::Pausing;
        Step::Look(frames)
    }

    /// Frames that came since the last look or the last "unchanged". All of them count: what came and went while
    /// the model was busy is news, though the newest frame looks as before.
    fn unseen(&self) -> Vec<Arc<Frame>> {
        let window = self.stream.window();
        let from = self.seen.map_or(0, |seen| seen + 1);
        window.read_from(from).or_else(|missed| window.read_from(missed.next)).unwrap_or_default()
    }

    /// Until anything happened that could give us something to do.
    async fn wait(&mut self) {
        let due = self.due.filter(|due| *due > Instant::now());
        tokio::select! {
            () = change(&mut self.orders) => {}
            () = change(&mut self.engine_status) => {}
            () = change(&mut self.source) => {}
            () = change(&mut self.bell) => {}
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }

    async fn look(&mut self, orders: Orders, frames: Vec<Arc<Frame>>) {
        let urgent = std::mem::take(&mut self.urgent);
        let Some(mut look) = Look::new(orders, self.told + 1, urgent, &frames) else { return };
        let job = self.job(&look, frames);
        self.stream.note(|status| {
            status.looks += 1;
            status.state = CommentaryState::Looking;
        });
        let handle = self.engine.submit(job);
        let end = self.listen(handle, &mut look).await;
        self.keep_thumbnail(&mut look).await;
        self.conclude(look, end);
    }

    fn job(&self, look: &Look, frames: Vec<Arc<Frame>>) -> Job {
        Job {
            stream: Arc::clone(&self.name),
            prompt: prompt(look.orders.profile, &look.orders.instruction, &self.history),
            frames,
            max_tokens: self.settings.max_tokens,
            sampling: self.settings.sampling.complete(),
            for_voice: self.stream.speaker().is_some_and(|speaker| speaker.wants_tokens()),
            urgent: look.urgent,
            novelty: self.novelty,
        }
    }

    /// The look anew at the newest frames, in place of the job that the engine has not taken up; it keeps its place in the
    /// row there. `None` when there are no newer ones.
    fn refreshed(&mut self, look: &mut Look) -> Option<JobHandle> {
        self.bell.borrow_and_update();
        let frames = self.stream.window().pick(self.settings.pick);
        let newest = frames.last().filter(|frame| frame.seq > look.clocks.newest().seq)?;
        self.seen = Some(newest.seq);
        self.gate.looked(newest);
        *look = Look::new(look.orders.clone(), look.number, look.urgent, &frames)?;
        self.metrics.jobs_dropped.get_or_create(&self.label).inc();
        Some(self.engine.submit(self.job(look, frames)))
    }

    /// Follows the job to its end. The handle goes with it, so the job is cancelled if it was not at its end.
    async fn listen(&mut self, mut handle: JobHandle, look: &mut Look) -> End {
        let (mut patience, mut sign, mut handed_in) = (IN_LINE, Instant::now(), Instant::now());
        let asked = std::time::Instant::now();
        let mut working: Option<Working> = None;
        loop {
            let waits = look.clocks.started.is_none();
            let newer = async {
                sleep_until(handed_in + REFRESH).await;
                change(&mut self.bell).await;
            };
            let event = tokio::select! {
                biased;
                () = superseded(&mut self.orders, look.orders.serial) => return End::Superseded,
                event = handle.events.recv() => event,
                () = sleep_until(sign + patience) => return End::Failed(silent(patience)),
                () = newer, if waits => {
                    handed_in = Instant::now();
                    if let Some(newer) = self.refreshed(look) {
                        handle = newer;
                    }
                    continue;
                }
            };
            (patience, sign) = (SILENCE, Instant::now());
            match event {
                Some(JobEvent::Started { at }) => {
                    look.clocks.started = Some(at);
                    working = Some(self.capacity.begin(&self.name, at.saturating_duration_since(asked)));
                }
                Some(JobEvent::Encoded { at, encoded }) => self.encoded(look, at, encoded),
                Some(JobEvent::Prefilled { at, .. }) => look.clocks.prefilled = Some(at),
                Some(JobEvent::Text { at, text, tokens, hidden }) => {
                    look.tokens = look.tokens.saturating_add(1);
                    look.clocks.token(at);
                    let piece = look.answer.push(&text);
                    look.unsaid.take(tokens, hidden, look.answer.is_thinking());
                    if !self.tell_piece(look, piece) {
                        return End::Superseded;
                    }
                }
                Some(JobEvent::Done { tokens, finish, .. }) => {
                    look.tokens = tokens;
                    if let Some(working) = working.take() {
                        working.done();
                    }
                    let piece = look.answer.finish();
                    if !self.tell_piece(look, piece) {
                        return End::Superseded;
                    }
                    return match finish {
                        JobFinish::Stop => End::Answered(Finish::Stop),
                        JobFinish::Length => End::Answered(Finish::Length),
                        JobFinish::Cancelled => End::GivenUp,
                    };
                }
                Some(JobEvent::Replaced) => return End::Replaced,
                Some(JobEvent::Failed(error)) => return End::Failed(error),
                None => return End::Failed(ended()),
            }
        }
    }

    fn encoded(&self, look: &mut Look, at: std::time::Instant, encoded: u32) {
        look.clocks.encoded = Some(at);
        look.encoded = encoded.min(look.frames);
        self.metrics.frames_encoded.get_or_create(&self.label).inc_by(u64::from(look.encoded));
        self.metrics.frames_cached.get_or_create(&self.label).inc_by(u64::from(look.frames - look.encoded));
    }

    /// Before the utterance is told, so that whoever hears of it finds its picture. It has long been made by then,
    /// unless the answer was one short word.
    async fn keep_thumbnail(&self, look: &mut Look) {
        let Some(making) = look.thumbnail.take() else { return };
        let Ok(Some(thumbnail)) = making.await else {
            tracing::debug!(stream = self.stream.name(), utterance = look.number, "no thumbnail could be made");
            return;
        };
        let level = self.stream.thumbnails().keep(look.number, thumbnail);
        self.metrics.thumbnails.get_or_create(&self.label).inc();
        self.metrics.thumbnails_dropped.get_or_create(&self.label).inc_by(level.dropped);
        let bytes = i64::try_from(level.bytes).unwrap_or(i64::MAX);
        self.metrics.thumbnail_bytes.get_or_create(&self.label).set(bytes);
    }

    fn conclude(&mut self, look: Look, end: End) {
        self.metrics.tokens.get_or_create(&self.label).inc_by(u64::from(look.tokens));
        // A look that came to nothing is taken again, of the same frames if there are no newer ones.
        let again = |cycle: &mut Self| {
            cycle.gate.reset();
            cycle.seen = None;
        };
        match end {
            End::Answered(finish) => self.answered(look, finish),
            End::Superseded => self.cut_off(&look),
            End::GivenUp => {
                self.cut_off(&look);
                again(self);
                self.due = Some(Instant::now() + self.settings.interval);
            }
            End::Replaced => {
                self.metrics.jobs_dropped.get_or_create(&self.label).inc();
                again(self);
            }
            End::Failed(error) if matches!(error.code, CRASHED | HUNG) => {
                self.failed(&look, &error);
                again(self);
                // The engine's own waits are the ones that count.
                self.due = None;
                if self.crashed(look.clocks.newest().seq) {
                    tracing::warn!(
                        stream = self.stream.name(),
                        frame = look.clocks.newest().seq,
                        "not looked at a third time"
                    );
                    self.seen = Some(look.clocks.newest().seq);
                }
            }
            End::Failed(error) => {
                let wait = self.failed(&look, &error);
                again(self);
                self.due = Some(Instant::now() + wait);
            }
        }
    }

    fn answered(&mut self, look: Look, finish: Finish) {
        let skipped = look.answer.says_nothing();
        if !self.tell(look.orders.serial, || Event::Utterance(Box::new(self.utterance(&look, finish)))) {
            return self.cut_off(&look);
        }
        self.fall_silent(look.number);
        self.told = look.number;
        self.backoff.reset();
        self.due = Some(Instant::now() + self.settings.interval);
        let counter = if skipped { &self.metrics.skips } else { &self.metrics.utterances };
        counter.get_or_create(&self.label).inc();
        for (histogram, seconds) in [
            (&self.metrics.first_token_seconds, look.clocks.to_first_token()),
            (&self.metrics.last_token_seconds, look.clocks.to_last_token()),
            (&self.metrics.window_to_text_seconds, look.clocks.window_to_text()),
            (&self.metrics.inference_seconds, look.clocks.inference()),
            (&self.metrics.wait_seconds, look.clocks.to_start()),
            (&self.metrics.encode_seconds, look.clocks.encoding()),
            (&self.metrics.prefill_seconds, look.clocks.prefill()),
            (&self.metrics.decode_seconds, look.clocks.writing()),
        ] {
            if let Some(seconds) = seconds {
                histogram.get_or_create(&self.label).observe(seconds);
            }
        }
        if !skipped {
            self.history.push(look.answer.text());
        }
        self.stream.note(|status| {
            status.state = CommentaryState::Pausing;
            status.message = None;
            if skipped {
                status.skips += 1;
            } else {
                status.utterances += 1;
            }
        });
    }

    /// The answer was cut off: whoever saw its beginning must learn that no more comes.
    fn cut_off(&mut self, look: &Look) {
        self.close_shown(look, Finish::Cancelled);
        self.metrics.cancelled.get_or_create(&self.label).inc();
        self.stream.note(|status| status.cancelled += 1);
    }

    /// Returns how long to wait.
    fn failed(&mut self, look: &Look, error: &Error) -> Duration {
        self.close_shown(look, Finish::Error);
        self.metrics.engine_errors.get_or_create(&self.label).inc();
        let wait = self.backoff.next(0.0);
        tracing::warn!(stream = self.stream.name(), code = error.code, %error, retry_in = ?wait, "a look failed");
        self.stream.note(|status| {
            status.state = CommentaryState::Pausing;
            status.errors += 1;
            status.message = Some(error.to_string());
        });
        wait
    }

    /// Counts the engine's ends in a row with the same newest frame; true when there were two.
    fn crashed(&mut self, seq: u64) -> bool {
        let before = self.crash.filter(|(crashed, _)| *crashed == seq).map_or(0, |(_, times)| times);
        self.crash = Some((seq, before + 1));
        before + 1 >= CRASHES
    }

    fn close_shown(&mut self, look: &Look, finish: Finish) {
        if look.answer.is_shown() {
            self.stream.bus().publish(Event::Utterance(Box::new(self.utterance(look, finish))));
            self.told = look.number;
            self.fall_silent(look.number);
        }
    }

    /// As it is told; with the first sample's stamp when its sound has begun already.
    fn utterance(&self, look: &Look, finish: Finish) -> Utterance {
        let first_audio = self.stream.speaker().and_then(|speaker| speaker.first_audio(look.number));
        look.utterance(finish, first_audio)
    }

    /// The speaker gets no more text of this utterance.
    fn fall_silent(&self, utterance: u64) {
        if let Some(speaker) = self.stream.speaker() {
            speaker.end(utterance);
        }
    }

    /// False when the look's orders are no longer in force; then nothing was told.
    fn tell_piece(&self, look: &mut Look, piece: Option<String>) -> bool {
        let Some(text) = piece else { return true };
        let spoken = self.stream.speaker().map(|speaker| (speaker, look.unsaid.with(&text)));
        if !self.tell(look.orders.serial, || Event::Token { utterance: look.number, text }) {
            return false;
        }
        // When new orders came just now, `take_orders` is next and takes it back.
        if let Some((speaker, piece)) = spoken {
            speaker.say(look.number, look.clocks.captured(), piece);
        }
        if look.thumbnail.is_none() {
            let newest = Arc::clone(look.clocks.newest());
            look.thumbnail = Some(tokio::task::spawn_blocking(move || Thumbnail::of(&newest)));
        }
        self.show(CommentaryState::Speaking);
        true
    }

    /// Publishes only while the orders of `serial` are in force. They can't change in between: whoever changes them
    /// waits for this borrow. So once an order was given, nothing more of the old answer appears.
    fn tell(&self, serial: u64, event: impl FnOnce() -> Event) -> bool {
        let orders = self.orders.borrow();
        let in_force = orders.serial == serial;
        if in_force {
            self.stream.bus().publish(event());
        }
        in_force
    }

    fn show(&self, state: CommentaryState) {
        self.stream.note(|status| status.state = state);
    }
}

impl Look {
    /// Before anything has happened. `None` without a frame.
    fn new(orders: Orders, number: u64, urgent: bool, frames: &[Arc<Frame>]) -> Option<Self> {
        Some(Self {
            orders,
            number,
            frames: u32::try_from(frames.len()).unwrap_or(u32::MAX),
            encoded: 0,
            tokens: 0,
            clocks: Clocks::new(frames)?,
            answer: Answer::default(),
            unsaid: Unsaid::default(),
            thumbnail: None,
            urgent,
        })
    }

    fn utterance(&self, finish: Finish, first_audio: Option<std::time::Instant>) -> Utterance {
        Utterance {
            utterance: self.number,
            text: self.answer.text().to_owned(),
            skipped: self.answer.says_nothing(),
            finish,
            instruction: self.orders.instruction.clone(),
            tokens: self.tokens,
            frames: self.frames,
            frames_encoded: self.encoded,
            stamps: self.clocks.stamps(first_audio),
        }
    }
}

/// The next change of a watched value. Whoever could change it being gone, that is never.
async fn change<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Until the orders are no longer those of `serial`.
async fn superseded(orders: &mut watch::Receiver<Orders>, serial: u64) {
    if orders.wait_for(|orders| orders.serial != serial).await.is_err() {
        std::future::pending().await
    }
}

fn silent(waited: Duration) -> Error {
    Error::unavailable("engine_silent", format!("the engine gave no sign of life for {} s", waited.as_secs()))
        .hint("it may be overloaded: take a smaller model, fewer frames or fewer streams")
}

fn ended() -> Error {
    Error::unavailable("engine_ended", "the engine's thread ended in the middle of a look")
        .hint("see the log for the reason; restarting the program loads the model again")
}
