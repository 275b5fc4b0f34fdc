//! Planted secrets, and the whole program at its most talkative: everything that leaves it is searched for them, in every
//! form in which they travel. Not here: GStreamer's log by itself (`ingest_secrets`).
#![cfg(all(feature = "ingest", feature = "llama", feature = "livekit"))]

#[allow(dead_code, reason = "nobody joins its room but the program")]
#[path = "support/livekit.rs"]
mod livekit;
#[path = "support/program.rs"]
mod program;
#[path = "support/ingest_rig.rs"]
mod rig;

use program::{command, tiny_model};
use rig::{HttpPeer, free_port, h264, rtsp_server, tmp};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vidette::web::ROUTES;

#[test]
#[ignore = "the other test runs it as a process of its own"]
fn rtsp_peer() {
    rig::serve_rtsp();
}

/// The camera's password is `pa:ss@w@rd-4711`, written with one `@` bare and one escaped.
const WRITTEN: &str = "admin:pa:ss@w%40rd-4711";
const TOKEN: &str = "t0ken/with+chars=4711";
const QUERY: &str = "qu3ry-s3cret-4711";
/// Every one of them in every form.
const FORBIDDEN: &[(&str, &str)] = &[
    ("the password as it was written", "ss@w%40rd-4711"),
    ("the password decoded", "ss@w@rd-4711"),
    ("the password encoded", "ss%40w%40rd-4711"),
    ("user and password in base64", "YWRtaW46cGE6c3NAd0ByZC00NzEx"),
    ("the password in base64", "cGE6c3NAd0ByZC00NzEx"),
    ("the token", "t0ken/with+chars=4711"),
    ("the token encoded", "t0ken%2Fwith%2Bchars%3D4711"),
    ("the token in base64", "dDBrZW4vd2l0aCtjaGFycz00NzEx"),
    ("the query's value", QUERY),
    ("LiveKit's secret", livekit::SECRET),
    ("LiveKit's secret in base64", "cThadDNMd1h2MG5SazVKYlljN1BkSDJzTWZBOXVHZVQ"),
];
/// How LiveKit's tickets (JWTs) begin, in either order of their head. Whoever asks for one gets one, and nobody else.
const TICKETS: [&str; 2] = ["eyJhbGciOi", "eyJ0eXAiOi"];
const TICKET_ROUTES: [&str; 2] = ["/api/livekit/token", "/api/streams/other/livekit/token"];

/// Everything that was seen, with where.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(String, String)>>>);

impl Seen {
    fn note(&self, place: &str, bytes: &[u8]) {
        self.0.lock().unwrap().push((place.to_owned(), String::from_utf8_lossy(bytes).into_owned()));
    }

