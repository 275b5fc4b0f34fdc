//! What the machine does to the whole program: its disk, which a log must not fill; its wall clock, which somebody sets;
//! its cores, of which the engine takes one for itself. Figures are printed (`--nocapture`); what is asserted holds on a
//! busy machine too. `VIDETTE=target/release/vidette` takes another build for the figures. Not here: the network
//! (`faults_source`), the engine's faults (`supervision`).

#![cfg(all(feature = "ingest", feature = "llama"))]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/program.rs"]
mod program;

use processes::{Viewer, children, stat_field};
use program::{Parts, Program, command, tiny_model};
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The sum over all streams.
fn total(program: &Program, metric: &str) -> f64 {
    let (_, text) = program.get("/metrics");
    let text = String::from_utf8(text).unwrap();
    let values = text.lines().filter_map(|l| l.strip_prefix(&format!("vidette_{metric}"))?.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

fn run_with(environment: &[(&str, &str)], args: &[&str]) -> Program {
    let mut all = command(&[]);
    if let Some(other) = std::env::var_os("VIDETTE") {
        let same = command(&[]);
        all = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(other));
        all.env_clear()
            .envs(same.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .current_dir(env!("CARGO_TARGET_TMPDIR"));
    }
    let model = tiny_model();
    all.arg("run").args(args).args(["--server-port", "0", "--model-path", model.to_str().unwrap()]);
    all.envs(environment.iter().copied());
    Program::start_command(all)
}

/// Files that the process can write to, other than in /tmp.
fn writable_files(pid: u32) -> Vec<PathBuf> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let writable = open.filter(|fd| {
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.file_name().to_string_lossy()));
        let flags =
            info.ok().and_then(|i| i.lines().find_map(|l| l.strip_prefix("flags:")).map(|f| f.trim().to_owned()));
        // Octal; the lowest two bits are the access mode.
        flags.is_some_and(|flags| !flags.ends_with(['0', '4']))
    });
    writable
        .filter_map(|fd| Some((std::fs::read_link(fd.path()).ok()?, std::fs::metadata(fd.path()).ok()?)))
        .filter(|(path, meta)| meta.is_file() && !path.starts_with("/tmp") && !path.starts_with("/memfd:"))
        .map(|(path, _)| path)
        .collect()
}

/// `FAULT_SECONDS=600` is the long form.
#[test]
fn a_hundred_failures_a_second_do_not_fill_the_log() {
    let seconds = std::env::var("FAULT_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    // Nobody listens there for as long as we hold it without listening.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let names: Vec<String> = (1..=6).map(|n| format!("cam{n}")).collect();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failing.yaml");
    let streams: String = names.iter().map(|n| format!("  {n}:\n    source: http://{taken}/{n}\n")).collect();
    std::fs::write(&file, format!("streams:\n{streams}")).unwrap();
    let waits = ["--reconnect-delay", "0.05", "--max-reconnect-delay", "0.05"];
    let program = run_with(&[], &[&["--config", file.to_str().unwrap()], &waits[..]].concat());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(writable_files(program.pid()), Vec::<PathBuf>::new());
    }
    let failures = total(&program, "source_failures_total");
    let log = program.log();
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{:.0} failures in {took:.0} s ({:.0} a second) of {} streams; {} lines of log, {} bytes",
        failures,
        failures / took,
        names.len(),
        log.lines().count(),
        log.len()
    );
    let mut told = 0.0;
    for name in &names {
        let lines: Vec<&str> = log.lines().filter(|l| l.contains("source lost") && l.contains(name)).collect();
        assert!(!lines.is_empty() && lines.len() as f64 <= took + 3.0, "{name}: {} lines in {took} s", lines.len());
        let count = |line: &&str| line.rsplit_once('(')?.1.strip_suffix(" like it left out)")?.parse::<f64>().ok();
        told += lines.len() as f64 + lines.iter().filter_map(count).sum::<f64>();
    }
    // All but those of the last second are told, one by one or as a number.
    println!("told in the log: {told}");
    assert!(told <= failures && told > failures / 4.0, "{told} of {failures}");
    assert!((log.lines().count() as f64) < (took + 3.0) * (names.len() as f64 + 2.0) + 30.0, "{log}");
}

/// Sound as a player hears it that waits for 200 ms of it before it begins.
struct Listener {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Heard>,
}

#[derive(Debug)]
struct Heard {
    frames: u64,
    seconds: f64,
    /// Frames that came after their turn.
    underruns: u64,
    /// How long after its turn in a stream without a buffer the latest one came.
    latest: Duration,
}

