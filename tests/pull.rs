//! Downloads against a real server that misbehaves in every way that was thought of.

#[path = "support/models_gguf.rs"]
mod models_gguf;
#[path = "support/models_server.rs"]
mod models_server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use models_gguf::{Gguf, language, projector};
use models_server::{Reply, Request, Server};
use sha2::{Digest, Sha256};
use vidette::error::Error;
use vidette::models::catalog::{Entry, ModelFile, Needs, Role};
use vidette::models::{Event, PullOptions, Pulled, pull};
use vidette::secret::Secret;

const TOKEN: &str = "hf_planted_token";
static MODEL: LazyLock<Vec<u8>> = LazyLock::new(|| whole(&language()));
static EYES: LazyLock<Vec<u8>> = LazyLock::new(|| whole(&projector()));

fn whole(g: &Gguf) -> Vec<u8> {
    let (mut bytes, len) = g.header();
    let start = bytes.len();
    bytes.resize(usize::try_from(len).unwrap(), 0);
    // Not all alike, so that a part in the wrong place changes the checksum.
    bytes[start..].iter_mut().enumerate().for_each(|(i, b)| *b = (i / 7) as u8);
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn file(path: &str, role: Role, body: &[u8]) -> ModelFile {
    ModelFile {
        path: path.to_owned(),
        local: path.to_owned(),
        bytes: Some(body.len() as u64),
        sha256: Some(sha256(body)),
        role,
    }
}

fn entry(files: Vec<ModelFile>) -> Entry {
    Entry {
        name: "tiny".into(),
        aliases: vec![],
        title: "Tiny".into(),
        summary: String::new(),
        licence: "MIT".into(),
        repo: "some/tiny".into(),
        revision: "main".into(),
        dir: "tiny".into(),
        needs: Needs { text: String::new(), min_bytes: 0 },
        files,
    }
}

fn model_only() -> Entry {
    entry(vec![file("m.gguf", Role::Language, &MODEL)])
}

fn options(server: &Server, dest: &Path) -> PullOptions {
    PullOptions {
        endpoint: server.url.clone(),
        token: Some(Secret::new(TOKEN.to_owned())),
        retries: 3,
        waits: (Duration::from_millis(10), Duration::from_millis(40)),
        idle_timeout: Duration::from_millis(400),
        ..PullOptions::new(dest)
    }
}

struct Outcome {
    result: Result<Pulled, Error>,
    events: Vec<Event>,
    dir: PathBuf,
}

impl Outcome {
    fn code(&self) -> &'static str {
        let error = self.result.as_ref().expect_err("an error was expected");
        assert!(!error.to_string().contains(TOKEN));
        assert!(error.hint.is_some(), "{error}");
        error.code
    }

    fn retries(&self) -> usize {
        self.events.iter().filter(|e| matches!(e, Event::Retry { .. })).count()
    }

    /// Names of what lies in the model's folder, without the lock.
    fn left(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| !n.ends_with(".lock"))
            .collect();
        names.sort();
        names
    }
}

fn run(entry: &Entry, options: &PullOptions) -> Outcome {
    let mut events = Vec::new();
    let result = pull(entry, options, &mut |event| events.push(event));
    Outcome { result, events, dir: options.dest.join("tiny") }
}

/// Pulls the model alone from a server that answers so.
fn model_from(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Outcome, Server, tempfile::TempDir) {
    let dest = tempfile::tempdir().unwrap();
    let server = Server::start(answer);
    let outcome = run(&model_only(), &options(&server, dest.path()));
    (outcome, server, dest)
}

