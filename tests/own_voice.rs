//! MiniCPM-o's own voice with a whole tiny model: the engine's tokens and hidden states, the voice behind its door, and
//! both in the running program. The weights are random, so what is heard is noise; that it is the right noise, in time and
//! to the last sample, is tested here. Not here: the stages (src/speech/minicpm/tests.rs), other voices (`tests/voice.rs`).

#![cfg(all(feature = "ingest", feature = "llama"))]

#[path = "support/program.rs"]
mod program;

use program::{Program, clip, command};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use vidette::audio::{Heard, Resampler, Wants};
use vidette::bus::{Bus, Event, SpeechPhase};
use vidette::engine::{Engine, EngineConfig, Job, JobEvent, LlamaEngine, Prompt, Sampling};
use vidette::frame::Frame;
use vidette::metrics::Metrics;
use vidette::models::inspect::read_header;
use vidette::speech::minicpm::{
    MiniCpmConfig, MiniCpmVoice, Options, SAMPLES_PER_CODE, SpeechFiles, Synthesizer, inspect_for, to_samples,
};
use vidette::speech::{
    CHUNK, Clause, ClauseEvent, ClauseHandle, HiddenStates, Pacing, Piece, Speaker, Voice, VoiceState,
};

const LANGUAGE: &str = "MiniCPM-o-4_5-tiny-random-F16.gguf";
const WIDTH: usize = 128;
const LONG: Duration = Duration::from_secs(120);

/// A whole set in the published layout.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("gguf/tiny-random/speaking");
    assert!(folder.join("token2wav-gguf").exists(), "the tiny voice is missing: run `make tiny-model`");
    folder
}

fn options() -> Options {
    Options { gpu: false, threads: 1, ..Options::default() }
}

fn frame() -> Arc<Frame> {
    let (width, height) = (448u32, 252u32);
    let rgb: Vec<u8> = (0..width * height * 3).map(|i| (i * 7 % 251) as u8).collect();
    let (captured, wall) = (Instant::now(), SystemTime::now());
    Arc::new(Frame { seq: 1, pts: None, captured, wall, width, height, rgb: rgb.into() })
}

