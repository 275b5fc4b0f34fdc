//! A browser's camera through a real LiveKit server: the real program takes it, speaks in the room, and comes back after
//! every loss; the person with the camera is LiveKit's own Python SDK.
#![cfg(feature = "livekit")]

#[path = "support/livekit.rs"]
mod livekit;
#[path = "support/lossy.rs"]
mod lossy;
#[path = "support/program.rs"]
mod program;

use livekit::{KEY, Person, SECRET, Server};
use lossy::Lossy;
use program::{Program, command, tiny_model};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vidette::audio::{AudioHub, FRAME_SAMPLES, FRAME_TIME, SAMPLE_RATE};
use vidette::livekit::{LiveKit, LiveKitConfig};
use vidette::metrics::Metrics;
use vidette::secret::Secret;
use vidette::webcam::{RoomState, Tickets, camera};

/// Longest wait for anything, seconds: only what never comes is a failure, however busy the machine is.
const PATIENCE: u64 = 120;
const PATIENT: Duration = Duration::from_secs(PATIENCE);

/// The program with its room on that server.
fn program(url: &str, secret: &str, more: &[&str]) -> Program {
    program_trying(url, secret, ["0.2", "1"], more)
}

/// The same, with these waits between attempts.
fn program_trying(url: &str, secret: &str, [first, longest]: [&str; 2], more: &[&str]) -> Program {
    let model = tiny_model();
    let mut args = vec!["run", "--server-port", "0", "--model-path", model.to_str().unwrap()];
    args.extend(["--reconnect-delay", first, "--max-reconnect-delay", longest]);
    args.extend(more);
    let mut command = command(&args);
    command.env("LIVEKIT_ENABLED", "true").env("LIVEKIT_URL", url);
    command.env("LIVEKIT_API_KEY", KEY).env("LIVEKIT_API_SECRET", secret);
    Program::start_command(command)
}

