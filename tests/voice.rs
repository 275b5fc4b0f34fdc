//! The voice of the whole program: real pictures, a real engine with the tiny random model, real espeak-ng, sound over
//! HTTP. Not here: pacing in detail (`tests/speaker.rs`), the demo model's sense (`tests/demo_model.rs`).

#![cfg(all(feature = "ingest", feature = "llama"))]

#[path = "support/program.rs"]
mod program;

use program::{Parts, Program, command, tiny_model};
use serde_json::{Value, json};
use std::io::{BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Short answers, one after another.
const EAGER: &[&str] = &[
    "test:ball@320x240",
    "--change-threshold",
    "0",
    "--capture-fps",
    "10",
    "--threads",
    "1",
    "--max-tokens",
    "12",
    "--temperature",
    "2",
];

fn speaking(more: &[&str]) -> Program {
    let mut args = EAGER.to_vec();
    args.push("--enable-tts");
    args.extend(more);
    let program = Program::start(&args);
    program.until("able to speak", 60, |s| s["voice"]["state"] == "ready" || s["voice"]["state"] == "speaking");
    program
}

/// Sound as it comes.
struct Sound {
    body: BufReader<Box<dyn Read + Send>>,
}

impl Sound {
    fn open(program: &Program, query: &str) -> Self {
        Self { body: program.stream(&format!("/api/audio-stream{query}")) }
    }

    /// The next 20 ms.
    fn frame(&mut self) -> Vec<i16> {
        let mut bytes = [0; 1920];
        self.body.read_exact(&mut bytes).expect("the sound goes on");
        bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
    }

    /// Reads until something is heard; how many frames that took.
    fn until_loud(&mut self) -> u64 {
        let until = Instant::now() + Duration::from_secs(120);
        for frames in 1.. {
            if loudest(&self.frame()) > 2_000 {
                return frames;
            }
            assert!(Instant::now() < until, "nothing was heard");
        }
        unreachable!()
    }
}

fn loudest(samples: &[i16]) -> u16 {
    samples.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0)
}

fn metric(program: &Program, name: &str) -> f64 {
    let (_, text) = program.get("/metrics");
    let text = String::from_utf8(text).unwrap();
    let line = format!("vidette_{name}{{stream=\"main\"}} ");
    text.lines().find_map(|l| l.strip_prefix(&line)).map_or(0.0, |n| n.parse().unwrap())
}

#[test]
fn text_and_sound_come_together() {
    let program = speaking(&[]);
    let mut events = program.events();
    let mut sound = Sound::open(&program, "");
    let listening = std::thread::spawn(move || {
        sound.until_loud();
        sound
    });
    let begun = loop {
        let sse = events.next_of("speech");
        if sse.data["phase"] == "begun" {
            break sse.data;
        }
    };
    let spoken = loop {
        let sse = events.next_of("speech");
        if sse.data["phase"] != "begun" && sse.data["utterance"] == begun["utterance"] {
            break sse.data;
        }
    };
    assert_eq!(spoken["phase"], "spoken", "{spoken}");
    let ms = |of: &Value, name: &str| of[name].as_f64().unwrap_or_else(|| panic!("{name} in {of}"));
    let first = ms(&begun, "first_audio_ms");
    assert!(first > 0.0 && ms(&spoken, "first_audio_ms") == first, "{begun} {spoken}");
    assert!(ms(&spoken, "last_audio_ms") > first, "{spoken}");
    assert!(ms(&spoken, "audio_ms") > 100.0, "{spoken}");
    let _sound = listening.join().unwrap();
    let status = program.json("/api/status");
    let voice = &status["voice"];
    assert_eq!(
        (&voice["enabled"], &voice["name"], &voice["reason"]),
        (&json!(true), &json!("espeak-ng"), &Value::Null)
    );
    assert_eq!(
        (&voice["sample_rate"], &voice["format"], &voice["listeners"]),
        (&json!(48_000), &json!("s16le"), &json!(1))
    );
    for name in ["first_audio_seconds_count", "last_audio_seconds_count", "speech_spoken_total"] {
        assert!(metric(&program, name) >= 1.0, "{name}");
    }
}

