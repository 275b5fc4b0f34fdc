//! The child's side of the wall: a process with the engine inside that does what it is told over its standard input,
//! a socket, and is gone the moment the parent is. Whatever goes wrong here ends the process; the parent starts
//! another. Not here: the engine (`engine`), who starts it (`launch`).

use super::shelf::Shelf;
use super::wire::{self, FROM_CHILD, FromChild, Look, Said, Setup, TO_CHILD, ToChild, Told, Unpacker, VoiceTold, pack};
use crate::engine::{Engine, Job, JobEvent, JobFinish, JobHandle, LlamaEngine, Pulse, look_for_backends_in};
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::speech::minicpm::{MiniCpmConfig, MiniCpmVoice};
use crate::speech::{Clause, ClauseEvent, ClauseHandle, Voice};
use bytes::Bytes;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use std::collections::HashMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};

/// Messages that wait to be written: what makes them waits when it is full.
const OUT: usize = 256;
/// Least time between two messages with text of one look: too short to be seen, and long enough that a small model's
/// tokens, a fraction of a millisecond each, do not each wake two processes.
const BREATH: Duration = Duration::from_millis(5);
/// Room for what a look brings meanwhile; the engine waits when it is full.
const GATHERED: usize = 1024;

/// Does the parent's work until it closes the socket, and never returns then. `log` starts the log by a filter.
///
/// # Errors
/// When nobody is there to work for, or the parent says what makes no sense.
pub fn serve(log: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    let socket =
        input.map(StdStream::from).and_then(|s| s.peer_addr().and_then(|_| s.set_nonblocking(true)).map(|()| s));
    let socket = socket.map_err(|_| {
        Error::invalid("engine_child", "this command is for the program itself").hint("use `vidette run`")
    })?;
    settle();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::internal("runtime", format!("the runtime can't start: {e}")))?;
    runtime.block_on(async {
        let socket = UnixStream::from_std(socket).map_err(|e| Error::internal("engine_child", e.to_string()))?;
        let (reader, writer) = socket.into_split();
        let mut ear = Ear { reader, heard: Unpacker::new(TO_CHILD) };
        let Some((ToChild::Setup(setup), _)) = ear.next().await? else { return Err(nonsense("no setup")) };
        check(&setup)?;
        log(&setup.log)?;
        work(*setup, ear, writer).await
    })
}

/// What a child process is to the system.
fn settle() {
    let told = [
        ("name", rustix::thread::set_name(c"vidette-engine").err()),
        // Also when it is stopped or hangs.
        ("parent's death", rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).err()),
        // Writing gigabytes to disk would hold the restart up. A limit of 1 keeps even a handler from being started
        // (core(5): "a core limit of 1").
        ("core dump", rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) }).err()),
    ];
    for (what, error) in told {
        if let Some(error) = error {
            tracing::debug!(%error, what, "could not be set");
        }
    }
    // When memory runs out, the video shall stay.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "300") {
        tracing::debug!(%error, "the out-of-memory score could not be set");
    }
    crate::engine::on_native_abort(|words| {
        let mut output = std::io::stdout().lock();
        // The process ends right after this; nobody could do anything about a failure.
        let _parent_gone = output.write_all(words.as_bytes()).and_then(|()| output.flush());
    });
}

fn check(setup: &Setup) -> Result<()> {
    if setup.build != wire::BUILD {
        return Err(nonsense(&format!("the parent is of another build, {}", setup.build)));
    }
    // It may have died before it could be noticed.
    let parent = rustix::process::getppid().map(Pid::as_raw_nonzero);
    if parent.and_then(|pid| u32::try_from(pid.get()).ok()) != Some(setup.parent) {
        leave();
    }
    Ok(())
}

fn nonsense(what: &str) -> Error {
    Error::internal("engine_child", format!("the engine's process was told nonsense: {what}"))
}

/// Ends the process without the clean-up of libraries that are at work.
fn leave() -> ! {
    signal_hook::low_level::exit(0)
}

/// Reads messages.
struct Ear {
    reader: OwnedReadHalf,
    heard: Unpacker,
}

impl Ear {
    /// The next message; `None` when the parent closed the socket.
    async fn next(&mut self) -> Result<Option<(ToChild, Bytes)>> {
        loop {
            if let Some(message) = self.heard.next().map_err(|e| nonsense(&e))? {
                return Ok(Some(message));
            }
            match self.reader.read_buf(self.heard.room()).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(None),
            }
        }
    }
}