fn ticket(program: &Program) -> Value {
    let (code, body) = program.post("/api/livekit/token", &json!({}));
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn watch_webcam(program: &Program) {
    let (code, body) = program.post("/api/start", &json!({"source": "webcam"}));
    assert_eq!(code, 200, "{body}");
}

fn streaming(status: &Value) -> bool {
    status["source"]["state"] == "streaming"
}

/// The mean colour of a stream's newest picture, and its size; `None` while there is none, as between two sources.
fn picture(program: &Program, stream: &str) -> Option<([f64; 3], (u32, u32))> {
    let (code, jpeg) = program.get(&format!("/api/streams/{stream}/frame"));
    if code == 503 {
        return None;
    }
    assert_eq!(code, 200, "{}", String::from_utf8_lossy(&jpeg));
    let image = image::load_from_memory_with_format(&jpeg, image::ImageFormat::Jpeg).unwrap().to_rgb8();
    let pixels = f64::from(image.width()) * f64::from(image.height());
    let mut sum = [0f64; 3];
    for pixel in image.pixels() {
        (0..3).for_each(|c| sum[c] += f64::from(pixel.0[c]));
    }
    Some((sum.map(|s| s / pixels), (image.width(), image.height())))
}

fn near(colour: [f64; 3], wanted: [f64; 3]) -> bool {
    // Chroma of a lossy codec at whatever rate the machine gave it, and a small white mark that moves; the colours that
    // are told apart here are further from each other.
    colour.iter().zip(wanted).all(|(is, wanted)| (is - wanted).abs() < 40.0)
}

fn until_colour(program: &Program, wanted: [f64; 3]) -> (u32, u32) {
    until_colour_of(program, "main", wanted)
}

fn until_colour_of(program: &Program, stream: &str, wanted: [f64; 3]) -> (u32, u32) {
    let until = Instant::now() + PATIENT;
    loop {
        let seen = picture(program, stream);
        if let Some((colour, size)) = seen
            && near(colour, wanted)
        {
            return size;
        }
        assert!(
            Instant::now() < until,
            "{seen:?} instead of {wanted:?}: {:#}\n{}",
            program.json("/api/status"),
            program.log()
        );
    }
}

#[test]
fn a_camera_in_the_room_is_watched_muted_resized_and_switched() {
    let server = Server::start("camera");
    let program = program(&server.url(), SECRET, &[]);
    let status = program.json("/api/status");
    assert_eq!((&status["livekit_connected"], &status["livekit"]["state"]), (&json!(false), &json!("away")));
    watch_webcam(&program);
    program.until("in the room", PATIENCE, |s| s["livekit_connected"] == true && s["livekit"]["state"] == "waiting");
    let mut person = Person::join(&ticket(&program), &["vp8"]);
    let status = program.until("streaming", PATIENCE, streaming);
    assert_eq!(status["source"]["source"], "webcam");
    assert_eq!(status["livekit"]["people"], 1);
    until_colour(&program, [200.0, 40.0, 60.0]);
    program.until("a frame for the model", PATIENCE, |s| s["window_frames"].as_u64() > Some(0));
    person.say("color 30 60 210");
    until_colour(&program, [30.0, 60.0, 210.0]);

    person.say("mute");
    let muted = program.until("muted", PATIENCE, |s| {
        // On a slow machine it may have been told before that no pictures come.
        let said = s["source"]["message"].as_str().is_some_and(|message| message.contains("muted"));
        s["livekit"]["muted"] == true && s["source"]["state"] == "stalled" && said
    });
    assert_eq!((&muted["livekit_connected"], &muted["source"]["reconnects"]), (&json!(true), &json!(0)), "not lost");
    person.say("unmute");
    program.until("streaming again", PATIENCE, |s| streaming(s) && s["livekit"]["muted"] == false);

    // The same track in another size, as when a phone is turned.
    person.say("size 360 640");
    person.say("color 30 200 40");
    let until = Instant::now() + PATIENT;
    while until_colour(&program, [30.0, 200.0, 40.0]).0 >= 640 {
        assert!(Instant::now() < until, "the size did not change: {:#}", program.json("/api/status"));
    }

    // A second camera is newer; when it goes, the first is taken again.
    let second = Person::join(&ticket(&program), &["h264"]);
    until_colour(&program, [200.0, 40.0, 60.0]);
    assert_eq!(program.json("/api/status")["livekit"]["people"], 2);
    drop(second);
    until_colour(&program, [30.0, 200.0, 40.0]);

    // Another source takes its place, and gives it back.
    let (code, _) = program.post("/api/start", &json!({"source": "test:black"}));
    assert_eq!(code, 200);
    until_colour(&program, [0.0; 3]);
    watch_webcam(&program);
    until_colour(&program, [30.0, 200.0, 40.0]);
    assert!(!program.log().contains(SECRET));
}

#[test]
fn a_server_that_was_killed_or_froze_is_joined_again() {
    let mut server = Server::start("loss");
    let program = program(&server.url(), SECRET, &[]);
    watch_webcam(&program);
    let person = Person::join(&ticket(&program), &["vp8"]);
    program.until("streaming", PATIENCE, streaming);
    server.down();
    drop(person);
    let lost =
        program.until("lost", PATIENCE, |s| s["livekit"]["state"] == "retrying" && s["source"]["state"] == "retrying");
    assert_eq!(lost["livekit_connected"], false);
    assert!(lost["source"]["message"].as_str().unwrap().contains("LiveKit server"), "{lost:#}");
    assert!(lost["source"]["retry_in_s"].is_number(), "{lost:#}");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(program.json("/api/status")["livekit_connected"], false);
    server.up();
    program.until("back", PATIENCE, |s| s["livekit_connected"] == true && s["livekit"]["message"].is_null());
    let _person = Person::join(&ticket(&program), &["vp8"]);
    program.until("streaming", PATIENCE, |s| streaming(s) && s["source"]["message"].is_null());
    until_colour(&program, [200.0, 40.0, 60.0]);

    server.freeze(true);
    let frozen = program.until("noticed", PATIENCE, |s| s["livekit"]["state"] == "retrying");
    assert_eq!(frozen["livekit_connected"], false);
    server.freeze(false);
    program.until("back", PATIENCE, |s| s["livekit_connected"] == true);
    assert!(program.json("/api/status")["livekit"]["reconnects"].as_u64().unwrap() >= 2);
}

#[test]
fn every_codec_is_decoded_and_of_several_sizes_the_one_that_is_enough_is_taken() {
    let server = Server::start("codecs");
    let program = program(&server.url(), SECRET, &[]);
    watch_webcam(&program);
    for codec in ["vp9", "h264"] {
        let mut person = Person::join(&ticket(&program), &[codec]);
        for colour in [[30, 60, 210], [30, 200, 40]] {
            person.say(&format!("color {} {} {}", colour[0], colour[1], colour[2]));
            until_colour(&program, colour.map(f64::from));
        }
        let status = program.json("/api/status");
        let decoder = status["source"]["decoder"].as_str().unwrap_or_default().to_lowercase();
        assert!(decoder.contains(codec), "{codec}: {status:#}");
        drop(person);
        program.until("nobody there", PATIENCE, |s| s["livekit"]["people"] == 0);
    }

    let wide = |how: &[&str]| {
        let person = Person::join(&ticket(&program), how);
        person.until("sending all of it", |e| {
            e["sizes"].as_array().is_some_and(|sizes| sizes.contains(&json!([1280, 720])))
        });
        person
    };
    // One size is all there is.
    let person = wide(&["vp8", "1280x720"]);
    program.until("the one size", PATIENCE, |s| streaming(s) && s["source"]["width"] == 1280);
    drop(person);
    program.until("nobody there", PATIENCE, |s| s["livekit"]["people"] == 0);
    // The model takes 602 x 336 of such a picture, for which the second of three sizes is enough; a busy machine may send
    // the smallest only.
    let mut person = wide(&["vp8", "simulcast", "1280x720"]);
    let smaller = |s: &Value| s["source"]["width"] == 640 || s["source"]["width"] == 320;
    program.until("a smaller size", PATIENCE, |s| streaming(s) && smaller(s));
    person.say("color 30 60 210");
    until_colour(&program, [30.0, 60.0, 210.0]);
    assert!(smaller(&program.json("/api/status")));
}

#[test]
fn each_stream_has_a_room_of_its_own() {
    let server = Server::start("rooms");
    let program = program(&server.url(), SECRET, &[]);
    watch_webcam(&program);
    let (code, body) = program.put("/api/streams/yard", &json!({"source": "webcam"}));
    assert!(code == 200 || code == 201, "{code} {body}");
    let (code, body) = program.post("/api/streams/yard/livekit/token", &json!({}));
    assert_eq!(code, 200, "{body}");
    let (main, yard) = (ticket(&program), serde_json::from_str::<Value>(&body).unwrap());
    assert_ne!(main["room"], yard["room"]);
    let one = Person::join(&main, &["vp8"]);
    let mut other = Person::join(&yard, &["vp8"]);
    other.say("color 30 60 210");
    until_colour_of(&program, "main", [200.0, 40.0, 60.0]);
    until_colour_of(&program, "yard", [30.0, 60.0, 210.0]);
    let room = |stream: &str| program.json(&format!("/api/streams/{stream}/status"))["livekit"].clone();
    assert_eq!((&room("main")["people"], &room("yard")["people"]), (&json!(1), &json!(1)));
    // One room's end is not the other's.
    drop(one);
    program.until("one is empty", PATIENCE, |s| s["livekit"]["people"] == 0);
    other.say("color 30 200 40");
    until_colour_of(&program, "yard", [30.0, 200.0, 40.0]);
    assert_eq!(room("yard")["camera"], yard["identity"]);
}

/// With the waits that are the default, ten minutes are 24 attempts.
#[test]
fn a_server_that_is_gone_for_long_is_joined_again_and_costs_nothing_meanwhile() {
    let mut server = Server::start("long");
    let program = program_trying(&server.url(), SECRET, ["0.05", "0.25"], &["--enable-tts"]);
    watch_webcam(&program);
    let person = Person::join(&ticket(&program), &["vp8"]);
    program.until("streaming", PATIENCE, streaming);
    server.down();
    drop(person);
    let tried = |n: u64| move |s: &Value| s["livekit"]["attempt"].as_u64() >= Some(n);
    let files = || std::fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap().count();
    program.until("tried", PATIENCE, tried(5));
    let before = files();
    let last = program.until("tried long", PATIENCE, tried(40));
    assert!(last["source"]["message"].as_str().is_some_and(|m| m.contains("LiveKit server")), "{last:#}");
    assert!(files() < before + 20, "{before} files were open, now {}", files());
    server.up();
    let back = program.until("back", PATIENCE, |s| s["livekit_connected"] == true);
    assert_eq!((&back["livekit"]["attempt"], &back["livekit"]["message"]), (&json!(0), &Value::Null));
    let person = Person::join(&ticket(&program), &["vp8"]);
    program.until("streaming", PATIENCE, streaming);
    until_colour(&program, [200.0, 40.0, 60.0]);
    person.until("its voice", |e| e["event"] == "tracks" && e["audio"] == 1);
    assert!(person.told().iter().filter_map(|e| e["audio"].as_u64()).all(|n| n <= 1));
}

/// What the sender was asked for so far, as its own client counts it.
fn asked(person: &Person, what: &str) -> u64 {
    person.told().iter().filter_map(|e| e[what].as_u64()).max().unwrap_or(0)
}

#[test]
fn packets_lost_on_the_programs_way_cost_neither_colours_nor_voice() {
    let server = Server::start("packets");
    let way = Lossy::start(server.port, server.media);
    survives_losses(&way, &way.url(), &server.url());
}

#[test]
fn packets_lost_on_the_persons_way_cost_neither_colours_nor_voice() {
    let server = Server::start("person");
    let way = Lossy::start(server.port, server.media);
    survives_losses(&way, &server.url(), &way.url());
}

/// The program and the person come to the server by these addresses, one of which is the lossy way.
fn survives_losses(way: &Lossy, own: &str, persons: &str) {
    let talk = ["--enable-tts", "--change-threshold", "0", "--max-tokens", "12", "--temperature", "2"];
    let program = program(own, SECRET, &[&talk[..], &["--livekit-public-url", persons]].concat());
    watch_webcam(&program);
    let mut person = Person::join(&ticket(&program), &["vp8"]);
    program.until("streaming", PATIENCE, streaming);
    until_colour(&program, [200.0, 40.0, 60.0]);
    // What comes by another way would not come past this.
    let until = Instant::now() + PATIENT;
    while way.fate().0 < 200 {
        assert!(Instant::now() < until, "the relay is not on the way: {:?}", way.fate());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(way.fate().1, 0);
    let count = |what: &str| program.json("/api/status")["livekit"][what].as_u64().unwrap();
    let heard = |e: &Value| e["event"] == "tone" && e["rms"].as_f64() > Some(500.0);

    way.lose(10);
    for colour in [[30, 60, 210], [30, 200, 40], [210, 200, 30]].iter().cycle() {
        let skip = person.told().len();
        person.say(&format!("color {} {} {}", colour[0], colour[1], colour[2]));
        until_colour(&program, colour.map(f64::from));
        person.until_after("the voice", skip, heard);
        if way.fate().1 > 100 {
            break;
        }
    }
    assert_eq!(program.json("/api/status")["livekit_connected"], true);

    // So many that pictures can't be mended any more: a key frame is asked for, of the server and by it of the sender.
    let (asks, useless, plis) = (count("keyframes_asked"), count("frames_undecodable"), asked(&person, "pli"));
    way.lose(40);
    program.until("a key frame was asked for", PATIENCE, |s| {
        s["livekit"]["keyframes_asked"].as_u64() > Some(asks)
            && s["livekit"]["frames_undecodable"].as_u64() > Some(useless)
    });
    person.until("asked of the sender", |e| e["pli"].as_u64() > Some(plis));
    way.lose(10);
    person.say("color 30 60 210");
    until_colour(&program, [30.0, 60.0, 210.0]);
    let skip = person.told().len();
    person.until_after("the voice goes on", skip, heard);

    // Not a packet gets through: it is told, and not taken for the end.
    way.lose(100);
    let silent = program.until("told", PATIENCE, |s| !streaming(s));
    assert!(silent["source"]["message"].is_string(), "{silent:#}");
    way.lose(0);
    program.until("streaming again", PATIENCE, streaming);
    person.say("color 30 200 40");
    until_colour(&program, [30.0, 200.0, 40.0]);
    let tracks: Vec<_> = person.told().iter().filter_map(|e| e["audio"].as_u64()).collect();
    assert!(tracks.iter().all(|n| *n <= 1), "never two voices: {tracks:?}");
}

#[test]
fn wrong_keys_are_told_and_weak_ones_refused() {
    let server = Server::start("keys");
    let program = program(&server.url(), "another-secret-of-enough-letters-0123", &[]);
    watch_webcam(&program);
    let refused = program
        .until("refused", PATIENCE, |s| s["livekit"]["state"] == "retrying" && s["source"]["state"] == "retrying");
    let message = refused["source"]["message"].as_str().unwrap();
    assert!(message.contains("LIVEKIT_API_SECRET"), "{message}");
    assert_eq!(refused["source"]["retry_in_s"], 1.0, "the longest wait");
    assert!(!program.log().contains("another-secret"));
    drop(program);

    for secret in ["secret", "secretsecretsecretsecretsecretsecret", "0123456789abcdef"] {
        let mut command = command(&["check-config"]);
        command.env("LIVEKIT_ENABLED", "true").env("LIVEKIT_URL", server.url());
        command.env("LIVEKIT_API_KEY", KEY).env("LIVEKIT_API_SECRET", secret);
        let out = command.output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(64), "{said}");
        assert!(said.contains("LIVEKIT_API_SECRET") && said.contains("make livekit-keys"), "{said}");
    }
}

/// What `make livekit-keys` writes is taken, and what was there before stays.
#[test]
fn keys_are_made_once() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("scripts/livekit-keys.sh");
    std::fs::create_dir(script.parent().unwrap()).unwrap();
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/livekit-keys.sh");
    std::fs::copy(source, &script).unwrap();
    let settings = folder.path().join(".env");
    std::fs::write(&settings, "SERVER_PORT=8200\n").unwrap();
    let run = || std::process::Command::new(&script).output().unwrap();
    let made = run();
    assert!(made.status.success(), "{made:?}");
    let text = std::fs::read_to_string(&settings).unwrap();
    assert!(text.starts_with("SERVER_PORT=8200\n"), "what was there stays");
    assert_eq!(std::fs::metadata(&settings).unwrap().permissions().mode() & 0o777, 0o600);
    let pairs: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let secret = pairs.iter().find(|(name, _)| *name == "LIVEKIT_API_SECRET").unwrap().1;
    assert!(secret.len() >= 32 && !String::from_utf8_lossy(&made.stdout).contains(secret));
    let mut check = command(&["check-config"]);
    check.envs(pairs);
    let checked = check.output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let again = run();
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("already"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), text);
}

