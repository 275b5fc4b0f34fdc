//! The house law that a compiler can't see: which room may use which, one door for each dependency, and
//! `unsafe` in files named `ffi.rs` only.

use std::path::{Path, PathBuf};

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// (path below src, code without comments)
fn code() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 30, "the sources were found");
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let bare: Vec<_> = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
            (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), bare.join("\n"))
        })
        .collect()
}

fn room(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// What a room may take from `crate::`.
fn allowed(room: &str) -> Option<&'static [&'static str]> {
    const WORDS: &[&str] = &["error", "secret", "cancel", "backoff", "shutdown", "frame"];
    const EDGE: &[&str] =
        &["error", "secret", "cancel", "backoff", "shutdown", "frame", "window", "bus", "metrics", "source"];
    Some(match room {
        "error" | "secret" | "cancel" | "backoff" | "shutdown" | "frame" | "process" => WORDS,
        "window" | "bus" | "metrics" | "source" | "thumbnail" | "webcam" => WORDS,
        // What every listener lost is counted where it is lost.
        "audio" => &["error", "secret", "backoff", "shutdown", "frame", "metrics"],
        "engine" | "models" => EDGE,
        // What passes between a LiveKit room and the decoder is in `webcam`; the source's own sound goes to `audio`.
        "ingest" => &[
            "error", "secret", "backoff", "shutdown", "frame", "window", "bus", "metrics", "source", "webcam", "audio",
        ],
        "livekit" => &["error", "secret", "backoff", "shutdown", "frame", "metrics", "audio", "webcam"],
        // Files through the one GGUF reader; llama.cpp through the engine's start.
        "speech" => &[
            "error", "secret", "cancel", "backoff", "shutdown", "frame", "bus", "metrics", "audio", "models", "engine",
        ],
        "commentary" => &[
            "error",
            "secret",
            "backoff",
            "shutdown",
            "frame",
            "process",
            "window",
            "bus",
            "metrics",
            "source",
            "thumbnail",
            "audio",
            "webcam",
            "engine",
            "speech",
        ],
        // A single look: the engine's trait, the loop's words.
        "ask" => &["error", "frame", "engine", "commentary"],
        // Engine and voice in a process of their own.
        "wall" => &["error", "backoff", "shutdown", "frame", "cancel", "engine", "speech"],
        // Measures the engine behind its trait, against the engine's own plain path, at the commentary's pace.
        "bench" => &["error", "frame", "window", "metrics", "engine", "models", "commentary"],
        // `engine` for the words of its status only.
        "web" => &[
            "error",
            "secret",
            "shutdown",
            "frame",
            "bus",
            "metrics",
            "commentary",
            "source",
            "engine",
            "window",
            "audio",
            "thumbnail",
            // What the metrics say of the whole program.
            "process",
            "webcam",
        ],
        "telemetry" => &["error", "secret"],
        "config" => &["error", "secret", "commentary", "engine", "window"],
        // The rooms that wire and start everything.
        "lib" | "main" | "wiring" | "cli" => return None,
        other => panic!("no law for the room {other}: add it here and to the architecture"),
    })
}

#[test]
fn rooms_use_only_those_below_them() {
    let mut broken = Vec::new();
    for (file, code) in code() {
        let own = room(&file);
        let Some(allowed) = allowed(own) else { continue };
        for used in code.split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !used.is_empty() && used != own && !allowed.contains(&used.as_str()) {
                broken.push(format!("{file} uses crate::{used}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_dependency_has_one_door() {
    let doors: &[(&str, &[&str])] = &[
        ("gstreamer", &["ingest", "livekit"]),
        ("gio::", &["ingest"]),
        ("str0m", &["livekit"]),
        ("livekit_signaling", &["livekit"]),
        ("livekit_protocol", &["livekit"]),
        ("jsonwebtoken", &["livekit"]),
        ("llama_cpp", &["engine", "speech"]),
        ("warp::", &["web"]),
        ("rustls::", &["web"]),
        ("rcgen::", &["web"]),
        ("clap::", &["config", "cli"]),
        ("std::env::var", &["config"]),
        ("ureq::", &["models"]),
        ("image::", &["ask", "thumbnail"]),
        ("samplerate::", &["audio"]),
        ("sd_notify", &["wiring"]),
        ("postcard::", &["wall"]),
        ("prometheus_client", &["metrics"]),
        ("println!", &["cli"]),
        ("parse::launch", &[]),
        ("unbounded_channel", &[]),
    ];
    let mut broken = Vec::new();
    for (file, code) in code() {
        // Tests may look at the environment and speak.
        let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        if file.ends_with("tests.rs") {
            continue;
        }
        for (dependency, rooms) in doors {
            if code.contains(dependency) && !rooms.contains(&room(&file)) {
                broken.push(format!("{file} uses {dependency}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn unsafe_stays_in_its_files_and_is_argued() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, code) in code() {
        let word = |w: &str| code.contains(w);
        if !(word("unsafe {") || word("unsafe fn") || word("unsafe impl") || word("unsafe extern")) {
            continue;
        }
        assert!(file.ends_with("/ffi.rs"), "{file} has unsafe code");
        let text = std::fs::read_to_string(root.join(&file)).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            if line.contains("unsafe {") || line.contains("unsafe impl") {
                let near = lines[i.saturating_sub(6)..i].iter().any(|l| l.contains("SAFETY:"));
                assert!(near, "{file}:{} has no SAFETY comment", i + 1);
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_stays_small() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, _) in code() {
        let text = std::fs::read_to_string(root.join(&file)).unwrap();
        assert!(text.starts_with("//!"), "{file} does not open with what it is");
        assert!(text.len() <= 30 * 1024, "{file} has {} KiB", text.len() / 1024);
    }
}
