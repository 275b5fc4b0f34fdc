//! Every stage against the numpy reference, on the narrow set of tests/data/tts (scripts/tts/make_golden.py).

use super::device::{Device, Half, Tensors, Uses};
use super::ffi::{Graph, Unary};
use super::language::{Language, LanguageFile};
use super::model::ContextSizes;
use super::plan::{Plans, Value};
use super::projector::{Projector, ProjectorFile};
use super::sampler::SpeechSampling;
use super::source::{HARMONICS, sines};
use super::token2wav::{SAMPLES_PER_CODE, Seen, SoundFiles, Token2Wav};
use super::vocoder::Voiced;
use super::{Options, SpeechFiles, Synthesizer};
use crate::models::gguf::Header;
use std::path::PathBuf;

/// Where the set lies; another one, such as that with the published widths, can be named by SPEECH_SET.
fn folder() -> PathBuf {
    std::env::var_os("SPEECH_SET")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tts"), PathBuf::from)
}

fn files() -> SpeechFiles {
    SpeechFiles::published(&folder())
}

/// One thread for the narrow set: more would wait for each other while tests share the cores.
fn threads() -> usize {
    if std::env::var_os("SPEECH_SET").is_some() { 2 } else { 1 }
}

fn device() -> Device {
    Device::open(std::env::var_os("SPEECH_GPU").is_some(), threads(), uses()).unwrap()
}

/// As the program uses a device; SPEECH_HALF=0 has all numbers in 32 bits.
fn uses() -> Uses {
    Uses { keep: true, half: if half() { Half::OnGpu } else { Half::Nowhere } }
}

fn half() -> bool {
    std::env::var_os("SPEECH_HALF").is_none_or(|v| v != "0")
}

fn on_card() -> bool {
    device().is_card()
}

/// How far off each stage may be, given the reference's input.
struct Tolerances {
    conditions: f32,
    mu: f32,
    velocity: f32,
    mel: f32,
    flow_cache: f32,
    encoder_cache: f32,
    /// Hz.
    f0: f32,
    source: f32,
    wave: f32,
}

/// Of a CPU: sums of 32-bit floats in another order.
const SUMS: Tolerances = Tolerances {
    conditions: 1e-5,
    mu: 5e-5,
    velocity: 1e-4,
    mel: 1e-4,
    flow_cache: 1e-4,
    encoder_cache: 5e-5,
    f0: 1e-3,
    source: 2e-4,
    wave: 1e-4,
};
/// Of a GPU whose products are of 32-bit floats (NVIDIA_TF32_OVERRIDE=0 and SPEECH_HALF=0). Products with up to sixteen
/// columns go through ggml's own kernel, which rounds to TF32 whatever cuBLAS is told; conditions are such.
const CARD: Tolerances = Tolerances {
    conditions: 1e-3,
    mu: 5e-4,
    velocity: 1e-3,
    mel: 1e-3,
    flow_cache: 1e-3,
    encoder_cache: 5e-4,
    f0: 1e-1,
    source: 2e-4,
    wave: 1e-3,
};
/// Of a GPU as the program uses it: both sides of a product have 11 binary digits (TF32, and 16-bit floats as they are
/// stored), that is 5e-4 of each number, and errors add up over layers. The source is computed by the host, from the
/// reference's pitch here.
const ROUNDED: Tolerances = Tolerances {
    conditions: 1e-3,
    mu: 1e-2,
    velocity: 1e-2,
    mel: 1e-2,
    flow_cache: 1e-2,
    encoder_cache: 1e-2,
    f0: 0.5,
    source: 2e-4,
    wave: 1e-2,
};

fn tolerances() -> Tolerances {
    let whole = std::env::var_os("NVIDIA_TF32_OVERRIDE").is_some_and(|v| v == "0") && !half();
    match (on_card(), whole) {
        (false, _) => SUMS,
        (true, true) => CARD,
        (true, false) => ROUNDED,
    }
}

/// What the reference has computed.
struct Golden {
    header: Header,
    bytes: Vec<u8>,
}

impl Golden {
    fn open() -> Self {
        let bytes = std::fs::read(folder().join("golden.gguf")).unwrap();
        Self { header: Header::read(bytes.as_slice(), bytes.len() as u64).unwrap(), bytes }
    }

