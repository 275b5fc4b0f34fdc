//! Typed looks into a header: a value of another type, a missing one and one out of range each have
//! their own error. llama.cpp's projector loader aborts on the first of these. Not here: which keys
//! matter (`language`, `projector`).

use std::ops::RangeInclusive;

use super::gguf::{Array, Header, Items, Kind, Tensor, Value, shown};
use crate::error::{Error, Result};

const DAMAGED: &str = "the file is damaged or its converter is broken; take the published file";

/// A metadata value of the wrong type.
pub fn wrong_kind(key: &str, found: Kind, expected: &str) -> Error {
    Error::invalid("model_metadata_type", format!("{key} is {found} where {expected} is expected")).hint(DAMAGED)
}

/// A metadata value that cannot be right.
pub fn wrong_value(message: String) -> Error {
    Error::invalid("model_metadata_value", message).hint(DAMAGED)
}

/// A tensor that is missing or has another shape or type than the metadata says.
pub fn wrong_tensor(message: String) -> Error {
    Error::invalid("model_tensor_shape", message).hint(DAMAGED)
}

fn missing(key: &str) -> Error {
    Error::invalid("model_metadata_missing", format!("the metadata entry {key} is missing")).hint(DAMAGED)
}

macro_rules! typed {
    ($name:ident, $variant:ident, $type:ty, $expected:literal) => {
        /// The value if it is there.
        ///
        /// # Errors
        /// `model_metadata_type` when it has another type.
        pub fn $name(&self, key: &str) -> Result<Option<$type>> {
            match self.get(key) {
                None => Ok(None),
                Some(Value::$variant(value)) => Ok(Some(value.clone())),
                Some(other) => Err(wrong_kind(key, other.kind(), $expected)),
            }
        }
    };
}

impl Header {
    typed!(u32, U32, u32, "u32");
    typed!(i32, I32, i32, "i32");
    typed!(u16, U16, u16, "u16");
    typed!(f32, F32, f32, "f32");
    typed!(bool, Bool, bool, "bool");
    typed!(str, Str, String, "a string");

    /// A number that must be there and in range.
    ///
    /// # Errors
    /// `model_metadata_missing`, `model_metadata_type` or `model_metadata_value`.
    pub fn need_u32(&self, key: &str, range: RangeInclusive<u32>) -> Result<u32> {
        self.u32_in(key, range)?.ok_or_else(|| missing(key))
    }

    /// A number that may be absent but not out of range.
    ///
    /// # Errors
    /// `model_metadata_type` or `model_metadata_value`.
    pub fn u32_in(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>> {
        match self.u32(key)? {
            Some(n) if !range.contains(&n) => {
                Err(wrong_value(format!("{key} is {n}; it must be from {} to {}", range.start(), range.end())))
            }
            other => Ok(other),
        }
    }

    /// A float that may be absent but not out of range, infinite or not a number.
    ///
    /// # Errors
    /// `model_metadata_type` or `model_metadata_value`.
    pub fn f32_in(&self, key: &str, range: RangeInclusive<f32>) -> Result<Option<f32>> {
        match self.f32(key)? {
            Some(x) if !range.contains(&x) => {
                Err(wrong_value(format!("{key} is {x}; it must be from {} to {}", range.start(), range.end())))
            }
            other => Ok(other),
        }
    }

    /// Like [`f32_in`](Self::f32_in) for a value that must be there.
    ///
    /// # Errors
    /// As there, and `model_metadata_missing`.
    pub fn need_f32(&self, key: &str, range: RangeInclusive<f32>) -> Result<f32> {
        self.f32_in(key, range)?.ok_or_else(|| missing(key))
    }

    /// A string that must be there.
    ///
    /// # Errors
    /// `model_metadata_missing` or `model_metadata_type`.
    pub fn need_str(&self, key: &str) -> Result<String> {
        self.str(key)?.ok_or_else(|| missing(key))
    }

    /// An array if it is there, with elements of one of `kinds`.
    ///
    /// # Errors
    /// `model_metadata_type`.
    pub fn array(&self, key: &str, kinds: &[Kind]) -> Result<Option<&Array>> {
        let expected = || kinds.iter().map(|k| format!("an array of {k}")).collect::<Vec<_>>().join(" or ");
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if kinds.contains(&array.kind) => Ok(Some(array)),
            Some(Value::Array(array)) => Err(Error::invalid(
                "model_metadata_type",
                format!("{key} is an array of {} where {} is expected", array.kind, expected()),
            )
            .hint(DAMAGED)),
            Some(other) => Err(wrong_kind(key, other.kind(), &expected())),
        }
    }

