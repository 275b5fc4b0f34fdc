//! The wall around native code: the whole program on the tiny random model, while its engine's process is killed,
//! aborts, hangs or talks nonsense. Video, page and streams go on, everyone is told, and the words come back.
//! Short in `make test`; `make soak-engine` does each fault 50 times and prints the figures of docs/RELIABILITY.md.

#![cfg(all(feature = "ingest", feature = "llama"))]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/program.rs"]
mod program;

use processes::{Viewer, children, gone_within, held, kill, stat_field, state};
use program::{Events, Program, command, tiny_model};
use serde_json::{Value, json};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use vidette::engine::{
    CRASHED, Engine, EngineConfig, EngineState, FrameLayout, Job, JobEvent, JobFinish, KvType, LlamaEngine, Prompt,
    Sampling,
};
use vidette::frame::Frame;
use vidette::wall::{Launch, ProcessEngine};

/// A loop that never waits, and answers long enough to be hit in the middle.
const EAGER: &[&str] = &[
    "test:ball@320x240",
    "--change-threshold",
    "0",
    "--inference-interval",
    "0",
    "--capture-fps",
    "10",
    "--threads",
    "1",
    "--temperature",
    "2",
    "--max-tokens",
    "1000",
];

fn watching(more: &[&str]) -> Program {
    Program::start(&[EAGER, more].concat())
}

fn engine_of(program: &Program) -> u64 {
    let status = program.until("ready", 60, |s| s["engine"]["state"] == "ready");
    status["engine"]["process"].as_u64().expect("a process of its own")
}

/// The next token of an utterance that is newer than `than`.
fn token_after(events: &mut Events, than: u64) -> u64 {
    loop {
        let number = events.next_of("token").data["utterance"].as_u64().unwrap();
        if number > than {
            return number;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    Kill,
    /// A failed assertion of ggml's.
    Abort,
    /// The whole process stops.
    Stop,
    /// The engine's thread hangs; the process's other threads live.
    Hang,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Kill, Self::Abort, Self::Stop, Self::Hang];

    fn signal(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Abort => "USR1",
            Self::Stop => "STOP",
            Self::Hang => "USR2",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Abort => "SIGABRT",
            Self::Stop | Self::Hang => "no sign of life",
        }
    }

    fn hangs(self) -> bool {
        matches!(self, Self::Stop | Self::Hang)
    }
}

/// How long the engine may be silent in these tests, seconds.
const STALL: f64 = 4.0;

/// What became of a strike, in seconds after it.
#[derive(Clone, Copy)]
struct Mended {
    at: Instant,
    /// The answer that was being written was called off.
    noticed: f64,
    /// The new process had its model.
    ready: f64,
    /// The next word.
    word: f64,
    /// The model's load time by its process's own account, within these.
    load: f64,
}

/// Strikes in the middle of an answer; `None` when the answer had just ended, and the next had no word yet.
fn strike(program: &Program, events: &mut Events, viewer: &Viewer, fault: Fault) -> Option<Mended> {
    let before = program.json("/api/status");
    let restarts = before["engine"]["restarts"].as_u64().unwrap();
    let pid = before["engine"]["process"].as_u64().expect("a process of its own");
    // Work for a while and answer, so that this is no series of bad runs, which would be followed ever later.
    let settled = Instant::now() + Duration::from_millis(1300);
    while Instant::now() < settled {
        events.next_of("utterance");
    }
    let mut running = token_after(events, events_at(program));
    if program.json("/api/status")["engine"]["restarts"] != restarts {
        // A machine that is too busy for the stall timeout of these tests.
        println!("a restart that nobody ordered: {:#}", program.json("/api/status")["engine"]["last_restart"]);
        return None;
    }
    let struck = Instant::now();
    assert!(kill(fault.signal(), pid), "the engine's process is there");
    // An answer that was at its end by then is followed by the one that is hit.
    loop {
        let sse = events.next().expect("the stream goes on");
        match sse.event.as_str() {
            "token" => running = sse.data["utterance"].as_u64().unwrap(),
            "utterance" if sse.data["finish"] == "error" => {
                assert_eq!(sse.data["utterance"], running, "the one that was being written");
                break;
            }
            "utterance" if program.json("/api/status")["engine"]["restarts"] != restarts => return None,
            _ => {}
        }
    }
    let noticed = struck.elapsed().as_secs_f64();
    let told = events.next_of("status").data;
    let restart = &told["engine"]["last_restart"];
    assert!(restart["reason"].as_str().is_some_and(|r| r.contains(fault.word())), "{fault:?}: {told:#}");
    if fault == Fault::Abort {
        assert!(restart["last_words"].as_str().is_some_and(|w| w.contains("ggml")), "{told:#}");
    }
    viewer.sees(1);
    let mut ready = None;
    loop {
        let sse = events.next().expect("the stream goes on");
        match sse.event.as_str() {
            "status" if sse.data["engine"]["state"] == "ready" && ready.is_none() => ready = Some(struck.elapsed()),
            "token" if sse.data["utterance"].as_u64().unwrap() > running => break,
            _ => {}
        }
    }
    let word = struck.elapsed().as_secs_f64();
    let after = program.json("/api/status");
    assert_eq!(after["engine"]["restarts"], restarts + 1, "{after:#}");
    assert_eq!(after["engine"]["message"], Value::Null);
    assert_ne!(after["engine"]["process"], pid);
    assert!(gone_within(pid, Duration::from_secs(5)), "{pid} is left, {:?}", state(pid));
    let load = after["engine"]["load_s"].as_f64().unwrap();
    // The status is told now and then only; then the word is the first that is heard of it.
    Some(Mended { at: struck, noticed, ready: ready.map_or(word, |r| r.as_secs_f64()), word, load })
}

