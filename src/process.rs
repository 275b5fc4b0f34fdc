//! What this process takes of the machine: processor time and memory, read when asked.
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
    /// The usage now. Costs a few microseconds.
    pub fn now() -> Self {
        let taken = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            cpu_s: taken.tv_sec as f64 + taken.tv_nsec as f64 / 1e9,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| resident(&text)),
        }
    }
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
        let before = Usage::now();
        let held: Vec<u64> = (0..8_000_000).collect();
        std::hint::black_box(&held);
        let after = Usage::now();
        assert!(after.cpu_s > before.cpu_s && after.cores >= 1);
        assert!(after.memory_bytes.unwrap() > 32 << 20, "{after:?}");
    }

    #[test]
    fn what_is_no_statm_is_none() {
        for text in ["", "12", "12 x", "1 99999999999999999999999"] {
            assert_eq!(resident(text), None, "{text}");
        }
    }
}
