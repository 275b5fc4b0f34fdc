//! Our own reader for GGUF headers (versions 2 and 3): metadata and the table of tensors.
//!
//! It is stricter than llama.cpp and trusts nothing: every count is held against the bytes that are
//! left before memory is taken for it, and what it returns has tensors that lie inside the file, in
//! order and without gaps. Files come from the internet, so this is fuzzed (`fuzz/`).
//! Not here: what the numbers mean (`inspect`), tensor data.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};

use super::ggml::GgmlType;
use crate::error::{Error, Result};

/// Longest string that is accepted, in bytes (the longest real ones are chat templates).
pub const MAX_STRING: u64 = 16 << 20;
/// Most metadata entries, and most tensors.
pub const MAX_ENTRIES: u64 = 65_536;
/// Most elements of one array (the longest real ones are vocabularies of a few hundred thousand).
pub const MAX_ARRAY: u64 = 8 << 20;
/// Largest header in bytes; real ones are a few MiB.
pub const MAX_HEADER: u64 = 256 << 20;
/// Numeric arrays up to this length are kept as they are; of longer ones only `i32` are.
pub const KEPT_ARRAY: u64 = 1024;
/// Longest tensor name (ggml's 64 less the closing zero).
const MAX_TENSOR_NAME: usize = 63;
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 65_536;

/// The type of a metadata value or of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Str,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn from_id(id: u32) -> Option<Self> {
        use Kind::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, Str, Array, U64, I64, F64].get(id as usize).copied()
    }

    /// The number in a file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of one value; for strings the least they take (their length field).
    fn least_bytes(self) -> u64 {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::Str | Kind::U64 | Kind::I64 | Kind::F64 => 8,
            Kind::Array => 12,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::U8 => "u8",
            Kind::I8 => "i8",
            Kind::U16 => "u16",
            Kind::I16 => "i16",
            Kind::U32 => "u32",
            Kind::I32 => "i32",
            Kind::F32 => "f32",
            Kind::Bool => "bool",
            Kind::Str => "string",
            Kind::Array => "array",
            Kind::U64 => "u64",
            Kind::I64 => "i64",
            Kind::F64 => "f64",
        })
    }
}

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// The value's type.
    pub fn kind(&self) -> Kind {
        match self {
            Value::U8(_) => Kind::U8,
            Value::I8(_) => Kind::I8,
            Value::U16(_) => Kind::U16,
            Value::I16(_) => Kind::I16,
            Value::U32(_) => Kind::U32,
            Value::I32(_) => Kind::I32,
            Value::F32(_) => Kind::F32,
            Value::Bool(_) => Kind::Bool,
            Value::Str(_) => Kind::Str,
            Value::Array(_) => Kind::Array,
            Value::U64(_) => Kind::U64,
            Value::I64(_) => Kind::I64,
            Value::F64(_) => Kind::F64,
        }
    }
}

/// An array of metadata. Arrays of arrays do not exist: llama.cpp refuses them, and so do we.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub kind: Kind,
    pub len: u64,
    pub items: Items,
}

/// What is kept of an array.
#[derive(Debug, Clone, PartialEq)]
pub enum Items {
    /// Strings are kept whole: the vocabulary is looked into.
    Strings(Vec<String>),
    /// Up to [`KEPT_ARRAY`] numbers.
    Values(Vec<Value>),
    /// More 32-bit integers than that: the types of tokens, one each.
    I32s(Vec<i32>),
    /// A longer numeric array, skipped.
    Skipped,
}

/// One tensor of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub name: String,
    /// Elements per dimension, fastest first, 1 to 4 of them, none zero.
    pub dims: Vec<u64>,
    pub ggml: GgmlType,
    /// Bytes from the start of the data section.
    pub offset: u64,
    /// Bytes of data, without padding.
    pub bytes: u64,
}

impl Tensor {
    /// Elements in all.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }
}

/// A whole header.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    pub version: u32,
    /// Bytes; tensor data starts at multiples of it.
    pub alignment: u64,
    /// Where the data section starts, in bytes from the start of the file.
    pub data_start: u64,
    pub file_len: u64,
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
    keys: HashMap<String, usize>,
    names: HashMap<String, usize>,
}

