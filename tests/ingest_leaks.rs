//! Opening sources again and again must cost nothing that stays. Alone in its program, because threads, open files and
//! memory are the process's.
#![cfg(feature = "ingest")]

#[path = "support/ingest_rig.rs"]
mod rig;

use rig::{Rig, free_port, h264, quick, rtsp_server};
use std::time::Duration;
use vidette::ingest::IngestConfig;
use vidette::source::SourceState;

#[test]
#[ignore = "the other test runs it as a process of its own"]
fn rtsp_peer() {
    rig::serve_rtsp();
}

/// Threads, open files, and resident memory in KiB.
fn held() -> (usize, usize, usize) {
    let count = |dir| std::fs::read_dir(dir).unwrap().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB");
    (count("/proc/self/task"), count("/proc/self/fd"), rss.parse().unwrap())
}

/// `held`, once it is as low as it was, or after two seconds: threads take a moment to go.
async fn settled(wanted: (usize, usize)) -> (usize, usize, usize) {
    for _ in 0..20 {
        let now = held();
        if now.0 <= wanted.0 && now.1 <= wanted.1 {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    held()
}

/// With one arena, because malloc's many grow by fragments (some 8 MiB here, then no more) and would hide a leak.
#[test]
fn connecting_again_and_again_leaves_nothing_behind() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "connect_again_and_again", "--nocapture"])
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("round 3"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "the other test runs it as a process of its own"]
async fn connect_again_and_again() {
    let port = free_port();
    let _server = rtsp_server(port, &[], &h264("smpte"));
    let delay = Duration::from_millis(10);
    let rig = Rig::new(IngestConfig { reconnect_delay: delay, max_reconnect_delay: delay, ..quick() });
    let good = format!("rtsp://127.0.0.1:{port}/live");
    let refused = format!("rtsp://127.0.0.1:{}/live", free_port());
    let mut first = None;
    for round in 0..4 {
        for _ in 0..8 {
            rig.source.start(&good).await.unwrap();
            rig.streaming().await;
        }
        rig.source.start(&refused).await.unwrap();
        rig.until("attempts", 20.0, |s| s.attempt >= 50).await;
        rig.source.stop().await.unwrap();
        assert_eq!(rig.status().state, SourceState::Stopped);
        let now = match first {
            None => {
                tokio::time::sleep(Duration::from_millis(500)).await;
                held()
            }
            Some((threads, files, _)) => settled((threads, files)).await,
        };
        println!("round {round}: {} threads, {} open files, {} KiB", now.0, now.1, now.2);
        first.get_or_insert(now);
        if let Some((threads, files, memory)) = first.filter(|_| round == 3) {
            assert!(now.0 <= threads && now.1 <= files, "{now:?} after {first:?}");
            // 24 streams and 150 refusals: less than 20 KiB each.
            assert!(now.2 <= memory + 174 * 20, "{} KiB became {} KiB", memory, now.2);
        }
    }
    assert_eq!(rig.status().pipelines_abandoned, 0);
    rig.end().await;
}