#[test]
fn pictures_wait_for_the_voice_where_that_is_wanted() {
    let program = speaking(&["--stream-delay-init", "3"]);
    let delay = |s: &Value| s["voice"]["picture_delay_s"].as_f64().unwrap();
    let mut pictures = Parts { body: program.stream("/api/mjpeg") };
    for _ in 0..10 {
        let picture = pictures.next();
        let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - picture.taken;
        // Nobody has listened yet, so nothing was learnt.
        assert!(age > 2.95, "{age}");
    }
    assert!((delay(&program.json("/api/status")) - 3.0).abs() < 1e-9);
    let mut sound = Sound::open(&program, "");
    let listening = std::thread::spawn(move || sound.until_loud());
    program.until("waits as long as the voice takes", 60, |s| (delay(s) - 3.0).abs() > 1e-3);
    listening.join().unwrap();
    // And they go on.
    let seq = pictures.next().seq;
    assert!(pictures.next().seq > seq);
}

/// Reads all sound from its beginning on.
struct Recorder {
    samples: Arc<Mutex<Vec<i16>>>,
}

impl Recorder {
    fn start(mut sound: Sound) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&samples);
        // Ends with the program, which its test ends.
        std::thread::spawn(move || {
            let mut bytes = [0; 1920];
            while sound.body.read_exact(&mut bytes).is_ok() {
                recorded.lock().unwrap().extend(bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])));
            }
        });
        Self { samples }
    }

    fn frames(&self) -> u64 {
        self.samples.lock().unwrap().len() as u64 / 960
    }

    fn wait_for(&self, frames: u64) {
        let until = Instant::now() + Duration::from_secs(120);
        while self.frames() < frames {
            assert!(Instant::now() < until, "{} of {frames} frames", self.frames());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn frames_made(program: &Program) -> u64 {
    program.json("/api/status")["voice"]["frames"].as_u64().unwrap()
}

#[test]
fn silence_fills_the_time_between_utterances() {
    // Rarely a word, so that most of it is silence.
    let program = speaking(&["--inference-interval", "3"]);
    let opened = Instant::now();
    let recorder = Recorder::start(Sound::open(&program, ""));
    program.until("so long", 120, |s| s["voice"]["frames"].as_u64() >= Some(600));
    // The one listener's sound begins with the clock: it gets every frame that the server counts, and no other. What
    // this process is too busy to read is counted as its loss.
    let least = frames_made(&program);
    let lost = |program: &Program| {
        let account = program.json("/api/status")["voice"]["audience"][0].clone();
        let n = |name: &str| account[name].as_u64().unwrap();
        assert_eq!(n("offered"), n("sent") + n("dropped") + n("queued"), "{account}");
        n("dropped") / 960
    };
    let until = Instant::now() + Duration::from_secs(120);
    while recorder.frames() + lost(&program) < least {
        assert!(Instant::now() < until, "{} of {least} frames", recorder.frames());
        std::thread::sleep(Duration::from_millis(50));
    }
    let (got, most) = (recorder.frames() + lost(&program), frames_made(&program));
    assert!(got <= most, "{got} frames of {most}");
    // A server that is late catches up, but it is never ahead of time.
    let (made, passed) = (most as f64 * 0.02, opened.elapsed().as_secs_f64());
    assert!(made <= passed + 0.1, "{made} s of sound in {passed} s");
}

#[test]
fn a_stalled_listener_costs_others_nothing_and_every_sample_is_accounted_for() {
    let program = speaking(&[]);
    // It reads nothing at all; the sockets between hold some seconds of sound.
    let stalled = Sound::open(&program, "");
    let mut healthy = Sound::open(&program, "");
    let mut frames = 0u64;
    let until = Instant::now() + Duration::from_secs(180);
    let lost = loop {
        healthy.frame();
        frames += 1;
        if frames.is_multiple_of(50) {
            let voice = &program.json("/api/status")["voice"];
            let audience = voice["audience"].as_array().unwrap().clone();
            for listener in &audience {
                let n = |name: &str| listener[name].as_u64().unwrap();
                assert_eq!(n("offered"), n("sent") + n("dropped") + n("queued"), "{listener}");
            }
            // The one that stalls is first; it goes when the write deadline has passed.
            match audience.iter().find(|l| l["dropped"].as_u64() > Some(0)) {
                Some(listener) => break listener.clone(),
                None => assert!(Instant::now() < until, "{voice:#}"),
            }
        }
    };
    let audience = program.json("/api/status")["voice"]["audience"].clone();
    let other = audience.as_array().unwrap().iter().find(|l| l["listener"] != lost["listener"]).unwrap().clone();
    assert_eq!(other["dropped"], 0, "{audience}");
    drop((stalled, healthy));
    program.until("left alone", 120, |s| s["voice"]["listeners"] == 0);
    let [made, sent, dropped] =
        ["audio_samples_total", "audio_samples_sent_total", "audio_samples_dropped_total"].map(|n| metric(&program, n));
    assert_eq!(made, sent + dropped);
    assert!(sent >= frames as f64 * 960.0 && dropped > 0.0, "{sent} {dropped}");
}

/// A folder with a program of espeak-ng's name that writes its number to `running` while it speaks slowly.
fn slow_espeak(folder: &Path) -> String {
    let path = std::env::var("PATH").unwrap();
    let real = std::env::split_paths(&path).map(|p| p.join("espeak-ng")).find(|p| p.is_file()).expect("espeak-ng");
    let script = format!(
        "#!/bin/sh\ncd \"${{0%/*}}\"\nif [ ! -e tried ]; then touch tried; exec {0} \"$@\"; fi\n\
         echo $$ >running\n{0} \"$@\"\nsleep 1000\n",
        real.display()
    );
    let file = folder.join("espeak-ng");
    std::fs::write(&file, script).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{path}", folder.display())
}

#[test]
fn a_stop_ends_the_sound_and_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_model();
    let mut args = vec!["run"];
    args.extend(&EAGER[..EAGER.len() - 4]);
    args.extend(["--temperature", "2", "--max-tokens", "200"]);
    args.extend(["--server-port", "0", "--model-path", model.to_str().unwrap(), "--enable-tts=true", "--voice=espeak"]);
    let mut command = command(&args);
    command.env("PATH", slow_espeak(folder.path()));
    let program = Program::start_command(command);
    program.until("ready", 60, |s| s["voice"]["state"] == "ready");
    let recorder = Recorder::start(Sound::open(&program, ""));
    program.until("speaking", 120, |s| s["voice"]["state"] == "speaking");
    let running = std::fs::read_to_string(folder.path().join("running")).unwrap().trim().to_owned();
    let stat = || std::fs::read_to_string(format!("/proc/{running}/stat")).unwrap_or_default();
    assert!(!stat().is_empty(), "the child speaks");
    assert_eq!(program.post("/api/stop", &json!({})).0, 200);
    // 200 ms are tested on paused time; here the machine may be busy.
    let from = frames_made(&program) + 50;
    recorder.wait_for(from + 100);
    let after = recorder.samples.lock().unwrap()[from as usize * 960..].to_vec();
    assert_eq!(loudest(&after), 0, "sound after the stop");
    assert!(metric(&program, "speech_cancelled_total") >= 1.0);
    let gone = Instant::now() + Duration::from_secs(10);
    while !(stat().is_empty() || stat().contains(") Z ")) {
        assert!(Instant::now() < gone, "the child is still there: {}", stat());
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = program.json("/api/status");
    assert_eq!(status["voice"]["state"], "ready", "a stop is no failure of the voice: {status:#}");
}

#[test]
fn without_espeak_the_text_goes_on_and_the_remedy_is_shown() {
    let empty = tempfile::tempdir().unwrap();
    let model = tiny_model();
    let mut args = vec!["run"];
    args.extend(EAGER);
    args.extend(["--server-port", "0", "--model-path", model.to_str().unwrap(), "--enable-tts"]);
    let mut command = command(&args);
    command.env("PATH", empty.path());
    let program = Program::start_command(command);
    let status = program.until("told", 60, |s| s["voice"]["state"] == "unavailable");
    let reason = status["voice"]["reason"].as_str().unwrap();
    assert!(reason.contains("apt-get install espeak-ng"), "{reason}");
    program.wait_for_log("no voice: espeak-ng");
    let _sound = Sound::open(&program, "");
    program.until("writing", 120, |s| s["commentary"]["looks"].as_u64() > Some(1));
    let mut events = program.events();
    events.next_of("utterance");
}

#[test]
fn the_models_own_voice_without_its_files_says_what_is_missing() {
    let mut args = EAGER.to_vec();
    args.extend(["--enable-tts", "--voice", "minicpm-o"]);
    let program = Program::start(&args);
    let voice = &program.json("/api/status")["voice"];
    assert_eq!((&voice["state"], &voice["name"]), (&json!("unavailable"), &json!("minicpm-o")));
    let reason = voice["reason"].as_str().unwrap();
    assert!(reason.contains("tts/") && reason.contains("vidette pull") && reason.contains("VOICE=espeak"), "{reason}");
    program.until("writing", 120, |s| s["commentary"]["looks"].as_u64() > Some(1));
}

#[test]
fn a_voice_that_is_off_costs_nothing_and_says_how_to_get_it() {
    for args in [&["--enable-tts=false", "--voice", "espeak"][..], &["--enable-tts", "--voice", "off"]] {
        let mut all = EAGER.to_vec();
        all.extend(args);
        let program = Program::start(&all);
        program.until("writing", 120, |s| s["commentary"]["looks"].as_u64() > Some(1));
        let voice = &program.json("/api/status")["voice"];
        assert_eq!((&voice["enabled"], &voice["state"], &voice["name"]), (&json!(false), &json!("off"), &Value::Null));
        assert!(voice["reason"].as_str().unwrap().contains("ENABLE_TTS=true"), "{voice}");
        let (code, body) = program.get("/api/audio-stream");
        assert_eq!(code, 503);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "voice_off");
        let threads = std::fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap().flatten();
        let names: Vec<_> =
            threads.map(|t| std::fs::read_to_string(t.path().join("comm")).unwrap_or_default()).collect();
        assert!(!names.iter().any(|n| n.trim() == "voice"), "{names:?}");
    }
}

#[test]
fn a_wav_begins_with_its_header_and_players_understand_it() {
    let program = speaking(&[]);
    let mut wav = program.stream("/api/audio-stream?format=wav");
    let mut header = [0; 44];
    wav.read_exact(&mut header).unwrap();
    assert_eq!((&header[..4], &header[8..16], &header[36..40]), (&b"RIFF"[..], &b"WAVEfmt "[..], &b"data"[..]));
    let url = |query: &str| format!("http://{}/api/audio-stream{query}", program.address);
    for input in [vec!["-f", "s16le", "-ar", "48000", "-ac", "1", "-i"], vec!["-i"]] {
        let query = if input.len() == 1 { "?format=wav" } else { "" };
        // As a person would: ffmpeg plays two seconds of it into a file.
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("heard.wav");
        let played = std::process::Command::new("ffmpeg")
            .args(["-y", "-loglevel", "error", "-nostdin"])
            .args(input)
            .arg(url(query))
            .args(["-t", "2"])
            .arg(&file)
            .status()
            .expect("ffmpeg is installed by `make test`");
        assert!(played.success());
        let bytes = std::fs::metadata(&file).unwrap().len();
        assert!(bytes.abs_diff(2 * 96_000) < 1_000, "{bytes}");
    }
    let (code, _) = program.get("/api/audio-stream?format=mp3");
    assert_eq!(code, 400);
}
