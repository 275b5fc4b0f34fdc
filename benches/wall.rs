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

/// Milliseconds from handing in to the first and to the last event that its owner gets, and the tokens.
fn look(engine: &dyn Engine, frames: Vec<Arc<Frame>>, max_tokens: u32) -> (f64, f64, u32) {
    let prompt = Prompt {
        system: "You watch a live video. Comment on what happens in one or two short sentences. ".repeat(4),
        instruction: "Only tell me what the dog does, and where it goes.".to_owned(),
        context: "Your last comment was: the dog sleeps on the sofa.".to_owned(),
    };
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let job = Job { stream: Arc::from("main"), prompt, frames, max_tokens, sampling, for_voice: false, urgent: false };
    let began = Instant::now();
    let mut handle = engine.submit(job);
    let (mut first, mut count) = (None, 0);
    while let Some(event) = handle.events.blocking_recv() {
        match event {
            JobEvent::Text { .. } => {
                first.get_or_insert_with(|| began.elapsed());
            }
            JobEvent::Done { tokens, .. } => count = tokens,
            JobEvent::Failed(e) => panic!("{e}"),
            _ => {}
        }
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    (ms(first.unwrap_or_default()), ms(began.elapsed()), count)
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
        program: env!("CARGO_BIN_EXE_vidette").into(),
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
    let (mut cycles, mut firsts) = ([Vec::new(), Vec::new()], Vec::new());
    let mut differences = Vec::new();
    let began = Instant::now();
    for i in 1..=*PAIRS.end() {
        if i > *PAIRS.start() && began.elapsed() > TIME {
            break;
        }
        let mut pair = [(0.0, 0.0, 0); 2];
        for turn in 0..2 {
            // Who goes first changes, because the second finds the processor's caches warm.
            let who = (i as usize + turn) % 2;
            let engine: &dyn Engine = if who == 0 { &inside } else { &child };
            pair[who] = look(engine, window(i), 20);
        }
        cycles[0].push(pair[0].1);
        cycles[1].push(pair[1].1);
        differences.push(pair[1].1 - pair[0].1);
        firsts.push(pair[1].0 - pair[0].0);
    }
    let (mut rates, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    let began = Instant::now();
    for i in 1..=*LONG_PAIRS.end() {
        if i > *LONG_PAIRS.start() && began.elapsed() > TIME {
            break;
        }
        let mut pair = [0.0; 2];
        for turn in 0..2 {
            let who = (i as usize + turn) % 2;
            let engine: &dyn Engine = if who == 0 { &inside } else { &child };
            let (first, last, tokens) = look(engine, window(1), 1000);
            pair[who] = f64::from(tokens) / (last - first) * 1e3;
        }
        ratios.push(pair[1] / pair[0]);
        rates[0].push(pair[0]);
        rates[1].push(pair[1]);
    }
    println!(
        "| {} | {} | {:.1} | {:.1} | {:+.2} ({:+.2} to {:+.2}) | {:+.2} | {} | {:.0} | {:.0} | {:.3} ({:.3} to {:.3}) |",
        folder.file_name().unwrap_or_default().to_string_lossy(),
        differences.len(),
        at(&mut cycles[0], 0.5),
        at(&mut cycles[1], 0.5),
        at(&mut differences, 0.5),
        at(&mut differences, 0.25),
        at(&mut differences, 0.75),
        at(&mut firsts, 0.5),
        ratios.len(),
        at(&mut rates[0], 0.5),
        at(&mut rates[1], 0.5),
        at(&mut ratios, 0.5),
        at(&mut ratios, 0.25),
        at(&mut ratios, 0.75),
    );
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
    for frames in [1, 4] {
        let [socket, file] = copying(frames);
        println!("{frames} frames of 602x336 elsewhere: {socket:.2} ms by a socket, {file:.2} ms by shared memory");
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("gguf");
    let folders = match std::env::var_os("MODEL_PATH") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => vec![root.join("tiny-random"), root.join("demo")],
    };
    println!(
        "Pairs of looks of 4 frames (1 new) and 20 tokens, and of long answers, turn by turn; medians (quartiles):"
    );
    println!(
        "| model | pairs | cycle inside, ms | through the wall, ms | difference in pairs, ms | of the first token, ms \
         | long pairs | tokens/s inside | through the wall | ratio |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    for folder in folders {
        measure(&folder);
    }
}
