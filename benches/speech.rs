//! How fast the voice is: alone, stage by stage; and beside a language model that writes.
//!
//! `cargo bench --bench speech`: seconds of work for a second of sound (the real-time factor, below 1 when it keeps up) of
//! each stage, with the speech model and the sound side by side and one after the other. On the narrow set of the tests;
//! SPEECH_SET takes another folder, such as one written by `scripts/tts/make_golden.py --full`; SPEECH_GPU=1 takes the GPU,
//! SPEECH_THREADS the number of threads. SPEECH_KEEP=0 builds every computation anew and warms nothing up;
//! SPEECH_POSITIONS is how many positions the speech model has, SPEECH_HALF=0 keeps the flow's caches in 32 bits on a GPU, too.
//! SPEECH_ONLY=beside leaves the voice alone out. The GPU's memory is read off nvidia-smi, where it is.
//!
//! With SPEECH_BESIDE=folder of a language model whose width is the set's (`gguf/tiny-random/speaking` is both), also what
//! hidden states cost the text, how long after an answer's first text its first sound comes, and the factor while
//! another stream's commentary goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use vidette::engine::{Engine, EngineConfig, EngineState, Job, JobEvent, LlamaEngine, Prompt, Sampling};
use vidette::frame::Frame;
use vidette::speech::minicpm::{Options, RATE, SpeechFiles, Synthesizer};

const TOKENS: usize = 30;
const UTTERANCES: u64 = 4;
/// Answers that are spoken beside the commentary.
const ANSWERS: u64 = 5;
/// With random weights a reply may never end; so much sound is enough.
const LONGEST: usize = 30 * RATE as usize;

fn main() {
    let folder = std::env::var_os("SPEECH_SET")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tts"), PathBuf::from);
    let gpu = std::env::var_os("SPEECH_GPU").is_some();
    let threads = std::env::var("SPEECH_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    let mut options = Options { gpu, threads, ..Options::default() };
    options.keep = !is("SPEECH_KEEP", "0");
    options.half = !is("SPEECH_HALF", "0");
    if let Some(positions) = std::env::var("SPEECH_POSITIONS").ok().and_then(|n| n.parse().ok()) {
        options.positions = positions;
    }
    println!("{options:?}");
    memory("nothing");
    for side_by_side in [true, false] {
        if is("SPEECH_ONLY", "beside") {
            break;
        }
        let how = if side_by_side { "side by side" } else { "one after the other" };
        println!("\n## Alone, {how}\n");
        alone(&mut load(&folder, &Options { side_by_side, ..options.clone() }));
    }
    if let Some(model) = std::env::var_os("SPEECH_BESIDE") {
        println!("\n## Beside a language model\n");
        beside(&mut load(&folder, &options), Path::new(&model), gpu);
    }
    println!("\n{} MiB resident", resident_mib());
}

fn load(folder: &Path, options: &Options) -> Synthesizer {
    let loading = Instant::now();
    let voice = Synthesizer::load(&SpeechFiles::published(folder), options).expect("a set of voice files");
    println!("{} on {}, {} threads", folder.display(), voice.device(), options.threads);
    println!("loaded in {:.2} s, {} MiB resident", loading.elapsed().as_secs_f64(), resident_mib());
    let parts = voice.bytes().into_iter().map(|(what, bytes)| format!("{what} {:.1}", bytes as f64 / 1048576.0));
    println!("MiB on the device, without the speech model: {}", parts.collect::<Vec<_>>().join(", "));
    memory("the voice");
    println!();
    voice
}

fn alone(voice: &mut Synthesizer) {
    let numbers = TOKENS * voice.hidden_width();
    let hidden: Vec<f32> = (0..numbers).map(|i| (i * 7919 % 1009) as f32 / 252.0 - 2.0).collect();
    let tokens: Vec<i32> = (0..TOKENS).map(|i| (i * 37 % 280) as i32).collect();
    println!("| sound | first second after | whole | conditions | language model | encoder | flow | vocoder |");
    println!("|---|---|---|---|---|---|---|---|");
    for seed in 0..UTTERANCES {
        let resetting = Instant::now();
        let cancel = voice.begin(seed).expect("begin");
        let reset = resetting.elapsed();
        let (start, mut first, mut samples) = (Instant::now(), None, 0usize);
        let mut sink = |wave: Vec<f32>| {
            first.get_or_insert_with(|| start.elapsed());
            samples += wave.len();
            if samples > LONGEST {
                cancel.set();
            }
        };
        let done = voice.push_with(&tokens, &hidden, &mut sink);
        if done.is_ok() {
            voice.finish_with(&mut sink).expect("the rest");
        }
        let (whole, times) = (start.elapsed(), voice.times());
        let sound = samples as f64 / f64::from(RATE);
        let factor = |d: Duration| d.as_secs_f64() / sound;
        println!(
            "| {sound:.1} s | {:.3} s | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} |",
            first.unwrap_or_default().as_secs_f64(),
            factor(whole),
            factor(times.conditions),
            factor(times.language),
            factor(times.sound.encoder),
            factor(times.sound.flow),
            factor(times.sound.vocoder)
        );
        if seed + 1 == UTTERANCES {
            let each = |d: Duration| d.as_secs_f64() * 1e3 / f64::from(u32::try_from(times.codes.max(1)).unwrap_or(1));
            println!("<!-- {} codes, {:.3} ms of the speech model for each -->", times.codes, each(times.language));
            println!("<!-- {} computations kept -->", voice.computations());
            memory("the voice after speaking");
        }
        if seed == 0 {
            println!("<!-- reset before an utterance: {:.1} ms -->", reset.as_secs_f64() * 1e3);
        }
    }
}

/// A look of one frame whose answer may be long.
fn job(stream: &str, seq: u64, for_voice: bool) -> Job {
    let (width, height) = (602u32, 336u32);
    let rgb: Vec<u8> = (0..width * height * 3).map(|i| (u64::from(i) * (seq + 3) / 7 % 251) as u8).collect();
    let (captured, wall) = (Instant::now(), SystemTime::now());
    let frame = Arc::new(Frame { seq, pts: None, captured, wall, width, height, rgb: rgb.into() });
    let (system, instruction) = ("You watch a live video.".to_owned(), format!("Say what you see. {seq}"));
    let sampling = Sampling { temperature: 1.5, seed: u32::try_from(seq).ok(), ..Sampling::default() };
    let prompt = Prompt { system, instruction, context: String::new() };
    Job {
        stream: Arc::from(stream),
        prompt,
        frames: vec![frame],
        max_tokens: 60,
        sampling,
        for_voice,
        urgent: false,
        novelty: 0.0,
    }
}

/// Milliseconds from an answer's first text to its last, for each token after the first.
fn pace(engine: &LlamaEngine, for_voice: bool) -> f64 {
    let (mut time, mut tokens) = (Duration::ZERO, 0);
    for seq in 0..ANSWERS * 4 {
        let mut handle = engine.submit(job("main", seq, for_voice));
        let (mut first, mut last, mut count) = (None, None, 0);
        while let Some(event) = handle.events.blocking_recv() {
            match event {
                JobEvent::Text { at, tokens, .. } => {
                    first.get_or_insert((at, tokens.len()));
                    (last, count) = (Some(at), count + tokens.len());
                }
                JobEvent::Failed(e) => panic!("{e}"),
                _ => {}
            }
        }
        if let (Some((first, n)), Some(last)) = (first, last) {
            time += last - first;
            tokens += count - n;
        }
    }
    time.as_secs_f64() * 1e3 / f64::from(u32::try_from(tokens.max(1)).unwrap_or(1))
}

fn beside(voice: &mut Synthesizer, folder: &Path, gpu: bool) {
    let files = vidette::models::find(folder).expect("a language model");
    let engine = LlamaEngine::spawn(EngineConfig {
        context_tokens: 4096, // in each of two slots: 8k in all
        gpu_layers: if gpu { -1 } else { 0 },
        ..EngineConfig::new(files.language, files.projector)
    })
    .expect("an engine");
    let status = engine.status();
    while status.borrow().state == EngineState::Loading {
        std::thread::sleep(Duration::from_millis(50));
    }
    let ready = status.borrow().clone();
    assert_eq!(ready.state, EngineState::Ready, "{ready:?}");
    println!("{} on {}", folder.display(), ready.device.unwrap_or_default());
    memory("voice and language model, before the first look");
    pace(&engine, false);
    for for_voice in [false, true, false, true] {
        let how = if for_voice { "with hidden states" } else { "text alone" };
        println!("{how}: {:.3} ms a token", pace(&engine, for_voice));
    }
    println!(
        "\n| commentary beside | tokens spoken | sound | first sound after first text | whole | text of the other |"
    );
    println!("|---|---|---|---|---|---|");
    for others in [false, true] {
        let (ended, written) = (AtomicBool::new(!others), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for seq in 0.. {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut handle = engine.submit(job("other", seq, false));
                    while let Some(event) = handle.events.blocking_recv() {
                        if let JobEvent::Done { tokens, .. } = event {
                            written.fetch_add(u64::from(tokens), Ordering::Relaxed);
                        }
                    }
                }
            });
            for seq in 0..ANSWERS {
                spoken(&engine, voice, seq, others, &written);
            }
            ended.store(true, Ordering::Relaxed);
        });
    }
    memory("voice and language model");
}

