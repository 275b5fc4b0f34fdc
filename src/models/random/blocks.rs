//! Random weights of every type that a model with random weights is written in: valid blocks whose values are small
//! and finite, from one pattern per type that repeats. Not here: which tensor has which type (`super`).
//!
//! Source of the block layouts: ggml/src/ggml-common.h (`block_q8_0`, `block_q4_K`, `block_q6_K`).

use super::super::ggml::GgmlType;
use super::super::writer::PlannedTensor;
use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Range;

/// Blocks of a pattern, at most. A prime, so that no two rows of a matrix begin at the same place of it, unless there
/// are more rows than this: equal rows of the output matrix would make equal logits.
const PATTERN_BLOCKS: u64 = 262_139;
/// The same for types with one element a block (prime, just below 2^24).
const PATTERN_ELEMENTS: u64 = 16_777_213;

/// Scales as bits of 16-bit floats, chosen so that weights of every type have a deviation of about 0.02 around 0.
const Q8_0_D: u16 = 0x0c6c; // 2.7e-4
const Q4_K_D: u16 = 0x03ef; // 6e-5
const Q4_K_DMIN: u16 = 0x0e8e; // 4e-4
const Q6_K_D: u16 = 0x0150; // 2e-5

/// Numbers that only have to look random: splitmix64 (Steele, Lea, Flood 2014).
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The patterns made so far. The same seed gives the same bytes.
pub struct Weights {
    seed: u64,
    /// Blocks of the largest tensor, by type: no pattern needs to be longer.
    largest: HashMap<u32, u64>,
    patterns: HashMap<u32, Vec<u8>>,
}

impl Weights {
    /// Patterns for these tensors.
    pub fn new(seed: u64, tensors: &[PlannedTensor]) -> Self {
        let mut largest = HashMap::new();
        for tensor in tensors {
            let most: &mut u64 = largest.entry(tensor.ggml.id).or_default();
            *most = (*most).max(tensor.bytes() / tensor.ggml.bytes);
        }
        Self { seed, largest, patterns: HashMap::new() }
    }

    /// Writes a tensor's data: ones for norms, zeros for biases, random weights for the rest, but zeros in the rows
    /// `silent` (in rising order).
    ///
    /// # Errors
    /// What `out` says.
    pub fn fill(&mut self, tensor: &PlannedTensor, silent: &[Range<u64>], out: &mut dyn Write) -> io::Result<()> {
        if tensor.ggml == GgmlType::F32 && tensor.name.ends_with(".bias") {
            return zeros(tensor.bytes(), out);
        }
        if tensor.ggml == GgmlType::F32 && tensor.name.ends_with(".weight") && tensor.dims.len() == 1 {
            let ones: Vec<u8> = 1f32.to_le_bytes().repeat(tensor.dims[0] as usize);
            return out.write_all(&ones);
        }
        let start = hash(&tensor.name);
        let pattern = self.pattern(tensor.ggml);
        let rows: u64 = tensor.dims.iter().skip(1).product();
        let row = tensor.row_bytes();
        let mut at = start % (pattern.len() as u64 / tensor.ggml.bytes) * tensor.ggml.bytes;
        let mut done = 0;
        for range in silent.iter().cloned().chain(std::iter::once(rows..rows)) {
            at = repeat(pattern, at, (range.start - done) * row, out)?;
            zeros((range.end - range.start) * row, out)?;
            done = range.end;
        }
        Ok(())
    }

    fn pattern(&mut self, ggml: GgmlType) -> &[u8] {
        let most = if ggml.block == 1 { PATTERN_ELEMENTS } else { PATTERN_BLOCKS };
        let blocks = self.largest.get(&ggml.id).copied().unwrap_or(most).clamp(1, most);
        let seed = self.seed ^ u64::from(ggml.id);
        self.patterns.entry(ggml.id).or_insert_with(|| make(ggml, blocks, seed))
    }
}

/// Writes `bytes` of the pattern from `at` on, round and round; returns where it stands after that.
fn repeat(pattern: &[u8], mut at: u64, mut bytes: u64, out: &mut dyn Write) -> io::Result<u64> {
    while bytes > 0 {
        let rest = &pattern[at as usize..];
        let now = (rest.len() as u64).min(bytes);
        out.write_all(&rest[..now as usize])?;
        bytes -= now;
        at = (at + now) % pattern.len() as u64;
    }
    Ok(at)
}

