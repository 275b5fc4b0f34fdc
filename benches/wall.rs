//! What the wall around native code costs: the same looks through it and inside, turn by turn in one run.
//! `cargo bench --bench wall` (needs `make tiny-model`; MODEL_PATH takes another model's folder, THREADS a number of the
//! engine's threads in place of one for each core).

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use vidette::engine::{Engine, EngineConfig, EngineState, Job, JobEvent, LlamaEngine, Prompt, Sampling};
use vidette::frame::Frame;
use vidette::wall::{Launch, ProcessEngine};

/// Pairs of looks, one through the wall and one inside: as many as fit into [`TIME`], from the least to the most.
const PAIRS: std::ops::RangeInclusive<u64> = 50..=400;
/// The same of long answers.
const LONG_PAIRS: std::ops::RangeInclusive<u64> = 20..=100;
const TIME: Duration = Duration::from_secs(60);
const ROUNDS: usize = 300;

fn frame(seq: u64) -> Arc<Frame> {
    let (width, height) = (602u32, 336u32);
    let rgb: Vec<u8> = (0..width * height * 3).map(|i| (u64::from(i) * (seq + 3) / 7 % 251) as u8).collect();
    let (captured, wall) = (Instant::now(), SystemTime::now());
    Arc::new(Frame { seq, pts: None, captured, wall, width, height, rgb: rgb.into() })
}

/// What a look took.
#[derive(Default, Clone, Copy)]
struct Took {
    /// From handing in to the first and to the last event that its owner got.
    first_ms: f64,
    last_ms: f64,
    /// From handing in until the engine took it up.
    way_in_ms: f64,
    /// From the engine's saying the first word and the end until the owner had them.
    way_out_ms: [f64; 2],
    tokens: u32,
}

