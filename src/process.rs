//! What this process and its child take of the machine: processor time and memory, read when asked.
//! Not here: who shows it (`commentary`'s status), what the program counts of its own work (`metrics`).

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Taken so far, and held now.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Usage {
    /// Seconds of processor time, of all threads together. Two readings make a rate.
    pub cpu_s: f64,
    /// Processor cores that the process may use.
    pub cores: usize,
    /// Bytes resident in memory; `None` where there is no `/proc`.
    pub memory_bytes: Option<u64>,
}

impl Usage {
    /// The usage now, with that of a child process, and the processor time of those that have ended. Costs some ten
    /// microseconds.
    pub fn now(child: Option<u32>) -> Self {
        let read = |who: &str, file: &str| std::fs::read_to_string(format!("/proc/{who}/{file}")).ok();
        let memory = |who: &str| read(who, "statm").and_then(|text| resident(&text));
        let ticks = |who: &str, fields| read(who, "stat").and_then(|text| ticks(&text, fields)).unwrap_or(0);
        let taken = clock_gettime(ClockId::ProcessCPUTime);
        let mut usage = Self {
            cpu_s: taken.tv_sec as f64 + taken.tv_nsec as f64 / 1e9,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory("self"),
        };
        let mut of_children = ticks("self", OF_ENDED);
        if let Some(child) = child.map(|pid| pid.to_string()) {
            of_children += ticks(&child, OWN);
            let more = memory(&child).unwrap_or(0);
            usage.memory_bytes = usage.memory_bytes.map(|bytes| bytes + more);
        }
        usage.cpu_s += of_children as f64 / rustix::param::clock_ticks_per_second() as f64;
        usage
    }
}

/// Fields of `stat` (proc_pid_stat(5)), counted from the one after the name: utime and stime.
const OWN: usize = 11;
/// cutime and cstime.
const OF_ENDED: usize = 13;

/// The sum of two fields of `stat` that are clock ticks.
fn ticks(stat: &str, first: usize) -> Option<u64> {
    // The name may hold anything, so count from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(first);
    let mut next = || fields.next()?.parse::<u64>().ok();
    next()?.checked_add(next()?)
}

/// The second field of `statm` (proc_pid_statm(5)): resident pages.
fn resident(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_show() {
        let before = Usage::now(None);
        let held: Vec<u64> = (0..8_000_000).collect();
        std::hint::black_box(&held);
        let after = Usage::now(None);
        assert!(after.cpu_s > before.cpu_s && after.cores >= 1);
        assert!(after.memory_bytes.unwrap() > 32 << 20, "{after:?}");
    }

    #[test]
    fn what_children_take_counts_while_they_live_and_after() {
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; read line";
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", busy])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let taken = |pid| Usage::now(pid).cpu_s - Usage::now(None).cpu_s;
        while taken(Some(child.id())) < 0.05 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let with = Usage::now(Some(child.id()));
        assert!(with.memory_bytes > Usage::now(None).memory_bytes);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(Usage::now(None).cpu_s >= with.cpu_s - 0.02, "it goes on being counted");
    }

    #[test]
    fn the_fields_of_stat_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 50 6 700 8 20 0 1 0 5 6 7";
        assert_eq!((ticks(stat, OWN), ticks(stat, OF_ENDED), ticks("7 (a", OWN)), (Some(56), Some(708), None));
    }

    #[test]
    fn what_is_no_statm_is_none() {
        for text in ["", "12", "12 x", "1 99999999999999999999999"] {
            assert_eq!(resident(text), None, "{text}");
        }
    }
}