fn zeros(mut bytes: u64, out: &mut dyn Write) -> io::Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    while bytes > 0 {
        let now = bytes.min(ZEROS.len() as u64);
        out.write_all(&ZEROS[..now as usize])?;
        bytes -= now;
    }
    Ok(())
}

/// FNV-1a.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

fn make(ggml: GgmlType, blocks: u64, seed: u64) -> Vec<u8> {
    let mut generator = Generator(seed);
    let len = (blocks * ggml.bytes) as usize;
    let mut out: Vec<u8> = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend(generator.next().to_le_bytes());
    }
    out.truncate(len);
    for block in out.chunks_exact_mut(ggml.bytes as usize) {
        tame(ggml, block);
    }
    out
}

/// Makes random bytes a valid block of small numbers.
fn tame(ggml: GgmlType, block: &mut [u8]) {
    match ggml {
        // Sign and mantissa stay random; the exponent becomes that of 1/128 or 1/64.
        GgmlType::F32 => {
            let bits = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
            let bits = (bits & 0x807f_ffff) | ((120 + ((bits >> 23) & 1)) << 23);
            block.copy_from_slice(&bits.to_le_bytes());
        }
        GgmlType::F16 => {
            let bits = u16::from_le_bytes([block[0], block[1]]);
            let bits = (bits & 0x83ff) | ((8 + ((bits >> 10) & 1)) << 10);
            block.copy_from_slice(&bits.to_le_bytes());
        }
        GgmlType::Q8_0 => block[..2].copy_from_slice(&Q8_0_D.to_le_bytes()),
        GgmlType::Q4_K => {
            block[..2].copy_from_slice(&Q4_K_D.to_le_bytes());
            block[2..4].copy_from_slice(&Q4_K_DMIN.to_le_bytes());
        }
        GgmlType::Q6_K => block[208..].copy_from_slice(&Q6_K_D.to_le_bytes()),
        // No preset has another type; zeros are valid in all of them.
        _ => block.fill(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(weights: &mut Weights, tensor: &PlannedTensor, silent: &[Range<u64>]) -> Vec<u8> {
        let mut out = Vec::new();
        weights.fill(tensor, silent, &mut out).unwrap();
        assert_eq!(out.len() as u64, tensor.bytes(), "{}", tensor.name);
        out
    }

    #[test]
    fn weights_are_small_differ_from_row_to_row_and_repeat_with_the_seed() {
        let types = [GgmlType::F32, GgmlType::F16, GgmlType::Q8_0, GgmlType::Q4_K, GgmlType::Q6_K];
        let tensors = types.map(|ggml| PlannedTensor { name: "x.weight".to_owned(), dims: vec![256, 64], ggml });
        let mut weights = Weights::new(1, &tensors);
        let mut other = Weights::new(1, &tensors);
        for tensor in &tensors {
            let silent = [3..4, 4..5];
            let bytes = written(&mut weights, tensor, &silent);
            assert_eq!(bytes, written(&mut other, tensor, &silent));
            let rows: Vec<_> = bytes.chunks(tensor.row_bytes() as usize).collect();
            assert!(rows[3].iter().chain(rows[4]).all(|b| *b == 0));
            let distinct: std::collections::HashSet<_> = rows.iter().collect();
            assert_eq!(distinct.len(), 63, "62 rows and the silent ones");
        }
        let floats = written(&mut weights, &tensors[0], &[]);
        for x in floats.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())) {
            assert!((0.0078..0.032).contains(&x.abs()), "{x}");
        }
        // The scale of every block is ours.
        let q6 = written(&mut weights, &tensors[4], &[]);
        assert!(q6.chunks(210).all(|b| b[208..] == Q6_K_D.to_le_bytes()));
        assert_ne!(q6, written(&mut Weights::new(2, &tensors), &tensors[4], &[]));
    }

    #[test]
    fn norms_are_one_and_biases_zero() {
        let tensor = |name: &str| PlannedTensor { name: name.to_owned(), dims: vec![4], ggml: GgmlType::F32 };
        let mut weights = Weights::new(1, &[tensor("a.weight")]);
        assert_eq!(written(&mut weights, &tensor("a.weight"), &[]), 1f32.to_le_bytes().repeat(4));
        assert_eq!(written(&mut weights, &tensor("a.bias"), &[]), [0; 16]);
    }
}
