//! Models with random weights in the published layout, for measuring speed and memory without a download: the shapes,
//! types and vocabulary size of MiniCPM-o 4.5, or a tiny one of the same kind for tests. What they say means nothing,
//! and the files say so (`vidette.random`). Not here: the file format (`writer`).

mod blocks;
mod vocabulary;

use super::ggml::GgmlType;
use super::gguf::{Array, Items, Kind, Value};
use super::partial::{check_space, write_error};
use super::writer::{Plan, PlannedTensor};
use crate::error::Result;
use blocks::Weights;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use vocabulary::Vocabulary;

/// Which model's shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Two layers, 256 wide: a few megabytes, for tests.
    Tiny,
    /// MiniCPM-o 4.5 at full size: Qwen3-8B, SigLIP2 and the resampler.
    MiniCpmO45,
}

/// How the language model's weights are stored; the vision tower is always F16, as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantisation {
    F16,
    Q8_0,
    /// Q4_K with Q6_K in the output and in some of the tensors, as llama.cpp's quantiser mixes them.
    Q4KM,
}

impl Quantisation {
    /// As in file names.
    pub fn name(self) -> &'static str {
        match self {
            Quantisation::F16 => "F16",
            Quantisation::Q8_0 => "Q8_0",
            Quantisation::Q4KM => "Q4_K_M",
        }
    }

    /// The number in `general.file_type` (llama.h: `llama_ftype`).
    fn file_type(self) -> u32 {
        match self {
            Quantisation::F16 => 1,
            Quantisation::Q8_0 => 7,
            Quantisation::Q4KM => 15,
        }
    }

    fn plain(self) -> GgmlType {
        match self {
            Quantisation::F16 => GgmlType::F16,
            Quantisation::Q8_0 => GgmlType::Q8_0,
            Quantisation::Q4KM => GgmlType::Q4_K,
        }
    }

    fn fine(self) -> GgmlType {
        if self == Quantisation::Q4KM { GgmlType::Q6_K } else { self.plain() }
    }
}

/// The numbers that everything follows from.
struct Shape {
    name: &'static str,
    layers: u64,
    width: u64,
    heads: u64,
    heads_kv: u64,
    head: u64,
    feed_forward: u64,
    context: u32,
    vocabulary: usize,
    first_special: usize,
    tower_layers: u64,
    tower_width: u64,
    tower_heads: u32,
    tower_feed_forward: u64,
}

/// Side of a slice and of a patch in pixels, embeddings a slice, rows of the position table (70 by 70), and the number
/// of MiniCPM-o 4.5, all as `clip.cpp` wants them.
const SLICE: u32 = 448;
const PATCH: u32 = 14;
const QUERIES: u32 = 64;
const POSITIONS: u64 = 4900;
const MINICPM_O_4_5: i32 = 100_045;

/// Qwen3-8B (`config.json` of Qwen/Qwen3-8B with MiniCPM-o 4.5's vocabulary) and SigLIP2 so400m with 27 layers.
const MINICPM_O: Shape = Shape {
    name: "MiniCPM-o-4_5-random",
    layers: 36,
    width: 4096,
    heads: 32,
    heads_kv: 8,
    head: 128,
    feed_forward: 12_288,
    context: 40_960,
    vocabulary: 151_748,
    first_special: 151_643,
    tower_layers: 27,
    tower_width: 1152,
    tower_heads: 16,
    tower_feed_forward: 4304,
};

const TINY: Shape = Shape {
    name: "MiniCPM-o-4_5-tiny-random",
    layers: 2,
    width: 256,
    heads: 4,
    heads_kv: 2,
    head: 64,
    feed_forward: 512,
    context: 8192,
    vocabulary: 2048,
    first_special: 1920,
    tower_layers: 2,
    tower_width: 64,
    tower_heads: 2,
    tower_feed_forward: 128,
};

/// The chat template of Qwen3 in short: ChatML, with an empty thought when thinking is off.
const CHAT_TEMPLATE: &str = "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + \
    message.content + '<|im_end|>' + '\\n' }}{%- endfor %}{%- if add_generation_prompt %}\
    {{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}\
    {{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}";

/// A model to be written.
pub struct RandomModel {
    shape: &'static Shape,
    quantisation: Quantisation,
    seed: u64,
}

/// A model that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub language: PathBuf,
    pub projector: PathBuf,
    /// Bytes written now; 0 when both files were there already.
    pub bytes: u64,
}

impl RandomModel {
    /// The same seed gives the same bytes.
    pub fn new(preset: Preset, quantisation: Quantisation, seed: u64) -> Self {
        let shape = match preset {
            Preset::Tiny => &TINY,
            Preset::MiniCpmO45 => &MINICPM_O,
        };
        Self { shape, quantisation, seed }
    }