#[test]
fn a_model_comes_whole_and_the_second_time_nothing_is_fetched() {
    let dest = tempfile::tempdir().unwrap();
    let server = Server::start(|r| match r.path.as_str() {
        "/some/tiny/resolve/main/m.gguf" => Reply::file(r, &MODEL),
        "/some/tiny/resolve/main/vision/e.gguf" => Reply::file(r, &EYES),
        _ => Reply::status(404),
    });
    let mut files = vec![file("m.gguf", Role::Language, &MODEL), file("vision/e.gguf", Role::Vision, &EYES)];
    files.push(file("audio/a.gguf", Role::Audio, &EYES));
    let entry = entry(files);
    let first = run(&entry, &options(&server, dest.path()));
    let pulled = first.result.as_ref().unwrap();
    assert_eq!(pulled.downloaded as usize, MODEL.len() + EYES.len());
    assert_eq!(pulled.language, first.dir.join("m.gguf"));
    assert_eq!(fs::read(&pulled.language).unwrap(), *MODEL);
    assert_eq!(first.left(), ["m.gguf", "vision"]);
    assert_eq!(first.events.iter().filter(|e| **e == Event::Done).count(), 2);
    assert!(server.requests().iter().all(|r| r.headers["authorization"] == format!("Bearer {TOKEN}")));

    let second = run(&entry, &options(&server, dest.path()));
    assert_eq!(second.result.unwrap().downloaded, 0);
    assert_eq!(second.events.iter().filter(|e| **e == Event::AlreadyHere).count(), 2);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_cut_goes_on_where_it_stopped() {
    let half = MODEL.len() / 2;
    let (outcome, server, _dest) =
        model_from(move |r| if r.nth == 0 { Reply::file(r, &MODEL).cut(half) } else { Reply::file(r, &MODEL) });
    assert_eq!(outcome.result.as_ref().unwrap().downloaded as usize, MODEL.len());
    let again = &server.requests()[1];
    assert_eq!((again.from(), again.headers["if-range"].as_str()), (Some(half), "\"v1\""));
    assert_eq!(outcome.left(), ["m.gguf"]);
}

#[test]
fn a_cut_goes_on_in_the_next_run_of_the_program() {
    let dest = tempfile::tempdir().unwrap();
    let cutting = Server::start(|r| Reply::file(r, &MODEL).cut(1000));
    let first = run(&model_only(), &PullOptions { retries: 0, ..options(&cutting, dest.path()) });
    assert_eq!(first.code(), "pull_gave_up");
    assert_eq!(first.left(), ["m.gguf.part", "m.gguf.part.json"]);
    let note = fs::read_to_string(first.dir.join("m.gguf.part.json")).unwrap();
    assert!(!note.contains(TOKEN));

    // Another address may have another file, so there it begins anew.
    let other = Server::start(|r| if r.nth == 0 { Reply::file(r, &MODEL).cut(2000) } else { Reply::file(r, &MODEL) });
    run(&model_only(), &PullOptions { retries: 0, ..options(&other, dest.path()) });
    assert_eq!(other.requests()[0].from(), None);
    let third = run(&model_only(), &options(&other, dest.path()));
    assert_eq!(other.requests()[1].from(), Some(2000));
    assert_eq!(third.result.as_ref().unwrap().downloaded as usize, MODEL.len() - 2000);
    assert_eq!(fs::read(third.dir.join("m.gguf")).unwrap(), *MODEL);
}

#[test]
fn an_endless_row_of_cuts_with_progress_gets_there() {
    let (outcome, server, _dest) = model_from(|r| Reply::file(r, &MODEL).cut(MODEL.len() / 9));
    assert_eq!(outcome.result.as_ref().unwrap().downloaded as usize, MODEL.len());
    assert!(server.requests().len() > 9);
}

#[test]
fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let (outcome, server, _dest) =
        model_from(|r| if r.nth == 0 { Reply::ok(&MODEL).cut(5000) } else { Reply::ok(&MODEL) });
    assert_eq!(fs::read(outcome.result.unwrap().language).unwrap(), *MODEL);
    assert_eq!(server.requests()[1].from(), Some(5000));
}

#[test]
fn a_part_that_was_not_asked_for_is_thrown_away() {
    let (outcome, _server, _dest) = model_from(|r| match r.nth {
        0 => Reply::ok(&MODEL).cut(5000),
        1 => Reply { status: 206, ..Reply::ok(&MODEL[4000..]) }
            .with("Content-Range", &format!("bytes 4000-{}/{}", MODEL.len() - 1, MODEL.len())),
        2 => {
            assert_eq!(r.from(), None);
            Reply::ok(&MODEL)
        }
        _ => Reply::status(500),
    });
    assert_eq!(fs::read(outcome.result.unwrap().language).unwrap(), *MODEL);
}

#[test]
fn a_changed_file_begins_anew() {
    let (outcome, _server, _dest) = model_from(|r| match (r.nth, r.headers.get("if-range")) {
        (0, _) => {
            Reply::status(200).with("ETag", "\"v0\"").cut(3000).clone_with_body(&EYES[..MODEL.len().min(EYES.len())])
        }
        (_, Some(tag)) if tag == "\"v0\"" => Reply::ok(&MODEL),
        _ => Reply::status(500),
    });
    assert_eq!(fs::read(outcome.result.unwrap().language).unwrap(), *MODEL);
}