#[test]
fn tokens_allow_little_and_are_limited() {
    let off = Program::start(&[]);
    let (code, body) = off.post("/api/livekit/token", &json!({}));
    assert!(code == 503 && body.contains("livekit_off") && body.contains("LIVEKIT_ENABLED"), "{code} {body}");
    assert!(off.json("/api/status")["livekit"].is_null());
    let (code, body) = off.post("/api/start", &json!({"source": "webcam"}));
    assert!(code == 503 && body.contains("livekit_off"), "{code} {body}");

    // No server is needed to make tokens.
    let program = program("ws://127.0.0.1:9", SECRET, &["--livekit-public-url", "wss://meet.example"]);
    let ticket = ticket(&program);
    assert_eq!((ticket["url"].as_str(), ticket["expires_s"].as_u64()), (Some("wss://meet.example"), Some(600)));
    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    let validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    let claims = jsonwebtoken::decode::<Value>(ticket["token"].as_str().unwrap(), &key, &validation).unwrap().claims;
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!(KEY), &ticket["identity"]));
    assert!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap() <= 620);
    assert_eq!(
        claims["video"],
        json!({
            "roomJoin": true, "room": ticket["room"], "canSubscribe": true, "canPublish": true,
            "canPublishSources": ["camera", "microphone"], "canPublishData": false, "canUpdateOwnMetadata": false,
        })
    );
    let (code, _) = program.post("/api/streams/nobody/livekit/token", &json!({}));
    assert_eq!(code, 404);
    let (code, _) = program.post("/api/streams/main/livekit/token", &json!({"room": "other"}));
    assert_eq!(code, 400, "nobody chooses a room");
    let policy = program.header("/", "content-security-policy");
    assert!(policy.contains("connect-src 'self' wss://meet.example https://meet.example;"), "{policy}");
    let refused = (0..20).map(|_| program.post("/api/livekit/token", &json!({}))).find(|(code, _)| *code != 200);
    let (code, body) = refused.unwrap();
    assert!(code == 429 && body.contains("too_many_tokens"), "{code} {body}");
}