/// A row of the table: its name and its value of a look.
type Row = (&'static str, fn(&Took) -> f64);

fn look(engine: &dyn Engine, frames: Vec<Arc<Frame>>, max_tokens: u32) -> Took {
    let prompt = Prompt {
        system: "You watch a live video. Comment on what happens in one or two short sentences. ".repeat(4),
        instruction: "Only tell me what the dog does, and where it goes.".to_owned(),
        context: "Your last comment was: the dog sleeps on the sofa.".to_owned(),
    };
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let job = Job {
        stream: Arc::from("main"),
        prompt,
        frames,
        max_tokens,
        sampling,
        for_voice: false,
        urgent: false,
        novelty: 0.0,
    };
    let began = Instant::now();
    let mut handle = engine.submit(job);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let mut took = Took::default();
    while let Some(event) = handle.events.blocking_recv() {
        match event {
            JobEvent::Started { at } => took.way_in_ms = ms(at - began),
            JobEvent::Text { at, .. } if took.first_ms == 0.0 => {
                took.first_ms = ms(began.elapsed());
                took.way_out_ms[0] = ms(at.elapsed());
            }
            JobEvent::Done { at, tokens, .. } => {
                took.last_ms = ms(began.elapsed());
                took.way_out_ms[1] = ms(at.elapsed());
                took.tokens = tokens;
            }
            JobEvent::Failed(e) => panic!("{e}"),
            _ => {}
        }
    }
    took
}

fn at(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

fn config(folder: &Path) -> EngineConfig {
    let files = vidette::models::find(folder).expect("a model: run `make tiny-model`");
    // Fewer threads than cores on a machine with other work: ggml's threads wait for each other by spinning.
    let threads = std::env::var("THREADS").map_or(0, |n| n.parse().expect("THREADS is a number"));
    EngineConfig { parallel: 1, threads, ..EngineConfig::new(files.language, files.projector) }
}

fn measure(folder: &Path) {
    let launch = Launch {
        // This very program, so that both engines are the same machine code at the same places.
        program: Launch::own_program(),
        environment: std::env::vars_os().collect(),
        log: "warn".to_owned(),
        stall: Duration::from_secs(60),
        backends: None,
    };
    let inside = LlamaEngine::spawn(config(folder)).expect("an engine");
    let child = ProcessEngine::spawn(launch, config(folder)).expect("a process");
    for status in [inside.status(), child.status()] {
        while status.borrow().state == EngineState::Loading {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(status.borrow().state, EngineState::Ready, "{:?}", status.borrow());
    }
    let frames: Vec<_> = (0..PAIRS.end() + 5).map(frame).collect();
    let window = |i: u64| frames[i as usize..i as usize + 4].to_vec();
    for engine in [&inside as &dyn Engine, &child] {
        look(engine, window(0), 20);
    }
    // One new frame a look, as in commentary; then long answers, where only tokens cross.
    let short = pairs(PAIRS, |engine, i| look(engine, window(i), 20), &inside, &child);
    let long = pairs(LONG_PAIRS, |engine, _| look(engine, window(1), 1000), &inside, &child);
    let median = |who: usize, what: fn(&Took) -> f64| {
        let mut values: Vec<f64> = short.iter().map(|pair| what(&pair[who])).collect();
        at(&mut values, 0.5)
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    println!(
        "\n{name}, {} pairs of looks of 4 frames (1 new) and 20 tokens, {} of long answers",
        short.len(),
        long.len()
    );
    println!("| medians, ms | inside | through the wall | difference |\n|---|---|---|---|");
    let rows: [Row; 6] = [
        ("handed in to the first word", |t| t.first_ms),
        ("handed in to the end", |t| t.last_ms),
        ("handed in until the engine takes it up", |t| t.way_in_ms),
        ("the first word, from the engine to its owner", |t| t.way_out_ms[0]),
        ("the end, from the engine to its owner", |t| t.way_out_ms[1]),
        ("both ways of a look", |t| t.way_in_ms + t.way_out_ms[1]),
    ];
    for (what, value) in rows {
        let (inside, through) = (median(0, value), median(1, value));
        println!("| {what} | {inside:.2} | {through:.2} | {:+.2} |", through - inside);
    }
    let mut differences: Vec<f64> = short.iter().map(|[inside, through]| through.last_ms - inside.last_ms).collect();
    let quartiles = |values: &mut [f64]| [0.5, 0.25, 0.75].map(|share| at(values, share));
    let [median, low, high] = quartiles(&mut differences);
    println!("Difference within a pair, to the end: {median:+.2} ms (quartiles {low:+.2} and {high:+.2})");
    let rate = |took: &Took| f64::from(took.tokens) / (took.last_ms - took.first_ms) * 1e3;
    let mut ratios: Vec<f64> = long.iter().map(|[inside, through]| rate(through) / rate(inside)).collect();
    let mut rates = [0, 1].map(|who| long.iter().map(|pair| rate(&pair[who])).collect::<Vec<f64>>());
    let [ratio, low, high] = quartiles(&mut ratios);
    let [inside, through] = [0, 1].map(|who| at(&mut rates[who], 0.5));
    println!(
        "Tokens a second: {inside:.0} inside, {through:.0} through the wall; ratio within a pair {ratio:.3} \
         (quartiles {low:.3} and {high:.3})"
    );
}

/// Looks inside and through the wall, turn by turn, as many as fit into [`TIME`].
fn pairs(
    count: std::ops::RangeInclusive<u64>,
    look: impl Fn(&dyn Engine, u64) -> Took,
    inside: &dyn Engine,
    child: &dyn Engine,
) -> Vec<[Took; 2]> {
    let began = Instant::now();
    let enough = |i: u64| i > *count.start() && began.elapsed() > TIME;
    let pair = |i: u64| {
        let mut pair = [Took::default(); 2];
        for turn in 0..2 {
            // Who goes first changes, because the second finds the processor's caches warm.
            let who = (i as usize + turn) % 2;
            pair[who] = look(if who == 0 { inside } else { child }, i);
        }
        pair
    };
    (1..=*count.end()).take_while(|i| !enough(*i)).map(pair).collect()
}

/// Milliseconds for frames to be elsewhere, with a word back: through a socket, and by a file in shared memory.
fn copying(frames: usize) -> [f64; 2] {
    let pixels = frame(0).rgb.repeat(frames);
    let length = pixels.len();
    let path = PathBuf::from(format!("/dev/shm/vidette-bench-{}", std::process::id()));
    let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).expect("shared memory");
    let shared = file.try_clone().expect("a second descriptor");
    let mut medians = [0.0; 2];
    for (median, by_file) in medians.iter_mut().zip([false, true]) {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a socket");
        let shared = shared.try_clone().expect("a descriptor");
        let reader = std::thread::spawn(move || {
            let (mut there, mut bell) = (vec![0; length], [0]);
            for _ in 0..ROUNDS {
                if by_file {
                    theirs.read_exact(&mut bell).expect("a bell");
                    shared.read_exact_at(&mut there, 0).expect("pixels");
                } else {
                    theirs.read_exact(&mut there).expect("pixels");
                }
                theirs.write_all(&bell).expect("a word back");
            }
        });
        let mut times: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                // As they come in life: now and then, with cold caches.
                std::thread::sleep(Duration::from_millis(3));
                let began = Instant::now();
                if by_file {
                    file.write_all_at(&pixels, 0).expect("pixels");
                    ours.write_all(&[0]).expect("a bell");
                } else {
                    ours.write_all(&pixels).expect("pixels");
                }
                ours.read_exact(&mut [0]).expect("a word back");
                began.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        reader.join().expect("the reader");
        *median = at(&mut times, 0.5);
    }
    std::fs::remove_file(path).expect("shared memory");
    medians
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("engine-child") {
        if let Err(error) = vidette::wall::child::serve(|_| Ok(())) {
            eprintln!("{error}");
        }
        return;
    }
    for frames in [1, 4] {
        let [socket, file] = copying(frames);
        println!("{frames} frames of 602x336 elsewhere: {socket:.2} ms by a socket, {file:.2} ms by shared memory");
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("gguf");
    let folders = match std::env::var_os("MODEL_PATH") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => vec![root.join("tiny-random"), root.join("demo")],
    };
    for folder in folders {
        measure(&folder);
    }
}