    /// Bytes of both files together.
    pub fn bytes(&self) -> u64 {
        let (language, _) = self.language();
        [language, self.projector()].iter().map(|p| p.header().len() as u64 + p.data_bytes()).sum()
    }

    /// Writes both files into `folder` in the published layout, through temporary names. A file that is there with the
    /// same header and length stays as it is.
    ///
    /// # Errors
    /// `pull_disk_full` or `pull_write`.
    pub fn write(&self, folder: &Path) -> Result<Written> {
        let (language, silent) = self.language();
        let projector = self.projector();
        let mut written = Written {
            language: folder.join(format!("{}-{}.gguf", self.shape.name, self.quantisation.name())),
            projector: folder.join("vision/MiniCPM-o-4_5-vision-F16.gguf"),
            bytes: 0,
        };
        let vision = folder.join("vision");
        fs::create_dir_all(&vision).map_err(|e| write_error(&vision, &e))?;
        written.bytes += self.file(&written.language, &language, &silent)?;
        written.bytes += self.file(&written.projector, &projector, &[])?;
        Ok(written)
    }

    fn file(&self, path: &Path, plan: &Plan, silent: &[Range<u64>]) -> Result<u64> {
        let header = plan.header();
        let bytes = header.len() as u64 + plan.data_bytes();
        if is_there(path, &header, bytes) {
            return Ok(0);
        }
        check_space(path.parent().unwrap_or(Path::new(".")), bytes)?;
        let part = path.with_extension("gguf.part");
        let mut weights = Weights::new(self.seed, &plan.tensors);
        let mut fill = |tensor: &PlannedTensor, out: &mut dyn Write| {
            weights.fill(tensor, if tensor.name == "output.weight" { silent } else { &[] }, out)
        };
        plan.write(&part, &mut fill).and_then(|()| fs::rename(&part, path)).map_err(|e| {
            // What is half there serves nobody.
            let _removed = fs::remove_file(&part);
            write_error(path, &e)
        })?;
        Ok(bytes)
    }

    /// Both headers on files with holes for data: what `models::inspect` needs, in a few megabytes.
    ///
    /// # Errors
    /// `pull_write`.
    pub fn write_hollow(&self, folder: &Path) -> Result<Written> {
        let paths = [folder.join("language.gguf"), folder.join("mmproj.gguf")];
        for (path, plan) in paths.iter().zip([self.language().0, self.projector()]) {
            plan.write_hollow(path).map_err(|e| write_error(path, &e))?;
        }
        let [language, projector] = paths;
        Ok(Written { language, projector, bytes: 0 })
    }

    fn opening(&self, architecture: &str, description: &str, file_type: u32) -> Plan {
        let mut plan = Plan::default();
        plan.set("general.architecture", text(architecture));
        plan.set("general.name", text(self.shape.name));
        plan.set("general.description", text(description));
        plan.set("general.license", text("mit"));
        plan.set("general.file_type", Value::U32(file_type));
        plan.set("vidette.random", Value::Bool(true));
        plan
    }

