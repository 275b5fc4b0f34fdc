//! A small writer of GGUF files, and tiny valid models to damage. Data is never written: files are
//! made as long as they must be, with holes.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub const F32: u32 = 0;
pub const F16: u32 = 1;

#[derive(Clone)]
pub enum V {
    U16(u16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    U64(u64),
}

#[derive(Clone)]
pub struct T {
    pub name: String,
    pub dims: Vec<u64>,
    pub kind: u32,
}

#[derive(Clone, Default)]
pub struct Gguf {
    pub kv: Vec<(String, V)>,
    pub tensors: Vec<T>,
    /// Added to the offset of the tensor with this number.
    pub shift: Option<(usize, i64)>,
}

impl Gguf {
    pub fn set(&mut self, key: &str, value: V) -> &mut Self {
        match self.kv.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.kv.push((key.to_owned(), value)),
        }
        self
    }

    pub fn unset(&mut self, key: &str) {
        self.kv.retain(|(k, _)| k != key);
    }

    pub fn add(&mut self, name: &str, dims: &[u64], kind: u32) -> &mut Self {
        self.tensors.push(T { name: name.to_owned(), dims: dims.to_vec(), kind });
        self
    }

    pub fn tensor(&mut self, name: &str) -> &mut T {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn drop_tensor(&mut self, name: &str) {
        self.tensor(name);
        self.tensors.retain(|t| t.name != name);
    }

    /// The header, and how long the whole file is.
    pub fn header(&self) -> (Vec<u8>, u64) {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.kv.len() as u64).to_le_bytes());
        for (key, value) in &self.kv {
            text(&mut out, key);
            write_value(&mut out, value);
        }
        let mut at = 0u64;
        for (i, t) in self.tensors.iter().enumerate() {
            text(&mut out, &t.name);
            out.extend((t.dims.len() as u32).to_le_bytes());
            for d in &t.dims {
                out.extend(d.to_le_bytes());
            }
            out.extend(t.kind.to_le_bytes());
            let shift = self.shift.filter(|(n, _)| *n == i).map_or(0, |(_, by)| by);
            out.extend(at.wrapping_add_signed(shift).to_le_bytes());
            at += bytes_of(t).next_multiple_of(32);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        let len = out.len() as u64 + at;
        (out, len)
    }

    pub fn write(&self, path: &Path) -> PathBuf {
        let (header, len) = self.header();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(path).unwrap();
        file.write_all(&header).unwrap();
        file.set_len(len).unwrap();
        path.to_owned()
    }
}

fn bytes_of(t: &T) -> u64 {
    let n: u64 = t.dims.iter().product();
    match t.kind {
        F32 | 26 => n * 4,
        F16 | 30 => n * 2,
        2 => n / 32 * 18,
        9 => n / 32 * 36,
        28 => n * 8,
        _ => n,
    }
}

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &V) {
    let id = |out: &mut Vec<u8>, n: u32| out.extend(n.to_le_bytes());
    let array = |out: &mut Vec<u8>, kind: u32, len: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    match value {
        V::U16(n) => {
            id(out, 2);
            out.extend(n.to_le_bytes());
        }
        V::U32(n) => {
            id(out, 4);
            out.extend(n.to_le_bytes());
        }
        V::I32(n) => {
            id(out, 5);
            out.extend(n.to_le_bytes());
        }
        V::F32(x) => {
            id(out, 6);
            out.extend(x.to_le_bytes());
        }
        V::Bool(b) => {
            id(out, 7);
            out.push(u8::from(*b));
        }
        V::Str(s) => {
            id(out, 8);
            text(out, s);
        }
        V::U64(n) => {
            id(out, 10);
            out.extend(n.to_le_bytes());
        }
        V::Strs(all) => {
            array(out, 8, all.len());
            all.iter().for_each(|s| text(out, s));
        }
        V::I32s(all) => {
            array(out, 5, all.len());
            all.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        V::F32s(all) => {
            array(out, 6, all.len());
            all.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }
    }
}

pub fn s(text: &str) -> V {
    V::Str(text.to_owned())
}

fn vocabulary(g: &mut Gguf) -> u64 {
    let specials =
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "</image>", "<slice>", "</slice>", "<think>"];
    let mut tokens: Vec<String> = (0..40).map(|i| format!("t{i}")).collect();
    tokens.push("\u{10a}".to_owned());
    let mut types = vec![1; tokens.len()];
    tokens.extend(specials.map(str::to_owned));
    types.resize(tokens.len(), 3);
    let n = tokens.len() as u64;
    g.set("tokenizer.ggml.model", s("gpt2"))
        .set("tokenizer.ggml.pre", s("qwen2"))
        .set("tokenizer.ggml.tokens", V::Strs(tokens))
        .set("tokenizer.ggml.token_type", V::I32s(types))
        .set("tokenizer.ggml.merges", V::Strs(vec!["t 1".to_owned()]))
        .set("tokenizer.ggml.bos_token_id", V::U32(41))
        .set("tokenizer.ggml.eos_token_id", V::U32(43))
        .set("tokenizer.ggml.add_bos_token", V::Bool(false))
        .set("tokenizer.chat_template", s("{{ messages }}"));
    n
}

