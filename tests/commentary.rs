//! The watch loop as its users see it: streams with a scripted engine and source, on paused time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;
use vidette::bus::{Bus, Event, Finish, Numbered, Utterance};
use vidette::commentary::{ChangeGate, CommentaryState, PROFILES, Settings, Stream, StreamParts, Streams};
use vidette::engine::{
    CancelFlag, Engine, EngineState, EngineStatus, Job, JobEvent, JobFinish, JobHandle, SamplingChoice,
};
use vidette::error::Error;
use vidette::frame::Frame;
use vidette::metrics::Metrics;
use vidette::shutdown::{self, Trigger};
use vidette::source::{SourceCommand, SourceHandle, SourceState, SourceStatus};
use vidette::window::{Bounds, Pick, SharedWindow};

const INTERVAL: Duration = Duration::from_secs(1);

/// Does with each job what the test says.
struct Scripted {
    jobs: mpsc::Sender<Taken>,
    status: watch::Sender<EngineStatus>,
}

/// A job in the hands of the test.
struct Taken {
    job: Job,
    events: mpsc::Sender<JobEvent>,
    cancel: CancelFlag,
    /// When it came, on the paused clock.
    at: tokio::time::Instant,
    /// The start of its instants: 100 ms after the newest frame's capture.
    began: Instant,
}

impl Engine for Scripted {
    fn submit(&self, job: Job) -> JobHandle {
        let (handle, events, cancel) = JobHandle::pair();
        let began = job.frames.last().unwrap().captured + Duration::from_millis(100);
        self.jobs.try_send(Taken { job, events, cancel, at: tokio::time::Instant::now(), began }).ok().unwrap();
        handle
    }

    fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.subscribe()
    }
}

impl Taken {
    async fn send(&self, event: JobEvent) {
        self.events.send(event).await.unwrap();
    }

    fn after(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    async fn start(&self) {
        self.send(JobEvent::Started { at: self.began }).await;
        self.send(JobEvent::Encoded { at: self.after(10), encoded: 1 }).await;
        self.send(JobEvent::Prefilled { at: self.after(20), tokens: 300 }).await;
    }

    async fn say(&self, ms: u64, text: &str) {
        self.send(JobEvent::Text { at: self.after(ms), text: text.to_owned(), tokens: vec![], hidden: vec![] }).await;
    }

    async fn done(&self, tokens: u32, finish: JobFinish) {
        self.send(JobEvent::Done { at: self.after(500), tokens, finish }).await;
    }

    /// A whole answer, in one piece.
    async fn answer(&self, text: &str) {
        self.start().await;
        self.say(30, text).await;
        self.done(1, JobFinish::Stop).await;
    }
}

struct House {
    stream: Arc<Stream>,
    streams: Streams,
    window: Arc<SharedWindow>,
    metrics: Arc<Metrics>,
    engine: Arc<Scripted>,
    source: watch::Sender<SourceStatus>,
    jobs: mpsc::Receiver<Taken>,
    events: broadcast::Receiver<Arc<Numbered>>,
    next_frame: u64,
    trigger: Option<Trigger>,
}

fn settings(change_threshold: f64) -> Settings {
    Settings {
        pick: Pick { frames: 4, stride: 2 },
        interval: INTERVAL,
        change_threshold,
        max_tokens: 64,
        sampling: SamplingChoice::default(),
        profile: &PROFILES[0],
        instruction: Some("Watch.".to_owned()),
    }
}

impl House {
    fn new(change_threshold: f64) -> Self {
        let (jobs_in, jobs) = mpsc::channel(16);
        let ready = EngineStatus { state: EngineState::Ready, ..EngineStatus::default() };
        let engine = Arc::new(Scripted { jobs: jobs_in, status: watch::Sender::new(ready) });
        let window = Arc::new(SharedWindow::new(Bounds { frames: 16, bytes: 1 << 24 }));
        let source = watch::Sender::new(SourceStatus::default());
        let (commands, mut commanded) = mpsc::channel(16);
        let state = source.clone();
        tokio::spawn(async move {
            while let Some(command) = commanded.recv().await {
                match command {
                    SourceCommand::Start { reply, .. } => {
                        state.send_modify(|s| s.state = SourceState::Streaming);
                        reply.send(Ok(())).ok();
                    }
                    SourceCommand::Stop { reply } => {
                        state.send_modify(|s| s.state = SourceState::Stopped);
                        reply.send(()).ok();
                    }
                }
            }
        });
        let handle = SourceHandle::new(commands, source.subscribe());
        let parts = Mutex::new(Some(StreamParts {
            window: Arc::clone(&window),
            bus: Arc::new(Bus::new()),
            source: handle,
            sound: None,
            room: None,
        }));
        let (trigger, shutdown) = shutdown::pair();
        let metrics = Arc::new(Metrics::new());
        let streams = Streams::new(
            Box::new(move |_| parts.lock().unwrap().take().unwrap()),
            settings(change_threshold),
            Arc::clone(&engine) as Arc<dyn Engine>,
            Arc::clone(&metrics),
            shutdown,
        );
        let (stream, made) = streams.ensure("main").unwrap();
        assert!(made);
        let events = stream.bus().subscribe(None).live;
        let trigger = Some(trigger);
        Self { stream, streams, window, metrics, engine, source, jobs, events, next_frame: 0, trigger }
    }