impl Header {
    /// Reads the header of a file of `file_len` bytes from its start.
    ///
    /// # Errors
    /// `model_not_gguf`, `model_version`, `model_file_truncated`, `model_header_invalid` or
    /// `model_file_unreadable`; the message does not name the file (the caller knows it).
    pub fn read(source: impl Read, file_len: u64) -> Result<Self> {
        let mut input = Input { source, at: 0, len: file_len };
        let version = read_preamble(&mut input)?;
        let n_tensors = count(input.u64()?, "tensors")?;
        let n_entries = count(input.u64()?, "metadata entries")?;

        let mut metadata = Vec::new();
        let mut keys = HashMap::new();
        for i in 0..n_entries {
            let key = input.string("the name of a metadata entry")?;
            if key.is_empty() {
                return Err(invalid(format!("metadata entry {i} has no name")));
            }
            let value = read_value(&mut input, &key)?;
            if keys.insert(key.clone(), metadata.len()).is_some() {
                return Err(invalid(format!("metadata entry {} is there twice", shown(&key))));
            }
            metadata.push((key, value));
        }
        let alignment = match keys.get(ALIGNMENT_KEY).map(|&i| &metadata[i].1) {
            None => DEFAULT_ALIGNMENT,
            Some(Value::U32(n)) => u64::from(*n),
            Some(other) => {
                return Err(invalid(format!("{ALIGNMENT_KEY} is {} where u32 is expected", other.kind())));
            }
        };
        if !alignment.is_power_of_two() || !(8..=MAX_ALIGNMENT).contains(&alignment) {
            return Err(invalid(format!(
                "{ALIGNMENT_KEY} is {alignment}; it must be a power of two from 8 to {MAX_ALIGNMENT}"
            )));
        }

        let mut tensors: Vec<Tensor> = Vec::new();
        let mut names = HashMap::new();
        for _ in 0..n_tensors {
            let tensor = read_tensor(&mut input)?;
            if names.insert(tensor.name.clone(), tensors.len()).is_some() {
                return Err(invalid(format!("tensor {} is there twice", shown(&tensor.name))));
            }
            tensors.push(tensor);
        }
        let data_start = input.at.next_multiple_of(alignment);
        check_places(&tensors, alignment, data_start, file_len)?;
        Ok(Self { version, alignment, data_start, file_len, metadata, tensors, keys, names })
    }

    /// The metadata value of this name.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).and_then(|&i| self.metadata.get(i)).map(|(_, value)| value)
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.names.get(name).and_then(|&i| self.tensors.get(i))
    }
}

/// Where in a split model this file stands: `(number, of)` from a name like `x-00002-of-00005.gguf`.
pub fn split_part(file_name: &str) -> Option<(u32, u32)> {
    let stem = file_name.strip_suffix(".gguf")?;
    let (rest, of) = stem.rsplit_once("-of-")?;
    let (_, number) = rest.rsplit_once('-')?;
    let digits = |s: &str| (s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok()).flatten();
    Some((digits(number)?, digits(of)?))
}

/// Text from a file, cut short and made printable for a message.
pub fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    format!("\"{out}\"")
}

fn invalid(message: impl fmt::Display) -> Error {
    Error::invalid("model_header_invalid", format!("the GGUF header is damaged: {message}"))
        .hint("download the file again; if it is your own conversion, convert it again")
}

fn truncated(len: u64, least: u64) -> Error {
    Error::invalid(
        "model_file_truncated",
        format!("the file is {len} bytes, its header says it needs at least {least}: it is truncated"),
    )
    .hint("the download or copy was cut short; fetch the file again")
}

fn count(n: u64, what: &str) -> Result<u64> {
    if n > MAX_ENTRIES {
        return Err(invalid(format!("it announces {n} {what}; more than {MAX_ENTRIES} are not accepted")));
    }
    Ok(n)
}

/// The bytes of a file from its start, with how many are left.
struct Input<R> {
    source: R,
    at: u64,
    len: u64,
}

