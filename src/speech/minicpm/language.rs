//! The speech language model: conditions in, audio codes out, one after the other.
//!
//! The published file is a llama without output head whose token table nothing may use, and eleven tensors that llama.cpp
//! does not know. Made in memory from it (`model`): the table of audio codes as token table, the head, transposed where
//! the converter has stored it the other way round, the blocks as they are. The large table of text tokens stays in the
//! file; ten of its rows are read for each chunk.
//! Source: `MiniCPMTTS` of MiniCPM-o 4.5's own Python. Not here: sampling (`sampler`), conditions from hidden states
//! (`projector`), text chunks (`chunks`).

use super::files::{Role, SpeechFiles, TensorFile};
use super::model::{ContextSizes, Entry, Input, Model, Part};
use crate::error::{Error, Result};
use crate::models::fields::{want_f32, want_weight, wrong_type};
use crate::models::ggml::GgmlType;
use crate::models::gguf::Tensor;

const LLAMA: &str = "llama.";
const CODES: &str = "emb_code.0.weight";
const HEAD: &str = "head_code.0.weight";
const TEXT: &str = "emb_text.weight";

/// Sizes, and the rows that have a role.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LanguageSizes {
    pub width: usize,
    layers: u32,
    heads: u32,
    heads_kv: u32,
    forward: u32,
    rope_dims: u32,
    rope_base: f32,
    eps: f32,
    /// Positions that the model was trained for.
    pub positions: u32,
    /// Audio codes; the code with this number is the end.
    pub codes: usize,
    /// Tokens of text that it knows.
    pub text_rows: usize,
    /// Row of the text table that says that the text ends.
    text_eos: usize,
    /// Row of the text table after which codes begin.
    audio_bos: usize,
    /// The code of silence.
    pub silence: i32,
    /// The head lies as `[codes, width]` in the file.
    transposed: bool,
}

/// The open file.
pub struct LanguageFile {
    file: TensorFile,
    pub sizes: LanguageSizes,
}

impl LanguageFile {
    /// Opens the file and checks all that llama.cpp would trip over; computes nothing.
    ///
    /// # Errors
    /// Of [`TensorFile::open`], `model_metadata_…`, `model_tensor_…` or `speech_file_shape`.
    pub fn open(files: &SpeechFiles) -> Result<Self> {
        let file = TensorFile::open(&files.tts, Role::Tts)?;
        let sizes = LanguageSizes::read(&file)?;
        sizes.check(&file)?;
        Ok(Self { file, sizes })
    }

    /// Its matrices are of 16-bit floats.
    #[cfg(test)]
    pub fn halves(&self) -> bool {
        self.file.header.tensor("blk.0.attn_q.weight").is_some_and(|t| t.ggml == GgmlType::F16)
    }
}

impl LanguageSizes {
    fn read(file: &TensorFile) -> Result<Self> {
        let h = &file.header;
        let named = |e| file.named(e);
        let architecture = h.need_str("general.architecture").map_err(named)?;
        if architecture != "llama" {
            let what = format!("its architecture is {architecture:?} where \"llama\" is expected");
            return Err(file.refuse("speech_file_shape", what));
        }
        let number = |key: &str, most: u32| h.need_u32(&format!("{LLAMA}{key}"), 1..=most).map_err(named);
        let width = number("embedding_length", 1 << 16)?;
        let heads = number("attention.head_count", 1024)?;
        let heads_kv = h.u32_in(&format!("{LLAMA}attention.head_count_kv"), 1..=1024).map_err(named)?.unwrap_or(heads);
        let dim = width / heads;
        let rope_dims = h.u32_in(&format!("{LLAMA}rope.dimension_count"), 1..=1024).map_err(named)?.unwrap_or(dim);
        if !width.is_multiple_of(heads) || !heads.is_multiple_of(heads_kv) || rope_dims != dim || !dim.is_multiple_of(2)
        {
            let what = format!(
                "{heads} heads, {heads_kv} of them for keys, a width of {width} and {rope_dims} rotated \
                dimensions do not belong together"
            );
            return Err(file.refuse("speech_file_shape", what));
        }
        let float = |key: &str, default: f32, range| {
            h.f32_in(&format!("{LLAMA}{key}"), range).map_err(named).map(|x| x.unwrap_or(default))
        };
        let [code_width, rows, ..] = file.dims(CODES)?;
        let [_, text_rows, ..] = file.dims(TEXT)?;
        let [head_first, head_second, ..] = file.dims(HEAD)?;
        let width = width as usize;
        // Both ways round are found in files; only the shape tells them apart.
        let transposed = (head_first, head_second) == (rows, width);
        if code_width != width || rows < 2 || !(transposed || (head_first, head_second) == (width, rows)) {
            let what = format!(
                "its table of codes is {code_width} x {rows} and its head {head_first} x {head_second} for a width of {width}"
            );
            return Err(file.refuse("speech_file_shape", what));
        }
        // Rows of the published table; narrow files for tests name their own.
        let role = |key: &str, published: u32, rows: usize| {
            let row = h.u32(&format!("vidette.tts.{key}")).map_err(named)?.unwrap_or(published) as usize;
            if row < rows {
                return Ok(row);
            }
            Err(file.refuse("speech_file_shape", format!("the row {row} ({key}) is beyond its table of {rows}")))
        };
        Ok(Self {
            width,
            layers: number("block_count", 256)?,
            heads,
            heads_kv,
            forward: number("feed_forward_length", 1 << 20)?,
            rope_dims,
            rope_base: float("rope.freq_base", 10_000.0, 1.0..=1e9)?,
            eps: float("attention.layer_norm_rms_epsilon", 1e-6, 1e-12..=1e-1)?,
            positions: number("context_length", 1 << 20)?,
            codes: rows - 1,
            text_rows,
            text_eos: role("text_eos", 151_692, text_rows)?,
            audio_bos: role("audio_bos", 151_687, text_rows)?,
            silence: i32::try_from(role("silence", 4218, rows - 1)?).unwrap_or(0),
            transposed,
        })
    }

