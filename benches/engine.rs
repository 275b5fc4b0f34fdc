//! The engine against the plain path on a tiny random model, by `vidette bench`.
//! `cargo bench --bench engine` (MODEL_PATH takes another model's folder).

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_vidette"));
    bench.arg("bench");
    match std::env::var_os("MODEL_PATH") {
        Some(model) => bench.arg("--model").arg(model),
        None => bench.args(["--random", "tiny"]),
    };
    let ended = bench.args(["--looks", "20", "--seconds", "5"]).status().expect("the program starts");
    if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