    fn words(&self, name: &str) -> impl Iterator<Item = [u8; 4]> {
        let tensor = self.header.tensor(name).unwrap_or_else(|| panic!("{name} is not in golden.gguf"));
        let from = (self.header.data_start + tensor.offset) as usize;
        self.bytes[from..from + tensor.bytes as usize].chunks_exact(4).map(|b| b.try_into().unwrap())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name).map(f32::from_le_bytes).collect()
    }

    fn ints(&self, name: &str) -> Vec<i32> {
        self.words(name).map(i32::from_le_bytes).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.header.tensor(name).is_some()
    }
}

/// Comparisons that all take place before the first that is off fails the test.
#[derive(Default)]
struct Compared(Vec<String>);

impl Compared {
    fn near(&mut self, what: &str, mine: &[f32], theirs: &[f32], tolerance: f32) {
        if mine.len() != theirs.len() || mine.iter().any(|x| !x.is_finite()) {
            return self.0.push(format!("{what}: {} numbers for {}, or some are none", mine.len(), theirs.len()));
        }
        let worst = mine.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{what}: {worst:.2e} of {tolerance:.0e}");
        if worst > tolerance {
            self.0.push(format!("{what}: {worst:e} is more than {tolerance:e}"));
        }
    }

    #[track_caller]
    fn done(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

/// Fails when any number is further off than `tolerance`; says how far the worst is (`--nocapture` shows it).
#[track_caller]
fn near(what: &str, mine: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(mine.len(), theirs.len(), "{what}: as many numbers");
    assert!(mine.iter().all(|x| x.is_finite()), "{what}: numbers");
    let worst = mine.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{what}: {worst:.2e} of {tolerance:.0e}");
    assert!(worst <= tolerance, "{what}: {worst:e} is more than {tolerance:e}");
}

#[test]
fn conditions_equal_the_reference() {
    let (golden, device) = (Golden::open(), device());
    let file = ProjectorFile::open(&files()).unwrap();
    let mut projector = Projector::load(&file, &device).unwrap();
    let language = Language::load(LanguageFile::open(&files()).unwrap(), exact()).unwrap();
    let text = language.text_rows(&golden.ints("cond.tokens")).unwrap();
    let rows = projector.conditions(&device, &golden.floats("cond.hidden"), &text).unwrap();
    near("conditions", &rows, &golden.floats("cond.rows"), tolerances().conditions);
}

fn exact() -> ContextSizes {
    ContextSizes { positions: 512, threads: 1, gpu_layers: if on_card() { -1 } else { 0 }, exact: true }
}

/// Logits after every decode of the reference's two text chunks, codes given.
fn logits(language: &mut Language, golden: &Golden) -> Vec<f32> {
    let width = language.sizes().width;
    let codes = golden.ints("lm.codes");
    let rows = golden.floats("cond.rows");
    let (first, second) = rows.split_at(10 * width);
    let mut out = Vec::new();
    language.begin();
    out.extend(language.condition(first.to_vec(), false).unwrap());
    assert_eq!(language.positions().0, 11, "ten rows and the start of audio");
    for code in &codes[..8] {
        out.extend(language.code(*code).unwrap().unwrap());
    }
    out.extend(language.condition(second.to_vec(), true).unwrap());
    assert_eq!(language.positions().0, 11 + 8 + 6 + 2, "six rows, the end of the text, the start of audio");
    for code in &codes[8..] {
        out.extend(language.code(*code).unwrap().unwrap());
    }
    out
}

fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

#[test]
fn the_speech_models_logits_equal_the_reference() {
    let golden = Golden::open();
    let theirs = golden.floats("lm.logits");
    let mut language = Language::load(LanguageFile::open(&files()).unwrap(), exact()).unwrap();
    let mine = logits(&mut language, &golden);
    // 16-bit matrices are multiplied with states of 16 bits, TF32 is as coarse; random logits reach 10 or so.
    let short = on_card() || LanguageFile::open(&files()).unwrap().halves();
    near("logits, 32-bit cache", &mine, &theirs, if short { 3e-2 } else { 1e-4 });
    assert_eq!(mine, logits(&mut language, &golden), "nothing of a reply stays");
    let half = ContextSizes { exact: false, ..exact() };
    let mut language = Language::load(LanguageFile::open(&files()).unwrap(), half).unwrap();
    let mine = logits(&mut language, &golden);
    let tolerance = if short { 5e-2 } else { 2e-2 };
    near("logits, 16-bit cache", &mine, &theirs, tolerance);
    let rows = language.sizes().codes + 1;
    for (mine, theirs) in mine.chunks(rows).zip(theirs.chunks(rows)) {
        let (mine, likeliest) = (argmax(mine), argmax(theirs));
        let nearly = short && theirs[likeliest] - theirs[mine] < 2.0 * tolerance;
        assert!(mine == likeliest || nearly, "the likeliest code");
    }
}

#[test]
fn a_head_is_taken_whichever_way_it_lies() {
    let golden = Golden::open();
    let mut turned = files();
    turned.tts = folder().join("variants/tts-head-as-is-F16.gguf");
    if !turned.tts.exists() {
        return assert!(std::env::var_os("SPEECH_SET").is_some(), "the variant is missing");
    }
    let mut language = Language::load(LanguageFile::open(&turned).unwrap(), exact()).unwrap();
    // 16-bit matrices; the narrow model's logits reach 10 or so.
    near("logits, 16-bit matrices", &logits(&mut language, &golden), &golden.floats("lm.logits"), 3e-2);
}

#[test]
fn the_sampler_equals_the_reference() {
    let golden = Golden::open();
    let mut cases = 0;
    for name in ["flat", "wide", "peaked", "repeated", "below", "first", "short"] {
        let history: Vec<i32> =
            golden.ints(&format!("sample.{name}.history")).into_iter().filter(|code| *code >= 0).collect();
        let mine = SpeechSampling::default().probabilities(&golden.floats(&format!("sample.{name}.logits")), &history);
        let theirs = golden.floats(&format!("sample.{name}.probabilities"));
        near(&format!("sampler, {name}"), &mine, &theirs, 1e-6);
        let alive = |p: &[f32]| p.iter().map(|x| *x > 0.0).collect::<Vec<_>>();
        assert_eq!(alive(&mine), alive(&theirs), "{name}: the same codes are left");
        cases += 1;
    }
    assert_eq!(cases, 7);
}

#[test]
fn sines_and_their_noise_equal_the_reference() {
    let golden = Golden::open();
    let mut noise = golden.floats("sines.noise").into_iter();
    let mine = sines(&golden.floats("sines.f0"), || noise.next().unwrap());
    assert!(noise.next().is_none());
    let every7: Vec<f32> = mine.chunks(HARMONICS).step_by(7).flatten().copied().collect();
    near("sines", &every7, &golden.floats("sines.every7"), 1e-6);
}

fn sound(golden: &Golden, device: &Device) -> Token2Wav {
    let opened = SoundFiles::open(&files(), None).unwrap();
    let silence = LanguageFile::open(&files()).unwrap().sizes.silence;
    let mut sound = Token2Wav::load(&opened, silence, device).unwrap();
    sound.fix_noise(golden.floats("noise"));
    sound
}

/// `[dim, frames, heads]` of keys and of values to the reference's `[heads, frames, K | V]`, of one half of two.
fn side_by_side(keys: &[f32], values: &[f32], dim: usize) -> Vec<f32> {
    let pairs = keys.chunks(dim).zip(values.chunks(dim));
    pairs.flat_map(|(k, v)| k.iter().chain(v)).copied().collect()
}

/// `[width, frames]` to `[dim, frames, heads]`.
fn by_head(rows: &[f32], width: usize, heads: usize) -> Vec<f32> {
    let dim = width / heads;
    (0..heads).flat_map(|h| rows.chunks(width).flat_map(move |r| &r[h * dim..(h + 1) * dim])).copied().collect()
}

/// `[a, b]` (`a` is fastest) with the two exchanged.
fn turned(values: &[f32], a: usize) -> Vec<f32> {
    (0..a).flat_map(|i| values.iter().skip(i).step_by(a)).copied().collect()
}

/// Each network gets what the reference gave to it, so that the errors of those before it don't add up.
#[test]
fn every_stage_equals_the_reference() {
    stages(&device(), &tolerances());
}

/// How a GPU is used, on a CPU: the same digits are kept, and the same computations take place.
#[test]
fn every_stage_is_near_the_reference_with_halves() {
    if !on_card() {
        stages(&Device::open(false, threads(), Uses { keep: true, half: Half::Everywhere }).unwrap(), &ROUNDED);
    }
}

fn stages(device: &Device, t: &Tolerances) {
    let golden = Golden::open();
    let mut sound = sound(&golden, device);
    let mut compared = Compared::default();
    compared.near("speaker", &sound.speaker, &golden.floats("speaker"), t.conditions);
    let codes = golden.ints("codes");
    sound.begin(0).unwrap();
    let (mut at, mut chunk) = (0, 0);
    loop {
        let last = codes.len() - at < 28;
        let window = if last { &codes[at..] } else { &codes[at..at + 28] };
        let get = |name: &str| golden.floats(&format!("{chunk}.{name}"));
        let what = |name: &str| format!("stages, chunk {chunk}, {name}");
        let voiced = Voiced { f0: get("f0"), source: get("source"), raw: get("raw") };
        let given = Seen { mu: get("mu"), mel: get("mel"), velocities: vec![], voiced };
        let seen = sound.stages(window, last, &given).unwrap();
        compared.near(&what("mu"), &seen.mu, &given.mu, t.mu);
        compared.near(&what("second step"), &seen.velocities[1], &get("velocity"), t.velocity);
        compared.near(&what("mel"), &seen.mel, &given.mel, t.mel);
        compared.near(&what("f0"), &seen.voiced.f0, &given.voiced.f0, t.f0);
        compared.near(&what("source"), &seen.voiced.source, &given.voiced.source, t.source);
        compared.near(&what("raw wave"), &seen.voiced.raw, &given.voiced.raw, t.wave);
        if golden.has(&format!("{chunk}.state.flow_att")) {
            states(&sound, &golden, chunk, t, &mut compared);
        }
        chunk += 1;
        if last {
            break;
        }
        at += 25;
    }
    assert!(chunk >= 3);
    compared.done();
}

/// The last layers' caches.
fn states(sound: &Token2Wav, golden: &Golden, chunk: usize, t: &Tolerances, compared: &mut Compared) {
    let get = |name: &str| golden.floats(&format!("{chunk}.state.{name}"));
    let what = |name: &str| format!("chunk {chunk}, {name}");
    let (e, f) = (sound.sizes.encoder, sound.sizes.flow);
    let [keys, values, conv1, conv2] = sound.flow.cache(sound.flow.steps() - 1, f.blocks - 1).unwrap();
    let half = keys.len() / 2;
    let mine = side_by_side(&keys[half..], &values[half..], f.dim);
    compared.near(&what("flow cache"), &mine, &get("flow_att"), t.flow_cache);
    let half = conv1.len() / 2;
    let mine = [turned(&conv1[half..], f.width), turned(&conv2[half..], f.width)].concat();
    compared.near(&what("flow convolution cache"), &mine, &get("flow_cnn"), t.flow_cache);
    for (name, layer) in [("slow", e.layers - 1), ("fast", e.layers + e.up_layers - 1)] {
        let layer = &sound.state.layers[layer];
        let [k, v] = [&layer.keys, &layer.values].map(|x| by_head(x, e.width, e.heads));
        compared.near(&what(name), &side_by_side(&k, &v, e.width / e.heads), &get(name), t.encoder_cache);
    }
}

/// The whole chain, errors and all; only on a CPU, because on a GPU pitch is off by so much that phases part.
#[test]
fn codes_become_the_references_sound() {
    if on_card() {
        return;
    }
    let (golden, device, t) = (Golden::open(), device(), tolerances());
    let mut compared = Compared::default();
    let mut sound = sound(&golden, &device);
    compared.near("speaker", &sound.speaker, &golden.floats("speaker"), t.conditions);
    let codes = golden.ints("codes");
    sound.begin(0).unwrap();
    let (mut wave, mut at, mut chunk, mut counted) = (Vec::new(), 0, 0, 0);
    loop {
        let last = codes.len() - at < 28;
        let window = if last { &codes[at..] } else { &codes[at..at + 28] };
        let (samples, seen) = sound.window(window, last, &|| Ok(())).unwrap();
        let get = |name: &str| golden.floats(&format!("{chunk}.{name}"));
        let what = |name: &str| format!("chunk {chunk}, {name}");
        compared.near(&what("mu"), &seen.mu, &get("mu"), t.mu);
        compared.near(&what("second step"), &seen.velocities[1], &get("velocity"), t.velocity);
        compared.near(&what("mel"), &seen.mel, &get("mel"), t.mel);
        compared.near(&what("f0"), &seen.voiced.f0, &get("f0"), t.f0);
        compared.near(&what("source"), &seen.voiced.source, &get("source"), t.source);
        compared.near(&what("raw wave"), &seen.voiced.raw, &get("raw"), t.wave);
        if golden.has(&format!("{chunk}.state.flow_att")) {
            counted += 1;
            states(&sound, &golden, chunk, &t, &mut compared);
        }
        wave.extend(samples);
        chunk += 1;
        if last {
            break;
        }
        at += 25;
    }
    assert_eq!(wave.len(), codes.len() * SAMPLES_PER_CODE);
    compared.near("the whole", &wave, &golden.floats("wave"), t.wave);
    assert!(counted >= 2 && chunk >= 3, "states were compared");
    compared.done();
}

#[test]
fn codes_one_by_one_are_the_same_windows() {
    let (golden, device) = (Golden::open(), device());
    let mut sound = sound(&golden, &device);
    let codes = golden.ints("codes");
    let mut once = || {
        sound.begin(3).unwrap();
        let mut wave = Vec::new();
        for code in &codes[3..] {
            wave.extend(sound.push(*code, &|| Ok(())).unwrap().into_iter().flatten());
        }
        wave.extend(sound.finish(&|| Ok(())).unwrap());
        wave
    };
    let first = once();
    if !on_card() {
        near("the whole, code by code", &first, &golden.floats("wave"), 1e-4);
    }
    assert_eq!(first, once(), "nothing of an utterance stays");
}

/// A reply of `tokens` text tokens with hidden states from a small generator.
fn reply(voice: &Synthesizer, tokens: usize) -> (Vec<i32>, Vec<f32>) {
    let ids = (0..tokens).map(|i| (i * 37 % 280) as i32).collect();
    let numbers = tokens * voice.hidden_width();
    (ids, (0..numbers).map(|i| ((i * 7919 % 1009) as f32 / 504.0 - 1.0) * 2.0).collect())
}

fn voice() -> Synthesizer {
    let gpu = std::env::var_os("SPEECH_GPU").is_some();
    Synthesizer::load(&files(), &Options { gpu, threads: threads(), positions: 2048, ..Options::default() }).unwrap()
}

fn speak(voice: &mut Synthesizer, tokens: usize, seed: u64) -> Vec<f32> {
    let (ids, hidden) = reply(voice, tokens);
    let _cancel = voice.begin(seed).unwrap();
    let mut wave = voice.push(&ids, &hidden).unwrap();
    wave.extend(voice.finish().unwrap());
    wave
}

#[test]
fn replies_of_all_lengths_have_their_samples() {
    if std::env::var_os("SPEECH_SET").is_some() {
        return;
    }
    let mut voice = voice();
    for tokens in [0, 1, 9, 10, 11, 20, 21] {
        let wave = speak(&mut voice, tokens, 5);
        let codes = voice.history.len();
        assert_eq!(codes, voice.times().codes);
        let expected = if tokens == 0 { 0 } else { (3 + codes) * SAMPLES_PER_CODE };
        assert_eq!(wave.len(), expected, "{tokens} tokens, {codes} codes");
        assert!(wave.iter().all(|x| x.abs() <= 1.1), "samples of {tokens} tokens");
        let chunks = tokens.div_ceil(10);
        // Every chunk brings its rows and the start of audio, the last one the end of the text too.
        let rows = tokens + chunks + usize::from(tokens > 0);
        assert_eq!(voice.language.positions().0 as usize, rows + codes, "positions of {tokens} tokens");
    }
}

#[test]
fn the_same_utterance_twice_is_the_same_whatever_came_between() {
    if std::env::var_os("SPEECH_SET").is_some() {
        return;
    }
    let mut voice = voice();
    let first = speak(&mut voice, 12, 9);
    assert!(first.len() > 30 * SAMPLES_PER_CODE, "more than one window");
    assert_eq!(first, speak(&mut voice, 12, 9));
    assert_ne!(first, speak(&mut voice, 12, 10), "another seed");
    // One that is broken off in the middle, one that is cancelled.
    let (ids, hidden) = reply(&voice, 21);
    let _cancel = voice.begin(4).unwrap();
    voice.push(&ids, &hidden).unwrap();
    let cancel = voice.begin(4).unwrap();
    cancel.set();
    assert_eq!(voice.push(&ids, &hidden).unwrap_err().code, "speech_cancelled");
    assert_eq!(voice.push(&ids, &hidden).unwrap_err().code, "speech_not_begun");
    assert_eq!(voice.finish().unwrap_err().code, "speech_not_begun");
    assert_eq!(first, speak(&mut voice, 12, 9), "and then the first again");
    // Token by token, states late, is the same as all at once.
    let (ids, hidden) = reply(&voice, 12);
    let _cancel = voice.begin(9).unwrap();
    let mut wave = Vec::new();
    for (id, hidden) in ids.iter().zip(hidden.chunks(voice.hidden_width())) {
        wave.extend(voice.push(&[*id], &[]).unwrap());
        wave.extend(voice.push(&[], hidden).unwrap());
    }
    wave.extend(voice.finish().unwrap());
    assert_eq!(first, wave);
}

#[test]
fn cancelling_stops_within_a_text_chunk() {
    if std::env::var_os("SPEECH_SET").is_some() {
        return;
    }
    let mut voice = voice();
    let (ids, hidden) = reply(&voice, 30);
    let whole = speak(&mut voice, 30, 5);
    let codes = voice.history.len();
    let cancel = voice.begin(5).unwrap();
    let mut heard = Vec::new();
    // The first second of sound is enough for this listener.
    let error = voice.push_with(&ids, &hidden, &mut |samples| {
        heard.extend(samples);
        cancel.set();
    });
    assert_eq!(error.unwrap_err().code, "speech_cancelled");
    assert_eq!(heard, whole[..heard.len()]);
    // The speech model is ahead of the sound by what may wait between them.
    assert!(voice.history.len() <= 80 && codes > 80, "{} of {codes} codes", voice.history.len());
}

#[test]
fn side_by_side_and_chunk_by_chunk_the_samples_are_the_same() {
    if std::env::var_os("SPEECH_SET").is_some() {
        return;
    }
    let mut voice = voice();
    let (ids, hidden) = reply(&voice, 25);
    let whole = speak(&mut voice, 25, 3);
    let options = Options { gpu: false, threads: threads(), side_by_side: false, ..Options::default() };
    let mut other = Synthesizer::load(&files(), &options).unwrap();
    if voice.device() == other.device() {
        assert!(speak(&mut other, 25, 3) == whole, "one after the other");
    }
    let _cancel = voice.begin(3).unwrap();
    let (mut wave, width) = (Vec::new(), voice.hidden_width());
    for (i, tokens) in ids.chunks(10).enumerate() {
        let rows = &hidden[i * 10 * width..][..tokens.len() * width];
        voice.chunk_with(tokens, rows, i == 2, &mut |samples| wave.extend(samples)).unwrap();
    }
    assert!(wave == whole, "chunk by chunk");
    assert_eq!(
        voice.chunk_with(&ids[..5], &hidden[..5 * width], true, &mut |_| {}).unwrap_err().code,
        "speech_not_begun"
    );
    let _cancel = voice.begin(3).unwrap();
    for (tokens, rows) in [(0, 0), (11, 11), (5, 4)] {
        let error = voice.chunk_with(&ids[..tokens], &hidden[..rows * width], false, &mut |_| {}).unwrap_err();
        assert_eq!(error.code, "speech_input");
    }
}

#[test]
fn a_reply_that_is_too_long_says_so_and_keeps_what_it_has() {
    if std::env::var_os("SPEECH_SET").is_some() {
        return;
    }
    let mut voice =
        Synthesizer::load(&files(), &Options { gpu: false, threads: 1, positions: 64, ..Options::default() }).unwrap();
    let (ids, hidden) = reply(&voice, 101);
    let _cancel = voice.begin(1).unwrap();
    let mut wave = Vec::new();
    let error = voice.push_with(&ids, &hidden, &mut |samples| wave.extend(samples)).unwrap_err();
    assert_eq!(error.code, "speech_too_long");
    assert!(error.hint.is_some());
    wave.extend(voice.finish().unwrap());
    assert_eq!(wave.len(), (3 + voice.history.len()) * SAMPLES_PER_CODE);
    assert!(!speak(&mut voice, 1, 1).is_empty(), "and the next reply is none the worse");
}

#[test]
fn a_wrong_graph_is_an_error_and_not_an_abort() {
    let device = device();
    let other = self::device();
    let tensors = Tensors::new(&device, &[("w".to_owned(), [4, 3, 1, 1]), ("s".to_owned(), [4, 2, 1, 1])]).unwrap();
    type Build = fn(&mut Graph<'_>, &Tensors) -> super::ffi::Node;
    let wrong: &[(&str, Build)] = &[
        ("product", |g, w| {
            let (x, w) = (g.input(vec![0.0; 6], &[3, 2]), g.stored(w, "w"));
            g.mul_mat(w, x)
        }),
        ("sum", |g, w| {
            let (x, w) = (g.input(vec![0.0; 6], &[3, 2]), g.stored(w, "w"));
            g.add(x, w)
        }),
        ("unknown", |g, w| g.stored(w, "no")),
        ("input", |g, _| g.input(vec![0.0; 5], &[3, 2])),
        ("empty input", |g, _| g.input(vec![], &[0])),
        ("reshape", |g, w| {
            let w = g.stored(w, "w");
            g.reshape(w, &[5, 2])
        }),
        ("slice", |g, w| {
            let w = g.stored(w, "w");
            g.slice(w, 1, 2, 2)
        }),
        ("permute", |g, w| {
            let w = g.stored(w, "w");
            g.permute(w, [0, 0, 1, 2])
        }),
        ("concat", |g, w| {
            let (w, s) = (g.stored(w, "w"), g.stored(w, "s"));
            g.concat(w, s, 0)
        }),
        ("rows", |g, w| {
            let w = g.stored(w, "w");
            let ids = g.later_ids(2, 4);
            g.rows(w, ids)
        }),
        ("rows by what are no numbers of rows", |g, w| {
            let w = g.stored(w, "w");
            g.rows(w, w)
        }),
        ("store", |g, w| {
            let (w, s) = (g.stored(w, "w"), g.stored(w, "s"));
            g.store(w, s);
            w
        }),
        ("store rows", |g, w| {
            let (w, s) = (g.stored(w, "w"), g.stored(w, "s"));
            let ids = g.later_ids(2, 10);
            g.store_rows(s, ids, w)
        }),
        ("windows", |g, w| {
            let (w, s) = (g.stored(w, "w"), g.stored(w, "s"));
            g.windows(w, s, 1, 0, 1)
        }),
        ("mask", |g, w| {
            let (w, s) = (g.stored(w, "w"), g.stored(w, "s"));
            g.softmax(w, Some(s), 1.0)
        }),
        ("shift", |g, w| {
            let w = g.stored(w, "w");
            g.rel_shift(w, 7)
        }),
        ("repeat", |g, w| {
            let w = g.stored(w, "w");
            g.repeat(w, &[4, 4])
        }),
    ];
    for (name, build) in wrong {
        let mut g = Graph::new(&device).unwrap();
        let node = build(&mut g, &tensors);
        // What comes after a mistake does nothing.
        let node = g.unary(node, Unary::Silu);
        assert_eq!(g.run(&[node]).unwrap_err().code, "speech_compute", "{name}");
    }
    let mut g = Graph::new(&other).unwrap();
    let node = g.stored(&tensors, "w");
    assert_eq!(g.run(&[node]).unwrap_err().code, "speech_compute", "another device");
    let mut first = Graph::new(&device).unwrap();
    let node = first.stored(&tensors, "w");
    let second = Graph::new(&device).unwrap();
    assert_eq!(second.run(&[node]).unwrap_err().code, "speech_compute", "another graph");
    let mut g = Graph::new(&device).unwrap();
    let mut x = g.stored(&tensors, "w");
    for _ in 0..5000 {
        x = g.unary(x, Unary::Sqr);
    }
    assert_eq!(g.run(&[x]).unwrap_err().code, "speech_compute", "too many operations");
    // What a run gives is looked at, too; and what was kept gives the same again.
    let mut plans = Plans::default();
    let mut rows = |ids: &[i32]| {
        plans.run(&device, Some([2, 0]), &[Value::Ids(ids)], |g| {
            let (w, ids) = (g.stored(&tensors, "w"), g.later_ids(2, 3));
            vec![g.rows(w, ids)]
        })
    };
    for wrong in [&[0, 3][..], &[-1, 0], &[0], &[]] {
        assert_eq!(rows(wrong).unwrap_err().code, "speech_compute", "{wrong:?}");
    }
    assert_eq!(rows(&[0, 2]).unwrap(), [vec![0.0; 8]]);
    assert_eq!(rows(&[0, 2]).unwrap(), [vec![0.0; 8]]);
    assert!(tensors.set("w", &[0.0; 3]).is_err() && tensors.get("no").is_err());
}