/// The number of the answer told last.
fn events_at(program: &Program) -> u64 {
    let streams = program.json("/api/streams");
    streams["streams"][0]["last_utterance"]["utterance"].as_u64().unwrap_or(0)
}

#[test]
fn a_crash_or_a_hang_in_native_code_takes_nothing_else_down() {
    // The faults that are to be done 50 times each; two kinds of hangs make up their number.
    let soak = std::env::var("SOAK_ENGINE").unwrap_or_default().to_lowercase();
    let is_soak = !soak.is_empty();
    let times_of = |fault: Fault| match (is_soak, soak.contains(&format!("{fault:?}").to_lowercase())) {
        (true, true) => {
            if fault.hangs() {
                25
            } else {
                50
            }
        }
        (true, false) => 0,
        (false, _) => 2,
    };
    let program = watching(&["--engine-stall-timeout", &STALL.to_string()]);
    let own = u64::from(program.pid());
    let first = engine_of(&program);
    let mut events = program.events();
    let viewer = Viewer::of(&program);
    token_after(&mut events, 0);
    let (mut before, mut struck, mut windows) = (None, 0, Vec::new());
    let watched = Instant::now();
    for fault in Fault::ALL {
        let times = times_of(fault);
        if times == 0 {
            continue;
        }
        let mut rows: Vec<Mended> = Vec::new();
        while rows.len() < times {
            struck += 1;
            assert!(struck <= 3 * Fault::ALL.map(times_of).iter().sum::<usize>(), "hardly ever in the middle");
            rows.extend(strike(&program, &mut events, &viewer, fault));
            // What the first one needs once is not counted as lost.
            before.get_or_insert_with(|| held(own));
        }
        let waited = if fault.hangs() { STALL } else { 0.0 };
        let of = |what: &dyn Fn(&Mended) -> f64| {
            let mut values: Vec<f64> = rows.iter().map(what).collect();
            values.sort_by(f64::total_cmp);
            [0.5, 0.95, 1.0].map(|share| values[((values.len() - 1) as f64 * share).round() as usize])
        };
        let late = of(&|m| m.word - m.load - waited);
        println!("{fault:?} {times} times; median, 95 % and most, seconds:");
        for (what, values) in [
            ("next word", of(&|m| m.word)),
            ("the same beyond load time and stall timeout", late),
            ("noticed, beyond the stall timeout", of(&|m| m.noticed - waited)),
            ("from there to ready, beyond load time", of(&|m| m.ready - m.noticed - m.load)),
            ("from there to the next word", of(&|m| m.word - m.ready)),
            ("load time", of(&|m| m.load)),
        ] {
            println!("  {what}: {:.2}, {:.2}, {:.2}", values[0], values[1], values[2]);
        }
        windows.extend(rows.iter().map(|m| (m.at, m.at + Duration::from_secs_f64(m.word))));
        // Generous, for machines that do other things as well; the figures are the promise.
        assert!(late[0] < if is_soak { 2.0 } else { 20.0 }, "{late:?}");
    }
    // The same without a strike, to tell what the machine's other work takes.
    if is_soak {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            events.next_of("utterance");
        }
    }
    let whole = watched.elapsed().as_secs_f64();
    let seen = viewer.leave();
    let among = |at: &Instant| windows.iter().any(|(from, to)| from <= at && at <= to);
    let missed = |within: bool| -> u64 { seen.gaps.iter().filter(|(at, _)| among(at) == within).map(|(_, n)| n).sum() };
    let struck_for: f64 = windows.iter().map(|(from, to)| (*to - *from).as_secs_f64()).sum();
    println!(
        "one viewer: {} pictures, {} left out between a strike and the next word ({struck_for:.0} s), {} at other times \
         ({:.0} s), longest wait {:.0} ms",
        seen.pictures,
        missed(true),
        missed(false),
        whole - struck_for,
        seen.longest_wait.as_secs_f64() * 1e3
    );
    assert_ne!(engine_of(&program), first);
    let (fds, threads) = before.unwrap();
    // Connections of former requests close, and threads of finished small work end, in their own time.
    let until = Instant::now() + Duration::from_secs(30);
    while held(own).0 > fds || held(own).1 > threads {
        assert!(Instant::now() < until, "{:?} descriptors and threads were {:?}", held(own), (fds, threads));
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("descriptors and threads of the program: {:?} before, {:?} after", (fds, threads), held(own));
    assert_eq!(children(own).len(), 1, "one engine and no leftovers");
    let (_, metrics) = program.get("/metrics");
    let metrics = String::from_utf8(metrics).unwrap();
    let restarts = program.json("/api/status")["engine"]["restarts"].as_u64().unwrap();
    println!("struck {struck} times, {restarts} restarts");
    assert!(metrics.contains(&format!("vidette_engine_restarts_total {restarts}")), "{metrics}");
    assert!(restarts >= Fault::ALL.map(times_of).iter().sum::<usize>() as u64);
    assert_eq!((program.get("/live").0, program.get("/ready").0), (200, 200));
}

