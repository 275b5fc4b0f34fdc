//! GPU backends are plugins that use the program's own ggml: one that fits is loaded, one that does not is told, and
//! the processor serves. No GPU is needed: ggml's RPC backend is built by the same recipe as CUDA's and brings no
//! device. Not here: what a GPU computes (`scripts/gpu`).

#![cfg(all(feature = "ingest", feature = "llama"))]

#[path = "support/program.rs"]
mod program;

use program::Program;
use std::path::Path;
use std::process::Command;

#[test]
fn a_plugin_is_loaded_and_a_broken_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let built = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-backend.sh"))
        .args([Path::new("rpc"), folder.path()])
        .env("BUILD_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("backend-rpc"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::fs::write(folder.path().join("libggml-cuda.so"), b"not a library").unwrap();

    let program =
        Program::start(&["test:ball", "--log", "vidette=debug", "--backends-dir", folder.path().to_str().unwrap()]);
    let status = program.until("ready", 30, |s| s["engine"]["state"] == "ready");
    assert_eq!(status["engine"]["device"], "cpu");
    let log = program.log();
    assert!(log.contains("libggml-rpc.so is loaded"), "{log}");
    let refused = program.wait_for_log("libggml-cuda.so can't be used");
    assert!(refused.contains("too short") || refused.contains("ELF"), "{refused}");
    program.until("commenting", 30, |s| s["commentary"]["utterances"].as_u64() > Some(0));
}