    /// The language model, and the rows of its output that stay silent.
    fn language(&self) -> (Plan, Vec<Range<u64>>) {
        let s = self.shape;
        let file_type = self.quantisation.file_type();
        let mut plan = self.opening("qwen3", "random weights in the shapes of MiniCPM-o 4.5; for measuring", file_type);
        for (key, value) in [
            ("context_length", u64::from(s.context)),
            ("embedding_length", s.width),
            ("block_count", s.layers),
            ("feed_forward_length", s.feed_forward),
            ("attention.head_count", s.heads),
            ("attention.head_count_kv", s.heads_kv),
            ("attention.key_length", s.head),
            ("attention.value_length", s.head),
        ] {
            plan.set(&format!("qwen3.{key}"), Value::U32(value as u32));
        }
        plan.set("qwen3.rope.freq_base", Value::F32(1e6));
        plan.set("qwen3.attention.layer_norm_rms_epsilon", Value::F32(1e-6));

        let vocabulary = Vocabulary::new(s.vocabulary, s.first_special);
        let silent = vocabulary.silent();
        let (pad, end) = (vocabulary.special("<|endoftext|>"), vocabulary.special("<|im_end|>"));
        plan.set("tokenizer.ggml.model", text("gpt2"));
        plan.set("tokenizer.ggml.pre", text("qwen2"));
        plan.set("tokenizer.ggml.tokens", strings(vocabulary.tokens));
        let types = Array { kind: Kind::I32, len: vocabulary.types.len() as u64, items: Items::I32s(vocabulary.types) };
        plan.set("tokenizer.ggml.token_type", Value::Array(types));
        plan.set("tokenizer.ggml.merges", strings(vocabulary.merges));
        plan.set("tokenizer.ggml.bos_token_id", Value::U32(pad));
        plan.set("tokenizer.ggml.eos_token_id", Value::U32(end));
        plan.set("tokenizer.ggml.padding_token_id", Value::U32(pad));
        plan.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
        plan.set("tokenizer.chat_template", text(CHAT_TEMPLATE));

        let (plain, fine) = (self.quantisation.plain(), self.quantisation.fine());
        let (d, q, kv, ff, v) = (s.width, s.heads * s.head, s.heads_kv * s.head, s.feed_forward, s.vocabulary as u64);
        plan.tensor("token_embd.weight", &[d, v], plain);
        plan.tensor("output_norm.weight", &[d], GgmlType::F32);
        plan.tensor("output.weight", &[d, v], fine);
        for i in 0..s.layers {
            let more = if more_bits(i, s.layers) { fine } else { plain };
            let mut tensor =
                |name: &str, dims: &[u64], ggml| plan.tensor(&format!("blk.{i}.{name}.weight"), dims, ggml);
            tensor("attn_norm", &[d], GgmlType::F32);
            tensor("attn_q", &[d, q], plain);
            tensor("attn_k", &[d, kv], plain);
            tensor("attn_v", &[d, kv], more);
            tensor("attn_output", &[q, d], plain);
            tensor("attn_q_norm", &[s.head], GgmlType::F32);
            tensor("attn_k_norm", &[s.head], GgmlType::F32);
            tensor("ffn_norm", &[d], GgmlType::F32);
            tensor("ffn_gate", &[d, ff], plain);
            tensor("ffn_up", &[d, ff], plain);
            tensor("ffn_down", &[ff, d], more);
        }
        (plan, silent)
    }

    /// The vision tower and the resampler.
    fn projector(&self) -> Plan {
        let s = self.shape;
        let mut plan = self.opening("clip", "image encoder with random weights; for measuring", 1);
        plan.set("clip.has_text_encoder", Value::Bool(false));
        plan.set("clip.has_vision_encoder", Value::Bool(true));
        plan.set("clip.has_minicpmv_projector", Value::Bool(true));
        plan.set("clip.projector_type", text("resampler"));
        plan.set("clip.minicpmv_version", Value::I32(MINICPM_O_4_5));
        plan.set("clip.minicpmv_query_num", Value::U32(QUERIES));
        for (key, value) in [
            ("image_size", SLICE),
            ("patch_size", PATCH),
            ("embedding_length", s.tower_width as u32),
            ("feed_forward_length", s.tower_feed_forward as u32),
            ("projection_dim", 0),
            ("attention.head_count", s.tower_heads),
            ("block_count", s.tower_layers as u32),
        ] {
            plan.set(&format!("clip.vision.{key}"), Value::U32(value));
        }
        plan.set("clip.vision.attention.layer_norm_epsilon", Value::F32(1e-6));
        for key in ["image_mean", "image_std"] {
            let items = Items::Values(vec![Value::F32(0.5); 3]);
            plan.set(&format!("clip.vision.{key}"), Value::Array(Array { kind: Kind::F32, len: 3, items }));
        }
        plan.set("clip.use_gelu", Value::Bool(true));

        let (d, e, ff) = (s.width, s.tower_width, s.tower_feed_forward);
        let patch = u64::from(PATCH);
        plan.tensor("v.patch_embd.weight", &[patch, patch, 3, e], GgmlType::F16);
        plan.tensor("v.patch_embd.bias", &[e], GgmlType::F32);
        plan.tensor("v.position_embd.weight", &[e, POSITIONS], GgmlType::F16);
        for i in 0..s.tower_layers {
            for part in ["q", "k", "v", "out"] {
                linear(&mut plan, &format!("v.blk.{i}.attn_{part}"), e, e);
            }
            norm(&mut plan, &format!("v.blk.{i}.ln1"), e);
            norm(&mut plan, &format!("v.blk.{i}.ln2"), e);
            // The converters' old habit, as published: `down` leads up and `up` leads down.
            linear(&mut plan, &format!("v.blk.{i}.ffn_down"), e, ff);
            linear(&mut plan, &format!("v.blk.{i}.ffn_up"), ff, e);
        }
        norm(&mut plan, "v.post_ln", e);
        plan.tensor("resampler.query", &[d, u64::from(QUERIES)], GgmlType::F32);
        plan.tensor("resampler.pos_embed_k", &[d, POSITIONS], GgmlType::F32);
        plan.tensor("resampler.proj.weight", &[d, d], GgmlType::F16);
        plan.tensor("resampler.kv.weight", &[e, d], GgmlType::F16);
        for part in ["q", "k", "v", "out"] {
            linear(&mut plan, &format!("resampler.attn.{part}"), d, d);
        }
        for part in ["q", "kv", "post"] {
            norm(&mut plan, &format!("resampler.ln_{part}"), d);
        }
        plan
    }
}