trait WithBody {
    fn clone_with_body(&self, body: &[u8]) -> Self;
}

impl WithBody for Reply {
    /// Claims the model's length, so that only the content differs.
    fn clone_with_body(&self, body: &[u8]) -> Self {
        Reply { body: body.to_vec(), claimed: Some(MODEL.len()), ..self.clone() }
    }
}

#[test]
fn lies_about_the_length_are_found_out() {
    for lie in [MODEL.len() + 100, MODEL.len() - 100] {
        let (outcome, server, _dest) = model_from(move |_| Reply { claimed: Some(lie), ..Reply::ok(&MODEL) });
        assert_eq!(outcome.code(), "pull_size");
        assert_eq!((outcome.left().len(), server.requests().len()), (0, 1));
    }
    let (outcome, _server, _dest) = model_from(|_| {
        let mut body = MODEL.clone();
        body.extend([0; 100]);
        Reply { chunked: true, ..Reply::ok(&body) }
    });
    assert_eq!(outcome.code(), "pull_size");
    assert_eq!(outcome.left().len(), 0);
    // With chunks nothing tells the length, and too little is a cut.
    let (outcome, _server, _dest) = model_from(|r| {
        if r.nth == 0 { Reply { chunked: true, ..Reply::ok(&MODEL[..9000]) } } else { Reply::file(r, &MODEL) }
    });
    assert_eq!(fs::read(outcome.result.unwrap().language).unwrap(), *MODEL);
}

#[test]
fn a_length_that_nobody_knows_and_that_is_a_lie_ends_after_the_retries() {
    let dest = tempfile::tempdir().unwrap();
    let server = Server::start(|r| {
        if r.path.contains("/api/") {
            Reply::status(404)
        } else {
            Reply { claimed: Some(MODEL.len() * 2), ..Reply::ok(&MODEL) }
        }
    });
    let mut unknown = model_only();
    unknown.files[0].bytes = None;
    unknown.files[0].sha256 = None;
    let outcome = run(&unknown, &PullOptions { retries: 2, ..options(&server, dest.path()) });
    assert_eq!(outcome.code(), "pull_gave_up");
}

#[test]
fn refusals_are_told_apart() {
    for (status, code) in [(404, "pull_not_found"), (401, "pull_denied"), (403, "pull_denied"), (418, "pull_status")] {
        let (outcome, server, _dest) = model_from(move |_| Reply::status(status));
        assert_eq!(outcome.code(), code);
        assert_eq!(server.requests().len(), 1, "{status} is not tried again");
    }
}

