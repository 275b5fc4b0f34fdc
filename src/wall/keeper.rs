//! The parent's side of the wall: a thread that starts the child, hands looks through, tells what comes back, notices
//! a crash or a hang, and starts it again. Not here: the words of it (`ending`), how long to wait (`vigil`), what a
//! message looks like (`wire`).

use super::ending::End;
use super::intake::Intake;
use super::launch::Launch;
use super::shelf::Shelf;
use super::vigil::{Restarts, Run, Vigil, tick_of};
use super::voice::{ProcessVoice, VoiceDesk, VoiceTalk};
use super::wire::{self, FROM_CHILD, FromChild, Look, Sent, Setup, TO_CHILD, ToChild, Told, Unpacker, pack};
use crate::engine::{
    CancelFlag, Engine, EngineConfig, EngineState, EngineStatus, Job, JobEvent, JobFinish, JobHandle, Restart, Ticket,
};
use crate::error::{Error, Result};
use crate::shutdown::{self, Shutdown, Trigger};
use crate::speech::minicpm::MiniCpmConfig;
use bytes::{Buf, Bytes};
use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

/// Pieces that are written by one call: a look and the pixels of its frames.
const PIECES: usize = 16;

/// The engine in a child process, behind the engine's door.
pub struct ProcessEngine {
    intake: Arc<Intake>,
    voice: Arc<VoiceDesk>,
    status: watch::Receiver<EngineStatus>,
    stop: Trigger,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ProcessEngine {
    /// Starts the thread that starts the child; loading goes on behind it and shows in the status.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn spawn(launch: Launch, config: EngineConfig) -> Result<Self> {
        let greeting = greeting(&launch, &config).map_err(|e| {
            Error::invalid("model_path", format!("the engine's process can't be told about {}: {e}", config.name))
                .hint("give the model's file a plain name, or set ENGINE_PROCESS=inside")
        })?;
        let intake = Arc::new(Intake::default());
        let voice = Arc::new(VoiceDesk::new(Arc::clone(&intake.bell)));
        let (tell, status) = watch::channel(config.loading());
        let (stop, stopped) = shutdown::pair();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::internal("engine_keeper", format!("no runtime for the engine's keeper: {e}")))?;
        let keeper = Keeper { launch, greeting, intake: Arc::clone(&intake), voice: Arc::clone(&voice), tell, stopped };
        // A thread of its own, because the child dies with the thread that started it.
        let thread = std::thread::Builder::new()
            .name("engine-keeper".to_owned())
            .spawn(move || runtime.block_on(keeper.keep()))
            .map_err(|e| Error::internal("engine_keeper", format!("no thread for the engine's keeper: {e}")))?;
        Ok(Self { intake, voice, status, stop, thread: Mutex::new(Some(thread)) })
    }

    /// The model's own voice, in the same child; the files must have passed `inspect_for`. Its loading goes on behind it
    /// and shows in its status.
    pub fn voice(&self, config: MiniCpmConfig) -> ProcessVoice {
        self.voice.want(config)
    }

    /// Ends the child, whatever it is doing, and waits for that. Blocks for a second or two at the very most.
    pub fn stop(&self) {
        self.stop.fire();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the engine's keeper panicked");
        }
    }
}

impl Drop for ProcessEngine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Engine for ProcessEngine {
    fn submit(&self, job: Job) -> JobHandle {
        self.intake.submit(job)
    }

    fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.clone()
    }
}

fn greeting(launch: &Launch, config: &EngineConfig) -> Result<Bytes, String> {
    let setup = Setup {
        build: wire::BUILD.to_owned(),
        parent: std::process::id(),
        log: launch.log.clone(),
        pulse: tick_of(launch.stall),
        engine: config.clone(),
        backends: launch.backends.clone(),
    };
    pack(&ToChild::Setup(Box::new(setup)), 0, TO_CHILD)
}

struct Keeper {
    launch: Launch,
    /// What every child is told first.
    greeting: Bytes,
    intake: Arc<Intake>,
    voice: Arc<VoiceDesk>,
    tell: watch::Sender<EngineStatus>,
    stopped: Shutdown,
}