    async fn started(change_threshold: f64) -> Self {
        let house = Self::new(change_threshold);
        house.stream.start("test:", None).await.unwrap();
        house
    }

    /// One more frame, all of one shade, captured 500 ms after the one before.
    fn frame(&mut self, shade: u8) {
        let seq = self.next_frame;
        self.next_frame += 1;
        let since = Duration::from_millis(500 * seq);
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + since;
        let (width, height) = (64, 48);
        let rgb = vec![shade; width * height * 3].into();
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let captured = *BEGIN.get_or_init(Instant::now) + since;
        let frame = Frame { seq, pts: None, captured, wall, width: width as u32, height: height as u32, rgb };
        assert!(self.window.push(Arc::new(frame)));
    }

    async fn job(&mut self) -> Taken {
        timeout(Duration::from_secs(3600), self.jobs.recv()).await.expect("no look was taken").unwrap()
    }

    /// Nothing is asked of the engine for a long time.
    async fn no_job_for(&mut self, time: Duration) {
        assert!(timeout(time, self.jobs.recv()).await.is_err(), "a look was taken");
    }

    /// What was said since the last call, once everything has settled; changes of the status left out.
    async fn heard(&mut self) -> Vec<Event> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut heard = vec![];
        while let Ok(numbered) = self.events.try_recv() {
            if numbered.event != Event::Status {
                heard.push(numbered.event.clone());
            }
        }
        heard
    }

    /// The next utterance, and the text of its tokens before it.
    async fn utterance(&mut self) -> (String, Utterance) {
        let mut tokens = String::new();
        loop {
            let event = timeout(Duration::from_secs(3600), self.events.recv()).await.unwrap().unwrap();
            match &event.event {
                Event::Token { text, .. } => tokens.push_str(text),
                Event::Utterance(utterance) => return (tokens, (**utterance).clone()),
                Event::Speech(_) | Event::Status => {}
            }
        }
    }

    fn state(&self) -> CommentaryState {
        self.stream.status().commentary.state
    }

    fn counted(&self, metric: &str) -> u64 {
        let line = format!("vidette_{metric}_total{{stream=\"main\"}} ");
        self.metrics.encode().lines().find_map(|l| l.strip_prefix(&line)).map_or(0, |n| n.parse().unwrap())
    }
}

