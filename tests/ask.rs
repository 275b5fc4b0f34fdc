//! `vidette ask` as a process, with the tiny random model: answers on standard output and nothing else, batches
//! line for line, no picture encoded twice.

#![cfg(feature = "llama")]

#[path = "support/program.rs"]
mod program;

use program::{command, tiny_model};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

fn picture(folder: &Path, name: &str, colour: [u8; 3]) -> PathBuf {
    let path = folder.join(name);
    let mut image = image::RgbImage::from_pixel(320, 240, image::Rgb(colour));
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        if (x / 40 + y / 40) % 2 == 0 {
            *pixel = image::Rgb([255, 255, 255]);
        }
    }
    image.save(&path).unwrap();
    path
}

fn ask(args: &[&str]) -> Output {
    let model = tiny_model();
    let mut all = vec!["ask", "--model-path", model.to_str().unwrap(), "--temperature", "0", "--max-tokens", "12"];
    all.extend(args);
    command(&all).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn one_look_prints_the_answer_that_a_batch_gives() {
    let folder = tempfile::tempdir().unwrap();
    let (red, blue) = (picture(folder.path(), "red.png", [255, 0, 0]), picture(folder.path(), "blue.jpg", [0, 0, 255]));
    let paths = [red.to_str().unwrap(), blue.to_str().unwrap()];
    let said = ask(&["--instruction", "What is it?", "--last-answer", "A door.", paths[0], paths[1]]);
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success() && error.contains("RANDOM WEIGHTS"), "{error}");
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.ends_with('\n') && !said.trim().is_empty(), "{said:?}");

    let question = |id: u32, last: &str, frames: [&str; 2]| {
        json!({"id": id, "frames": frames, "instruction": "What is it?", "context": [last]}).to_string()
    };
    let names = ["red.png", "blue.jpg"];
    let batch = folder.path().join("questions.jsonl");
    let text = [question(1, "A door.", names), question(2, "A door.", names), question(3, "A car.", names)].join("\n");
    std::fs::write(&batch, text).unwrap();
    let out = lines(&ask(&["--batch", batch.to_str().unwrap()]));
    assert_eq!(out.iter().map(|l| l["id"].clone()).collect::<Vec<_>>(), [json!(1), json!(2), json!(3)]);
    assert_eq!(out[0]["answer"].as_str().unwrap(), said.trim());
    assert_eq!(out[0]["answer"], out[1]["answer"]);
    let encoded: Vec<_> = out.iter().map(|l| l["frames_encoded"].as_u64().unwrap()).collect();
    assert_eq!(encoded, [2, 0, 0]);
    for line in &out {
        assert!(matches!(line["finish"].as_str(), Some("stop" | "length")), "{line}");
        assert!(line["tokens"].as_u64() <= Some(12), "{line}");
        for name in ["encode_ms", "prefill_ms", "decode_ms"] {
            assert!(line[name].as_f64() >= Some(0.0), "{name} in {line}");
        }
    }
    assert!(out[0]["encode_ms"].as_f64() > out[1]["encode_ms"].as_f64(), "{out:?}");
}

#[test]
fn a_batch_on_standard_input_answers_as_it_goes_and_outlives_bad_lines() {
    let folder = tempfile::tempdir().unwrap();
    let red = picture(folder.path(), "red.png", [255, 0, 0]);
    std::fs::write(folder.path().join("text.png"), "no picture").unwrap();
    let model = tiny_model();
    let mut child = command(&["ask", "--batch", "-", "--model-path", model.to_str().unwrap(), "--max-tokens", "4"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    // Each answer comes before the next question is sent.
    let mut ask = |line: &str| -> Value {
        writeln!(input, "{line}").unwrap();
        serde_json::from_str(&output.next().expect("an answer").unwrap()).unwrap()
    };
    let look = r#"{"id": "a", "frames": ["red.png"], "instruction": "What?"}"#;
    assert_eq!(ask(look)["frames_encoded"], 1);
    assert_eq!(ask("{oh")["error"]["code"], "line_invalid");
    let missing = ask(r#"{"id": "b", "frames": ["red.png", "none.png"]}"#);
    assert_eq!((&missing["id"], &missing["error"]["code"]), (&json!("b"), &json!("picture_not_found")));
    assert!(missing["error"]["message"].as_str().unwrap().contains("none.png"), "{missing}");
    assert_eq!(ask(r#"{"id": 2, "frames": ["text.png"]}"#)["error"]["code"], "picture_format");
    assert_eq!(ask(look)["frames_encoded"], 0);
    // A file that was written anew is another picture.
    picture(folder.path(), "red.png", [0, 255, 0]);
    assert_eq!(ask(look)["frames_encoded"], 1);
    assert!(red.exists());
    drop(input);
    assert!(output.next().is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn wrong_uses_are_told_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let red = picture(folder.path(), "red.png", [255, 0, 0]);
    let red = red.to_str().unwrap();
    let empty = folder.path().to_str().unwrap();
    for (args, code, word) in [
        (vec!["ask"], 64, "FRAME"),
        (vec!["ask", "--batch", "-", red], 64, "--batch"),
        (vec!["ask", "--batch", "none.jsonl"], 1, "none.jsonl"),
        (vec!["ask", "--profile", "opera", red], 64, "PROFILE"),
        (vec!["ask", "--models-dir", empty, red], 1, "vidette pull"),
    ] {
        let output = command(&args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(word) && output.stdout.is_empty(), "{args:?}: {text}");
    }
    let output = ask(&["none.png"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("none.png"), "{text}");
    // A server's settings are none of its business.
    let model = tiny_model();
    let output = command(&["ask", "--max-tokens", "2", "--model-path", model.to_str().unwrap(), red])
        .env("SERVER_HOST", "0.0.0.0")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
