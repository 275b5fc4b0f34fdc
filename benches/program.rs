//! The whole program's figures on this machine: time to the first picture and the first word, the steps of a look,
//! memory and processor time. `cargo bench --bench program` (needs `make tiny-model` and ffmpeg).

#[path = "../tests/support/program.rs"]
mod program;

use program::{Parts, Program, clip};
use std::time::{Duration, Instant};

/// Seconds of processor time and MiB of memory that the program has taken, its engine's process included.
fn taken(program: &Program) -> (f64, u64) {
    let process = &program.json("/api/status")["process"];
    (process["cpu_s"].as_f64().unwrap_or(0.0), process["memory_bytes"].as_u64().unwrap_or(0) >> 20)
}

fn main() {
    let clip = clip("bench.mp4", 10);
    let began = Instant::now();
    let program = Program::start(&[clip.to_str().unwrap(), "--max-tokens", "20", "--change-threshold", "0"]);
    println!("listening after {:.2} s", began.elapsed().as_secs_f64());
    let mut parts = Parts { body: program.stream("/api/mjpeg") };
    parts.next();
    // A viewer that does not read is cut off, so this one leaves.
    drop(parts);
    println!("first picture after {:.2} s", began.elapsed().as_secs_f64());
    let mut events = program.events();
    events.next_of("token");
    println!("first word after {:.2} s", began.elapsed().as_secs_f64());

    let mut rows: Vec<[f64; 6]> = Vec::new();
    while rows.len() < 15 {
        let sse = events.next_of("utterance");
        let ms = |name: &str| sse.data["stamps"][name].as_f64().unwrap_or(0.0);
        if sse.data["frames"] == 4 {
            rows.push(
                ["start_ms", "encode_done_ms", "prefill_done_ms", "first_token_ms", "last_token_ms", "window_ms"]
                    .map(ms),
            );
        }
    }
    let median = |i: usize| {
        let mut values: Vec<f64> = rows.iter().map(|r| r[i]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!("medians of {} looks, ms from the newest frame's capture:", rows.len());
    println!(
        "start {:.0}, frames encoded {:.0}, prompt decoded {:.0}, first token {:.0}, last token {:.0}",
        median(0),
        median(1),
        median(2),
        median(3),
        median(4)
    );
    println!("from the oldest frame's capture to the last token: {:.0} ms", median(5) + median(4));

    let mut parts = Parts { body: program.stream("/api/mjpeg") };
    let (seconds, before, seen) = (10.0, taken(&program).0, parts.next().seq);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut last = seen;
    while Instant::now() < until {
        last = parts.next().seq;
    }
    println!(
        "with one viewer: {:.1} pictures a second, {:.0} % of one core in all, {} MiB resident",
        (last - seen) as f64 / seconds,
        (taken(&program).0 - before) / seconds * 100.0,
        taken(&program).1
    );
}
