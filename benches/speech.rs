//! The real-time factor of each stage of the voice: seconds of work for a second of sound, below 1 when it keeps up.
//! `cargo bench --bench speech` (the narrow set of the tests; SPEECH_SET takes another folder, such as one written by
//! `scripts/tts/make_golden.py --full`; SPEECH_GPU=1 takes the GPU, SPEECH_THREADS the number of threads).

use std::path::PathBuf;
use std::time::{Duration, Instant};
use vidette::speech::minicpm::{Options, RATE, SpeechFiles, Synthesizer};

const TOKENS: usize = 30;
const UTTERANCES: u64 = 3;

fn main() {
    let folder = std::env::var_os("SPEECH_SET")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tts"), PathBuf::from);
    let gpu = std::env::var_os("SPEECH_GPU").is_some();
    let threads = std::env::var("SPEECH_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let loading = Instant::now();
    let options = Options { gpu, threads, ..Options::default() };
    let mut voice = Synthesizer::load(&SpeechFiles::published(&folder), &options).expect("a set of voice files");
    println!("{} on {}, {threads} threads", folder.display(), voice.device());
    println!("loaded in {:.2} s, {} MiB resident", loading.elapsed().as_secs_f64(), resident_mib());

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
            // With random weights a reply may never end; half a minute is enough.
            if samples > 30 * RATE as usize {
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
            "| {sound:.1} s | {:.2} s | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} |",
            first.unwrap_or_default().as_secs_f64(),
            factor(whole),
            factor(times.conditions),
            factor(times.language),
            factor(times.sound.encoder),
            factor(times.sound.flow),
            factor(times.sound.vocoder)
        );
        if seed == 0 {
            println!("<!-- reset before an utterance: {:.1} ms -->", reset.as_secs_f64() * 1e3);
        }
    }
    println!("{} MiB resident", resident_mib());
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