impl<R: Read> Input<R> {
    /// Moves on by `n` bytes if the file and the bound on headers allow it.
    fn claim(&mut self, n: u64) -> Result<()> {
        let end = self.at.checked_add(n).ok_or_else(|| invalid("a length in it overflows"))?;
        if end > self.len {
            return Err(truncated(self.len, end));
        }
        if end > MAX_HEADER {
            return Err(invalid(format!("it is larger than {} MiB", MAX_HEADER >> 20)));
        }
        self.at = end;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.claim(N as u64)?;
        let mut buffer = [0; N];
        self.source.read_exact(&mut buffer).map_err(|e| unreadable(&e))?;
        Ok(buffer)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn string(&mut self, what: &str) -> Result<String> {
        let len = self.u64()?;
        if len > MAX_STRING {
            return Err(invalid(format!("{what} is {len} bytes long; more than {MAX_STRING} are not accepted")));
        }
        self.claim(len)?;
        let mut buffer = vec![0; len as usize];
        self.source.read_exact(&mut buffer).map_err(|e| unreadable(&e))?;
        String::from_utf8(buffer).map_err(|_| invalid(format!("{what} is not UTF-8")))
    }

    fn skip(&mut self, n: u64) -> Result<()> {
        self.claim(n)?;
        let copied = io::copy(&mut (&mut self.source).take(n), &mut io::sink()).map_err(|e| unreadable(&e))?;
        if copied < n { Err(truncated(self.len, self.at)) } else { Ok(()) }
    }
}

/// The source ended or failed although the file's length promised more.
fn unreadable(error: &io::Error) -> Error {
    Error::unavailable("model_file_unreadable", format!("reading failed: {error}"))
        .hint("check the disk, and that nothing writes the file at the moment")
}

fn read_preamble<R: Read>(input: &mut Input<R>) -> Result<u32> {
    let not_gguf = || {
        Error::invalid("model_not_gguf", "this is not a GGUF file (it does not start with the letters GGUF)")
            .hint("give the .gguf file itself")
    };
    if input.len < 4 || input.bytes::<4>()? != *b"GGUF" {
        return Err(not_gguf());
    }
    let version = input.u32()?;
    let wrong = |message: String, hint: &str| Err(Error::invalid("model_version", message).hint(hint));
    match version {
        2 | 3 => Ok(version),
        0 | 1 => {
            wrong(format!("GGUF version {version} is too old"), "convert the model again with a current llama.cpp")
        }
        v if v & 0xffff == 0 => wrong(
            "this GGUF file was written for big-endian machines".to_owned(),
            "take the usual little-endian file of the same model",
        ),
        v => wrong(
            format!("GGUF version {v} is not known here; versions 2 and 3 are"),
            "take a file made for current llama.cpp, or a newer Vidette",
        ),
    }
}

fn read_kind<R: Read>(input: &mut Input<R>, key: &str) -> Result<Kind> {
    let id = input.u32()?;
    Kind::from_id(id).ok_or_else(|| invalid(format!("metadata entry {} has the unknown type {id}", shown(key))))
}

fn read_value<R: Read>(input: &mut Input<R>, key: &str) -> Result<Value> {
    let kind = read_kind(input, key)?;
    if kind != Kind::Array {
        return read_scalar(input, kind, key);
    }
    let kind = read_kind(input, key)?;
    if kind == Kind::Array {
        return Err(invalid(format!("metadata entry {} is an array of arrays", shown(key))));
    }
    let len = input.u64()?;
    if len > MAX_ARRAY {
        return Err(invalid(format!(
            "metadata entry {} has {len} elements; more than {MAX_ARRAY} are not accepted",
            shown(key)
        )));
    }
    // Bounded by MAX_ARRAY above, so this can't overflow.
    let least = len * kind.least_bytes();
    if least > input.len - input.at {
        return Err(truncated(input.len, input.at.saturating_add(least)));
    }
    let items = if kind == Kind::Str {
        let mut strings = Vec::new();
        for _ in 0..len {
            strings.push(input.string(&format!("an element of {}", shown(key)))?);
        }
        Items::Strings(strings)
    } else if len <= KEPT_ARRAY {
        Items::Values((0..len).map(|_| read_scalar(input, kind, key)).collect::<Result<_>>()?)
    } else if kind == Kind::I32 {
        Items::I32s((0..len).map(|_| input.bytes().map(i32::from_le_bytes)).collect::<Result<_>>()?)
    } else {
        input.skip(least)?;
        Items::Skipped
    };
    Ok(Value::Array(Array { kind, len, items }))
}

fn read_scalar<R: Read>(input: &mut Input<R>, kind: Kind, key: &str) -> Result<Value> {
    Ok(match kind {
        Kind::U8 => Value::U8(input.bytes::<1>()?[0]),
        Kind::I8 => Value::I8(i8::from_le_bytes(input.bytes()?)),
        Kind::U16 => Value::U16(u16::from_le_bytes(input.bytes()?)),
        Kind::I16 => Value::I16(i16::from_le_bytes(input.bytes()?)),
        Kind::U32 => Value::U32(input.u32()?),
        Kind::I32 => Value::I32(i32::from_le_bytes(input.bytes()?)),
        Kind::F32 => Value::F32(f32::from_le_bytes(input.bytes()?)),
        Kind::Bool => Value::Bool(input.bytes::<1>()?[0] != 0),
        Kind::Str => Value::Str(input.string(&format!("metadata entry {}", shown(key)))?),
        Kind::U64 => Value::U64(input.u64()?),
        Kind::I64 => Value::I64(i64::from_le_bytes(input.bytes()?)),
        Kind::F64 => Value::F64(f64::from_le_bytes(input.bytes()?)),
        Kind::Array => return Err(invalid(format!("metadata entry {} is an array of arrays", shown(key)))),
    })
}

fn read_tensor<R: Read>(input: &mut Input<R>) -> Result<Tensor> {
    let name = input.string("the name of a tensor")?;
    if name.is_empty() || name.len() > MAX_TENSOR_NAME {
        return Err(invalid(format!(
            "the tensor name {} is {} bytes long; 1 to {MAX_TENSOR_NAME} are allowed",
            shown(&name),
            name.len()
        )));
    }
    let tensor = || shown(&name);
    let n_dims = input.u32()?;
    if !(1..=4).contains(&n_dims) {
        return Err(invalid(format!("tensor {} has {n_dims} dimensions; 1 to 4 are allowed", tensor())));
    }
    let dims = (0..n_dims).map(|_| input.u64()).collect::<Result<Vec<u64>>>()?;
    if dims.contains(&0) {
        return Err(invalid(format!("tensor {} has a dimension of zero", tensor())));
    }
    let overflow = || invalid(format!("the size of tensor {} overflows", tensor()));
    let elements = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).ok_or_else(overflow)?;
    if elements > i64::MAX as u64 {
        return Err(overflow());
    }
    let id = input.u32()?;
    let ggml = GgmlType::from_id(id).ok_or_else(|| {
        let why = if GgmlType::is_removed(id) { "was removed from llama.cpp" } else { "is unknown" };
        invalid(format!("tensor {} has type {id}, which {why}", tensor()))
    })?;
    if dims[0] % ggml.block != 0 {
        return Err(invalid(format!(
            "tensor {} has rows of {} elements; {} needs a multiple of {}",
            tensor(),
            dims[0],
            ggml.name,
            ggml.block
        )));
    }
    let bytes = (elements / ggml.block).checked_mul(ggml.bytes).ok_or_else(overflow)?;
    let offset = input.u64()?;
    Ok(Tensor { name, dims, ggml, offset, bytes })
}