/// Speaks one answer while it is written, and prints its row.
fn spoken(engine: &LlamaEngine, voice: &mut Synthesizer, seq: u64, others: bool, written: &AtomicU64) {
    let cancel = voice.begin(seq).expect("begin");
    let (before, start) = (written.load(Ordering::Relaxed), Instant::now());
    let (mut text, mut first, mut samples, mut count) = (None, None, 0usize, 0);
    let mut sink = |wave: Vec<f32>| {
        first.get_or_insert_with(Instant::now);
        samples += wave.len();
        if samples > LONGEST {
            cancel.set();
        }
    };
    let mut handle = engine.submit(job("main", 1000 + seq, true));
    let mut going = true;
    while let Some(event) = handle.events.blocking_recv() {
        if let JobEvent::Text { at, tokens, hidden, .. } = event {
            text.get_or_insert(at);
            count += tokens.len();
            going = going && voice.push_with(&tokens, &hidden, &mut sink).is_ok();
        }
    }
    if going {
        voice.finish_with(&mut sink).expect("the rest");
    }
    let Some(text) = text else { return };
    let (sound, whole) = (samples as f64 / f64::from(RATE), text.elapsed().as_secs_f64());
    let other = (written.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    println!(
        "| {} | {count} | {sound:.1} s | {:.3} s | {:.4} | {other:.0} tokens/s |",
        if others { "yes" } else { "no" },
        first.map_or(f64::NAN, |at| (at - text).as_secs_f64()),
        whole / sound,
    );
}

/// What the first GPU's driver says is in use.
fn memory(by: &str) {
    let query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"];
    let said = std::process::Command::new("nvidia-smi").args(query).output();
    if let Some(mib) = said.ok().and_then(|s| String::from_utf8(s.stdout).ok()?.trim().parse::<u64>().ok()) {
        println!("<!-- GPU memory with {by}: {mib} MiB -->");
    }
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
