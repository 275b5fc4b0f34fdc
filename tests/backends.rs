//! GPU backends are plugins that use the program's own ggml: one that fits is loaded, one that does not is told, and
//! the processor serves. No GPU is needed: ggml's RPC backend is built by the same recipe as CUDA's and brings no
//! device; another one is the processor under a GPU's name. Not here: what a GPU computes (`scripts/gpu`).

#![cfg(all(feature = "ingest", feature = "llama"))]

#[path = "support/program.rs"]
mod program;

use program::Program;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// A look that is short on a busy machine too, where several threads wait for each other more than they compute.
const SHORT: [&str; 5] = ["test:ball", "--threads", "1", "--max-tokens", "8"];
/// Longest wait for anything, seconds.
const PATIENCE: u64 = 120;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds a backend into `folder`; `source` is that of one that ggml does not have.
fn build(backend: &str, folder: &Path, source: Option<&Path>) {
    let mut command = Command::new(root().join("scripts/build-backend.sh"));
    command.args([Path::new(backend), folder]);
    command.env("BUILD_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("backend-{backend}")));
    command.envs(source.map(|source| ("BACKEND_SOURCE", source)));
    let built = command.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

#[test]
fn a_plugin_is_loaded_and_a_broken_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    build("rpc", folder.path(), None);
    std::fs::write(folder.path().join("libggml-cuda.so"), b"not a library").unwrap();

    let program = Program::start(
        &[&SHORT[..], &["--log", "vidette=debug", "--backends-dir", folder.path().to_str().unwrap()]].concat(),
    );
    let status = program.until("ready", PATIENCE, |s| s["engine"]["state"] == "ready");
    assert_eq!(status["engine"]["device"], "cpu");
    let log = program.log();
    assert!(log.contains("libggml-rpc.so is loaded"), "{log}");
    let refused = program.wait_for_log("libggml-cuda.so can't be used");
    assert!(refused.contains("too short") || refused.contains("ELF"), "{refused}");
    program.until("commenting", PATIENCE, |s| s["commentary"]["utterances"].as_u64() > Some(0));
}

#[test]
fn a_gpus_memory_is_told_anew_as_its_driver_tells_it() {
    let folder = tempfile::tempdir().unwrap();
    build("pretend", folder.path(), Some(&root().join("tests/support/pretend-gpu")));
    let program = Program::start(&[&SHORT[..], &["--backends-dir", folder.path().to_str().unwrap()]].concat());
    let status = program.until("ready", PATIENCE, |s| s["engine"]["state"] == "ready");
    assert_eq!(status["engine"]["device"], "Pretended GPU");
    let memory = |status: &Value| ["used_bytes", "total_bytes"].map(|k| status["engine"]["gpu_memory"][k].as_u64());
    let [Some(used), total] = memory(&status) else { panic!("{status:#}") };
    assert!(used > 1 << 30 && used < 2 << 30 && total == Some(8 << 30), "{status:#}");
    let later = program.until("more in use", PATIENCE, |s| memory(s)[0] > Some(used));
    assert_eq!((&later["engine"]["state"], memory(&later)[1]), (&json!("ready"), total));
    let (code, metrics) = program.get("/metrics");
    let metrics = String::from_utf8(metrics).unwrap();
    let value = |name: &str| {
        let begin = format!("vidette_{name}{{device=\"Pretended GPU\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&begin)?.parse::<u64>().ok())
    };
    assert_eq!((code, value("gpu_memory_bytes")), (200, total), "{metrics}");
    assert!(value("gpu_memory_used_bytes") >= memory(&later)[0], "{metrics}");
    program.until("commenting", PATIENCE, |s| s["commentary"]["utterances"].as_u64() > Some(0));
}