impl Keeper {
    async fn keep(self) {
        let mut restarts = Restarts::default();
        loop {
            let (end, run) = self.run().await;
            if end == End::Stopped {
                break;
            }
            if let (End::Failed(why), false) = (&end, self.been_ready()) {
                // A model that never loaded needs a person.
                self.give_up(why);
                break;
            }
            let wait = restarts.after(run);
            self.tell.send_modify(|status| {
                if let Some(last) = &mut status.last_restart {
                    last.retry_in_s = wait.as_secs_f64();
                    last.attempt = restarts.attempts();
                }
            });
            tokio::select! {
                biased;
                () = self.stopped.wait() => break,
                () = tokio::time::sleep(wait) => {}
            }
            self.tell.send_modify(|status| status.restarts += 1);
            self.intake.open();
        }
        self.intake.close(&Error::unavailable("engine_ended", "the engine has ended"));
        self.voice.close("the engine's process, in which the voice is, has ended");
    }

    fn been_ready(&self) -> bool {
        self.tell.borrow().load_s.is_some()
    }

    fn give_up(&self, why: &str) {
        tracing::error!(reason = %why, "engine failed");
        self.tell.send_modify(|status| {
            status.state = EngineState::Failed;
            status.message = Some(why.to_owned());
            (status.process, status.gpu_memory) = (None, None);
        });
    }

    /// One child from its start to its end, with everyone told who waits for something.
    async fn run(&self) -> (End, Run) {
        let began = Instant::now();
        let (mut process, socket) = match self.launch.start() {
            Ok(started) => started,
            Err(error) => {
                let end = End::Unstarted(error.to_string());
                self.lost(&end, &end.words(None), None);
                return (end, Run::default());
            }
        };
        self.tell.send_modify(|status| status.process = Some(process.id()));
        let (end, mut child) = match UnixStream::from_std(socket) {
            Ok(socket) => {
                let mut child = Child::new(self, began);
                (child.serve(socket).await, child)
            }
            Err(error) => (End::Unstarted(error.to_string()), Child::new(self, began)),
        };
        // Its socket is closed by now. Whoever hangs or talks nonsense gets no time to leave.
        if !matches!(end, End::Stopped | End::Gone) {
            process.kill();
        }
        if end != End::Stopped {
            // Nothing is handed in from here on, and nobody waits for what the system takes to clear up.
            self.tell.send_modify(|status| {
                status.state = EngineState::Restarting;
                status.message = Some("the engine's process is gone; it is being started again".to_owned());
            });
        }
        let gone = process.end().await;
        if gone.is_none() {
            tracing::warn!(process = process.id(), "the engine's process does not end, even when killed");
        }
        let run = child.achieved();
        if end != End::Stopped {
            let (status, words) = gone.map_or((None, None), |(status, words)| (Some(status), words));
            self.lost(&end, &end.words(status), words);
            let why = self.why(&end);
            child.fail_all(&why);
            self.voice.lost(&why.message);
        } else {
            self.tell.send_modify(|status| status.process = None);
        }
        (end, run)
    }

    /// Tells that the child is lost.
    fn lost(&self, end: &End, reason: &str, last_words: Option<String>) {
        let reason = format!("the engine's process {reason}");
        tracing::error!(last_words = last_words.as_deref(), "{reason}; it is being started again");
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let said = last_words.as_deref().map(|words| format!(", saying \"{words}\"")).unwrap_or_default();
        self.tell.send_modify(|status| {
            status.state = EngineState::Restarting;
            status.message = Some(format!("{reason}{said}; it is being started again"));
            (status.process, status.gpu_memory) = (None, None);
            status.last_restart = Some(Restart {
                reason,
                last_words,
                at_unix_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
                retry_in_s: 0.0,
                attempt: 0,
            });
        });
        self.intake.close(&self.why(end));
    }

    /// What the owners of looks are told.
    fn why(&self, end: &End) -> Error {
        let status = self.tell.borrow();
        let reason = status.message.clone().unwrap_or_else(|| "the engine is being started again".to_owned());
        Error::unavailable(end.code(), reason)
    }
}

/// A look that was handed in.
struct Handed {
    stream: Arc<str>,
    events: mpsc::Sender<JobEvent>,
    cancel: CancelFlag,
    cancel_told: bool,
    handed_in: Instant,
}