/// A stream's room on that server, without the program around it.
fn config(server: &Server, grace: Duration) -> LiveKitConfig {
    let url = url::Url::parse(&server.url()).unwrap();
    LiveKitConfig {
        public_url: url.clone(),
        url,
        api_key: KEY.to_owned(),
        api_secret: Secret::new(SECRET.to_owned()),
        room_prefix: None,
        empty_grace: grace,
        reconnect_delay: Duration::from_millis(200),
        max_reconnect_delay: Duration::from_secs(1),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_voice_is_heard_once_and_only_while_somebody_is_there() {
    vidette::ingest::init().unwrap();
    let mut server = Server::start("voice");
    let desk = LiveKit::new(config(&server, Duration::from_secs(600)));
    let hub = Arc::new(AudioHub::new("main", Arc::new(Metrics::new())));
    let (feed, camera) = camera();
    let (_sound, voice) = tokio::sync::watch::channel(Some(Arc::clone(&hub)));
    let (_trigger, shutdown) = vidette::shutdown::pair();
    let task = desk.open("main", feed, voice, shutdown.clone()).unwrap();
    let mut status = camera.status.clone();
    assert_eq!(status.borrow().state, RoomState::Away);
    let ticket = serde_json::to_value(desk.ticket("main").unwrap()).unwrap();
    let tone = tokio::spawn(play(Arc::clone(&hub), 1000.0));
    let mut person = tokio::task::spawn_blocking(move || Person::join(&ticket, &["none"])).await.unwrap();
    let hears = |event: &Value| {
        event["event"] == "tone"
            && (event["hz"].as_f64().unwrap() - 1000.0).abs() < 5.0
            && event["rms"].as_f64() > Some(2000.0)
    };
    person = tokio::task::spawn_blocking(move || {
        let heard = person.until("a tone of 1000 Hz", hears);
        assert_eq!(heard["identity"], "vidette-main");
        person
    })
    .await
    .unwrap();
    assert!(status.borrow().voice);

    // Gone for a moment, and published once again, not twice.
    server.down();
    tokio::time::timeout(PATIENT, status.wait_for(|s| s.state == RoomState::Retrying)).await.unwrap().unwrap();
    server.up();
    tokio::time::timeout(PATIENT, status.wait_for(|s| s.connected)).await.unwrap().unwrap();
    drop(person);
    let ticket = serde_json::to_value(desk.ticket("main").unwrap()).unwrap();
    let person = tokio::task::spawn_blocking(move || {
        let person = Person::join(&ticket, &["none"]);
        person.until("a tone after the loss", hears);
        let tracks: Vec<_> =
            person.told().iter().filter(|e| e["event"] == "tracks").map(|e| e["audio"].clone()).collect();
        assert_eq!(tracks.last(), Some(&json!(1)), "{tracks:?}");
        assert!(tracks.iter().all(|n| n.as_u64() <= Some(1)), "{tracks:?}");
        person
    })
    .await
    .unwrap();
    // The server hangs, and then still believes in the stay before: it is ended, and one voice remains.
    server.freeze(true);
    tokio::time::timeout(PATIENT, status.wait_for(|s| s.state == RoomState::Retrying)).await.unwrap().unwrap();
    server.freeze(false);
    tokio::time::timeout(PATIENT, status.wait_for(|s| s.connected)).await.unwrap().unwrap();
    tokio::task::spawn_blocking(move || drop(person)).await.unwrap();
    let ticket = serde_json::to_value(desk.ticket("main").unwrap()).unwrap();
    let person = tokio::task::spawn_blocking(move || {
        let person = Person::join(&ticket, &["none"]);
        person.until("a tone after the hang", hears);
        let tracks: Vec<_> = person.told().iter().filter_map(|e| e["audio"].as_u64()).collect();
        assert!(tracks.last() == Some(&1) && tracks.iter().all(|n| *n <= 1), "{tracks:?}");
        person
    })
    .await
    .unwrap();
    tokio::task::spawn_blocking(move || drop(person)).await.unwrap();
    let until = Instant::now() + PATIENT;
    while !hub.status().is_empty() {
        assert!(Instant::now() < until, "it listens for nobody: {:?}", camera.status.borrow());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tone.abort();
    // The stream's end is its end.
    drop(camera);
    tokio::time::timeout(PATIENT, task).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_room_is_left_and_joined_again_for_the_next_one() {
    vidette::ingest::init().unwrap();
    let server = Server::start("empty");
    let desk = LiveKit::new(config(&server, Duration::from_secs(1)));
    let (feed, mut camera) = camera();
    let (_no_sound, voice) = tokio::sync::watch::channel(None);
    let (_trigger, shutdown) = vidette::shutdown::pair();
    let task = desk.open("main", feed, voice, shutdown).unwrap();
    let until = Instant::now() + PATIENT;
    loop {
        // Each one who asks is one that may come; nobody does.
        let _too_many = desk.ticket("main");
        let left = camera.status.wait_for(|s| s.state == RoomState::Away && s.reconnects >= 1);
        if tokio::time::timeout(Duration::from_secs(6), left).await.is_ok() {
            break;
        }
        assert!(Instant::now() < until, "not left twice: {:?}", camera.status.borrow());
    }
    drop(camera);
    tokio::time::timeout(PATIENT, task).await.unwrap().unwrap();
}

/// A tone into the hub, at the pace of sound.
async fn play(hub: Arc<AudioHub>, hz: f64) {
    let mut clock = tokio::time::interval(FRAME_TIME);
    let mut sample = 0u64;
    loop {
        clock.tick().await;
        let frame: [i16; FRAME_SAMPLES] = std::array::from_fn(|i| {
            let t = (sample + i as u64) as f64 / f64::from(SAMPLE_RATE);
            ((t * hz * std::f64::consts::TAU).sin() * 12_000.0) as i16
        });
        sample += FRAME_SAMPLES as u64;
        hub.publish(Instant::now(), Some(1), Some(&frame));
    }
}