const FRAME: Duration = Duration::from_millis(20);
const BUFFER: Duration = Duration::from_millis(200);

impl Listener {
    fn of(program: &Program, path: &str) -> Self {
        let mut body = program.stream(path);
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let over = Arc::clone(&over);
            move || {
                let mut bytes = [0; 1920];
                body.read_exact(&mut bytes).expect("the sound begins");
                let start = Instant::now();
                let mut heard = Heard { frames: 0, seconds: 0.0, underruns: 0, latest: Duration::ZERO };
                while !over.load(Ordering::Relaxed) {
                    body.read_exact(&mut bytes).expect("the sound goes on");
                    heard.frames += 1;
                    let late = start.elapsed().saturating_sub(FRAME * heard.frames as u32);
                    heard.latest = heard.latest.max(late);
                    heard.underruns += u64::from(late > BUFFER);
                }
                heard.seconds = start.elapsed().as_secs_f64();
                heard
            }
        });
        Self { over, thread }
    }

    fn leave(self) -> Heard {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Seconds by which the program's wall clock, as its pictures have it, is ahead of ours.
fn ahead(program: &Program) -> f64 {
    let picture = Parts { body: program.stream("/api/mjpeg") }.next();
    picture.taken - SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn a_wall_clock_that_somebody_sets_changes_nothing_but_the_time_that_is_told() {
    let clock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wall-clock");
    let set = |offset: &str| {
        // At once, or a reader could find half of it.
        let new = clock.with_extension("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(new, &clock).unwrap();
    };
    set("+0");
    let faked = [
        // The loader fills in where the system has its libraries.
        ("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1"),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        // Nobody can set that one.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let args = "test:ball@320x240 --enable-tts --change-threshold 0 --inference-interval 0 --capture-fps 10 --threads 1 \
                --max-tokens 12 --temperature 2";
    let program = run_with(&faked, &args.split_ascii_whitespace().collect::<Vec<_>>());
    program.until("able to speak", 60, |s| s["voice"]["enabled"] == true && s["engine"]["state"] == "ready");
    let engine = children(u64::from(program.pid()));
    let (viewer, listener) = (Viewer::of(&program), Listener::of(&program, "/api/audio-stream"));
    let looks = |program: &Program| program.json("/api/status")["commentary"]["looks"].as_u64().unwrap();
    let hour = 3600.0;
    for (offset, seconds) in [
        ("+3600s", hour),
        ("-3600s", -hour),
        ("+0", 0.0),
        ("-315360000s", -87_600.0 * hour),
        ("+315360000s", 87_600.0 * hour),
    ] {
        set(offset);
        let found = ahead(&program);
        assert!((found - seconds).abs() < 30.0, "the clock was not set: {found}, {seconds} wanted");
        let before = looks(&program);
        viewer.sees(20);
        program.until("looking on", 30, |s| s["commentary"]["looks"].as_u64() > Some(before + 2));
    }
    let (seen, heard) = (viewer.leave(), listener.leave());
    let status = program.json("/api/status");
    println!(
        "five steps of the wall clock: longest wait for a picture {:.0} ms; {:.3} of the sound's time, latest {:.0} ms late, \
         {:.0} samples lost",
        seen.longest_wait.as_secs_f64() * 1e3,
        heard.frames as f64 * 0.02 / heard.seconds,
        heard.latest.as_secs_f64() * 1e3,
        total(&program, "audio_samples_dropped_total"),
    );
    // A step of an hour would show as an hour, in either.
    assert!(
        seen.longest_wait < Duration::from_secs(10) && heard.latest < Duration::from_secs(10),
        "{seen:?} {heard:?}"
    );
    assert!((0.7..1.3).contains(&(heard.frames as f64 * 0.02 / heard.seconds)), "{heard:?}");
    assert_eq!((&status["source"]["state"], &status["source"]["reconnects"]), (&"streaming".into(), &0.into()));
    assert_eq!((&status["engine"]["restarts"], children(u64::from(program.pid()))), (&0.into(), engine), "{status:#}");
    assert!(!program.log().contains("panicked"), "{}", program.log());
}

/// Ticks of processor time that a process has used.
fn ticks(pid: u64) -> i64 {
    stat_field(pid, 14) + stat_field(pid, 15)
}

/// What the program gives for some seconds while the engine works as `interval` has it.
struct Given {
    /// Pictures a second of the viewer that got fewest.
    fps: f64,
    p50: Duration,
    p99: Duration,
    heard: Heard,
    /// Of one core.
    engine: f64,
    program: f64,
}

fn given(clip: &Path, interval: &str, seconds: f64) -> Given {
    let fixed = "--change-threshold 0 --capture-fps 30 --frames-per-inference 8 --frame-stride 1 --jpeg-fps 30 --threads 1 --max-tokens 1000 \
                 --temperature 2 --inference-interval";
    // Two more cameras, so that there is always something to look at.
    let file = clip.with_extension("yaml");
    std::fs::write(&file, "streams:\n  one:\n    source: test:ball@320x240\n  two:\n    source: test:ball@320x240\n")
        .unwrap();
    let mut args = vec![clip.to_str().unwrap(), "--config", file.to_str().unwrap()];
    args.extend(fixed.split_ascii_whitespace());
    args.push(interval);
    let program = run_with(&[], &args);
    program.until("looking", 60, |s| {
        s["source"]["state"] == "streaming"
            && s["source"]["audio"] == true
            && s["commentary"]["looks"].as_u64() > Some(0)
    });
    let engine = children(u64::from(program.pid()))[0];
    let (viewers, listener) = ([(); 3].map(|()| Viewer::of(&program)), Listener::of(&program, "/api/source-audio"));
    let own = u64::from(program.pid());
    let used = (ticks(engine), ticks(own));
    let seen = || viewers.iter().map(|v| v.pictures.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let (begun, before) = (Instant::now(), seen());
    let mut times = Vec::new();
    while begun.elapsed().as_secs_f64() < seconds {
        let asked = Instant::now();
        program.json("/api/status");
        times.push(asked.elapsed());
        std::thread::sleep(FRAME);
    }
    let took = begun.elapsed().as_secs_f64();
    let fps = seen().iter().zip(&before).map(|(after, before)| (after - before) as f64 / took).fold(f64::MAX, f64::min);
    let share = |before: i64, now: i64| (now - before) as f64 / 100.0 / took;
    let (engine, program) = (share(used.0, ticks(engine)), share(used.1, ticks(own)));
    times.sort();
    let of = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let heard = listener.leave();
    viewers.into_iter().for_each(|viewer| drop(viewer.leave()));
    Given { fps, p50: of(0.5), p99: of(0.99), heard, engine, program }
}

/// `FAIR_SECONDS=60` is the long form.
#[test]
fn an_engine_that_takes_a_core_leaves_video_page_and_sound_theirs() {
    let seconds = std::env::var("FAIR_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(6.0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (short, clip) = (folder.join("1080p30-short.mp4"), folder.join("1080p30.mp4"));
    let ffmpeg = |args: String| {
        let made =
            Command::new("ffmpeg").args("-y -loglevel error".split(' ')).args(args.split_ascii_whitespace()).status();
        assert!(made.expect("ffmpeg is installed by `make test`").success());
    };
    ffmpeg(format!(
        "-f lavfi -i testsrc=size=1920x1080:rate=30:duration=4 -f lavfi -i sine=sample_rate=48000:duration=4 -c:v libx264 \
         -preset ultrafast -g 30 -pix_fmt yuv420p -c:a aac {}",
        short.display()
    ));
    // Long enough never to begin again, which costs a part of a second.
    ffmpeg(format!("-stream_loop 60 -i {} -c copy {}", short.display(), clip.display()));
    let rest = given(&clip, "3600", seconds);
    let busy = given(&clip, "0", seconds);
    for (what, given) in [("engine at rest", &rest), ("engine at work", &busy)] {
        println!(
            "{what}: three viewers of 1080p30 get {:.1} a second at least; a request takes {:.1} ms (median), {:.1} ms (99 %); \
             sound: {} underruns, latest {:.0} ms late; the engine used {:.2} of a core, the program {:.2}",
            given.fps,
            given.p50.as_secs_f64() * 1e3,
            given.p99.as_secs_f64() * 1e3,
            given.heard.underruns,
            given.heard.latest.as_secs_f64() * 1e3,
            given.engine,
            given.program,
        );
    }
    println!("pictures kept: {:.3}", busy.fps / rest.fps);
    // The engine is one that works; and nothing starves beside it. The figures are the promise.
    assert!(busy.engine > 2.0 * rest.engine + 0.1, "{} and {}", busy.engine, rest.engine);
    assert!(busy.fps > rest.fps * 0.3 && busy.p50 < Duration::from_secs(1), "{} of {}", busy.fps, rest.fps);
    assert!(busy.heard.latest < Duration::from_secs(5), "{:?}", busy.heard);
}