#[test]
fn while_it_cannot_come_back_the_video_goes_on_and_readiness_says_so() {
    let program = watching(&[]);
    let viewer = Viewer::of(&program);
    let mut last = 0;
    // Each child is killed as soon as it is seen, so none becomes a good one, and the waits grow.
    let until = Instant::now() + Duration::from_secs(60);
    let status = loop {
        assert!(Instant::now() < until, "{:#}", program.json("/api/status"));
        if let [child] = children(u64::from(program.pid()))[..]
            && child != last
        {
            kill("KILL", child);
            last = child;
        }
        let status = program.json("/api/status");
        if status["engine"]["last_restart"]["retry_in_s"].as_f64() > Some(1.0) {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status["engine"]["state"], "restarting", "{status:#}");
    assert!(status["engine"]["message"].as_str().is_some_and(|m| m.contains("SIGKILL")), "{status:#}");
    assert!(status["engine"]["last_restart"]["attempt"].as_u64() > Some(3), "{status:#}");
    assert_eq!(status["source"]["state"], "streaming");
    let (code, body) = program.get("/ready");
    let body = String::from_utf8(body).unwrap();
    assert!(code == 503 && body.contains("engine_restarting"), "{code} {body}");
    assert_eq!(program.get("/live").0, 200, "a new process would not help");
    viewer.sees(5);
    // It comes back by itself.
    program.until("ready", 60, |s| s["engine"]["state"] == "ready" && s["commentary"]["utterances"].as_u64() > Some(0));
    viewer.leave();
}

#[test]
fn it_ends_in_order_whatever_the_engine_is_doing_and_leaves_nobody() {
    let end = |mut program: Program, engine: u64, what: &str| {
        program.signal("TERM");
        let (status, took) = program.wait(20);
        assert_eq!(status.code(), Some(0), "{what}: {}", program.log());
        assert!(took < Duration::from_secs(5), "{what}: {took:?}");
        assert!(gone_within(engine, Duration::from_secs(5)), "{what}: {engine} is left, {:?}", state(engine));
    };
    let child_of = |program: &Program| loop {
        if let [child] = children(u64::from(program.pid()))[..] {
            break child;
        }
        std::thread::sleep(Duration::from_millis(1));
    };

    let program = watching(&[]);
    let engine = engine_of(&program);
    program.events().next_of("token");
    assert_ne!(stat_field(engine, 5), stat_field(u64::from(program.pid()), 5), "Ctrl-C reaches the parent only");
    end(program, engine, "writing");

    let program = watching(&[]);
    let engine = child_of(&program);
    kill("STOP", engine);
    end(program, engine, "stopped, perhaps while it loads");

    let program = watching(&[]);
    let engine = engine_of(&program);
    program.events().next_of("token");
    kill("USR2", engine);
    end(program, engine, "hung");

    let program = watching(&[]);
    let engine = engine_of(&program);
    kill("KILL", engine);
    end(program, engine, "restarting");
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut program = watching(&[]);
    let engine = engine_of(&program);
    kill("STOP", engine);
    program.signal("INT");
    program.signal("INT");
    let (status, took) = program.wait(20);
    // The first one may have been enough.
    assert!(matches!(status.code(), Some(0 | 130)), "{status:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(gone_within(engine, Duration::from_secs(5)), "{engine} is left");
}

#[test]
fn when_the_program_is_killed_its_engine_goes_with_it() {
    for stopped in [false, true] {
        let mut program = watching(&[]);
        let engine = engine_of(&program);
        if stopped {
            kill("STOP", engine);
        }
        program.signal("KILL");
        program.wait(10);
        assert!(gone_within(engine, Duration::from_secs(5)), "{engine} is left, {:?}", state(engine));
    }
}

#[test]
fn the_engines_process_gets_no_secrets_and_people_can_not_start_it() {
    let mut secretive = command(&["run", "--server-port", "0", "--model-path", tiny_model().to_str().unwrap()]);
    secretive.env("API_TOKEN", "token-of-the-tests-0123").env("CAMERA_PASSWORD", "pa55").env("OMP_NUM_THREADS", "1");
    let program = Program::start_command(secretive);
    let until = Instant::now() + Duration::from_secs(30);
    let environment = loop {
        let read = |pid: &u64| std::fs::read(format!("/proc/{pid}/environ")).ok();
        let bytes = children(u64::from(program.pid())).first().and_then(read).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text.contains("OMP_NUM_THREADS=1") {
            break text;
        }
        assert!(Instant::now() < until, "{text:?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(!environment.contains("API_TOKEN") && !environment.contains("CAMERA"), "{environment:?}");
    let output = command(&["engine-child"]).stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("vidette run"));
}

#[test]
fn the_models_own_voice_is_lost_and_comes_back_with_its_process() {
    let folder = tiny_model().join("speaking");
    let mut args = vec!["run", "test:ball@320x240", "--server-port", "0", "--enable-tts", "--voice", "minicpm-o"];
    args.extend(["--tts-max-delay", "60", "--change-threshold", "0", "--threads", "1", "--max-tokens", "60"]);
    args.extend(["--temperature", "2", "--model-path", folder.to_str().unwrap()]);
    let program = Program::start_command(command(&args));
    program.until("able to speak", 120, |s| s["voice"]["state"] == "ready");
    // Somebody listens, and the sound never ends.
    let heard = Arc::new(AtomicU64::new(0));
    let mut sound = program.stream("/api/audio-stream");
    std::thread::spawn({
        let heard = Arc::clone(&heard);
        move || {
            let mut frame = [0; 1920];
            while sound.read_exact(&mut frame).is_ok() {
                heard.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut events = program.events();
    program.until("speaking", 120, |s| s["voice"]["state"] == "speaking");
    let engine = engine_of(&program);
    assert!(kill("KILL", engine));
    program.until("told", 60, |s| s["engine"]["restarts"] == 1 || s["engine"]["state"] == "restarting");
    let struck = heard.load(Ordering::Relaxed);
    program.until("able to speak again", 120, |s| {
        s["engine"]["state"] == "ready" && matches!(s["voice"]["state"].as_str(), Some("ready" | "speaking"))
    });
    assert_ne!(engine_of(&program), engine);
    let spoken = program.json("/api/status")["voice"]["spoken"].as_u64();
    program.until("spoken again", 120, |s| s["voice"]["spoken"].as_u64() > spoken);
    assert!(heard.load(Ordering::Relaxed) > struck, "the sound goes on, if only as silence");
    let phases: Vec<_> = std::iter::from_fn(|| Some(events.next_of("speech").data["phase"].clone())).take(3).collect();
    assert!(phases.contains(&json!("begun")), "{phases:?}");
}

#[test]
fn the_engine_can_run_inside_as_well() {
    let program = watching(&["--engine-process", "inside"]);
    let status = program.until("ready", 60, |s| s["engine"]["state"] == "ready");
    assert_eq!(status["engine"]["process"], Value::Null);
    program.events().next_of("token");
    assert!(children(u64::from(program.pid())).is_empty());
    let wrong = command(&["check-config", "--engine-process", "elsewhere"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("ENGINE_PROCESS"));
}

fn config() -> EngineConfig {
    let folder = tiny_model();
    EngineConfig {
        language: folder.join("MiniCPM-o-4_5-tiny-random-F16.gguf"),
        projector: folder.join("vision/MiniCPM-o-4_5-vision-F16.gguf"),
        frame_layout: FrameLayout::OneSlice,
        name: "tiny-random".to_owned(),
        warning: None,
        notice: None,
        context_tokens: 1024,
        slots: 2,
        parallel: 1,
        batch: 256,
        threads: 1,
        gpu_layers: 0,
        weight: None,
        kv: KvType::F16,
        embedding_cache_bytes: 1 << 20,
        encode_ahead: None,
    }
}

fn launch(program: &str) -> Launch {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Launch {
        program: program.into(),
        environment: vec![("PATH".into(), path)],
        log: "warn".to_owned(),
        stall: Duration::from_secs(30),
        backends: None,
    }
}

fn frame(seq: u64) -> Arc<Frame> {
    let (width, height) = (602u32, 336u32);
    let rgb: Vec<u8> = (0..width * height * 3).map(|i| (u64::from(i) * (seq + 3) / 7 % 251) as u8).collect();
    let (captured, wall) = (Instant::now(), SystemTime::now());
    Arc::new(Frame { seq, pts: None, captured, wall, width, height, rgb: rgb.into() })
}

fn job(frames: std::ops::Range<u64>, max_tokens: u32) -> Job {
    let prompt = Prompt { instruction: "Tell me about the dog.".to_owned(), ..Prompt::default() };
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    Job {
        stream: "main".into(),
        prompt,
        frames: frames.map(frame).collect(),
        max_tokens,
        sampling,
        for_voice: false,
        urgent: false,
        novelty: 0.0,
    }
}

/// All events of a look, and its text.
fn all(engine: &dyn Engine, job: Job) -> (Vec<JobEvent>, String) {
    let mut handle = engine.submit(job);
    let events: Vec<_> = std::iter::from_fn(|| handle.events.blocking_recv()).collect();
    let text = events.iter().filter_map(|e| if let JobEvent::Text { text, .. } = e { Some(&**text) } else { None });
    let text = text.collect();
    (events, text)
}

#[test]
fn through_the_wall_comes_what_comes_inside() {
    let inside = LlamaEngine::spawn(config()).unwrap();
    let child = ProcessEngine::spawn(launch(env!("CARGO_BIN_EXE_vidette")), config()).unwrap();
    let mut last = Instant::now();
    for first in 0..4 {
        let (events, text) = all(&child, job(first..first + 4, 40));
        let (other, same) = all(&inside, job(first..first + 4, 40));
        assert!(!text.is_empty() && text == same, "{text:?} and {same:?}");
        assert_eq!(events.len(), other.len());
        let mut fresh = None;
        for event in &events {
            let at = match event {
                JobEvent::Started { at } | JobEvent::Prefilled { at, .. } | JobEvent::Text { at, .. } => at,
                JobEvent::Encoded { at, encoded } => {
                    fresh = Some(*encoded);
                    at
                }
                JobEvent::Done { at, tokens, finish } => {
                    assert_eq!((*tokens, *finish), (40, JobFinish::Length));
                    at
                }
                JobEvent::Replaced | JobEvent::Failed(_) => panic!("{event:?}"),
            };
            // Two clocks are read one after the other, so some microseconds may be between them.
            assert!(*at + Duration::from_millis(5) >= last && *at <= Instant::now(), "instants are the parent's");
            last = *at;
        }
        assert_eq!(fresh, Some(if first == 0 { 4 } else { 1 }), "embeddings are kept in the child");
    }
    let mut handle = child.submit(job(0..4, 900));
    while !matches!(handle.events.blocking_recv(), Some(JobEvent::Text { .. })) {}
    handle.cancel();
    let rest: Vec<_> = std::iter::from_fn(|| handle.events.blocking_recv()).collect();
    assert!(matches!(rest.last(), Some(JobEvent::Done { finish: JobFinish::Cancelled, .. })), "{:?}", rest.last());
    let (events, _) = all(&child, job(0..0, 5));
    assert!(matches!(events.last(), Some(JobEvent::Failed(e)) if e.code == "job_without_frames"), "{events:?}");
    child.stop();
    let (events, _) = all(&child, job(0..1, 5));
    assert!(matches!(events.last(), Some(JobEvent::Failed(e)) if e.code == "engine_ended"), "{events:?}");
}

#[test]
fn a_child_that_talks_nonsense_is_ended_and_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("child.sh");
    let says = |what: &str| {
        std::fs::write(&script, format!("#!/bin/sh\n{what}\n")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    for (what, word) in [
        ("printf '\\377\\377\\377\\377\\377\\377\\377\\377' >&0; exec sleep 100", "makes no sense"),
        ("printf '\\003\\000\\000\\000\\000\\000\\000\\000abc' >&0; exec sleep 100", "makes no sense"),
        ("exit 7", "exit code 7"),
        ("echo 'the last words'; kill -SEGV $$", "SIGSEGV"),
    ] {
        says(what);
        let engine = ProcessEngine::spawn(launch(script.to_str().unwrap()), config()).unwrap();
        let mut handle = engine.submit(job(0..4, 5));
        let status = engine.status();
        let until = Instant::now() + Duration::from_secs(30);
        while status.borrow().restarts < 2 {
            assert!(Instant::now() < until, "{what}: {:?}", status.borrow());
            std::thread::sleep(Duration::from_millis(5));
        }
        let now = status.borrow().clone();
        let last = now.last_restart.clone().unwrap();
        assert!(last.reason.contains(word), "{what}: {last:?}");
        assert_eq!(now.state, EngineState::Restarting);
        if word == "SIGSEGV" {
            assert_eq!(last.last_words.as_deref(), Some("the last words"));
        }
        let told = std::iter::from_fn(|| handle.events.blocking_recv()).last();
        assert!(matches!(&told, Some(JobEvent::Failed(e)) if e.code == CRASHED), "{told:?}");
        let began = Instant::now();
        engine.stop();
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    let engine = ProcessEngine::spawn(launch("/no/such/program"), config()).unwrap();
    let mut status = engine.status();
    let until = Instant::now() + Duration::from_secs(30);
    while status.borrow_and_update().last_restart.is_none() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(status.borrow().message.as_deref().is_some_and(|m| m.contains("could not be started")));
}

#[test]
fn a_model_that_does_not_load_is_told_and_not_tried_again() {
    let broken = EngineConfig { language: tiny_model().join("no-such.gguf"), ..config() };
    let engine = ProcessEngine::spawn(launch(env!("CARGO_BIN_EXE_vidette")), broken).unwrap();
    let status = engine.status();
    let until = Instant::now() + Duration::from_secs(60);
    while status.borrow().state != EngineState::Failed {
        assert!(Instant::now() < until, "{:?}", status.borrow());
        std::thread::sleep(Duration::from_millis(5));
    }
    let now = status.borrow().clone();
    assert!(now.message.as_deref().is_some_and(|m| m.contains("no-such.gguf")), "{now:?}");
    assert_eq!((now.restarts, now.process), (0, None));
}

#[test]
fn the_service_manager_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let model = tiny_model();
    let mut start = command(&["run", "test:ball", "--server-port", "0", "--model-path", model.to_str().unwrap()]);
    start.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let program = Program::start_command(start);
    // All of these, in whatever order; what was said.
    let until_said = |words: &[&str]| {
        let mut said = String::new();
        let until = Instant::now() + Duration::from_secs(60);
        while !words.iter().all(|word| said.lines().any(|line| line.starts_with(word))) {
            assert!(Instant::now() < until, "not all of {words:?} in:\n{said}");
            let mut buffer = [0; 4096];
            let length = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{e}: not all of {words:?} in:\n{said}"));
            said.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        said
    };
    let ready = until_said(&["READY=1"]);
    assert!(ready.contains("READY=1\nSTATUS=watching with"), "{ready}");
    assert_eq!(program.get("/ready").0, 200, "ready is ready");
    for _ in 0..3 {
        until_said(&["WATCHDOG=1"]);
    }
    let engine = engine_of(&program);
    kill("KILL", engine);
    until_said(&["STATUS=the engine's process was ended by SIGKILL", "STATUS=watching", "WATCHDOG=1"]);
    assert_eq!(program.post("/api/stop", &json!({})).0, 200);
    program.signal("TERM");
    until_said(&["STOPPING=1"]);
}