    /// The strings of an array that must be there.
    ///
    /// # Errors
    /// `model_metadata_missing` or `model_metadata_type`.
    pub fn need_strings(&self, key: &str) -> Result<&[String]> {
        match self.array(key, &[Kind::Str])?.map(|a| &a.items) {
            Some(Items::Strings(strings)) => Ok(strings),
            _ => Err(missing(key)),
        }
    }

    /// A whole number per layer: either one for all, or an array of `layers`.
    ///
    /// # Errors
    /// `model_metadata_type` or `model_metadata_value`.
    pub fn per_layer(&self, key: &str, layers: u32, range: RangeInclusive<u32>) -> Result<Option<Vec<u32>>> {
        if !matches!(self.get(key), Some(Value::Array(_))) {
            return Ok(self.u32_in(key, range)?.map(|n| vec![n]));
        }
        let Some(array) = self.array(key, &[Kind::U32, Kind::I32])? else { return Ok(None) };
        if array.len != u64::from(layers) {
            return Err(wrong_value(format!("{key} has {} elements for {layers} layers", array.len)));
        }
        let Items::Values(values) = &array.items else { return Ok(None) };
        let mut out = Vec::with_capacity(values.len());
        for value in values {
            let n = match value {
                Value::U32(n) => Some(*n),
                Value::I32(n) => u32::try_from(*n).ok(),
                _ => None,
            };
            match n {
                Some(n) if range.contains(&n) => out.push(n),
                _ => {
                    return Err(wrong_value(format!(
                        "{key} has an element that is not from {} to {}",
                        range.start(),
                        range.end()
                    )));
                }
            }
        }
        Ok(Some(out))
    }

    /// A tensor that must be there with exactly these dimensions (fastest first).
    ///
    /// # Errors
    /// `model_tensor_shape`.
    pub fn need_tensor(&self, name: &str, dims: &[u64]) -> Result<&Tensor> {
        self.tensor_if(name, dims)?.ok_or_else(|| wrong_tensor(format!("the tensor {name} is missing")))
    }

    /// A tensor that may be absent, but not have other dimensions.
    ///
    /// # Errors
    /// `model_tensor_shape`.
    pub fn tensor_if(&self, name: &str, dims: &[u64]) -> Result<Option<&Tensor>> {
        let Some(tensor) = self.tensor(name) else { return Ok(None) };
        // ggml fills missing dimensions with ones.
        let padded = |d: &[u64], i: usize| d.get(i).copied().unwrap_or(1);
        if (0..4).any(|i| padded(&tensor.dims, i) != padded(dims, i)) {
            return Err(wrong_tensor(format!(
                "the tensor {name} has the shape {:?}; the metadata calls for {dims:?}",
                tensor.dims
            )));
        }
        Ok(Some(tensor))
    }
}

/// Demands a type that llama.cpp can multiply and look rows up in.
///
/// # Errors
/// `model_tensor_type`.
pub fn want_weight(tensor: &Tensor) -> Result<()> {
    if tensor.ggml.is_weight() { Ok(()) } else { Err(wrong_type(tensor, "a type of weights")) }
}

/// Demands 32-bit floats: llama.cpp aborts when a norm, a bias or a query has another type.
///
/// # Errors
/// `model_tensor_type`.
pub fn want_f32(tensor: &Tensor) -> Result<()> {
    if tensor.ggml == super::ggml::GgmlType::F32 { Ok(()) } else { Err(wrong_type(tensor, "F32")) }
}

/// A tensor whose type llama.cpp cannot use in its place.
pub fn wrong_type(tensor: &Tensor, expected: &str) -> Error {
    Error::invalid(
        "model_tensor_type",
        format!("the tensor {} is {} where {expected} is expected", shown(&tensor.name), tensor.ggml.name),
    )
    .hint(DAMAGED)
}