#[test]
fn busy_and_broken_servers_are_given_time_but_not_for_ever() {
    let (outcome, _server, _dest) = model_from(|r| match r.nth {
        0 => Reply::status(500),
        1 => Reply::status(503),
        _ => Reply::file(r, &MODEL),
    });
    assert_eq!((outcome.retries(), outcome.result.is_ok()), (2, true));
    let (outcome, server, _dest) = model_from(|_| Reply::status(502));
    assert_eq!(outcome.code(), "pull_gave_up");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_server_that_asks_for_a_wait_gets_it() {
    let begun = Instant::now();
    let (outcome, _server, _dest) =
        model_from(|r| if r.nth == 0 { Reply::status(429).with("Retry-After", "1") } else { Reply::file(r, &MODEL) });
    outcome.result.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(outcome.events.iter().any(|e| matches!(e, Event::Retry { wait, .. } if wait.as_secs() == 1)));
}

#[test]
fn a_wrong_body_is_not_kept() {
    let (outcome, _server, _dest) = model_from(|_| {
        let mut body = MODEL.clone();
        *body.last_mut().unwrap() ^= 1;
        Reply::ok(&body)
    });
    assert_eq!(outcome.code(), "pull_checksum");
    assert_eq!(outcome.left().len(), 0);
}

#[test]
fn another_checksum_at_the_hub_is_seen_before_the_download() {
    let (outcome, _server, _dest) =
        model_from(|_| Reply::ok(&MODEL).with("X-Linked-ETag", &format!("\"{}\"", "ab".repeat(32))));
    assert_eq!(outcome.code(), "pull_checksum");
    assert!(!outcome.events.iter().any(|e| matches!(e, Event::At(n) if *n > 0)));
}

#[test]
fn the_token_stays_with_the_endpoint() {
    let dest = tempfile::tempdir().unwrap();
    let cdn =
        Arc::new(Server::start(|r| if r.nth == 0 { Reply::file(r, &MODEL).cut(700) } else { Reply::file(r, &MODEL) }));
    let port = cdn.port;
    let server = Server::start(move |_| {
        Reply::status(302).with("Location", &format!("http://localhost:{port}/blob?sig=secret"))
    });
    let outcome = run(&model_only(), &options(&server, dest.path()));
    outcome.result.as_ref().unwrap();
    assert!(server.requests().iter().all(|r| r.headers.contains_key("authorization")));
    assert_eq!(cdn.requests().len(), 2);
    assert!(cdn.requests().iter().all(|r| !r.headers.contains_key("authorization")));
    assert_eq!(cdn.requests()[1].from(), Some(700));
    assert!(!format!("{:?}", outcome.events).contains("secret"), "a signed address was shown");
}

#[test]
fn a_repository_that_moved_is_followed_and_a_circle_is_left() {
    let (outcome, server, _dest) = model_from(|r| {
        if r.path.starts_with("/some/") {
            Reply::status(307).with("Location", "/new/tiny/resolve/main/m.gguf")
        } else {
            Reply::file(r, &MODEL)
        }
    });
    outcome.result.unwrap();
    assert!(server.requests()[1].headers.contains_key("authorization"), "the same host still gets the token");
    let (outcome, server, _dest) = model_from(|r| Reply::status(302).with("Location", &r.path));
    assert_eq!(outcome.code(), "pull_redirect");
    assert!(server.requests().len() < 20);
}

#[test]
fn a_silent_server_is_left_and_asked_again() {
    let (outcome, server, _dest) = model_from(|r| {
        let reply = Reply::file(r, &MODEL);
        if r.nth == 0 { Reply { stall: Some((6000, Duration::from_secs(20))), ..reply } } else { reply }
    });
    assert_eq!(fs::read(outcome.result.unwrap().language).unwrap(), *MODEL);
    assert_eq!(server.requests()[1].from(), Some(6000));
}

#[test]
fn a_cancelled_pull_ends_at_once_and_keeps_what_came() {
    let dest = tempfile::tempdir().unwrap();
    let server = Server::start(|r| Reply { stall: Some((6000, Duration::from_secs(60))), ..Reply::file(r, &MODEL) });
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let options = PullOptions {
        cancel: Arc::new(move || asked.load(Ordering::Relaxed)),
        idle_timeout: Duration::from_secs(60),
        ..options(&server, dest.path())
    };
    let begun = Instant::now();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
    });
    let outcome = run(&model_only(), &options);
    assert_eq!(outcome.code(), "pull_cancelled");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(fs::metadata(outcome.dir.join("m.gguf.part")).unwrap().len(), 6000);
}

#[test]
fn what_the_catalogue_does_not_know_the_hub_is_asked() {
    let dest = tempfile::tempdir().unwrap();
    let server = Server::start(|r| {
        if r.path == "/api/models/some/tiny/tree/main?recursive=true" {
            let row = format!(
                r#"[{{"type":"directory","path":"vision","size":0}},
                    {{"type":"file","path":"m.gguf","size":{0},"lfs":{{"oid":"{1}","size":{0},"pointerSize":1}}}}]"#,
                MODEL.len(),
                sha256(&MODEL)
            );
            return Reply::ok(row.as_bytes());
        }
        let mut body = MODEL.clone();
        body[9000] ^= u8::from(r.nth == 0);
        Reply::file(r, &body)
    });
    let mut unknown = model_only();
    unknown.files[0].bytes = None;
    unknown.files[0].sha256 = None;
    let outcome = run(&unknown, &options(&server, dest.path()));
    assert_eq!(outcome.code(), "pull_checksum", "the hub's checksum counts");
    let outcome = run(&unknown, &options(&server, dest.path()));
    assert!(outcome.result.unwrap().notes[0].contains("the hub's own"));
}

#[test]
fn headers_of_the_hub_serve_where_it_has_no_list() {
    let dest = tempfile::tempdir().unwrap();
    let server = Server::start(|r| {
        if r.path.contains("/api/") {
            return Reply::status(404);
        }
        let mut body = MODEL.clone();
        body[9000] ^= 1;
        Reply::file(r, &body)
            .with("X-Linked-Size", &MODEL.len().to_string())
            .with("X-Linked-ETag", &format!("\"{}\"", sha256(&MODEL)))
    });
    let mut unknown = model_only();
    unknown.files[0].bytes = None;
    unknown.files[0].sha256 = None;
    assert_eq!(run(&unknown, &options(&server, dest.path())).code(), "pull_checksum");
}

