//! `vidette bench` on the processor: a tiny random model of its own making, both paths, several streams, and what comes
//! out of it. Counts and shapes, never times: the machine may be busy. Not here: the figures themselves
//! (`docs/PERFORMANCE.md`).

#![cfg(feature = "llama")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn vidette(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vidette")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const SHORT: &[&str] =
    &["--looks", "2", "--frames", "4", "--tokens", "8", "--period", "0.2", "--seconds", "0.5", "--threads", "2"];

fn bench(folder: &Path, more: &[&str]) -> Output {
    let dir = folder.to_str().unwrap();
    let fixed = ["bench", "--random", "tiny", "--dir", dir, "--bandwidth", "20", "--flops", "0.1"];
    vidette(&[&fixed, SHORT, more].concat())
}

#[test]
fn both_paths_do_the_same_work_and_every_figure_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("figures.json");
    let done = bench(dir.path(), &["--streams", "1,3", "--json", json.to_str().unwrap()]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let table = text(&done.stdout);
    for words in ["RANDOM WEIGHTS", "plain/ours", "newest frame to first token", "llama.cpp's decode", "resident"] {
        assert!(table.contains(words), "{words} is not in\n{table}");
    }

    let figures: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let looks = &figures["looks"];
    // What the engine keeps shows in counts: one new frame of four is encoded.
    assert_eq!((looks["plain"]["encoded"].as_f64(), looks["ours"]["encoded"].as_f64()), (Some(4.0), Some(1.0)));
    // Whether all tokens agree is a matter of rounding with random weights.
    assert_eq!(looks["same_answers"][2], 2);
    let tokens = looks["prompt_tokens"].as_u64().unwrap();
    assert!((4 * 66 + 80..4 * 66 + 200).contains(&tokens), "a prompt of usual length: {tokens}");
    assert!(looks["prefix_tokens"].as_u64().unwrap() > 30);
    for path in ["plain", "ours"] {
        for step in ["embeddings", "prompt", "first_token", "token", "last_token"] {
            let spread = &looks[path][step];
            assert!(spread["count"] == 2 && spread["p50"].as_f64() > Some(0.0), "{path} {step}: {spread}");
        }
        let most = |step: &str| looks[path][step]["most"].as_f64().unwrap();
        assert!(most("first_token") < most("last_token"));
    }
    for floor in ["encode_frame", "whole_prompt", "kept_prompt", "token", "first_token"] {
        assert!(figures["floors"][floor]["floor_ms"].as_f64() > Some(0.0), "{floor}");
    }
    for kind in ["bare", "greedy", "sampled"] {
        assert!(looks["decode_loop"][kind]["p50"].as_f64() > Some(0.0), "{kind}");
    }
    let streams: Vec<_> = figures["streams"].as_array().unwrap().iter().collect();
    assert_eq!(streams.iter().map(|s| s["streams"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    for load in streams {
        assert!(load["looks_per_s"].as_f64() > Some(0.0), "{load}");
        assert!(load["last_token"]["p99"].as_f64() >= load["first_token"]["p50"].as_f64(), "{load}");
        assert!(load["instruction"]["count"].as_u64() > Some(0), "{load}");
    }
    assert_eq!(figures["model"]["random_weights"], true);
    assert_eq!(figures["device"], "cpu");
    assert!(figures["memory"]["resident_engine"].as_f64() > figures["memory"]["resident_before"].as_f64());
}

#[test]
fn a_bound_on_the_ratio_decides_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(bench(dir.path(), &["--streams", "0", "--at-least", "0.001"]).status.code(), Some(0));
    let missed = bench(dir.path(), &["--streams", "0", "--at-least", "1000"]);
    assert_eq!(missed.status.code(), Some(1));
    assert!(text(&missed.stderr).contains("not 1000"), "{}", text(&missed.stderr));
}

#[test]
fn wrong_uses_are_told() {
    let told = |arguments: &[&str]| {
        let done = vidette(&[&["bench"], arguments].concat());
        (done.status.code(), text(&done.stderr))
    };
    for arguments in [
        &[][..],
        &["--random", "tiny", "--model", "x"],
        &["--random", "huge"],
        &["--random", "tiny", "--looks", "0"],
        &["--random", "tiny", "--period", "-1"],
        &["--random", "tiny", "--streams", "257"],
    ] {
        let (code, said) = told(arguments);
        assert_eq!(code, Some(64), "{arguments:?}: {said}");
    }
    let (code, said) = told(&["--model", "no-such-folder"]);
    assert!(code == Some(1) && said.contains("no-such-folder"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let (code, said) = told(&["--random", "tiny", "--write-only", "--dir", blocked.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("file"), "{code:?} {said}");
}

#[test]
fn the_random_model_is_written_and_found_sound() {
    let dir = tempfile::tempdir().unwrap();
    let made = bench(dir.path(), &["--quant", "Q8_0", "--write-only"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let files = text(&made.stdout);
    assert_eq!(files.lines().count(), 2);
    for file in files.lines() {
        let told = vidette(&["inspect", file]);
        assert!(told.status.success() && text(&told.stdout).contains("RANDOM WEIGHTS"), "{}", text(&told.stdout));
    }
}
