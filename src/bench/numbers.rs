//! Many measurements as a few numbers. Not here: what was measured.

use serde::Serialize;
use std::time::Duration;

/// How measurements spread, in milliseconds. Percentiles are the nearest measurement, not a value between two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub least: f64,
    pub most: f64,
    /// How many there were.
    pub count: usize,
}

impl Spread {
    /// Of durations; `None` of none.
    pub fn of(durations: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut ms: Vec<f64> = durations.into_iter().map(|d| d.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let (least, most) = (*ms.first()?, *ms.last()?);
        let at = |share: f64| ms[((share * ms.len() as f64).ceil() as usize).clamp(1, ms.len()) - 1];
        Some(Self { p50: at(0.5), p95: at(0.95), p99: at(0.99), least, most, count: ms.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measurements() {
        assert_eq!(Spread::of([]), None);
        let one = Spread::of([Duration::from_millis(7)]).unwrap();
        assert_eq!((one.p50, one.p99, one.count), (7.0, 7.0, 1));
        let many = Spread::of((1..=200).rev().map(Duration::from_millis)).unwrap();
        assert_eq!((many.p50, many.p95, many.p99), (100.0, 190.0, 198.0));
        assert_eq!((many.least, many.most), (1.0, 200.0));
    }
}
