//! The tensor types a GGUF file may hold: names, block sizes, and what they are good for.
//! The table follows `ggml.h` of the llama.cpp that the engine is built with. Not here: reading files.

/// One ggml tensor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GgmlType {
    /// Number in the file.
    pub id: u32,
    /// The usual name, as in file names.
    pub name: &'static str,
    /// Elements per block; a row is a whole number of blocks.
    pub block: u64,
    /// Bytes per block.
    pub bytes: u64,
}

const fn t(id: u32, name: &'static str, block: u64, bytes: u64) -> GgmlType {
    GgmlType { id, name, block, bytes }
}

const TYPES: &[GgmlType] = &[
    t(0, "F32", 1, 4),
    t(1, "F16", 1, 2),
    t(2, "Q4_0", 32, 18),
    t(3, "Q4_1", 32, 20),
    t(6, "Q5_0", 32, 22),
    t(7, "Q5_1", 32, 24),
    t(8, "Q8_0", 32, 34),
    t(9, "Q8_1", 32, 36),
    t(10, "Q2_K", 256, 84),
    t(11, "Q3_K", 256, 110),
    t(12, "Q4_K", 256, 144),
    t(13, "Q5_K", 256, 176),
    t(14, "Q6_K", 256, 210),
    t(15, "Q8_K", 256, 292),
    t(16, "IQ2_XXS", 256, 66),
    t(17, "IQ2_XS", 256, 74),
    t(18, "IQ3_XXS", 256, 98),
    t(19, "IQ1_S", 256, 50),
    t(20, "IQ4_NL", 32, 18),
    t(21, "IQ3_S", 256, 110),
    t(22, "IQ2_S", 256, 82),
    t(23, "IQ4_XS", 256, 136),
    t(24, "I8", 1, 1),
    t(25, "I16", 1, 2),
    t(26, "I32", 1, 4),
    t(27, "I64", 1, 8),
    t(28, "F64", 1, 8),
    t(29, "IQ1_M", 256, 56),
    t(30, "BF16", 1, 2),
    t(34, "TQ1_0", 256, 54),
    t(35, "TQ2_0", 256, 66),
    t(39, "MXFP4", 32, 17),
    t(40, "NVFP4", 64, 36),
    t(41, "Q1_0", 128, 18),
    t(42, "Q2_0", 64, 18),
];

/// Numbers that once named a type and no longer do.
const REMOVED: &[u32] = &[4, 5, 31, 32, 33, 36, 37, 38];

impl GgmlType {
    /// 32-bit floats: what llama.cpp computes norms and biases in.
    pub const F32: GgmlType = TYPES[0];
    /// 16-bit floats.
    pub const F16: GgmlType = TYPES[1];
    /// 8-bit integers with a scale for every 32.
    pub const Q8_0: GgmlType = TYPES[6];
    /// 4 bits with scales and offsets in superblocks of 256.
    pub const Q4_K: GgmlType = TYPES[10];
    /// 6 bits with scales in superblocks of 256.
    pub const Q6_K: GgmlType = TYPES[12];

    /// The type with this number in a file.
    pub fn from_id(id: u32) -> Option<Self> {
        TYPES.iter().find(|t| t.id == id).copied()
    }

    /// True for numbers of types that llama.cpp dropped.
    pub fn is_removed(id: u32) -> bool {
        REMOVED.contains(&id)
    }

    /// True when llama.cpp can multiply a matrix of this type and take rows from it. The others
    /// (integers, F64 and the two types for intermediate results) make it abort or crash.
    pub fn is_weight(self) -> bool {
        !matches!(self.name, "I8" | "I16" | "I32" | "I64" | "F64" | "Q8_1" | "Q8_K")
    }
}

/// The name of `general.file_type`, as file names spell it.
pub fn file_type_name(id: u32) -> Option<&'static str> {
    // Bit 10 marks a guess made by llama.cpp itself.
    Some(match id & !1024 {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_known_once() {
        for id in 0..43 {
            let known = TYPES.iter().filter(|t| t.id == id).count();
            assert_eq!(known, usize::from(!GgmlType::is_removed(id)), "type {id}");
        }
        assert!(GgmlType::from_id(43).is_none());
        assert_eq!(GgmlType::from_id(12).unwrap().bytes, 144);
        let named = [GgmlType::F32, GgmlType::F16, GgmlType::Q8_0, GgmlType::Q4_K, GgmlType::Q6_K];
        assert_eq!(named.map(|t| t.name), ["F32", "F16", "Q8_0", "Q4_K", "Q6_K"]);
    }
}