#[test]
fn without_any_checksum_the_inspection_decides() {
    for (body, good) in [(MODEL.clone(), true), (b"<html>log in</html>".to_vec(), false)] {
        let dest = tempfile::tempdir().unwrap();
        let server =
            Server::start(move |r| if r.path.contains("/api/") { Reply::status(404) } else { Reply::file(r, &body) });
        let mut unknown = model_only();
        unknown.files[0].bytes = None;
        unknown.files[0].sha256 = None;
        let outcome = run(&unknown, &options(&server, dest.path()));
        if good {
            assert!(outcome.result.unwrap().notes[0].contains("no checksum is known"));
        } else {
            assert_eq!(outcome.code(), "model_is_html");
            assert_eq!(outcome.left().len(), 0);
        }
    }
}

#[test]
fn a_file_with_the_right_checksum_and_the_wrong_content_is_named() {
    let dest = tempfile::tempdir().unwrap();
    let server = Server::start(|r| Reply::file(r, &MODEL));
    let swapped = entry(vec![file("m.gguf", Role::Language, &MODEL), file("e.gguf", Role::Vision, &MODEL)]);
    let outcome = run(&swapped, &options(&server, dest.path()));
    assert_eq!(outcome.code(), "model_swapped");
    assert_eq!(outcome.left(), ["e.gguf", "m.gguf"], "a verified file is kept for a look at it");
}

#[test]
fn another_file_in_the_place_is_replaced_only_by_a_whole_one() {
    let dest = tempfile::tempdir().unwrap();
    fs::create_dir_all(dest.path().join("tiny")).unwrap();
    let place = dest.path().join("tiny/m.gguf");
    fs::write(&place, b"mine").unwrap();
    let server = Server::start(|r| if r.nth == 0 { Reply::status(404) } else { Reply::file(r, &MODEL) });
    assert_eq!(run(&model_only(), &options(&server, dest.path())).code(), "pull_not_found");
    assert_eq!(fs::read(&place).unwrap(), b"mine");
    let outcome = run(&model_only(), &options(&server, dest.path()));
    assert!(outcome.result.unwrap().notes[0].contains("replaced"));
    assert_eq!(fs::read(&place).unwrap(), *MODEL);
}

#[test]
fn a_full_disk_is_seen_before_the_first_request() {
    let dest = tempfile::tempdir().unwrap();
    let server = Server::start(|r| Reply::file(r, &MODEL));
    let mut huge = model_only();
    huge.files[0].bytes = Some(u64::MAX / 4);
    assert_eq!(run(&huge, &options(&server, dest.path())).code(), "pull_disk_full");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn two_pulls_do_not_meet() {
    let dest = tempfile::tempdir().unwrap();
    let server =
        Arc::new(Server::start(|r| Reply { stall: Some((10, Duration::from_millis(300))), ..Reply::file(r, &MODEL) }));
    let (slow, path) = (Arc::clone(&server), dest.path().to_owned());
    let first = thread::spawn(move || run(&model_only(), &options(&slow, &path)).result);
    while server.requests().is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(run(&model_only(), &options(&server, dest.path())).code(), "pull_busy");
    first.join().unwrap().unwrap();
}

#[test]
fn nobody_there_is_a_plain_error() {
    let dest = tempfile::tempdir().unwrap();
    let mut options = PullOptions {
        retries: 1,
        waits: (Duration::from_millis(5), Duration::from_millis(5)),
        ..PullOptions::new(dest.path())
    };
    options.endpoint = "http://127.0.0.1:1".to_owned();
    assert_eq!(run(&model_only(), &options).code(), "pull_gave_up");
}

#[test]
fn the_voice_is_left_out_on_request() {
    let dest = tempfile::tempdir().unwrap();
    let server = Server::start(|r| Reply::file(r, &MODEL));
    let mut entry = model_only();
    entry.files.push(file("tts/t.gguf", Role::Tts, &MODEL));
    let outcome = run(&entry, &PullOptions { voice: false, ..options(&server, dest.path()) });
    assert_eq!(outcome.result.unwrap().files.len(), 1);
    assert_eq!(server.requests_for("tts/t.gguf").len(), 0);
}