    /// Every tensor that goes to llama.cpp, with its shape; and the text table.
    fn check(&self, file: &TensorFile) -> Result<()> {
        let dim = self.width / self.heads as usize;
        let (keys, forward, width) = (dim * self.heads_kv as usize, self.forward as usize, self.width);
        let weight = |name: &str, dims: &[usize]| want_weight(file.need(name, dims)?).map_err(|e| file.named(e));
        let norm = |name: &str| want_f32(file.need(name, &[width])?).map_err(|e| file.named(e));
        for i in 0..self.layers {
            let p = format!("blk.{i}.");
            weight(&format!("{p}attn_q.weight"), &[width, width])?;
            weight(&format!("{p}attn_k.weight"), &[width, keys])?;
            weight(&format!("{p}attn_v.weight"), &[width, keys])?;
            weight(&format!("{p}attn_output.weight"), &[width, width])?;
            weight(&format!("{p}ffn_gate.weight"), &[width, forward])?;
            weight(&format!("{p}ffn_up.weight"), &[width, forward])?;
            weight(&format!("{p}ffn_down.weight"), &[forward, width])?;
            norm(&format!("{p}attn_norm.weight"))?;
            norm(&format!("{p}ffn_norm.weight"))?;
        }
        norm("output_norm.weight")?;
        weight(CODES, &[width, self.codes + 1])?;
        for (name, dims) in [(TEXT, [width, self.text_rows]), (HEAD, self.head_dims())] {
            let tensor = file.need(name, &dims)?;
            if tensor.ggml != GgmlType::F16 && tensor.ggml != GgmlType::F32 {
                return Err(file.named(wrong_type(tensor, "F32 or F16")));
            }
        }
        Ok(())
    }

    fn head_dims(&self) -> [usize; 2] {
        if self.transposed { [self.codes + 1, self.width] } else { [self.width, self.codes + 1] }
    }

    fn entries(&self) -> Vec<(&'static str, Entry)> {
        let rows = u32::try_from(self.codes + 1).unwrap_or(u32::MAX);
        let width = u32::try_from(self.width).unwrap_or(u32::MAX);
        vec![
            ("general.architecture", Entry::Text("llama".to_owned())),
            ("tokenizer.ggml.model", Entry::Text("no_vocab".to_owned())),
            ("llama.vocab_size", Entry::U32(rows)),
            ("llama.context_length", Entry::U32(self.positions)),
            ("llama.embedding_length", Entry::U32(width)),
            ("llama.block_count", Entry::U32(self.layers)),
            ("llama.feed_forward_length", Entry::U32(self.forward)),
            ("llama.attention.head_count", Entry::U32(self.heads)),
            ("llama.attention.head_count_kv", Entry::U32(self.heads_kv)),
            ("llama.attention.layer_norm_rms_epsilon", Entry::F32(self.eps)),
            ("llama.rope.dimension_count", Entry::U32(self.rope_dims)),
            ("llama.rope.freq_base", Entry::F32(self.rope_base)),
        ]
    }
}

/// The name in the file of a tensor that llama.cpp asks for.
fn source(name: &str) -> Option<&str> {
    match name {
        "token_embd.weight" => Some(CODES),
        "output.weight" => Some(HEAD),
        "output_norm.weight" => Some(name),
        _ => name.starts_with("blk.").then_some(name),
    }
}

/// Elements of `size` bytes, `columns` in a row, with rows and columns exchanged.
fn exchange(bytes: &[u8], size: usize, columns: usize) -> Vec<u8> {
    let rows = bytes.len() / size / columns.max(1);
    let mut out = vec![0; bytes.len()];
    for (i, element) in bytes.chunks_exact(size).enumerate() {
        let at = (i % columns * rows + i / columns) * size;
        out[at..at + size].copy_from_slice(element);
    }
    out
}