/// llama.cpp wants the tensors in the order of the table, each at the next aligned place.
fn check_places(tensors: &[Tensor], alignment: u64, data_start: u64, file_len: u64) -> Result<()> {
    let mut next = 0u64;
    let mut least = 0u64;
    for tensor in tensors {
        let name = || shown(&tensor.name);
        if tensor.offset % alignment != 0 {
            return Err(invalid(format!(
                "tensor {} starts at {}, which is not a multiple of {alignment}",
                name(),
                tensor.offset
            )));
        }
        if tensor.offset < next {
            return Err(invalid(format!("the data of tensor {} overlaps that of the one before it", name())));
        }
        if tensor.offset > next {
            return Err(invalid(format!("tensor {} starts at {} where {next} is expected", name(), tensor.offset)));
        }
        let overflow = || invalid(format!("the end of tensor {} overflows", name()));
        let end = tensor.offset.checked_add(tensor.bytes).ok_or_else(overflow)?;
        least = data_start.checked_add(end).ok_or_else(overflow)?;
        next = end.checked_next_multiple_of(alignment).ok_or_else(overflow)?;
    }
    if least > file_len { Err(truncated(file_len, least)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header with one u32, one array of strings and two tensors, followed by their data.
    fn sample() -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        let text = |out: &mut Vec<u8>, s: &str| {
            out.extend((s.len() as u64).to_le_bytes());
            out.extend(s.as_bytes());
        };
        out.extend(3u32.to_le_bytes());
        out.extend(2u64.to_le_bytes());
        out.extend(2u64.to_le_bytes());
        text(&mut out, "a.number");
        out.extend(4u32.to_le_bytes());
        out.extend(7u32.to_le_bytes());
        text(&mut out, "words");
        out.extend(9u32.to_le_bytes());
        out.extend(8u32.to_le_bytes());
        out.extend(2u64.to_le_bytes());
        text(&mut out, "one");
        text(&mut out, "two");
        for (name, offset) in [("x", 0u64), ("y", 32)] {
            text(&mut out, name);
            out.extend(2u32.to_le_bytes());
            out.extend(3u64.to_le_bytes());
            out.extend(2u64.to_le_bytes());
            out.extend(0u32.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32) + 32 + 24, 0);
        out
    }

    fn read(bytes: &[u8]) -> Result<Header> {
        Header::read(bytes, bytes.len() as u64)
    }

    #[test]
    fn a_good_header_is_read_whole() {
        let header = read(&sample()).unwrap();
        assert_eq!(header.get("a.number"), Some(&Value::U32(7)));
        let Some(Value::Array(words)) = header.get("words") else { panic!() };
        assert_eq!(words.items, Items::Strings(vec!["one".into(), "two".into()]));
        assert_eq!(header.tensor("y").unwrap().dims, [3, 2]);
        assert_eq!(header.tensor("y").unwrap().bytes, 24);
    }

    #[test]
    fn every_shorter_file_is_refused_and_the_last_byte_is_named() {
        let whole = sample();
        for n in 0..whole.len() {
            assert!(read(&whole[..n]).is_err(), "{n} bytes");
        }
        let error = read(&whole[..whole.len() - 1]).unwrap_err();
        assert_eq!(error.code, "model_file_truncated");
        assert!(error.message.contains(&format!("at least {}", whole.len())), "{}", error.message);
    }

    #[test]
    fn versions_have_their_own_words() {
        for (version, word) in [(1u32, "too old"), (3u32.swap_bytes(), "big-endian"), (4, "not known")] {
            let mut bytes = sample();
            bytes[4..8].copy_from_slice(&version.to_le_bytes());
            let error = read(&bytes).unwrap_err();
            assert_eq!(error.code, "model_version");
            assert!(error.message.contains(word), "{}", error.message);
        }
    }

    #[test]
    fn split_names() {
        assert_eq!(split_part("m-00002-of-00005.gguf"), Some((2, 5)));
        assert_eq!(split_part("MiniCPM-o-4_5-Q4_K_M.gguf"), None);
        assert_eq!(split_part("m-2-of-5.gguf"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn damage_never_panics(edits in proptest::collection::vec((0usize..400, any::<u8>()), 1..6), cut in 0usize..400) {
            let mut bytes = sample();
            for (at, byte) in edits {
                let n = bytes.len();
                bytes[at % n] = byte;
            }
            bytes.truncate(cut.max(4));
            let _either_way = read(&bytes);
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut bytes = b"GGUF\x03\0\0\0".to_vec();
            bytes.extend(noise);
            let _either_way = read(&bytes);
        }
    }
}