fn token(utterance: u64, text: &str) -> Event {
    Event::Token { utterance, text: text.to_owned() }
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_goes_from_frames_to_the_bus_with_its_stamps() {
    let mut house = House::started(0.0).await;
    (0..9).for_each(|i| house.frame(i));
    let taken = house.job().await;
    assert_eq!(taken.job.frames.iter().map(|f| f.seq).collect::<Vec<_>>(), [2, 4, 6, 8]);
    assert_eq!((&*taken.job.stream, taken.job.max_tokens), ("main", 64));
    assert_eq!((taken.job.prompt.instruction.as_str(), taken.job.prompt.context.as_str()), ("Watch.", ""));
    settle().await;
    assert_eq!(house.state(), CommentaryState::Looking);
    taken.start().await;
    taken.say(30, "A man").await;
    settle().await;
    assert_eq!(house.state(), CommentaryState::Speaking);
    taken.say(70, " waves.").await;
    taken.done(5, JobFinish::Stop).await;

    let (tokens, said) = house.utterance().await;
    assert_eq!((tokens.as_str(), said.text.as_str()), ("A man waves.", "A man waves."));
    assert_eq!((said.utterance, said.skipped, said.finish, said.tokens), (1, false, Finish::Stop, 5));
    assert_eq!((said.frames, said.frames_encoded, said.instruction.as_str()), (4, 1, "Watch."));
    let thumbnail = house.stream.thumbnails().get(1).expect("who hears of an utterance finds its picture");
    assert_eq!((thumbnail.seq, &thumbnail.jpeg[..2]), (8, &[0xFF, 0xD8][..]));
    assert_eq!(house.counted("thumbnails"), 1);
    let stamps = &said.stamps;
    assert_eq!((stamps.oldest_frame, stamps.newest_frame, stamps.newest_frame_unix_ms), (2, 8, 1_000_004_000));
    let times = [
        Some(stamps.window_ms),
        Some(stamps.start_ms),
        stamps.encode_done_ms,
        stamps.prefill_done_ms,
        stamps.first_token_ms,
        stamps.last_token_ms,
    ];
    assert_eq!(times.map(|ms| ms.unwrap().round() as u64), [3000, 100, 110, 120, 130, 170]);
    settle().await;
    assert_eq!(house.state(), CommentaryState::Pausing);
    assert_eq!((house.counted("utterances"), house.counted("tokens")), (1, 5));
    assert_eq!((house.counted("frames_encoded"), house.counted("frames_cached")), (1, 3));
    let text = house.metrics.encode();
    for name in ["first_token", "last_token", "window_to_text", "inference"] {
        assert!(text.contains(&format!("vidette_{name}_seconds_count{{stream=\"main\"}} 1")), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn looks_keep_their_distance_and_wait_for_a_new_frame() {
    let mut house = House::started(0.0).await;
    // One frame is enough to begin.
    house.frame(0);
    let first = house.job().await;
    assert_eq!(first.job.frames.len(), 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    house.frame(1);
    first.answer("One.").await;
    let ended = tokio::time::Instant::now();
    let second = house.job().await;
    let pause = second.at - ended;
    assert!(pause >= INTERVAL && pause < INTERVAL + Duration::from_millis(5), "{pause:?}");
    second.answer("Two.").await;
    // No frame, no look; a frame long after the pause is looked at at once.
    house.no_job_for(Duration::from_secs(60)).await;
    house.frame(2);
    let before = tokio::time::Instant::now();
    let third = house.job().await;
    assert!(third.at - before < Duration::from_millis(5));
    let context = &third.job.prompt.context;
    assert!(context.contains("One.") && context.contains("Two."), "{context}");
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_skip_and_never_flashes() {
    let mut house = House::started(0.0).await;
    house.frame(0);
    let taken = house.job().await;
    taken.start().await;
    for piece in ["..", "."] {
        taken.say(30, piece).await;
    }
    assert_eq!(house.heard().await, []);
    assert_eq!(house.state(), CommentaryState::Looking);
    taken.done(2, JobFinish::Stop).await;
    let (tokens, said) = house.utterance().await;
    assert_eq!((tokens.as_str(), said.skipped, said.text.as_str(), said.utterance), ("", true, "...", 1));
    assert!(house.stream.thumbnails().get(1).is_none(), "silence costs no picture");
    house.frame(1);
    let taken = house.job().await;
    assert_eq!(taken.job.prompt.context, "", "a skip is no comment to be repeated");
    taken.start().await;
    taken.say(30, "...").await;
    taken.say(31, " and off").await;
    assert_eq!(house.heard().await, [token(2, "... and off")]);
    assert_eq!((house.counted("skips"), house.counted("utterances")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_instruction_cuts_the_answer_off_at_once() {
    // The same words again, other words, a profile: each is an order.
    for (instruction, profile) in [(Some("Watch."), None), (Some("Count the dogs."), None), (None, Some("security"))] {
        let mut house = House::started(0.04).await;
        house.frame(0);
        house.job().await.answer("Old news.").await;
        house.frame(200);
        let old = house.job().await;
        assert!(old.job.prompt.context.contains("Old news."));
        old.start().await;
        old.say(30, "An old").await;
        let before = house.heard().await;
        assert_eq!(before.last(), Some(&token(2, "An old")));

        // A piece is already on its way when the order comes.
        old.say(40, " story").await;
        house.stream.instruct(instruction, profile).unwrap();
        let ordered = tokio::time::Instant::now();
        let new = house.job().await;
        assert_eq!(new.at, ordered, "no pause after an order");
        assert!(old.cancel.is_set() && !new.cancel.is_set());
        assert!(old.events.is_closed());
        assert_eq!(new.job.prompt.context, "", "answers to other questions are no context");
        assert_eq!(new.job.prompt.instruction, house.stream.status().commentary.instruction);
        let heard = house.heard().await;
        let [Event::Utterance(cut)] = heard.as_slice() else { panic!("{heard:?}") };
        assert_eq!((cut.utterance, cut.finish, cut.text.as_str()), (2, Finish::Cancelled, "An old"));
        assert_eq!(cut.instruction, "Watch.");

        new.answer("New.").await;
        let (tokens, said) = house.utterance().await;
        assert_eq!(
            (tokens.as_str(), said.utterance, said.instruction),
            ("New.", 3, new.job.prompt.instruction.clone())
        );
        assert_eq!((house.counted("cancelled"), house.stream.status().commentary.cancelled), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_shown_needs_no_end() {
    let mut house = House::started(0.0).await;
    house.frame(0);
    let old = house.job().await;
    old.start().await;
    old.say(30, "..").await;
    house.heard().await;
    house.stream.instruct(Some("Other."), None).unwrap();
    let new = house.job().await;
    new.start().await;
    new.say(30, "Yes").await;
    assert_eq!(house.heard().await, [token(1, "Yes")]);
    assert_eq!(house.counted("cancelled"), 1);
}

#[tokio::test(start_paused = true)]
async fn stop_and_start_again() {
    let mut house = House::started(0.0).await;
    house.frame(0);
    let taken = house.job().await;
    taken.start().await;
    taken.say(30, "I see").await;
    settle().await;
    house.stream.stop().await.unwrap();
    house.stream.stop().await.unwrap();
    settle().await;
    assert!(taken.cancel.is_set());
    assert_eq!(house.state(), CommentaryState::Stopped);
    let heard = house.heard().await;
    assert!(matches!(heard.as_slice(), [Event::Token { .. }, Event::Utterance(u)] if u.finish == Finish::Cancelled));
    house.frame(1);
    house.no_job_for(Duration::from_secs(60)).await;

    house.stream.start("test:", Some("Again.")).await.unwrap();
    let taken = house.job().await;
    assert_eq!(taken.job.prompt.instruction, "Again.");
    taken.answer("Yes.").await;
    assert_eq!(house.utterance().await.1.utterance, 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_source_is_not_commented() {
    let mut house = House::started(0.0).await;
    house.frame(0);
    let running = house.job().await;
    running.start().await;
    house.source.send_modify(|s| s.state = SourceState::Retrying);
    house.frame(1);
    // The running look is finished.
    running.say(30, "Still there.").await;
    running.done(3, JobFinish::Length).await;
    assert_eq!(house.utterance().await.1.finish, Finish::Length);
    house.no_job_for(Duration::from_secs(600)).await;
    assert_eq!(house.state(), CommentaryState::WaitingForFrames);
    house.source.send_modify(|s| s.state = SourceState::Streaming);
    house.job().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_an_engine_that_is_not_ready() {
    let mut house = House::started(0.0).await;
    house.engine.status.send_modify(|s| s.state = EngineState::Loading);
    settle().await;
    house.frame(0);
    house.no_job_for(Duration::from_secs(60)).await;
    assert_eq!(house.state(), CommentaryState::WaitingForEngine);
    house.engine.status.send_modify(|s| s.state = EngineState::Ready);
    house.job().await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_and_retried_with_growing_waits() {
    let mut house = House::started(0.04).await;
    house.frame(0);
    let mut last: Option<tokio::time::Instant> = None;
    for wait in [0, 1, 2, 4, 8, 16, 30, 30] {
        // No new frame is needed to try again.
        let taken = house.job().await;
        let now = tokio::time::Instant::now();
        let waited = last.map_or(0, |last| (now - last).as_secs());
        assert_eq!(waited, wait);
        last = Some(now);
        taken
            .send(JobEvent::Failed(Error::unavailable("no_memory", "out of memory").hint("use a smaller model")))
            .await;
    }
    settle().await;
    let status = house.stream.status().commentary;
    assert_eq!((status.errors, status.message.as_deref()), (8, Some("out of memory — use a smaller model")));
    assert_eq!(house.counted("engine_errors"), 8);
    assert!(house.heard().await.is_empty());

    house.job().await.answer("Better.").await;
    house.utterance().await;
    settle().await;
    assert_eq!(house.stream.status().commentary.message, None);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_ends_in_the_middle_closes_what_was_shown() {
    let mut house = House::started(0.0).await;
    house.frame(0);
    let taken = house.job().await;
    taken.start().await;
    taken.say(30, "I was just").await;
    drop(taken);
    let (tokens, said) = house.utterance().await;
    assert_eq!((tokens.as_str(), said.finish), ("I was just", Finish::Error));
    settle().await;
    assert!(house.stream.status().commentary.message.unwrap().contains("engine's thread ended"));
    house.job().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_never_answers_is_given_up() {
    let mut house = House::started(0.0).await;
    house.frame(0);
    // It never takes the job up.
    let taken = house.job().await;
    let retried = house.job().await;
    assert!(taken.cancel.is_set());
    assert_eq!((retried.at - taken.at).as_secs(), 601);
    // It takes the job up and then falls silent.
    retried.start().await;
    let again = house.job().await;
    assert!(retried.cancel.is_set());
    assert_eq!((again.at - retried.at).as_secs(), 182);
    let message = house.stream.status().commentary.message.unwrap();
    assert!(message.contains("no sign of life for 180 s"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_waits_has_the_newest_frames_when_its_turn_comes() {
    let mut house = House::started(0.0).await;
    let newest = |taken: &Taken| taken.job.frames.last().unwrap().seq;
    house.frame(0);
    let first = house.job().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    house.frame(1);
    house.frame(2);
    let second = house.job().await;
    assert_eq!((newest(&first), newest(&second)), (0, 2));
    assert_eq!((second.at - first.at).as_millis() / 10, 100, "not at each frame");
    assert!(first.cancel.is_set() && !second.cancel.is_set());
    // As long as there is no newer one, it keeps its own.
    house.no_job_for(Duration::from_secs(20)).await;
    house.frame(3);
    let third = house.job().await;
    third.start().await;
    // The engine is at it: nothing is changed under its hands.
    house.frame(4);
    house.no_job_for(Duration::from_secs(20)).await;
    third.answer("Now.").await;
    let (_, said) = house.utterance().await;
    assert_eq!((said.stamps.newest_frame, said.utterance), (3, 1));
    assert_eq!((house.counted("jobs_dropped"), house.stream.status().commentary.looks), (2, 1));
    // And what came meanwhile is looked at next.
    assert_eq!(newest(&house.job().await), 4);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_job_is_counted_and_taken_again() {
    let mut house = House::started(0.04).await;
    house.frame(0);
    house.job().await.send(JobEvent::Replaced).await;
    house.job().await.answer("Now.").await;
    house.utterance().await;
    assert_eq!((house.counted("jobs_dropped"), house.counted("engine_errors")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_scene_is_left_alone() {
    let mut house = House::started(ChangeGate::RECOMMENDED).await;
    house.frame(100);
    house.job().await.answer("Grey.").await;
    house.utterance().await;
    tokio::time::sleep(2 * INTERVAL).await;
    for _ in 0..5 {
        house.frame(101);
        house.no_job_for(INTERVAL).await;
        assert_eq!(house.state(), CommentaryState::Unchanged);
    }
    assert_eq!((house.counted("unchanged"), house.stream.status().commentary.unchanged), (5, 5));
    house.frame(140);
    house.job().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_threshold_every_scene_is_looked_at() {
    let mut house = House::started(0.0).await;
    for i in 1..4 {
        house.frame(100);
        house.job().await.answer("Grey.").await;
        assert_eq!(house.utterance().await.1.utterance, i);
    }
    assert_eq!(house.counted("unchanged"), 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_and_removal_cancel_the_running_look() {
    let mut house = House::started(0.0).await;
    house.frame(0);
    let taken = house.job().await;
    drop(house.trigger.take());
    settle().await;
    assert!(taken.cancel.is_set());
    assert_eq!(house.state(), CommentaryState::Stopped);

    let mut house = House::started(0.0).await;
    house.frame(0);
    let taken = house.job().await;
    house.streams.remove("main").await.unwrap();
    settle().await;
    assert!(taken.cancel.is_set());
}

#[tokio::test(start_paused = true)]
async fn an_order_ends_the_pause_and_the_retreat_after_a_failure() {
    let mut house = House::started(0.04).await;
    house.frame(0);
    house.job().await.answer("One.").await;
    house.utterance().await;
    // First in the pause after an answer, then in the wait after a failure.
    for _ in 0..2 {
        // The same frame will do: the question is new.
        house.stream.instruct(Some("Other."), None).unwrap();
        let ordered = tokio::time::Instant::now();
        let taken = house.job().await;
        assert_eq!(taken.at, ordered);
        taken.send(JobEvent::Failed(Error::unavailable("no_memory", "out of memory"))).await;
        settle().await;
    }
}

/// Real threads: the order is given while the engine writes as fast as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nothing_of_the_old_answer_comes_after_the_order() {
    let mut house = House::started(0.0).await;
    house.frame(0);
    let mut tokens_before = 0;
    for round in 0..200 {
        let taken = house.job().await;
        let stopped = taken.cancel.clone();
        let writer = tokio::spawn(async move {
            let event =
                || JobEvent::Text { at: Instant::now(), text: "la ".to_owned(), tokens: vec![], hidden: vec![] };
            while taken.events.send(event()).await.is_ok() {}
        });
        tokio::time::sleep(Duration::from_micros(200 + round * 7)).await;
        house.stream.instruct(Some("Again."), None).unwrap();
        let marker = house.stream.bus().publish(Event::Status);
        writer.await.unwrap();
        assert!(stopped.is_set());
        loop {
            match house.events.try_recv() {
                Ok(numbered) => {
                    let is_token = matches!(numbered.event, Event::Token { .. });
                    assert!(!is_token || numbered.id < marker, "round {round}: a token came after the order");
                    tokens_before += usize::from(is_token);
                }
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
    }
    assert!(tokens_before > 200, "the writer was never running: {tokens_before}");
}