/// The model, and where a reply stands in it.
pub struct Language {
    file: TensorFile,
    sizes: LanguageSizes,
    model: Model,
    /// Positions that a reply may take.
    limit: i32,
    position: i32,
}

impl Language {
    /// Makes the model. `context.positions` is cut to what the model was trained for.
    ///
    /// # Errors
    /// Of reading, `speech_model_load` and `speech_memory`.
    pub fn load(file: LanguageFile, context: ContextSizes) -> Result<Self> {
        let LanguageFile { file, sizes } = file;
        let context = ContextSizes { positions: context.positions.clamp(64, sizes.positions.max(64)), ..context };
        let width = sizes.width as u64;
        let wanted =
            file.header.tensors.iter().filter(|t| t.name.starts_with("blk.") || t.name == "output_norm.weight");
        let part = |name: &str, t: &Tensor, dims: Vec<u64>| Part { name: name.to_owned(), kind: t.ggml.id, dims };
        let mut parts: Vec<_> = wanted.map(|t| part(&t.name, t, t.dims.clone())).collect();
        for name in ["token_embd.weight", "output.weight"] {
            let tensor = source(name).and_then(|n| file.header.tensor(n));
            parts.extend(tensor.map(|t| part(name, t, vec![width, sizes.codes as u64 + 1])));
        }
        let mut fill = |name: &str, out: &mut Vec<u8>| {
            let Some(tensor) = source(name).and_then(|n| file.header.tensor(n)) else { return Ok(false) };
            file.bytes(tensor, 0, tensor.bytes, out)?;
            if tensor.name == HEAD && sizes.transposed {
                let size = usize::try_from(tensor.ggml.bytes).unwrap_or(4);
                *out = exchange(out, size, sizes.codes + 1);
            }
            Ok(true)
        };
        let model = Model::load(&sizes.entries(), &parts, context, &mut fill).map_err(|e| file.named(e))?;
        if model.width() != sizes.width {
            return Err(Error::internal("speech_model_load", "llama.cpp made a model of another width"));
        }
        let limit = i32::try_from(context.positions).unwrap_or(i32::MAX);
        Ok(Self { file, sizes, model, limit, position: 0 })
    }

    /// Rows of the text table by their tokens.
    ///
    /// # Errors
    /// `speech_input` for a token beyond the table, or of reading.
    pub fn text_rows(&self, tokens: &[i32]) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(tokens.len() * self.sizes.width);
        for token in tokens {
            let row = usize::try_from(*token).ok().filter(|t| *t < self.sizes.text_rows);
            let row = row.ok_or_else(|| {
                let rows = self.sizes.text_rows;
                Error::internal("speech_input", format!("the text token {token} is beyond the speech model's {rows}"))
            })?;
            out.extend(self.file.floats(TEXT, Some(row))?);
        }
        Ok(out)
    }

    /// Forgets the reply.
    pub fn begin(&mut self) {
        self.model.clear();
        self.position = 0;
    }

    /// Positions taken and positions there are.
    pub fn positions(&self) -> (i32, i32) {
        (self.position, self.limit)
    }

    /// Decodes the rows of a text chunk and what follows it: the end of the text if it is the last, the start of audio.
    /// Gives the logits of the first code.
    ///
    /// # Errors
    /// `speech_too_long` when the reply has no room for it, or `speech_decode`.
    pub fn condition(&mut self, mut rows: Vec<f32>, last: bool) -> Result<&[f32]> {
        if last {
            rows.extend(self.file.floats(TEXT, Some(self.sizes.text_eos))?);
        }
        rows.extend(self.file.floats(TEXT, Some(self.sizes.audio_bos))?);
        let count = i32::try_from(rows.len() / self.sizes.width).unwrap_or(i32::MAX);
        if self.position.saturating_add(count) >= self.limit {
            let what = format!("the reply is longer than the speech model's {} positions", self.limit);
            return Err(
                Error::new(crate::error::Kind::TooLarge, "speech_too_long", what).hint("say it in several replies")
            );
        }
        let (position, logits) = self.model.decode(self.position, &Input::Rows(&rows))?;
        self.position = position;
        Ok(logits)
    }

    /// Decodes a code; gives the logits of the next, or nothing when the reply's positions are used up.
    ///
    /// # Errors
    /// `speech_decode`.
    pub fn code(&mut self, code: i32) -> Result<Option<&[f32]>> {
        if self.position >= self.limit {
            return Ok(None);
        }
        let (position, logits) = self.model.decode(self.position, &Input::Code(code))?;
        self.position = position;
        Ok(Some(logits))
    }

    /// The sizes of the file.
    pub fn sizes(&self) -> &LanguageSizes {
        &self.sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_exchanged() {
        assert_eq!(exchange(&[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0], 2, 3), [1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6, 0]);
    }
}
