//! A writer of GGUF files (version 3) that streams: what it holds in memory is the header.
//! Not here: what is in a file (`random`), reading (`gguf`).

use super::ggml::GgmlType;
use super::gguf::{Items, Kind, Value};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;

/// Tensor data starts at multiples of this many bytes, GGUF's default.
const ALIGNMENT: u64 = 32;

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTensor {
    pub name: String,
    /// Elements per dimension, fastest first; the first is a whole number of the type's blocks.
    pub dims: Vec<u64>,
    pub ggml: GgmlType,
}

impl PlannedTensor {
    /// Bytes of data, without padding.
    pub fn bytes(&self) -> u64 {
        self.dims.iter().product::<u64>() / self.ggml.block * self.ggml.bytes
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> u64 {
        self.dims.first().copied().unwrap_or(1) / self.ggml.block * self.ggml.bytes
    }
}

/// A file to be written: metadata in order, then tensors in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<PlannedTensor>,
}

impl Plan {
    /// Adds a metadata entry.
    pub fn set(&mut self, key: &str, value: Value) {
        self.metadata.push((key.to_owned(), value));
    }

    /// Adds a tensor.
    pub fn tensor(&mut self, name: &str, dims: &[u64], ggml: GgmlType) {
        self.tensors.push(PlannedTensor { name: name.to_owned(), dims: dims.to_vec(), ggml });
    }

    /// The header with the table of tensors, padded to where the data starts.
    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut out, key);
            out.extend(value.kind().id().to_le_bytes());
            put_value(&mut out, value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_text(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            out.extend(tensor.dims.iter().flat_map(|d| d.to_le_bytes()));
            out.extend(tensor.ggml.id.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += tensor.bytes().next_multiple_of(ALIGNMENT);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
        out
    }

    /// Bytes of all tensors with their padding.
    pub fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes().next_multiple_of(ALIGNMENT)).sum()
    }

    /// Writes the file; `fill` writes exactly [`PlannedTensor::bytes`] for each tensor in turn.
    ///
    /// # Errors
    /// What the file system or `fill` says; `InvalidData` when `fill` wrote another number of bytes.
    pub fn write(
        &self,
        path: &Path,
        fill: &mut dyn FnMut(&PlannedTensor, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(&self.header())?;
        let mut at = file.stream_position()?;
        for tensor in &self.tensors {
            fill(tensor, &mut file)?;
            let end = file.stream_position()?;
            if end != at + tensor.bytes() {
                let message = format!("{} bytes were written of tensor {}", end - at, tensor.name);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            let padding = end.next_multiple_of(ALIGNMENT) - end;
            file.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
            at = end + padding;
        }
        file.flush()
    }

    /// Writes the header and leaves the data as one hole: for looking into what a large file would be.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_hollow(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        let header = self.header();
        file.write_all(&header)?;
        file.set_len(header.len() as u64 + self.data_bytes())
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(n) => out.push(*n),
        Value::I8(n) => out.extend(n.to_le_bytes()),
        Value::U16(n) => out.extend(n.to_le_bytes()),
        Value::I16(n) => out.extend(n.to_le_bytes()),
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::Bool(b) => out.push(u8::from(*b)),
        Value::Str(text) => put_text(out, text),
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Array(array) => {
            let (kind, len) = match &array.items {
                Items::Strings(all) => (Kind::Str, all.len()),
                Items::Values(all) => (array.kind, all.len()),
                Items::I32s(all) => (Kind::I32, all.len()),
                Items::Skipped => (array.kind, 0),
            };
            out.extend(kind.id().to_le_bytes());
            out.extend((len as u64).to_le_bytes());
            match &array.items {
                Items::Strings(all) => all.iter().for_each(|text| put_text(out, text)),
                Items::Values(all) => all.iter().for_each(|value| put_value(out, value)),
                Items::I32s(all) => out.extend(all.iter().flat_map(|n| n.to_le_bytes())),
                Items::Skipped => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gguf::{Array, Header};
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut plan = Plan::default();
        let strings = Items::Strings(vec!["a".to_owned(), "é".to_owned()]);
        plan.set("general.architecture", Value::Str("test".to_owned()));
        plan.set("x.words", Value::Array(Array { kind: Kind::Str, len: 2, items: strings }));
        plan.set("x.types", Value::Array(Array { kind: Kind::I32, len: 3, items: Items::I32s(vec![1, -2, 3]) }));
        plan.set("x.half", Value::F32(0.5));
        plan.set("x.on", Value::Bool(true));
        plan.tensor("a", &[3, 2], GgmlType::F32);
        plan.tensor("b", &[256, 2], GgmlType::Q4_K);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        let mut fill = |t: &PlannedTensor, out: &mut dyn Write| out.write_all(&vec![7; t.bytes() as usize]);
        plan.write(&path, &mut fill).unwrap();

        let file = File::open(&path).unwrap();
        let len = file.metadata().unwrap().len();
        assert_eq!(len, plan.header().len() as u64 + plan.data_bytes());
        let header = Header::read(file, len).unwrap();
        assert_eq!(header.tensors.iter().map(|t| (t.offset, t.bytes)).collect::<Vec<_>>(), [(0, 24), (32, 288)]);
        assert_eq!(header.metadata[1], plan.metadata[1]);
        assert_eq!(header.get("x.half"), Some(&Value::F32(0.5)));
        assert_eq!(header.get("x.on"), Some(&Value::Bool(true)));

        let mut short = |_: &PlannedTensor, out: &mut dyn Write| out.write_all(b"no");
        assert_eq!(plan.write(&path, &mut short).unwrap_err().kind(), io::ErrorKind::InvalidData);
        plan.write_hollow(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), len);
    }
}
