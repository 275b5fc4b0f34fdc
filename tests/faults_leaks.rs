//! A connection that is lost again and again leaves nothing behind. Alone in its program, because threads, files and memory are
//! the process's. Not here: connections that are refused, and RTSP (`ingest_leaks`).
#![cfg(feature = "ingest")]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/ingest_rig.rs"]
mod rig;

use faults::{FaultProxy, Held, Mode, held};
use rig::{HttpPeer, Rig, quick, tmp};
use std::time::{Duration, Instant};
use vidette::ingest::IngestConfig;
use vidette::source::SourceState;

/// `FAULT_CYCLES=500` is the long form.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_leave_no_thread_and_no_file_behind() {
    let cycles: u64 = std::env::var("FAULT_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let peer = HttpPeer::start(tmp());
    let proxy = FaultProxy::start(peer.port).await;
    let delay = Duration::from_millis(50);
    let config = IngestConfig { reconnect_delay: delay, max_reconnect_delay: delay, ..quick() };
    let rig = Rig::new(config);
    rig.source.start(&format!("http://127.0.0.1:{}/mjpeg", proxy.port)).await.unwrap();
    let mut early: Option<Held> = None;
    let begun = Instant::now();
    for cycle in 1..=cycles {
        rig.until("up", 30.0, |s| s.state == SourceState::Streaming && s.reconnects + 1 >= cycle).await;
        proxy.set(Mode::Reset);
        rig.until("down", 30.0, |s| s.state != SourceState::Streaming).await;
        proxy.set(Mode::Pass);
        if cycle == cycles / 4 {
            early = Some(calm(&rig, cycle).await);
        }
    }
    let late = calm(&rig, cycles).await;
    let early = early.unwrap();
    let grown = late.kib as f64 - early.kib as f64;
    println!(
        "{cycles} losses in {:.0?}: {early:?} became {late:?}, {:.1} KiB a loss; {} pipelines left behind",
        begun.elapsed(),
        grown / (cycles - cycles / 4) as f64,
        rig.status().pipelines_abandoned
    );
    // The peer's own threads and sockets live in this process too; they go with their connections, some a moment late.
    assert!(late.threads <= early.threads + 2 && late.files <= early.files + 2, "{early:?} became {late:?}");
    assert_eq!(rig.status().pipelines_abandoned, 0);
    rig.end().await;
}

/// What is held while the source streams, at the least of a few looks.
async fn calm(rig: &Rig, reconnects: u64) -> Held {
    rig.until("up", 30.0, |s| s.state == SourceState::Streaming && s.reconnects >= reconnects).await;
    let mut least = held("self");
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = held("self");
        least.threads = least.threads.min(now.threads);
        least.files = least.files.min(now.files);
        least.kib = now.kib;
    }
    least
}