/// The talk with one child.
struct Child<'k> {
    keeper: &'k Keeper,
    began: Instant,
    ready: Option<Instant>,
    looks: u64,
    next_id: u64,
    handed: HashMap<u64, Handed>,
    /// What the child has the pixels of.
    shelf: Shelf<()>,
    /// What waits to be written: one look with its pixels at most, what waited for the voice, and a cancel for each that
    /// was handed in.
    out: VecDeque<Bytes>,
    vigil: Vigil,
    voice: VoiceTalk,
    voice_vigil: Vigil,
}

impl<'k> Child<'k> {
    fn new(keeper: &'k Keeper, began: Instant) -> Self {
        Self {
            keeper,
            began,
            ready: None,
            looks: 0,
            next_id: 0,
            handed: HashMap::new(),
            shelf: Shelf::default(),
            out: VecDeque::new(),
            vigil: Vigil::new(keeper.launch.stall),
            voice: VoiceTalk::new(Arc::clone(&keeper.voice)),
            voice_vigil: Vigil::new(keeper.launch.stall),
        }
    }

    fn achieved(&self) -> Run {
        let ready = self.ready.unwrap_or_else(Instant::now);
        Run { loading: ready - self.began, ready: ready.elapsed(), looks: self.looks }
    }

    /// Until the child's end, or ours.
    async fn serve(&mut self, mut socket: UnixStream) -> End {
        let stall = self.keeper.launch.stall;
        self.out.push_back(self.keeper.greeting.clone());
        let mut ticks = tokio::time::interval(tick_of(stall));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let mut ticked = Instant::now();
        let (mut reader, mut writer) = socket.split();
        let mut heard = Unpacker::new(FROM_CHILD);
        let stopped = self.keeper.stopped.clone();
        let bell = Arc::clone(&self.keeper.intake.bell);
        loop {
            self.hand_in();
            // A look and its pixels by one call: the child is woken once.
            let next: Vec<Bytes> = self.out.iter().take(PIECES).cloned().collect();
            let pieces: Vec<IoSlice<'_>> = next.iter().map(|piece| IoSlice::new(piece)).collect();
            tokio::select! {
                biased;
                () = stopped.wait() => return End::Stopped,
                read = reader.read_buf(heard.room()) => match read {
                    Ok(1..) => if let Err(end) = self.hear(&mut heard) { return end },
                    Ok(0) | Err(_) => return End::Gone,
                },
                // Once the child is gone the reader says so.
                wrote = writer.write_vectored(&pieces), if !pieces.is_empty() => match wrote {
                    Ok(bytes) => self.wrote(bytes),
                    Err(error) => { tracing::debug!(%error, "the engine's process does not listen"); self.out.clear(); }
                },
                () = bell.notified() => {}
                _ = ticks.tick() => {
                    let passed = std::mem::replace(&mut ticked, Instant::now()).elapsed();
                    if self.is_hung(passed) { return End::Hung(stall) }
                }
            }
        }
    }

    /// Another tick has passed.
    fn is_hung(&mut self, passed: Duration) -> bool {
        let (beats, working, loading) = self.voice.pulse();
        self.voice_vigil.told(beats, working);
        self.voice_vigil.tick(passed, loading) || self.vigil.tick(passed, self.ready.is_none())
    }

    fn wrote(&mut self, mut bytes: usize) {
        while let Some(first) = self.out.front_mut() {
            let of_it = bytes.min(first.len());
            first.advance(of_it);
            bytes -= of_it;
            if !first.is_empty() {
                return;
            }
            self.out.pop_front();
        }
    }

    /// Passes cancels on, and the next look when the one before is through.
    fn hand_in(&mut self) {
        for (id, handed) in &mut self.handed {
            if handed.cancel.is_set() && !std::mem::replace(&mut handed.cancel_told, true) {
                match pack(&ToChild::Cancel { id: *id }, 0, TO_CHILD) {
                    Ok(message) => self.out.push_back(message),
                    Err(error) => tracing::warn!(%error, "a look could not be cancelled"),
                }
            }
        }
        if let Err(error) = self.voice.hand_in(&mut self.out) {
            tracing::warn!(%error, "the voice could not be told");
        }
        if !self.out.is_empty() {
            return;
        }
        let Some(ticket) = self.keeper.intake.next() else { return };
        self.next_id += 1;
        match self.look(&ticket) {
            Ok(parts) => {
                self.out.extend(parts);
                let Ticket { job, events, cancel } = ticket;
                self.shelf.keep(Arc::clone(&job.stream), job.frames.iter().map(|f| (f.seq, ())).collect());
                // Nothing of it happened before.
                let handed_in = Instant::now();
                let handed = Handed { stream: job.stream, events, cancel, cancel_told: false, handed_in };
                self.handed.insert(self.next_id, handed);
            }
            Err(why) => {
                let error = Error::invalid("look_too_large", format!("the look can't be handed in: {why}"));
                let _nobody_listens = ticket.events.try_send(JobEvent::Failed(error));
            }
        }
    }

