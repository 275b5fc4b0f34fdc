//! What the machine spends: memory of the processes and the GPU, and power where the driver's tool tells.
//! Not here: times.

use crate::engine::plain::gpu_memory;
use serde::Serialize;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Most samples of power kept; at five a second nearly six hours.
const MOST_SAMPLES: usize = 100_000;

/// Memory at five moments, in MiB: of this process and its children (resident, with the pages of model files that are
/// mapped), and of the first GPU (used by anyone).
#[derive(Debug, Clone, Default, Serialize)]
pub struct Memory {
    pub resident_before: f64,
    pub resident_engine: f64,
    pub resident_plain: Option<f64>,
    pub resident_end: f64,
    pub gpu_before: Option<f64>,
    pub gpu_engine: Option<f64>,
    pub gpu_plain: Option<f64>,
    pub gpu_end: Option<f64>,
    pub gpu_total: Option<f64>,
}

impl Memory {
    pub(super) fn before() -> Self {
        Self {
            resident_before: resident_mib(),
            gpu_before: gpu_used_mib(),
            gpu_total: gpu_memory().map(|(_, total)| mib(total)),
            ..Self::default()
        }
    }

    pub(super) fn engine_loaded(&mut self) {
        (self.resident_engine, self.gpu_engine) = (resident_mib(), gpu_used_mib());
    }

    pub(super) fn plain_loaded(&mut self) {
        (self.resident_plain, self.gpu_plain) = (Some(resident_mib()), gpu_used_mib());
    }

    pub(super) fn end(&mut self) {
        (self.resident_end, self.gpu_end) = (resident_mib(), gpu_used_mib());
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn gpu_used_mib() -> Option<f64> {
    gpu_memory().map(|(free, total)| mib(total.saturating_sub(free)))
}

/// Of this process and of those that it started from the same program.
fn resident_mib() -> f64 {
    let own = std::process::id();
    let program = std::fs::read_link("/proc/self/exe").ok();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter_map(|process| resident_kib(process, own, program.as_deref())).sum::<u64>() as f64 / 1024.0
}

fn resident_kib(process: u32, own: u32, program: Option<&Path>) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let child = || {
        field("PPid:") == Some(u64::from(own))
            && program.is_some()
            && std::fs::read_link(format!("/proc/{process}/exe")).ok().as_deref() == program
    };
    (process == own || child()).then(|| field("VmRSS:")).flatten()
}

/// What nvidia-smi calls the GPU that CUDA calls the first.
fn first_visible(devices: Option<&str>) -> &str {
    devices.and_then(|d| d.split(',').next()).map(str::trim).filter(|d| !d.is_empty()).unwrap_or("0")
}

/// Watts of the first GPU over time, from `nvidia-smi` when that is there.
pub struct Power {
    tool: Child,
    samples: Arc<Mutex<Vec<(Instant, f64)>>>,
    reader: Option<JoinHandle<()>>,
}

impl Power {
    /// Starts to take samples, five a second. `None` when there is no such tool.
    /// `visible` is CUDA's list of the GPUs that it may use, when one is given.
    pub fn start(visible: Option<&str>) -> Option<Self> {
        let mut tool = Command::new("nvidia-smi")
            .arg(format!("--id={}", first_visible(visible)))
            .args(["--query-gpu=power.draw", "--format=csv,noheader,nounits", "--loop-ms=200"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let output = tool.stdout.take()?;
        let samples: Arc<Mutex<Vec<(Instant, f64)>>> = Arc::default();
        let reader = std::thread::Builder::new().name("power".to_owned()).spawn({
            let samples = Arc::clone(&samples);
            move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
                    // A driver that does not know says so in words.
                    if let Ok(watts) = line.trim().parse::<f64>()
                        && samples.len() < MOST_SAMPLES
                    {
                        samples.push((Instant::now(), watts));
                    }
                }
            }
        });
        Some(Self { tool, samples, reader: reader.ok() })
    }

    /// Mean watts between two moments; `None` without a sample.
    pub fn mean(&self, from: Instant, until: Instant) -> Option<f64> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let within: Vec<f64> = samples.iter().filter(|(at, _)| (from..=until).contains(at)).map(|(_, w)| *w).collect();
        (!within.is_empty()).then(|| within.iter().sum::<f64>() / within.len() as f64)
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ended = self.tool.kill();
        let _reaped = self.tool.wait();
        if let Some(reader) = self.reader.take() {
            let _joined = reader.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_is_that_of_the_gpu_in_use() {
        assert_eq!(first_visible(None), "0");
        assert_eq!(first_visible(Some("")), "0");
        assert_eq!(first_visible(Some("1")), "1");
        assert_eq!(first_visible(Some("GPU-8932f937, 0")), "GPU-8932f937");
    }

    #[test]
    fn memory_shows() {
        let before = resident_mib();
        assert!(before > 1.0);
        let held = vec![1u8; 64 << 20];
        std::hint::black_box(&held);
        assert!(resident_mib() > before + 32.0);
    }
}