fn common(g: &mut Gguf, arch: &str) {
    let key = |name: &str| format!("{arch}.{name}");
    g.set("general.architecture", s(arch))
        .set("general.name", s("tiny-random"))
        .set("general.file_type", V::U32(0))
        .set(&key("context_length"), V::U32(4096))
        .set(&key("embedding_length"), V::U32(128))
        .set(&key("block_count"), V::U32(2))
        .set(&key("feed_forward_length"), V::U32(256))
        .set(&key("attention.head_count"), V::U32(2))
        .set(&key("attention.head_count_kv"), V::U32(1))
        .set(&key("attention.key_length"), V::U32(128))
        .set(&key("attention.value_length"), V::U32(128))
        .set(&key("rope.freq_base"), V::F32(1e6))
        .set(&key("attention.layer_norm_rms_epsilon"), V::F32(1e-6));
}

/// A language model of the same layout as MiniCPM-o 4.5's.
pub fn language() -> Gguf {
    let mut g = Gguf::default();
    common(&mut g, "qwen3");
    let n = vocabulary(&mut g);
    g.add("token_embd.weight", &[128, n], F32).add("output_norm.weight", &[128], F32).add(
        "output.weight",
        &[128, n],
        F32,
    );
    for i in 0..2 {
        let p = |name: &str| format!("blk.{i}.{name}.weight");
        g.add(&p("attn_norm"), &[128], F32)
            .add(&p("attn_q"), &[128, 256], F32)
            .add(&p("attn_k"), &[128, 128], F32)
            .add(&p("attn_v"), &[128, 128], F32)
            .add(&p("attn_output"), &[256, 128], F32)
            .add(&p("attn_q_norm"), &[128], F32)
            .add(&p("attn_k_norm"), &[128], F32)
            .add(&p("ffn_norm"), &[128], F32)
            .add(&p("ffn_gate"), &[128, 256], F32)
            .add(&p("ffn_up"), &[128, 256], F32)
            .add(&p("ffn_down"), &[256, 128], F32);
    }
    g
}

/// A language model of the same layout as MiniCPM-V 4.6's: layer 0 linear, layer 1 full attention.
pub fn language_qwen35() -> Gguf {
    let mut g = Gguf::default();
    common(&mut g, "qwen35");
    let n = vocabulary(&mut g);
    g.set("qwen35.full_attention_interval", V::U32(2))
        .set("qwen35.rope.dimension_sections", V::I32s(vec![11, 11, 10, 0]))
        .set("qwen35.rope.dimension_count", V::U32(64))
        .set("qwen35.ssm.conv_kernel", V::U32(4))
        .set("qwen35.ssm.inner_size", V::U32(128))
        .set("qwen35.ssm.state_size", V::U32(32))
        .set("qwen35.ssm.time_step_rank", V::U32(4))
        .set("qwen35.ssm.group_count", V::U32(2));
    g.add("token_embd.weight", &[128, n], F32).add("output_norm.weight", &[128], F32);
    for i in 0..2 {
        let p = |name: &str| format!("blk.{i}.{name}");
        g.add(&p("attn_norm.weight"), &[128], F32)
            .add(&p("post_attention_norm.weight"), &[128], F32)
            .add(&p("ffn_gate.weight"), &[128, 256], F32)
            .add(&p("ffn_up.weight"), &[128, 256], F32)
            .add(&p("ffn_down.weight"), &[256, 128], F32);
    }
    g.add("blk.0.attn_qkv.weight", &[128, 256], F32)
        .add("blk.0.attn_gate.weight", &[128, 128], F32)
        .add("blk.0.ssm_conv1d.weight", &[4, 256], F32)
        .add("blk.0.ssm_dt.bias", &[4], F32)
        .add("blk.0.ssm_a", &[4], F32)
        .add("blk.0.ssm_beta.weight", &[128, 4], F32)
        .add("blk.0.ssm_alpha.weight", &[128, 4], F32)
        .add("blk.0.ssm_norm.weight", &[32], F32)
        .add("blk.0.ssm_out.weight", &[128, 128], F32)
        .add("blk.1.attn_q.weight", &[128, 512], F32)
        .add("blk.1.attn_k.weight", &[128, 128], F32)
        .add("blk.1.attn_v.weight", &[128, 128], F32)
        .add("blk.1.attn_output.weight", &[256, 128], F32)
        .add("blk.1.attn_q_norm.weight", &[128], F32)
        .add("blk.1.attn_k_norm.weight", &[128], F32);
    g
}

/// The sizes of a projector.
#[derive(Clone, Copy)]
pub struct Eyes {
    pub width: u64,
    pub ff: u64,
    pub heads: u32,
    pub layers: u32,
    /// What it hands to the language model.
    pub out: u64,
    /// Inner width of the merger in the tower.
    pub merger_ff: u64,
    pub merger_out_ff: u64,
    /// Type of the tower's position table.
    pub positions: u32,
}

const TINY: Eyes =
    Eyes { width: 64, ff: 96, heads: 4, layers: 2, out: 128, merger_ff: 96, merger_out_ff: 256, positions: F16 };

