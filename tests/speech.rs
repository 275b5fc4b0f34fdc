//! Voice files that are missing, cut, swapped, of different sets or damaged: a sentence with file and remedy, never a
//! crash. The stages themselves are tested beside their code (src/speech/minicpm/tests.rs).
#![cfg(feature = "llama")]

use std::path::{Path, PathBuf};
use vidette::error::Error;
use vidette::speech::minicpm::{Options, SpeechFiles, Synthesizer, inspect};

const NAMES: [&str; 7] = [
    "tts/MiniCPM-o-4_5-tts-F16.gguf",
    "tts/MiniCPM-o-4_5-projector-F16.gguf",
    "token2wav-gguf/encoder.gguf",
    "token2wav-gguf/flow_matching.gguf",
    "token2wav-gguf/flow_extra.gguf",
    "token2wav-gguf/hifigan2.gguf",
    "token2wav-gguf/prompt_cache.gguf",
];

fn original() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tts")
}

/// A copy of the set that may be damaged.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let to = folder.path().join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(original().join(name), to).unwrap();
    }
    folder
}

fn options() -> Options {
    Options { gpu: false, threads: 1, positions: 128, ..Options::default() }
}

/// The error of loading a damaged set, which must name the file and say what to do.
#[track_caller]
fn refused(folder: &Path, file: &str, options: &Options) -> Error {
    let error = Synthesizer::load(&SpeechFiles::published(folder), options).err().expect("refused");
    assert!(error.message.contains(file), "names {file}: {}", error.message);
    assert!(error.hint.is_some(), "says what to do: {}", error.message);
    error
}

/// Changes bytes of a file where `find` occurs first: `put` goes `after` bytes behind its start.
fn patch(path: &Path, find: &[u8], after: usize, put: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(find.len()).position(|w| w == find).unwrap() + after;
    bytes[at..at + put.len()].copy_from_slice(put);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn the_set_is_whole_and_speaks() {
    let files = SpeechFiles::published(&original());
    inspect(&files).unwrap();
    let mut voice = Synthesizer::load(&files, &options()).unwrap();
    assert_eq!(voice.finish().unwrap_err().code, "speech_not_begun");
    let width = voice.hidden_width();
    let _cancel = voice.begin(1).unwrap();
    assert_eq!(voice.push(&[1], &vec![0.0; width + 1]).unwrap_err().code, "speech_input");
    let _cancel = voice.begin(1).unwrap();
    let error = voice.push(&[1_000_000; 11], &vec![0.1; 11 * width]).unwrap_err();
    assert_eq!(error.code, "speech_input", "{error}");
    let _cancel = voice.begin(1).unwrap();
    voice.push(&[1, 2], &vec![0.5; 2 * width]).unwrap();
    let samples = voice.finish().unwrap();
    assert!(!samples.is_empty() && samples.len().is_multiple_of(960));
}

#[test]
fn missing_files_are_named() {
    for name in NAMES {
        let folder = copy();
        std::fs::remove_file(folder.path().join(name)).unwrap();
        assert_eq!(refused(folder.path(), name, &options()).code, "model_file_not_found");
    }
}

#[test]
fn files_that_are_cut_anywhere_are_refused() {
    for name in NAMES {
        let folder = copy();
        let path = folder.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        for part in [0, 3, 20, bytes.len() / 50, bytes.len() / 3, bytes.len() / 2, bytes.len() - 40] {
            std::fs::write(&path, &bytes[..part]).unwrap();
            let error = refused(folder.path(), name, &options());
            assert!(error.code.starts_with("model_"), "{name} cut to {part}: {error}");
        }
    }
}

#[test]
fn swapped_files_are_told_apart() {
    let folder = copy();
    let [encoder, flow] = ["encoder", "flow_matching"].map(|n| folder.path().join(format!("token2wav-gguf/{n}.gguf")));
    std::fs::copy(&flow, &encoder).unwrap();
    let error = refused(folder.path(), "encoder.gguf", &options());
    assert_eq!(error.code, "speech_file_swapped");
    assert!(error.message.contains("flow_matching.gguf"), "{error}");
    for (from, to) in [(0, 1), (1, 0), (4, 5), (5, 6), (6, 3)] {
        let folder = copy();
        std::fs::copy(original().join(NAMES[from]), folder.path().join(NAMES[to])).unwrap();
        assert_eq!(refused(folder.path(), NAMES[to], &options()).code, "speech_file_swapped");
    }
}

#[test]
fn a_voice_for_another_number_of_steps_is_refused() {
    let folder = copy();
    let path = folder.path().join(NAMES[6]);
    // A 32-bit integer follows the key: its type (4 bytes), then its value.
    let key = b"mtmd.prompt_cache.n_timesteps";
    for steps in [10i32, 2] {
        patch(&path, key, key.len() + 4, &steps.to_le_bytes());
        let error = refused(folder.path(), "prompt_cache.gguf", &options());
        assert_eq!(error.code, "speech_voice_steps");
        assert!(error.message.contains(&format!("{steps} steps")), "{error}");
    }
    for steps in [0i32, -1, 1000] {
        patch(&path, key, key.len() + 4, &steps.to_le_bytes());
        assert_eq!(refused(folder.path(), "prompt_cache.gguf", &options()).code, "model_metadata_value");
    }
    let asked = Options { steps: Some(10), ..options() };
    let error = refused(&original(), "prompt_cache.gguf", &asked);
    assert_eq!(error.code, "speech_voice_steps");
    let key = b"mtmd.prompt_cache.chunk_main";
    let folder = copy();
    patch(&folder.path().join(NAMES[6]), key, key.len() + 4, &24i32.to_le_bytes());
    assert_eq!(refused(folder.path(), "prompt_cache.gguf", &options()).code, "model_metadata_value");
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let folder = copy();
    let path = folder.path().join(NAMES[5]);
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 64..end - 60].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(refused(folder.path(), "hifigan2.gguf", &options()).code, "speech_weights_not_finite");
}

/// Bytes of a header changed at random: refused or harmless, never an abort or a panic. The process that runs this test
/// is the proof.
#[test]
fn damaged_headers_never_end_the_process() {
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut refused, mut loaded) = (0, 0);
    for name in NAMES {
        let folder = copy();
        let path = folder.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        let header = bytes.len().min(if name.contains("tts-F16") { 3000 } else { 6000 });
        for _ in 0..8 {
            let mut damaged = bytes.clone();
            for _ in 0..=random(2) {
                let at = random(header);
                damaged[at] ^= 1 << random(8);
            }
            std::fs::write(&path, damaged).unwrap();
            match Synthesizer::load(&SpeechFiles::published(folder.path()), &options()) {
                Err(error) => {
                    refused += 1;
                    assert!(!error.message.is_empty());
                }
                Ok(mut voice) => {
                    loaded += 1;
                    let width = voice.hidden_width();
                    let _cancel = voice.begin(1).unwrap();
                    let spoken = voice.push(&[1], &vec![0.5; width]).and_then(|_| voice.finish());
                    if let Err(error) = spoken {
                        assert!(!error.message.is_empty());
                    }
                }
            }
        }
    }
    assert!(refused > 20, "{refused} refused, {loaded} loaded");
}