/// An answer of at least so many tokens, in the pieces that the engine gives for the voice.
fn answer(least: usize, sampling: Sampling) -> Vec<Piece> {
    let engine = LlamaEngine::spawn(EngineConfig {
        context_tokens: 2048,
        slots: 1,
        threads: 1,
        gpu_layers: 0,
        ..EngineConfig::new(folder().join(LANGUAGE), folder().join("vision/MiniCPM-o-4_5-vision-F16.gguf"))
    })
    .unwrap();
    for seed in 0..100 {
        let prompt =
            Prompt { system: "You watch.".into(), instruction: format!("Tell me {seed}."), context: String::new() };
        let sampling = Sampling { seed: Some(seed), ..sampling };
        let stream = Arc::from("main");
        let mut handle = engine.submit(Job {
            stream,
            prompt,
            frames: vec![frame()],
            max_tokens: 60,
            sampling,
            for_voice: true,
            urgent: false,
            novelty: 0.0,
        });
        let mut pieces = Vec::new();
        while let Some(event) = handle.events.blocking_recv() {
            match event {
                JobEvent::Text { text, tokens, hidden, .. } => pieces.push(Piece { text, tokens, hidden }),
                JobEvent::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        if pieces.iter().map(|p| p.tokens.len()).sum::<usize>() >= least {
            return pieces;
        }
    }
    panic!("no answer had {least} tokens");
}

fn wide() -> Sampling {
    Sampling { temperature: 2.0, top_p: 1.0, top_k: 0, ..Sampling::default() }
}

/// Values of a matrix of 16-bit floats, row after row.
fn matrix(name: &str) -> Vec<f32> {
    let path = folder().join(LANGUAGE);
    let header = read_header(&path).unwrap();
    let tensor = header.tensor(name).unwrap();
    let from = (header.data_start + tensor.offset) as usize;
    let bytes = &std::fs::read(path).unwrap()[from..from + tensor.bytes as usize];
    let half = |b: &[u8]| {
        let bits = u16::from_le_bytes([b[0], b[1]]);
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
        let size = if exponent == 0 {
            fraction / 1024.0 * 2f32.powi(-14)
        } else {
            (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15)
        };
        if bits >> 15 == 1 { -size } else { size }
    };
    bytes.chunks_exact(2).map(half).collect()
}

#[test]
fn each_state_is_what_the_next_token_was_chosen_from() {
    // Greedy and without a penalty: the next token is the row of the output layer that fits the state best. So states
    // are those after the final norm, and each belongs to the position that consumed its own token.
    let pieces = answer(4, Sampling { temperature: 0.0, repeat_penalty: 1.0, ..Sampling::default() });
    let head = matrix("output.weight");
    let tokens: Vec<_> = pieces.iter().flat_map(|p| p.tokens.clone()).collect();
    let states: Vec<_> = pieces.iter().flat_map(|p| p.hidden.clone()).collect();
    assert_eq!(states.len(), tokens.len() * WIDTH);
    let mut agreed = 0;
    for (state, next) in states.chunks(WIDTH).zip(&tokens[1..]) {
        let logits: Vec<f32> = head.chunks(WIDTH).map(|row| row.iter().zip(state).map(|(a, b)| a * b).sum()).collect();
        let mut order: Vec<_> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        // What can't be spoken was not to be chosen, so a few may come before it, but no other.
        let place = order.iter().position(|t| *t == *next as usize).unwrap();
        agreed += u32::from(place == 0);
        assert!(place < 40, "token {next} is number {place}");
    }
    assert!(agreed as usize * 2 >= tokens.len() - 1, "{agreed} of {}", tokens.len() - 1);
}

/// What the library makes of the pieces, at 48 kHz.
fn library(pieces: &[Piece], seed: u64) -> Vec<i16> {
    let options = Options { side_by_side: false, ..options() };
    let mut voice = Synthesizer::load(&SpeechFiles::published(&folder()), &options).unwrap();
    let _cancel = voice.begin(seed).unwrap();
    let mut wave = Vec::new();
    for piece in pieces {
        wave.extend(voice.push(&piece.tokens, &piece.hidden).unwrap());
    }
    wave.extend(voice.finish().unwrap());
    assert_eq!(wave.len(), (3 + voice.times().codes) * SAMPLES_PER_CODE);
    let mut resampler = Resampler::new(24_000).unwrap();
    let mut out = resampler.push(&to_samples(&wave)).unwrap();
    out.extend(resampler.finish().unwrap());
    assert_eq!(out.len(), 2 * wave.len());
    out
}

fn voice() -> Arc<MiniCpmVoice> {
    let files = SpeechFiles::published(&folder());
    inspect_for(&files, WIDTH, 300).unwrap();
    let voice = Arc::new(MiniCpmVoice::spawn(MiniCpmConfig { files, options: options() }).unwrap());
    let until = Instant::now() + LONG;
    while voice.status().borrow().state != VoiceState::Ready {
        assert!(Instant::now() < until, "{:?}", voice.status().borrow());
        std::thread::sleep(Duration::from_millis(10));
    }
    voice
}

/// Frames with sound, as they are numbered in 20 ms; those that were only waited through are left out.
fn sounding(samples: &[i16]) -> Vec<Vec<i16>> {
    let mut frames: Vec<_> = samples.chunks(960).map(<[i16]>::to_vec).collect();
    if let Some(last) = frames.last_mut() {
        last.resize(960, 0);
    }
    frames.retain(|frame| frame.iter().any(|s| *s != 0));
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_heard_is_what_the_library_makes_and_it_begins_before_the_text_ends() {
    let pieces = tokio::task::spawn_blocking(|| answer(25, wide())).await.unwrap();
    let expected = {
        let pieces = pieces.clone();
        tokio::task::spawn_blocking(move || library(&pieces, 7)).await.unwrap()
    };
    let voice = tokio::task::spawn_blocking(voice).await.unwrap();
    let (bus, metrics) = (Arc::new(Bus::new()), Arc::new(Metrics::new()));
    let mut told = bus.subscribe(None).live;
    let (trigger, shutdown) = vidette::shutdown::pair();
    let pacing = Pacing { pause_after: Duration::ZERO, max_delay: LONG, picture_delay: None };
    let door = Arc::clone(&voice) as Arc<dyn Voice>;
    let (speaker, task) = Speaker::spawn("main", door, pacing, bus, metrics, shutdown);
    assert!(!speaker.wants_tokens(), "nobody listens");
    let mut listener = speaker.hub().listen(Wants::Speech);
    assert!(speaker.wants_tokens());
    let hearing = tokio::spawn(async move {
        let mut heard = Vec::new();
        while let Some(Heard::Frame(frame)) = listener.next().await {
            heard.push((
                frame.utterance.unwrap(),
                frame.pcm.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect::<Vec<_>>(),
            ));
        }
        heard
    });
    let mut phase = async |utterance: u64, wanted: SpeechPhase| loop {
        let event = tokio::time::timeout(LONG, told.recv()).await.expect("told in time").unwrap();
        if let Event::Speech(speech) = &event.event
            && speech.utterance == utterance
        {
            assert!(speech.phase == wanted || speech.phase == SpeechPhase::Begun, "{speech:?}");
            if speech.phase == wanted {
                return speech.clone();
            }
        }
    };
    let now = Instant::now();
    // One that is cut off in its middle leaves nothing behind.
    pieces.iter().for_each(|piece| speaker.say(6, now, piece.clone()));
    phase(6, SpeechPhase::Begun).await;
    speaker.cancel();
    phase(6, SpeechPhase::Cancelled).await;

    // Eleven tokens are known when its sound begins; the rest is not written before.
    let first = pieces
        .iter()
        .scan(0, |n, p| {
            *n += p.tokens.len();
            Some(*n)
        })
        .position(|n| n > CHUNK)
        .unwrap();
    pieces[..=first].iter().for_each(|piece| speaker.say(7, now, piece.clone()));
    phase(7, SpeechPhase::Begun).await;
    pieces[first + 1..].iter().for_each(|piece| speaker.say(7, now, piece.clone()));
    speaker.end(7);
    let spoken = phase(7, SpeechPhase::Spoken).await;
    assert_eq!((spoken.audio_ms * 48.0).round() as usize, expected.len(), "every sample was played");

    // The same again, all at once, after it: the same sound.
    pieces.iter().for_each(|piece| speaker.say(8, now, piece.clone()));
    speaker.end(8);
    phase(8, SpeechPhase::Spoken).await;
    let account = speaker.hub().status()[0].account;
    assert_eq!(account.offered, account.sent + account.dropped + account.queued, "{account:?}");
    assert_eq!(account.dropped, 0, "{account:?}");
    trigger.fire();
    task.await.unwrap();
    let heard = hearing.await.unwrap();
    let of = |utterance| heard.iter().filter(|(u, _)| *u == utterance).flat_map(|(_, s)| s.clone()).collect::<Vec<_>>();
    assert!(sounding(&of(7)) == sounding(&expected), "the speaker's sound is not the library's");
    let again = tokio::task::spawn_blocking(move || library(&pieces, 8)).await.unwrap();
    assert!(sounding(&of(8)) == sounding(&again), "the second time is not the library's");
    assert!(!sounding(&of(6)).is_empty());
    tokio::task::spawn_blocking(move || voice.stop()).await.unwrap();
}

fn clause(stream: &str, utterance: u64, index: u32, tokens: usize, last: bool) -> Clause {
    let rows = (0..tokens * WIDTH).map(|i| ((i * 7919 + index as usize) % 1009) as f32 / 504.0 - 1.0).collect();
    Clause {
        stream: stream.to_owned(),
        utterance,
        index,
        text: "words".to_owned(),
        tokens: (0..tokens as i32).map(|i| i * 37 % 280).collect(),
        hidden: Some(HiddenStates { width: WIDTH, rows }),
        last,
    }
}

/// All sound of a clause, and its last event.
fn all(mut handle: ClauseHandle) -> (Vec<i16>, Option<ClauseEvent>) {
    let mut sound = Vec::new();
    while let Some(event) = handle.events.blocking_recv() {
        match event {
            ClauseEvent::Pcm { rate, samples } => {
                assert_eq!(rate, 24_000);
                sound.extend(samples);
            }
            end => return (sound, Some(end)),
        }
    }
    (sound, None)
}

#[test]
fn one_utterance_at_a_time_and_nobody_waits_for_one_that_was_forgotten() {
    let voice = voice();
    let done = Some(ClauseEvent::Done { cut: false });
    let alone = all(voice.submit(clause("b", 1, 0, 5, true)));
    assert!(!alone.0.is_empty() && alone.1 == done, "{:?}", alone.1);
    // While "a" has the voice, "b" waits.
    assert_eq!(all(voice.submit(clause("a", 1, 0, 10, false))).1, done);
    let mut waits = voice.submit(clause("b", 1, 0, 5, true));
    assert_eq!(all(voice.submit(clause("a", 1, 1, 10, false))).1, done);
    assert!(waits.events.try_recv().is_err(), "it spoke in the middle of another");
    voice.forget("a", 1);
    assert_eq!(all(waits), alone, "and then sounds as it does alone");
    let (sound, end) = all(voice.submit(clause("a", 1, 2, 3, true)));
    assert!(
        sound.is_empty() && matches!(&end, Some(ClauseEvent::Failed { code, .. }) if code == "voice_taken"),
        "{end:?}"
    );
    // One that is dropped while it is spoken ends without a word.
    let mut dropped = voice.submit(clause("a", 2, 0, 10, false));
    assert!(matches!(dropped.events.blocking_recv(), Some(ClauseEvent::Pcm { .. } | ClauseEvent::Done { .. })));
    drop(dropped);
    assert_eq!(all(voice.submit(clause("a", 3, 0, 5, true))).1, done);
    // Nonsense fails alone.
    let mut odd = clause("a", 4, 0, 5, true);
    odd.hidden = None;
    assert!(matches!(all(voice.submit(odd)).1, Some(ClauseEvent::Failed { .. })));
    let mut odd = clause("a", 5, 0, 5, true);
    odd.tokens[2] = 1_000_000;
    assert!(matches!(all(voice.submit(odd)).1, Some(ClauseEvent::Failed { .. })));
    assert_eq!(all(voice.submit(clause("b", 1, 0, 5, true))), alone);
    voice.stop();
    assert!(matches!(all(voice.submit(clause("b", 1, 0, 5, true))).1, None | Some(ClauseEvent::Failed { .. })));
}

/// The program on this folder.
fn start(model: &Path, source: &str, more: &[&str]) -> Program {
    let mut args =
        vec!["run", source, "--change-threshold", "0", "--threads", "1", "--temperature", "2", "--max-tokens", "60"];
    args.extend([
        "--server-port",
        "0",
        "--enable-tts",
        "--tts-max-delay",
        "60",
        "--model-path",
        model.to_str().unwrap(),
    ]);
    args.extend(more);
    Program::start_command(command(&args))
}

fn metric(program: &Program, name: &str) -> f64 {
    let text = String::from_utf8(program.get("/metrics").1).unwrap();
    let line = format!("vidette_{name}{{stream=\"main\"}} ");
    text.lines().find_map(|l| l.strip_prefix(&line)).map_or(0.0, |n| n.parse().unwrap())
}

/// The next 20 ms of `/api/audio-stream`.
fn next_frame(body: &mut impl Read) -> Vec<i16> {
    let mut bytes = [0; 1920];
    body.read_exact(&mut bytes).expect("the sound goes on");
    bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

#[test]
fn the_program_speaks_with_the_models_own_voice_and_falls_silent_when_told() {
    let clip = clip("own-voice.mp4", 10);
    let program = start(&folder(), clip.to_str().unwrap(), &[]);
    let ready = program.until("able to speak", 120, |s| s["voice"]["state"] == "ready");
    let voice = &ready["voice"];
    assert_eq!((&voice["name"], &voice["reason"], &voice["note"]), (&json!("minicpm-o"), &Value::Null, &Value::Null));
    let mut events = program.events();
    let mut sound = program.stream("/api/audio-stream");
    let until = Instant::now() + LONG;
    while next_frame(&mut sound).iter().all(|s| s.unsigned_abs() < 100) {
        assert!(Instant::now() < until, "nothing was heard");
    }
    // Text and sound of one utterance.
    let (mut said, mut spoken) = (Vec::new(), None);
    while spoken.is_none() {
        let sse = events.next().expect("events go on");
        match sse.event.as_str() {
            "utterance" => said.push(sse.data["utterance"].clone()),
            "speech" if sse.data["phase"] == "spoken" => spoken = Some(sse.data),
            _ => {}
        }
    }
    let spoken = spoken.unwrap();
    assert!(said.contains(&spoken["utterance"]), "{spoken} of {said:?}");
    // Whole codes of 40 ms, three of them silent.
    let ms = spoken["audio_ms"].as_f64().unwrap();
    assert!((ms / 40.0 - (ms / 40.0).round()).abs() < 1e-6 && ms >= 160.0, "{spoken}");
    assert!(metric(&program, "speech_spoken_total") >= 1.0);

    // A new instruction cuts the sound off.
    program.until("speaking", 120, |s| s["voice"]["state"] == "speaking");
    assert_eq!(program.post("/api/instruction", &json!({"instruction": "Only say what is red."})).0, 200);
    loop {
        let sse = events.next_of("speech");
        if sse.data["phase"] == "cancelled" {
            break;
        }
        assert!(Instant::now() < until + LONG, "not cut off");
        if sse.data["phase"] == "spoken" {
            // It had just ended by itself: cut off the next.
            program.until("speaking", 120, |s| s["voice"]["state"] == "speaking");
            program.post("/api/instruction", &json!({"instruction": "Only say what is blue."}));
        }
    }
    // A stop silences it for good.
    assert_eq!(program.post("/api/stop", &json!({})).0, 200);
    let at = program.json("/api/status")["voice"]["frames"].as_u64().unwrap();
    program.until("later", 120, |s| s["voice"]["frames"].as_u64() > Some(at + 50));
    drop(sound);
    let mut later = program.stream("/api/audio-stream");
    assert!((0..50).all(|_| next_frame(&mut later).iter().all(|s| *s == 0)), "sound after the stop");
    let status = program.json("/api/status");
    assert_eq!(status["voice"]["state"], "ready", "a stop is no failure of the voice: {status:#}");
    drop(later);
    program.until("left alone", 120, |s| s["voice"]["listeners"] == 0);
    let [made, sent, dropped] =
        ["audio_samples_total", "audio_samples_sent_total", "audio_samples_dropped_total"].map(|n| metric(&program, n));
    assert_eq!(made, sent + dropped);
}

/// A copy of the set, as links, in which files may be replaced.
fn copy() -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for part in ["", "vision", "tts", "token2wav-gguf"] {
        std::fs::create_dir_all(to.path().join(part)).unwrap();
        for entry in std::fs::read_dir(folder().join(part)).unwrap().flatten().filter(|e| e.path().is_file()) {
            std::os::unix::fs::symlink(entry.path(), to.path().join(part).join(entry.file_name())).unwrap();
        }
    }
    to
}

/// Puts other bytes in a file's place.
fn replace(folder: &Path, file: &str, bytes: &[u8]) {
    std::fs::remove_file(folder.join(file)).unwrap();
    std::fs::write(folder.join(file), bytes).unwrap();
}

const CACHE: &str = "token2wav-gguf/prompt_cache.gguf";

/// A voice file that says it was made for another number of steps than its caches are.
fn wrong_steps() -> Vec<u8> {
    let mut bytes = std::fs::read(folder().join(CACHE)).unwrap();
    let key = b"mtmd.prompt_cache.n_timesteps";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap() + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&10i32.to_le_bytes());
    bytes
}

#[test]
fn a_voice_whose_files_are_bad_says_so_and_the_text_goes_on() {
    let read = |file: &str| std::fs::read(folder().join(file)).unwrap();
    let narrow = std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tts/tts/MiniCPM-o-4_5-projector-F16.gguf"),
    );
    let flow = read("token2wav-gguf/flow_matching.gguf");
    let cases: [(&str, Option<Vec<u8>>, &str); 5] = [
        ("token2wav-gguf/hifigan2.gguf", None, "token2wav-gguf/"),
        ("token2wav-gguf/flow_matching.gguf", Some(flow[..flow.len() / 2].to_vec()), "flow_matching.gguf"),
        (
            "token2wav-gguf/encoder.gguf",
            Some(read("token2wav-gguf/flow_extra.gguf")),
            "flow_extra.gguf where encoder.gguf",
        ),
        (CACHE, Some(wrong_steps()), "10 steps"),
        ("tts/MiniCPM-o-4_5-projector-F16.gguf", Some(narrow.unwrap()), "width 40"),
    ];
    for (i, (file, bytes, words)) in cases.into_iter().enumerate() {
        let folder = copy();
        match bytes {
            Some(bytes) => replace(folder.path(), file, &bytes),
            None => std::fs::remove_file(folder.path().join(file)).unwrap(),
        }
        // The choice by name is told what is wrong; the other way espeak-ng speaks, and the status says why. Each case
        // is tried one way or the other.
        let by_name = i % 2 == 0;
        let program = start(folder.path(), "test:ball@320x240", if by_name { &["--voice", "minicpm-o"] } else { &[] });
        let (state, place) = if by_name { ("unavailable", "reason") } else { ("ready", "note") };
        let status = program.until("told", 120, |s| s["voice"]["state"] == state);
        let voice = &status["voice"];
        assert_eq!(voice["name"], if by_name { "minicpm-o" } else { "espeak-ng" }, "{voice:#}");
        assert!(voice[place].as_str().unwrap_or_default().contains(words), "{file}: {voice:#}");
        program.wait_for_log("no voice: ");
        program.until("writing", 120, |s| s["commentary"]["looks"].as_u64() > Some(1));
        program.events().next_of("utterance");
    }
}

#[test]
fn a_voice_file_of_the_script_sounds_of_another() {
    let own = SpeechFiles::published(&folder());
    let other = SpeechFiles { prompt_cache: folder().join("voices/other.gguf"), ..own.clone() };
    let say = |files: &SpeechFiles| {
        let mut voice = Synthesizer::load(files, &options()).unwrap();
        let _cancel = voice.begin(1).unwrap();
        let mut wave = voice.push(&[1, 2, 3], &[0.5; 3 * WIDTH]).unwrap();
        wave.extend(voice.finish().unwrap());
        wave
    };
    let (first, second) = (say(&own), say(&other));
    // The codes come from the speech model, which the voice has no part in; what they sound like does.
    assert_eq!(first.len(), second.len());
    let distance = first.iter().zip(&second).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(distance > 0.01 && second.iter().all(|x| x.is_finite()), "{distance}");
}

#[test]
fn another_voice_can_be_chosen_and_a_recording_is_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    // Written by scripts/tts/make_voice.py of made-up tokens, mel and speaker.
    let chosen = self::folder().join("voices/other.gguf");
    let (wav, gone, here) = (folder.path().join("me.wav"), folder.path().join("no.gguf"), folder.path().to_owned());
    std::fs::write(&wav, b"RIFF\x24\0\0\0WAVEfmt ").unwrap();
    for (file, state, words) in [
        (&wav, "unavailable", "make_voice.py"),
        (&gone, "unavailable", "no.gguf"),
        (&here, "unavailable", "no file"),
        (&chosen, "ready", ""),
    ] {
        let args = ["--voice", "minicpm-o", "--ref-audio-path", file.to_str().unwrap()];
        let program = start(&self::folder(), "test:ball@320x240", &args);
        let status = program.until("told", 120, |s| s["voice"]["state"] == state);
        assert!(status["voice"]["reason"].as_str().unwrap_or_default().contains(words), "{status:#}");
        program.until("writing", 120, |s| s["commentary"]["looks"].as_u64() > Some(1));
    }
}

#[test]
fn the_models_own_voice_costs_nothing_while_it_is_off() {
    let model = folder();
    let args = [
        "run",
        "test:ball@320x240",
        "--server-port",
        "0",
        "--change-threshold",
        "0",
        "--model-path",
        model.to_str().unwrap(),
    ];
    let program = Program::start_command(command(&args));
    program.until("writing", 120, |s| s["commentary"]["looks"].as_u64() > Some(1));
    let threads = std::fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap().flatten();
    let names: Vec<_> = threads.map(|t| std::fs::read_to_string(t.path().join("comm")).unwrap_or_default()).collect();
    assert!(!names.iter().any(|n| n.trim() == "voice"), "{names:?}");
    assert_eq!(program.json("/api/status")["voice"]["state"], "off");
}
