//! How a model's makers want its words chosen: `general.sampling.*` of the header, by llama.cpp's names.
//! A value that can't be right is as good as none: it is advice, and no reason to refuse a file.
//! Not here: the person's own choice and the defaults (`config`, `engine`).

use std::fmt;
use std::ops::RangeInclusive;

use crate::models::gguf::{Header, Value};

/// What a model's file recommends; `None` where it says nothing usable.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SamplingAdvice {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i32>,
    pub min_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
}

impl SamplingAdvice {
    /// Reads the advice of a header. The ranges are those of the options of the same names.
    pub fn read(header: &Header) -> Self {
        let float = |name: &str, range: RangeInclusive<f32>| {
            let value = match header.get(&key(name))? {
                Value::F32(x) => *x,
                Value::F64(x) => *x as f32,
                _ => return None,
            };
            // NaN is in no range.
            range.contains(&value).then_some(value)
        };
        let whole = |name: &str, most: i32| {
            let value = match header.get(&key(name))? {
                Value::I32(n) => *n,
                Value::U32(n) => i32::try_from(*n).ok()?,
                _ => return None,
            };
            (0..=most).contains(&value).then_some(value)
        };
        Self {
            temperature: float("temp", 0.0..=5.0),
            top_p: float("top_p", 0.0..=1.0),
            top_k: whole("top_k", 1_000_000),
            min_p: float("min_p", 0.0..=1.0),
            repeat_penalty: float("penalty_repeat", 0.5..=2.0),
        }
    }

    /// True when the file recommends nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn key(name: &str) -> String {
    format!("general.sampling.{name}")
}

impl fmt::Display for SamplingAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let float = |name: &str, value: Option<f32>| value.map(|x| format!("{name} {x}"));
        let parts = [
            float("temperature", self.temperature),
            float("top_p", self.top_p),
            self.top_k.map(|k| format!("top_k {k}")),
            float("min_p", self.min_p),
            float("repeat_penalty", self.repeat_penalty),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}