fn tower(g: &mut Gguf, kind: &str, e: Eyes, swapped: bool) {
    let w = e.width;
    g.set("general.architecture", s("clip"))
        .set("general.name", s("tiny-random-mmproj"))
        .set("general.file_type", V::U32(1))
        .set("clip.has_vision_encoder", V::Bool(true))
        .set("clip.projector_type", s(kind))
        .set("clip.use_gelu", V::Bool(true))
        .set("clip.vision.image_size", V::U32(448))
        .set("clip.vision.patch_size", V::U32(14))
        .set("clip.vision.embedding_length", V::U32(w as u32))
        .set("clip.vision.feed_forward_length", V::U32(e.ff as u32))
        .set("clip.vision.projection_dim", V::U32(0))
        .set("clip.vision.attention.head_count", V::U32(e.heads))
        .set("clip.vision.attention.layer_norm_epsilon", V::F32(1e-6))
        .set("clip.vision.block_count", V::U32(e.layers))
        .set("clip.vision.image_mean", V::F32s(vec![0.5; 3]))
        .set("clip.vision.image_std", V::F32s(vec![0.5; 3]));
    g.add("v.patch_embd.weight", &[14, 14, 3, w], F16).add("v.patch_embd.bias", &[w], F32);
    g.add("v.position_embd.weight", &[w, 4900], e.positions);
    // Old converters named the two feed-forward matrices the wrong way round.
    let (up, down) = if swapped { ("ffn_down", "ffn_up") } else { ("ffn_up", "ffn_down") };
    for i in 0..e.layers {
        let p = |part: &str| format!("v.blk.{i}.{part}");
        for part in ["attn_q", "attn_k", "attn_v", "attn_out"] {
            g.add(&p(&format!("{part}.weight")), &[w, w], F16).add(&p(&format!("{part}.bias")), &[w], F32);
        }
        for part in ["ln1", "ln2"] {
            g.add(&p(&format!("{part}.weight")), &[w], F32).add(&p(&format!("{part}.bias")), &[w], F32);
        }
        g.add(&p(&format!("{up}.weight")), &[w, e.ff], F16).add(&p(&format!("{up}.bias")), &[e.ff], F32);
        g.add(&p(&format!("{down}.weight")), &[e.ff, w], F16).add(&p(&format!("{down}.bias")), &[w], F32);
    }
    g.add("v.post_ln.weight", &[w], F32).add("v.post_ln.bias", &[w], F32);
}

/// A vision projector of the same layout as MiniCPM-o 4.5's.
pub fn projector() -> Gguf {
    resampler(TINY)
}

pub fn resampler(e: Eyes) -> Gguf {
    let mut g = Gguf::default();
    tower(&mut g, "resampler", e, true);
    let d = e.out;
    g.set("clip.minicpmv_version", V::I32(100_045)).set("clip.minicpmv_query_num", V::U32(64));
    g.add("resampler.query", &[d, 64], F32)
        .add("resampler.pos_embed_k", &[d, 4900], F32)
        .add("resampler.proj.weight", &[d, d], F16)
        .add("resampler.kv.weight", &[e.width, d], F16);
    for part in ["q", "k", "v", "out"] {
        g.add(&format!("resampler.attn.{part}.weight"), &[d, d], F16).add(
            &format!("resampler.attn.{part}.bias"),
            &[d],
            F32,
        );
    }
    for part in ["q", "kv", "post"] {
        g.add(&format!("resampler.ln_{part}.weight"), &[d], F32).add(&format!("resampler.ln_{part}.bias"), &[d], F32);
    }
    g
}

/// A vision projector of the same layout as MiniCPM-V 4.6's.
pub fn projector_merger() -> Gguf {
    merger(TINY)
}

pub fn merger(e: Eyes) -> Gguf {
    let mut g = Gguf::default();
    tower(&mut g, "minicpmv4_6", e, false);
    let w = e.width;
    g.set("clip.vision.projector.scale_factor", V::U32(4)).set("clip.vision.wa_layer_indexes", V::I32s(vec![1]));
    for part in ["weight", "bias"] {
        g.add(&format!("v.vit_merger.ln1.{part}"), &[w], F32).add(&format!("v.vit_merger.ds_ln.{part}"), &[4 * w], F32);
    }
    let mut linear = |name: &str, from: u64, to: u64| {
        g.add(&format!("{name}.weight"), &[from, to], F16).add(&format!("{name}.bias"), &[to], F32);
    };
    for part in ["attn_q", "attn_k", "attn_v", "attn_out"] {
        linear(&format!("v.vit_merger.{part}"), w, w);
    }
    linear("v.vit_merger.ds_ffn_up", 4 * w, e.merger_ff);
    linear("v.vit_merger.ds_ffn_down", e.merger_ff, w);
    linear("mm.up", 4 * w, e.merger_out_ff);
    linear("mm.down", e.merger_out_ff, e.out);
    g.add("mm.input_norm.weight", &[4 * w], F32).add("mm.input_norm.bias", &[4 * w], F32);
    g
}