    fn follow(&self, place: &'static str, from: impl Read + Send + 'static) -> std::thread::JoinHandle<()> {
        let seen = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                seen.note(place, &line);
            }
        })
    }

    fn has(&self, place: &str, words: &str) -> bool {
        self.0.lock().unwrap().iter().any(|(p, text)| p == place && text.contains(words))
    }

    fn wait_for(&self, place: &str, words: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.has(place, words) {
            assert!(Instant::now() < until, "no {words:?} on {place}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// One request, by hand: what came within `time`, head and all.
fn ask(address: &str, request: &str, time: Duration) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let until = Instant::now() + time;
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left)).unwrap();
        match socket.read(&mut buffer) {
            Ok(n @ 1..) => all.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    all
}

#[test]
fn no_secret_leaves_the_program_by_any_way() {
    let port = free_port();
    let _camera = rtsp_server(port, &["digest", "admin", "pa:ss@w@rd-4711"], &h264("smpte"));
    let http = HttpPeer::start(tmp());
    let good = format!("rtsp://{WRITTEN}@127.0.0.1:{port}/live?token={QUERY}");
    let room = livekit::Server::start("secrets");
    let model = tiny_model();
    let mut run = command(&["run", &good, "--server-port", "0", "--model-path", model.to_str().unwrap()]);
    run.env("API_TOKEN", TOKEN)
        .env("VIDETTE_LOG", "trace")
        .env("GST_DEBUG", "4")
        .env("RUST_LOG", "trace")
        .env("ENABLE_TTS", "true")
        .env("LIVEKIT_ENABLED", "true")
        .env("LIVEKIT_URL", room.url())
        .env("LIVEKIT_API_KEY", livekit::KEY)
        .env("LIVEKIT_API_SECRET", livekit::SECRET)
        .args(["--threads", "1", "--change-threshold", "0", "--max-tokens", "8", "--reconnect-delay", "0.2"]);
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let seen = Seen::default();
    let followed =
        [seen.follow("stdout", child.stdout.take().unwrap()), seen.follow("stderr", child.stderr.take().unwrap())];
    seen.wait_for("stderr", "open http://");
    let line = seen.0.lock().unwrap().iter().find(|(_, t)| t.contains("open http://")).unwrap().1.clone();
    let address = line.split("open http://").nth(1).unwrap().split('/').next().unwrap().to_owned();

    let auth = format!("Authorization: Bearer {TOKEN}\r\n");
    let get = |path: &str, headers: &str, millis| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        seen.note(path, &ask(&address, &request, Duration::from_millis(millis)));
    };
    let send = |method: &str, path: &str, headers: &str, body: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}");
        let length = body.len();
        let request = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
        seen.note(path, &ask(&address, &request, Duration::from_secs(5)));
    };
    // Every route, with and without a token, good and bad; live ones for a while.
    for route in ROUTES.iter().filter(|route| route.method == "GET") {
        let path = route.path.replace("{name}", "main").replace("{file}", "dom.js").replace("{id}", "1");
        get(&path, &auth, 1500);
        get(&path, "", 500);
    }
    get("/api/status", &format!("Authorization: Bearer {TOKEN}x\r\n"), 1000);
    get(&format!("/api/status?token={}", TOKEN.replace('+', "%2B")), "", 1000);
    get("/api/status", &format!("Cookie: vidette_session={TOKEN}\r\n"), 1000);
    send("POST", "/api/session", "", &format!(r#"{{"token":"{TOKEN}"}}"#));
    // Sources that fail in every way that names them.
    for source in [
        format!("rtsp://other:{}@127.0.0.1:{port}/live", &WRITTEN[6..]),
        format!("rtsp://{WRITTEN}@127.0.0.1:{port}/none?token={QUERY}"),
        format!("rtsp://{WRITTEN}@127.0.0.1:{}/x", free_port()),
        format!("rtsp://{WRITTEN}@no-such-host.invalid/x"),
        http.url("/401").replace("http://", &format!("http://{WRITTEN}@")),
        http.url("/mjpeg").replace("http://", &format!("http://{WRITTEN}@")),
        http.url("/to-file").replace("http://", &format!("http://{WRITTEN}@")),
        format!("http://{WRITTEN}@169.254.169.254/?token={QUERY}"),
        format!("ftp://{WRITTEN}@h/"),
        format!("rtsp://{WRITTEN}@h:99999/"),
        format!("rtsp://{WRITTEN}@h\\\\x/"),
        format!("/nowhere/{WRITTEN}"),
    ] {
        let path = "/api/streams/other/start";
        send("PUT", "/api/streams/other", &auth, "{}");
        send("POST", path, &auth, &format!(r#"{{"source":"{source}"}}"#));
        std::thread::sleep(Duration::from_millis(700));
        get("/api/streams/other/status", &auth, 500);
        get("/api/streams", &auth, 500);
    }
    // The room, as the program and as a guest, and without its server.
    send("POST", "/api/streams/other/start", &auth, r#"{"source":"webcam"}"#);
    let until = Instant::now() + Duration::from_secs(60);
    while !seen.has("/api/streams/other/status", "\"livekit_connected\":true") {
        assert!(Instant::now() < until, "the program did not come into the room");
        get("/api/streams/other/status", &auth, 500);
    }
    for path in TICKET_ROUTES {
        send("POST", path, &auth, "{}");
        send("POST", path, "", "{}");
    }
    drop(room);
    get("/api/streams/other/status", &auth, 3000);
    // The whole of a body in other shapes.
    send("POST", "/api/start", &auth, &format!(r#"{{"source":["rtsp://{WRITTEN}@h/"]}}"#));
    send("POST", "/api/start", &auth, &format!(r#""rtsp://{WRITTEN}@h/""#));
    send("POST", "/api/start", &auth, &format!(r#"{{"rtsp://{WRITTEN}@h/":1}}"#));
    send("POST", "/api/start", &auth, &format!("rtsp://{WRITTEN}@h/"));
    get("/metrics", &auth, 500);
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    child.wait().unwrap();
    for follower in followed {
        follower.join().unwrap();
    }

    // Configurations that are wrong, told by the program and by its check.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vidette.yaml");
    for text in [
        format!("streams:\n  door:\n    source: \"rtsp://{WRITTEN}@h/\"\n    colour: red\n"),
        format!("api_token: \"{TOKEN}\"\napi_tokn: \"{TOKEN}\"\n"),
        format!("streams: \"rtsp://{WRITTEN}@h/\"\n"),
        format!("capture_fps: \"rtsp://{WRITTEN}@h/\"\n"),
        format!("api_token: \"{TOKEN}\nstreams\n"),
        format!("streams:\n  door: {{source: \"rtsp://{WRITTEN}@h:99999/\"}}\n"),
        format!(
            "livekit_enabled: true\nlivekit_url: \"ftp://h\"\nlivekit_api_key: k\nlivekit_api_secret: \"{}\"\n",
            livekit::SECRET
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let config = file.to_str().unwrap();
        for what in ["check-config", "run"] {
            let port = ["--server-port", "0", "--models-dir", folder.path().to_str().unwrap()];
            let mut wrong = command(&[what, "--config", config]);
            // What is sound enough to run is ended at once by an address that can't be had.
            wrong.args(port).env("SERVER_HOST", "192.0.2.1").env("ALLOW_NO_TOKEN", "true");
            let output = wrong.output().unwrap();
            seen.note("stderr of a wrong configuration", &output.stderr);
            seen.note("stdout of a wrong configuration", &output.stdout);
        }
    }
    let output = command(&["--server-port", &format!("rtsp://{WRITTEN}@h/")]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));

    // The secrets did travel, and much was said: this would prove nothing otherwise.
    assert!(http.seen.lock().unwrap().iter().any(|line| line.contains("YWRtaW46cGE6c3NAd0ByZC00NzEx")));
    assert!(seen.has("stderr", "source streaming") && seen.has("stderr", "gstreamer"), "the camera was watched");
    assert!(seen.has("/api/stream", "event: status") && seen.has("/api/mjpeg", "--frame"));
    assert!(seen.has("/api/streams/other/status", "refused the user name or password"));
    let ticket = |text: &str| TICKETS.iter().any(|head| text.contains(head));
    let all = seen.0.lock().unwrap();
    assert!(
        TICKET_ROUTES.iter().all(|route| all.iter().any(|(place, text)| place == route && ticket(text))),
        "no ticket"
    );
    let strayed = all.iter().find(|(place, text)| !TICKET_ROUTES.contains(&place.as_str()) && ticket(text));
    assert!(strayed.is_none(), "a ticket to the room on {}", strayed.unwrap().0);
    let bytes: usize = all.iter().map(|(_, text)| text.len()).sum();
    println!("{} pieces, {bytes} bytes searched for {} forms", all.len(), FORBIDDEN.len());
    let found: Vec<_> = all
        .iter()
        .flat_map(|(place, text)| FORBIDDEN.iter().map(move |(name, form)| (place, name, form, text)))
        .filter(|(_, _, form, text)| text.contains(**form))
        .map(|(place, name, form, text)| {
            let at = text.find(*form).unwrap();
            let from = text[..at].char_indices().rev().nth(80).map_or(0, |(i, _)| i);
            format!("{name} on {place}: …{}", &text[from..(at + form.len())])
        })
        .collect();
    assert!(found.is_empty(), "{}", found[..found.len().min(10)].join("\n"));
}