    /// The look's message, and the pixels that the child does not have.
    fn look(&self, ticket: &Ticket) -> Result<Vec<Bytes>, String> {
        let job = &ticket.job;
        let mut pixels = Vec::new();
        let mut seen = Vec::new();
        let frames = job.frames.iter().map(|frame| {
            let known = self.shelf.get(&job.stream, frame.seq).is_some() || seen.contains(&frame.seq);
            seen.push(frame.seq);
            if !known {
                pixels.push(frame.rgb.clone());
            }
            let bytes = if known { 0 } else { frame.rgb.len() };
            Sent { seq: frame.seq, width: frame.width, height: frame.height, bytes }
        });
        let look = Look {
            id: self.next_id,
            stream: job.stream.to_string(),
            prompt: job.prompt.clone(),
            frames: frames.collect(),
            max_tokens: job.max_tokens,
            sampling: job.sampling,
            for_voice: job.for_voice,
            urgent: job.urgent,
            novelty: job.novelty,
        };
        let mut parts = vec![pack(&ToChild::Job(Box::new(look)), pixels.iter().map(Bytes::len).sum(), TO_CHILD)?];
        parts.extend(pixels.into_iter().filter(|bytes| !bytes.is_empty()));
        Ok(parts)
    }

    fn hear(&mut self, heard: &mut Unpacker) -> Result<(), End> {
        while let Some((message, _)) = heard.next().map_err(End::Garbled)? {
            match message {
                FromChild::Engine(told) => self.told(told)?,
                FromChild::Voice(told) => self.voice.told(told),
                FromChild::Clause { id, event } => self.voice.event(id, event),
                FromChild::Pulse { beats, working } => self.vigil.told(beats, working),
                FromChild::Event { id, event } => {
                    let Some(handed) = self.handed.get(&id) else {
                        return Err(End::Garbled(format!("an event of look {id}, which is not there")));
                    };
                    let event = event.event(handed.handed_in);
                    self.pass_on(id, event)?;
                }
            }
        }
        Ok(())
    }

    fn told(&mut self, told: Told) -> Result<(), End> {
        match told {
            Told::Loading => {}
            Told::Ready { device, gpu_memory, context_tokens, load_s } => {
                let first = self.ready.is_none();
                self.ready.get_or_insert_with(Instant::now);
                self.keeper.tell.send_modify(|status| {
                    status.state = EngineState::Ready;
                    status.message = None;
                    status.device = device;
                    status.gpu_memory = gpu_memory;
                    status.context_tokens = context_tokens;
                    // Also what tells that it ever was ready.
                    status.load_s = Some(load_s.unwrap_or_default());
                });
                if first {
                    tracing::info!(seconds = self.began.elapsed().as_secs_f64(), "the engine's process is ready");
                }
            }
            Told::Failed { message } => return Err(End::Failed(message)),
        }
        Ok(())
    }

    fn pass_on(&mut self, id: u64, event: JobEvent) -> Result<(), End> {
        let last = event.is_last();
        let answered = matches!(event, JobEvent::Done { finish: JobFinish::Stop | JobFinish::Length, .. });
        self.looks += u64::from(answered);
        let Some(handed) = self.handed.get(&id) else { return Ok(()) };
        if let Err(mpsc::error::TrySendError::Full(_)) = handed.events.try_send(event) {
            return Err(End::Garbled(format!("more events than a look of {} can have", handed.stream)));
        }
        if last {
            self.handed.remove(&id);
        }
        Ok(())
    }

    /// Tells the owners of all looks and clauses that nothing more comes.
    fn fail_all(&mut self, why: &Error) {
        self.voice.fail_all(why);
        for (_, handed) in self.handed.drain() {
            // An owner whose channel is full, or who is gone, sees it end.
            let _full_or_gone = handed.events.try_send(JobEvent::Failed(why.clone()));
        }
    }
}
