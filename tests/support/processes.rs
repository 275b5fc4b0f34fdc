//! What the tests of supervision look at: a viewer of the video, and the insides of processes.
//! Not here: faults and what is expected of them (`tests/supervision.rs`).
#![allow(dead_code, reason = "every test file takes its own part")]

use crate::program::{Parts, Program};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Somebody who watches the video all the time.
pub struct Viewer {
    pub pictures: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What a viewer saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub pictures: u64,
    /// Numbers that were left out: when that was noticed, and how many.
    pub gaps: Vec<(Instant, u64)>,
    pub longest_wait: Duration,
}

impl Viewer {
    pub fn of(program: &Program) -> Self {
        let mut parts = Parts { body: program.stream("/api/mjpeg") };
        let (pictures, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (pictures, over) = (Arc::clone(&pictures), Arc::clone(&over));
            move || {
                let mut seen = Seen::default();
                let mut last = parts.next().seq;
                let mut at = Instant::now();
                while !over.load(Ordering::Relaxed) {
                    // Fails when the body ends.
                    let picture = parts.next();
                    assert!(picture.seq > last && picture.jpeg.len() > 100, "pictures advance");
                    seen.longest_wait = seen.longest_wait.max(at.elapsed());
                    if picture.seq > last + 1 {
                        seen.gaps.push((Instant::now(), picture.seq - last - 1));
                    }
                    seen.pictures += 1;
                    pictures.store(seen.pictures, Ordering::Relaxed);
                    (last, at) = (picture.seq, Instant::now());
                }
                seen
            }
        });
        Self { pictures, over, thread }
    }

    /// Waits for that many more pictures.
    pub fn sees(&self, more: u64) {
        let from = self.pictures.load(Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(30);
        while self.pictures.load(Ordering::Relaxed) < from + more {
            assert!(!self.thread.is_finished() && Instant::now() < until, "the video stopped");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn leave(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the video went on to the end")
    }
}

/// `kill -SIGNAL PID`; false when there is no such process.
pub fn kill(signal: &str, pid: u64) -> bool {
    Command::new("kill").args([format!("-{signal}"), pid.to_string()]).output().unwrap().status.success()
}

/// One letter; `None` when the process is gone (or only waits to be buried).
pub fn state(pid: u64) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next().filter(|state| *state != 'Z')
}

pub fn gone_within(pid: u64, time: Duration) -> bool {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if state(pid).is_none() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// The field of `/proc/PID/stat`, by its number in proc_pid_stat(5).
pub fn stat_field(pid: u64, number: usize) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(number - 3).unwrap().parse().unwrap()
}

/// Open file descriptors and threads.
pub fn held(pid: u64) -> (usize, usize) {
    let count = |what: &str| std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join(what)).unwrap().count();
    (count("fd"), count("task"))
}

/// The children of a process.
pub fn children(pid: u64) -> Vec<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let all: Vec<String> = tasks.filter_map(|task| Some(of_task(task.ok()?))).collect();
    all.join(" ").split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}