/// A matrix with a bias; `inner` is the width that it takes.
fn linear(plan: &mut Plan, name: &str, inner: u64, outer: u64) {
    plan.tensor(&format!("{name}.weight"), &[inner, outer], GgmlType::F16);
    plan.tensor(&format!("{name}.bias"), &[outer], GgmlType::F32);
}

fn norm(plan: &mut Plan, name: &str, width: u64) {
    plan.tensor(&format!("{name}.weight"), &[width], GgmlType::F32);
    plan.tensor(&format!("{name}.bias"), &[width], GgmlType::F32);
}

/// The layers whose `attn_v` and `ffn_down` get more bits in the mix `_M`. Source: llama.cpp, src/llama-quant.cpp,
/// `use_more_bits`.
fn more_bits(layer: u64, layers: u64) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

fn text(text: &str) -> Value {
    Value::Str(text.to_owned())
}

fn strings(all: Vec<String>) -> Value {
    Value::Array(Array { kind: Kind::Str, len: all.len() as u64, items: Items::Strings(all) })
}

/// True when the file has this length and begins with this header.
fn is_there(path: &Path, header: &[u8], bytes: u64) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    if file.metadata().map_or(0, |m| m.len()) != bytes {
        return false;
    }
    let mut start = Vec::with_capacity(header.len());
    let read = std::io::Read::read_to_end(&mut std::io::Read::take(file, header.len() as u64), &mut start);
    read.is_ok() && start == header
}

#[cfg(test)]
mod tests {
    use super::super::{Catalog, check_pair, find, inspect_language_model, inspect_projector};
    use super::*;

    const ALL: [Quantisation; 3] = [Quantisation::F16, Quantisation::Q8_0, Quantisation::Q4KM];

    #[test]
    fn the_full_size_passes_inspection_and_weighs_what_the_published_files_weigh() {
        let catalog = Catalog::builtin().unwrap();
        for quantisation in ALL {
            let model = RandomModel::new(Preset::MiniCpmO45, quantisation, 1);
            let dir = tempfile::tempdir().unwrap();
            let hollow = model.write_hollow(dir.path()).unwrap();
            let language = inspect_language_model(&hollow.language).unwrap();
            let projector = inspect_projector(&hollow.projector).unwrap();
            check_pair(&language, &projector).unwrap();
            assert!(language.random && projector.random && projector.layout_checked && language.chat_template);
            assert_eq!((language.n_layer, language.n_embd, language.n_vocab), (36, 4096, 151_748));
            assert_eq!(language.quantisation, quantisation.name());
            assert_eq!(language.bytes + projector.bytes, model.bytes());
            let published = |role| {
                let name = format!("{}.gguf", quantisation.name());
                let entries = catalog.entries().iter().filter(|e| e.dir == "minicpm-o-4.5");
                let mut files = entries.flat_map(|e| &e.files).filter(move |f| f.role == role);
                files.find(|f| role != super::super::Role::Language || f.local.ends_with(&name)).and_then(|f| f.bytes)
            };
            let close =
                |ours: u64, theirs: Option<u64>| theirs.is_none_or(|theirs| ours.abs_diff(theirs) < theirs / 1000);
            assert!(close(language.bytes, published(super::super::Role::Language)), "{}", language.bytes);
            assert!(close(projector.bytes, published(super::super::Role::Vision)), "{}", projector.bytes);
        }
    }

    #[test]
    fn the_tiny_one_is_written_once_and_found_in_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        for quantisation in ALL {
            let model = RandomModel::new(Preset::Tiny, quantisation, 1);
            let folder = dir.path().join(quantisation.name());
            let written = model.write(&folder).unwrap();
            assert_eq!(written.bytes, model.bytes());
            assert_eq!(model.write(&folder).unwrap().bytes, 0, "it is there");
            let found = find(&folder).unwrap();
            assert_eq!((&found.language, &found.projector), (&written.language, &written.projector));
            let language = inspect_language_model(&found.language).unwrap();
            check_pair(&language, &inspect_projector(&found.projector).unwrap()).unwrap();
            fs::write(&written.language, b"half").unwrap();
            assert!(model.write(&folder).unwrap().bytes > 0, "what is broken is written again");
        }
    }

    #[test]
    fn half_of_the_layers_get_more_bits() {
        let more: Vec<_> = (0..36).filter(|i| more_bits(*i, 36)).collect();
        assert_eq!(more, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 31, 32, 33, 34, 35]);
    }
}
