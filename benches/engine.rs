//! What keeping the prompt's prefix and encoding frames once is worth: the same looks with and without, in one run.
//! `cargo bench --bench engine` (needs `make tiny-model`; MODEL_PATH takes another model's folder).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use vidette::engine::{Engine, EngineConfig, EngineState, FrameLayout, Job, JobEvent, LlamaEngine, Prompt, Sampling};
use vidette::frame::Frame;

const LOOKS: u64 = 12;
const TOKENS: u32 = 20;

fn frame(seq: u64) -> Arc<Frame> {
    let (width, height) = (602u32, 336u32);
    let rgb: Vec<u8> = (0..width * height * 3).map(|i| (u64::from(i) * (seq + 3) / 7 % 251) as u8).collect();
    let (captured, wall) = (Instant::now(), SystemTime::now());
    Arc::new(Frame { seq, pts: None, captured, wall, width, height, rgb: rgb.into() })
}

/// Milliseconds of a look's steps: encoded, decoded, first token, last token; each from the start.
fn look(engine: &LlamaEngine, stream: &str, frames: Vec<Arc<Frame>>) -> [f64; 4] {
    let prompt = Prompt {
        system: "You watch a live video. Comment on what happens in one or two short sentences. ".repeat(4),
        instruction: "Only tell me what the dog does, and where it goes.".to_owned(),
        context: "Your last comment was: the dog sleeps on the sofa.".to_owned(),
    };
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let mut handle = engine.submit(Job {
        stream: Arc::from(stream),
        prompt,
        frames,
        max_tokens: TOKENS,
        sampling,
        for_voice: false,
        urgent: false,
    });
    let (mut start, mut steps) = (Instant::now(), [0.0; 4]);
    while let Some(event) = handle.events.blocking_recv() {
        let ms = |at: Instant, start: Instant| at.duration_since(start).as_secs_f64() * 1e3;
        match event {
            JobEvent::Started { at } => start = at,
            JobEvent::Encoded { at, .. } => steps[0] = ms(at, start),
            JobEvent::Prefilled { at, .. } => steps[1] = ms(at, start),
            JobEvent::Text { at, .. } if steps[2] == 0.0 => steps[2] = ms(at, start),
            JobEvent::Done { at, .. } => steps[3] = ms(at, start),
            JobEvent::Failed(e) => panic!("{e}"),
            JobEvent::Text { .. } | JobEvent::Replaced => {}
        }
    }
    steps
}

fn median(looks: &mut [[f64; 4]]) -> [f64; 4] {
    [0, 1, 2, 3].map(|i| {
        looks.sort_by(|a, b| a[i].total_cmp(&b[i]));
        looks[looks.len() / 2][i]
    })
}

fn main() {
    let folder = std::env::var_os("MODEL_PATH")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("gguf/tiny-random"), PathBuf::from);
    let files = vidette::models::find(&folder).expect("a model: run `make tiny-model`");
    let loading = Instant::now();
    let engine = LlamaEngine::spawn(EngineConfig {
        language: files.language,
        projector: files.projector,
        frame_layout: FrameLayout::OneSlice,
        name: "bench".to_owned(),
        warning: None,
        notice: None,
        context_tokens: 4096,
        slots: 2,
        parallel: 0,
        batch: 512,
        threads: 0,
        gpu_layers: -1,
        embedding_cache_bytes: 64 << 20,
    })
    .expect("an engine");
    let status = engine.status();
    while status.borrow().state == EngineState::Loading {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("{:?} after {:.2} s", status.borrow().clone(), loading.elapsed().as_secs_f64());
    look(&engine, "warm-up", (0..4).map(frame).collect());

    let (mut fresh, mut kept) = (Vec::new(), Vec::new());
    for i in 0..LOOKS {
        // A stream of its own each time: nothing is cached. Then the sliding window of one stream.
        let frames = |first: u64| (first..first + 4).map(frame).collect::<Vec<_>>();
        fresh.push(look(&engine, &format!("fresh-{i}"), frames(1000 * (i + 1))));
        let steps = look(&engine, "kept", frames(i));
        if i > 0 {
            kept.push(steps);
        }
    }
    let (fresh, kept) = (median(&mut fresh), median(&mut kept));
    println!("medians of {LOOKS} looks of 4 frames, {TOKENS} tokens, ms from the job's start:");
    println!("| | frames encoded | prompt decoded | first token | last token |\n|---|---|---|---|---|");
    let row = |name: &str, v: [f64; 4]| println!("| {name} | {:.1} | {:.1} | {:.1} | {:.1} |", v[0], v[1], v[2], v[3]);
    row("nothing kept", fresh);
    row("prefix and frames kept", kept);
    println!(
        "| ratio | {:.2} | {:.2} | {:.2} | {:.2} |",
        fresh[0] / kept[0],
        fresh[1] / kept[1],
        fresh[2] / kept[2],
        fresh[3] / kept[3]
    );
    println!("resident memory: {} MiB", resident_mib());
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