async fn work(setup: Setup, mut ear: Ear, writer: OwnedWriteHalf) -> Result<()> {
    #[cfg(debug_assertions)]
    take_orders_of_faults()?;
    let (mouth, queue) = mpsc::channel(OUT);
    tokio::spawn(write(writer, queue));
    if let Some(folder) = setup.backends {
        look_for_backends_in(folder);
    }
    let engine = LlamaEngine::spawn(setup.engine)?;
    tokio::spawn(tell_status(engine.status(), mouth.clone()));
    tokio::spawn(tell_pulse(Arc::clone(engine.pulse()), setup.pulse, mouth.clone()));
    let mut words = Words { voice: None, mouth: mouth.clone(), spoken: HashMap::new() };
    let mut looks = Looks { engine, mouth, shelf: Shelf::default(), running: HashMap::new() };
    while let Some((message, tail)) = ear.next().await? {
        match message {
            ToChild::Setup(_) => return Err(nonsense("a second setup")),
            ToChild::Job(look) => looks.take(*look, tail),
            ToChild::Cancel { id } => looks.cancel(id),
            ToChild::Voice(config) => words.open(*config)?,
            ToChild::Clause { id, clause } => words.take(id, *clause),
            ToChild::CancelClause { id } => words.cancel(id),
            ToChild::Forget { stream, utterance } => {
                if let Some(voice) = &words.voice {
                    voice.forget(&stream, utterance);
                }
            }
        }
    }
    leave()
}

/// Several messages go out by one call.
async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Bytes>) {
    let mut messages = Vec::new();
    while queue.recv_many(&mut messages, OUT).await > 0 {
        let all = if messages.len() == 1 { messages.swap_remove(0) } else { Bytes::from(messages.concat()) };
        messages.clear();
        if writer.write_all(&all).await.is_err() {
            leave();
        }
    }
}

/// False when there is nobody to say it to.
async fn say(mouth: &mpsc::Sender<Bytes>, message: &FromChild) -> bool {
    match pack(message, 0, FROM_CHILD) {
        Ok(bytes) => mouth.send(bytes).await.is_ok(),
        Err(error) => {
            tracing::error!(%error, "a message could not be sent");
            true
        }
    }
}

