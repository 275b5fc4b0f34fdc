//! Does the demo model see? The short form of `make eval-demo`: fixed clips, fixed questions, and how many answers
//! must be right, word for word. It goes through the program as people start it, so swapped colour channels, frames
//! in the wrong order or an ignored instruction fail here. Not here: figures for the model card
//! (`scripts/demo-model/evaluate.py`), the engine without a meaning (`tests/ask.rs`, `tests/end_to_end.rs`).

#![cfg(all(feature = "ingest", feature = "llama"))]

#[path = "support/program.rs"]
mod program;

use image::{DynamicImage, ImageReader};
use program::{Program, command};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How many answers of each group must be right, of how many. Some have one less than was reached, for processors that round
/// otherwise.
const RIGHT: [(&str, usize, usize); 8] = [
    ("backwards", 15, 20),
    ("elsewhere", 11, 12),
    ("event", 5, 5),
    ("exchange", 22, 24),
    ("other", 8, 8),
    ("plain", 79, 80),
    ("quiet", 15, 15),
    ("repeated", 12, 12),
];
/// The same on a running stream.
const RIGHT_LIVE: (usize, usize) = (7, 8);

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/demo")
}

fn model() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("gguf/demo");
    assert!(folder.join("vision").exists(), "the demo model is part of the repository; gguf/demo is not complete");
    folder.to_str().unwrap().to_owned()
}

fn questions() -> Vec<Value> {
    let text = std::fs::read_to_string(data().join("questions.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The picture with red and blue exchanged, as a PNG in `folder`.
fn exchanged(name: &str, folder: &Path) -> PathBuf {
    let path = folder.join(format!("{name}.png"));
    if !path.exists() {
        let picture: DynamicImage = ImageReader::open(data().join(name)).unwrap().decode().unwrap();
        let mut picture = picture.into_rgb8();
        picture.pixels_mut().for_each(|p| p.0.swap(0, 2));
        picture.save(&path).unwrap();
    }
    path
}

/// The answers to the questions, in order, from one run of `vidette ask`.
fn answers(questions: &[Value]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = String::new();
    for (id, question) in questions.iter().enumerate() {
        let names = question["frames"].as_array().unwrap().iter().map(|f| f.as_str().unwrap());
        let frames: Vec<PathBuf> = match question["exchange"] {
            Value::Bool(true) => names.map(|name| exchanged(name, folder.path())).collect(),
            _ => names.map(|name| data().join(name)).collect(),
        };
        let mut line = json!({"id": id, "frames": frames, "instruction": question["instruction"], "max_tokens": 96});
        if let Some(said) = question.get("context") {
            line["context"] = said.clone();
        }
        lines.push_str(&format!("{line}\n"));
    }
    let batch = folder.path().join("questions.jsonl");
    std::fs::write(&batch, lines).unwrap();
    let output = command(&["ask", "--batch", batch.to_str().unwrap(), "--model-path", &model()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let out = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), questions.len());
    for (id, answer) in answers.iter().enumerate() {
        assert_eq!(answer["id"], id);
    }
    answers.iter().map(|a| a["answer"].as_str().unwrap_or_else(|| panic!("{a}")).to_owned()).collect()
}

#[test]
fn it_answers_what_is_asked_about_what_is_there() {
    let questions: Vec<_> = questions().into_iter().filter(|q| q["group"] != "live").collect();
    let answers = answers(&questions);
    let mut found: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut wrong = String::new();
    for (question, answer) in questions.iter().zip(&answers) {
        let (right, of) = found.entry(question["group"].as_str().unwrap()).or_default();
        *of += 1;
        if question["answer"] == answer.as_str() {
            *right += 1;
        } else {
            let (group, instruction) = (&question["group"], &question["instruction"]);
            let frames = &question["frames"];
            wrong +=
                &format!("{group} {frames} {instruction}\n    right: {}\n    said:  {answer:?}\n", question["answer"]);
        }
    }
    println!("{found:?}\n{wrong}");
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), RIGHT.map(|(group, ..)| group));
    for (group, least, all) in RIGHT {
        let (right, of) = found[group];
        assert_eq!(of, all, "{group}: the table above belongs to the questions");
        assert!(right >= least, "{group}: {right} of {of} are right, {least} must be; wrong are\n{wrong}");
    }
}

/// A clip of four seconds that shows one picture.
fn still(name: &str) -> PathBuf {
    let clip = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-still.mp4");
    let made = Command::new("ffmpeg")
        .args(["-y", "-loglevel", "error", "-loop", "1", "-framerate", "10", "-t", "4", "-i"])
        .arg(data().join(name))
        .args(["-vf", "scale=trunc(iw/2)*2:trunc(ih/2)*2", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "18"])
        .args(["-pix_fmt", "yuv420p"])
        .arg(&clip)
        .status()
        .expect("ffmpeg is installed by `make test`");
    assert!(made.success());
    clip
}

#[test]
fn on_a_running_stream_the_next_answer_obeys_the_new_instruction() {
    let questions: Vec<_> = questions().into_iter().filter(|q| q["group"] == "live").collect();
    let pictures: HashSet<_> = questions.iter().map(|q| q["frames"][0].as_str().unwrap()).collect();
    assert_eq!(pictures.len(), 1);
    let clip = still(pictures.into_iter().next().unwrap());
    let model = model();
    let program = Program::start_command(command(&[
        "run",
        clip.to_str().unwrap(),
        "--server-port",
        "0",
        "--model-path",
        &model,
        "--change-threshold",
        "0",
        "--inference-interval",
        "0",
    ]));
    let mut events = program.events();
    // The window fills.
    program.until("looking", 30, |s| s["commentary"]["looks"].as_u64() > Some(0));
    std::thread::sleep(Duration::from_secs(4));
    let (mut right, mut told) = (0, String::new());
    for question in &questions {
        let instruction = question["instruction"].as_str().unwrap();
        let (code, body) = program.post("/api/instruction", &json!({ "instruction": instruction }));
        assert_eq!(code, 200, "{body}");
        let began = Instant::now();
        let next = loop {
            let sse = events.next_of("utterance");
            if sse.data["instruction"] == instruction && sse.data["finish"] != "cancelled" {
                break sse.data;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "no answer to {instruction:?}");
        };
        assert_eq!(next["finish"], "stop", "{next}");
        let said = next["text"].as_str().unwrap().trim();
        right += usize::from(question["answer"] == said);
        told += &format!("{instruction}\n    right: {}\n    said:  {said:?}\n", question["answer"]);
    }
    println!("{told}");
    assert_eq!(questions.len(), RIGHT_LIVE.1);
    assert!(right >= RIGHT_LIVE.0, "{right} of {} answers are right:\n{told}", questions.len());
}