async fn tell_status(
    mut status: tokio::sync::watch::Receiver<crate::engine::EngineStatus>,
    mouth: mpsc::Sender<Bytes>,
) {
    loop {
        let told = Told::of(&status.borrow_and_update());
        if !say(&mouth, &FromChild::Engine(told)).await || status.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_pulse(pulse: Arc<Pulse>, every: Duration, mouth: mpsc::Sender<Bytes>) {
    // A parent that wants it more often than this gets no more.
    let mut clock = tokio::time::interval(every.max(Duration::from_millis(20)));
    loop {
        clock.tick().await;
        let message = FromChild::Pulse { beats: pulse.beats(), working: pulse.is_working() };
        if !say(&mouth, &message).await {
            return;
        }
    }
}

/// The looks that were handed in: one running and one waiting for each stream, as the engine's mailbox has it.
struct Looks {
    engine: LlamaEngine,
    mouth: mpsc::Sender<Bytes>,
    shelf: Shelf<Arc<Frame>>,
    running: HashMap<u64, Arc<Notify>>,
}

impl Looks {
    fn take(&mut self, look: Look, tail: Bytes) {
        #[cfg(feature = "leak-on-purpose")]
        std::mem::forget(std::hint::black_box(vec![1u8; 64 * 1024]));
        let id = look.id;
        self.running.retain(|_, cancel| Arc::strong_count(cancel) > 1);
        let handle = match self.job(look, tail) {
            Ok(job) => self.engine.submit_with_room(job, GATHERED),
            Err(error) => {
                let (handle, events, _) = JobHandle::pair();
                // The channel is new, so there is room for this.
                let _told = events.try_send(JobEvent::Failed(error));
                handle
            }
        };
        let cancel = Arc::new(Notify::new());
        self.running.insert(id, Arc::clone(&cancel));
        tokio::spawn(follow(id, handle, cancel, Arc::clone(self.engine.pulse()), self.mouth.clone()));
    }

    fn cancel(&mut self, id: u64) {
        // It may have ended meanwhile.
        if let Some(cancel) = self.running.remove(&id) {
            cancel.notify_one();
        }
    }

    fn job(&mut self, look: Look, mut tail: Bytes) -> Result<Job> {
        let stream: Arc<str> = Arc::from(look.stream);
        let mut frames: Vec<(u64, Arc<Frame>)> = Vec::with_capacity(look.frames.len().min(64));
        for sent in look.frames {
            let known = frames.iter().find(|(seq, _)| *seq == sent.seq).map(|(_, frame)| frame);
            let frame = match known.or_else(|| self.shelf.get(&stream, sent.seq)) {
                Some(frame) => Arc::clone(frame),
                None if sent.bytes <= tail.len() => Arc::new(Frame {
                    seq: sent.seq,
                    pts: None,
                    captured: Instant::now(),
                    wall: SystemTime::now(),
                    width: sent.width,
                    height: sent.height,
                    rgb: tail.split_to(sent.bytes),
                }),
                None => return Err(nonsense("a look without its frames")),
            };
            frames.push((sent.seq, frame));
        }
        let job = Job {
            stream: Arc::clone(&stream),
            prompt: look.prompt,
            frames: frames.iter().map(|(_, frame)| Arc::clone(frame)).collect(),
            max_tokens: look.max_tokens,
            sampling: look.sampling,
            for_voice: look.for_voice,
            urgent: look.urgent,
            novelty: look.novelty,
        };
        self.shelf.keep(stream, frames);
        Ok(job)
    }
}

/// Tells what becomes of a look, to its last event. The first words and the end go out at once; in between, after each
/// message with text, what comes within [`BREATH`] goes out together.
async fn follow(id: u64, mut handle: JobHandle, cancel: Arc<Notify>, pulse: Arc<Pulse>, mouth: mpsc::Sender<Bytes>) {
    let mut events = Vec::new();
    loop {
        // A first word follows a decoded prompt at once, or the end does.
        while matches!(events[..], [] | [JobEvent::Prefilled { .. }]) {
            tokio::select! {
                biased;
                () = cancel.notified() => handle.cancel(),
                event = handle.events.recv() => {
                    // One that was cancelled before its turn ends without a word.
                    let end = || JobEvent::Done { at: Instant::now(), tokens: 0, finish: JobFinish::Cancelled };
                    events.push(event.unwrap_or_else(end));
                    gather(&mut handle, &mut events);
                }
            }
        }
        let mut text = false;
        for event in events.drain(..) {
            let last = event.is_last();
            text |= matches!(event, JobEvent::Text { .. });
            if !say(&mouth, &FromChild::Event { id, event: Said::from(event) }).await || last {
                return;
            }
        }
        if text {
            let mut ended = std::pin::pin!(pulse.ended());
            // From here on no end is missed; one that came before lies in the channel.
            ended.as_mut().enable();
            if !gather(&mut handle, &mut events) {
                tokio::select! {
                    biased;
                    () = cancel.notified() => handle.cancel(),
                    () = ended => {}
                    () = tokio::time::sleep(BREATH) => {}
                }
                gather(&mut handle, &mut events);
            }
        }
    }
}

/// Takes what is there. True when the last event is among it.
fn gather(handle: &mut JobHandle, events: &mut Vec<JobEvent>) -> bool {
    while let Ok(event) = handle.events.try_recv() {
        events.push(event);
    }
    events.last().is_some_and(JobEvent::is_last)
}

/// The voice with the clauses that were handed in.
struct Words {
    voice: Option<MiniCpmVoice>,
    mouth: mpsc::Sender<Bytes>,
    spoken: HashMap<u64, Arc<Notify>>,
}

impl Words {
    fn open(&mut self, config: MiniCpmConfig) -> Result<()> {
        if self.voice.is_some() {
            return Err(nonsense("a second voice"));
        }
        let voice = MiniCpmVoice::spawn(config)?;
        let (mut status, mouth) = (voice.status(), self.mouth.clone());
        tokio::spawn(async move {
            loop {
                let told = VoiceTold::from(&*status.borrow_and_update());
                if !say(&mouth, &FromChild::Voice(told)).await || status.changed().await.is_err() {
                    return;
                }
            }
        });
        self.voice = Some(voice);
        Ok(())
    }

    fn take(&mut self, id: u64, clause: Clause) {
        self.spoken.retain(|_, cancel| Arc::strong_count(cancel) > 1);
        let Some(voice) = &self.voice else { return };
        let cancel = Arc::new(Notify::new());
        self.spoken.insert(id, Arc::clone(&cancel));
        tokio::spawn(listen(id, voice.submit(clause), cancel, self.mouth.clone()));
    }

    fn cancel(&mut self, id: u64) {
        // It may have ended meanwhile.
        if let Some(cancel) = self.spoken.remove(&id) {
            cancel.notify_one();
        }
    }
}

/// Tells what becomes of a clause, to its last event or until it is cancelled, of which nobody wants to know.
async fn listen(id: u64, mut handle: ClauseHandle, cancel: Arc<Notify>, mouth: mpsc::Sender<Bytes>) {
    loop {
        let event = tokio::select! {
            biased;
            // Dropping the handle cancels.
            () = cancel.notified() => return,
            event = handle.events.recv() => event,
        };
        let gone = || ClauseEvent::Failed { code: "voice_gone".to_owned(), message: "the voice went away".to_owned() };
        let event = event.unwrap_or_else(gone);
        let last = !matches!(event, ClauseEvent::Pcm { .. });
        if !say(&mouth, &FromChild::Clause { id, event }).await || last {
            return;
        }
    }
}

/// For the tests: SIGUSR1 orders an abort in native code, SIGUSR2 a hang.
#[cfg(debug_assertions)]
fn take_orders_of_faults() -> Result<()> {
    use crate::engine::fault;
    use tokio::signal::unix::{SignalKind, signal};
    let orders: [(SignalKind, fn()); 2] =
        [(SignalKind::user_defined1(), fault::order_abort), (SignalKind::user_defined2(), fault::order_hang)];
    for (kind, order) in orders {
        let mut signals = signal(kind).map_err(|e| Error::internal("signal", e.to_string()))?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                order();
            }
        });
    }
    Ok(())
}
