//! Vision projectors: what llama.cpp's clip loader takes from the header on trust. It asserts the type
//! of every value that it reads, follows tensors that are not there, and hands shapes to ggml that
//! asserts they fit; any of these ends the process. Not here: language models, pixels.

use std::path::PathBuf;

use super::language::{flag, is_random};
use super::{FileKind, Projector};
use crate::error::{Error, Result};
use crate::models::fields::{want_f32, want_weight, wrong_kind, wrong_tensor, wrong_type, wrong_value};
use crate::models::ggml::GgmlType;
use crate::models::gguf::{Header, Items, Kind, Tensor, Value, shown};

/// The values of `clip.minicpmv_version` that the linked llama.cpp knows.
pub const VERSIONS: &[i32] = &[2, 3, 4, 5, 6, 100_045];

/// Rows of the position table: 70 by 70 buckets, fixed in llama.cpp.
const POSITIONS: u64 = 4900;
/// The resampler's heads are fixed at this width.
const RESAMPLER_HEAD: u64 = 128;
/// llama.cpp builds the graph with at most 8192 nodes, about 40 a layer.
const MAX_LAYERS: u32 = 128;
const MAX_WIDTH: u32 = 1 << 16;
const MAX_QUERIES: u32 = 4096;

/// Keys that clip reads, with the type that it asserts. Names under `clip.vision.` and `clip.audio.`
/// share the rows that start with a dot.
const TYPED_KEYS: &[(&str, Kind)] = &[
    ("general.name", Kind::Str),
    ("general.description", Kind::Str),
    ("general.file_type", Kind::U32),
    ("clip.projector_type", Kind::Str),
    ("clip.vision.projector_type", Kind::Str),
    ("clip.audio.projector_type", Kind::Str),
    ("clip.has_vision_encoder", Kind::Bool),
    ("clip.has_audio_encoder", Kind::Bool),
    ("clip.has_gen_audio_encoder", Kind::Bool),
    ("clip.use_gelu", Kind::Bool),
    ("clip.use_silu", Kind::Bool),
    ("clip.minicpmv_version", Kind::I32),
    ("clip.minicpmv_query_num", Kind::U32),
    ("clip.vision.mm_patch_merge_type", Kind::Str),
    (".embedding_length", Kind::U32),
    (".feed_forward_length", Kind::U32),
    (".block_count", Kind::U32),
    (".projection_dim", Kind::U32),
    (".attention.head_count", Kind::U32),
    (".attention.head_count_kv", Kind::U32),
    (".attention.head_dim", Kind::U32),
    (".attention.layer_norm_epsilon", Kind::F32),
    (".image_size", Kind::U32),
    (".patch_size", Kind::U32),
    (".image_min_pixels", Kind::U32),
    (".image_max_pixels", Kind::U32),
    (".preproc_min_tiles", Kind::U32),
    (".preproc_max_tiles", Kind::U32),
    (".preproc_image_size", Kind::U32),
    (".projector.scale_factor", Kind::U32),
    (".projector.query_side", Kind::U32),
    (".projector.window_side", Kind::U32),
    (".spatial_merge_size", Kind::U32),
    (".n_wa_pattern", Kind::U32),
    (".window_size", Kind::U32),
    (".expert_used_count", Kind::U32),
    (".num_mel_bins", Kind::U32),
    (".projector.stack_factor", Kind::U32),
    (".chunk_size", Kind::U32),
    (".conv_kernel_size", Kind::U32),
    (".max_pos_emb", Kind::U32),
    (".projector.window_size", Kind::U32),
    (".projector.downsample_rate", Kind::U32),
    (".projector.head_count", Kind::U32),
    (".subsampling_factor", Kind::U32),
];

/// What a layer of the tower consists of.
const BLOCK_PARTS: &[&str] = &["attn_q", "attn_k", "attn_v", "attn_out", "ln1", "ln2", "ffn_up", "ffn_down"];

/// The vision tower's numbers.
struct Tower {
    e: u64,
    layers: u32,
    ff: u64,
    patch: u64,
}

/// Checks a header as that of a vision projector. The path in the result is empty.
///
/// # Errors
/// A `model_…` code; the message does not name the file.
pub fn read_projector(header: &Header) -> Result<Projector> {
    refuse_other_kinds(header)?;
    check_types(header)?;
    if header.bool("clip.has_vision_encoder")? != Some(true) {
        return Err(Error::invalid(
            "model_projector_no_vision",
            "this projector has no vision encoder, so it cannot see",
        )
        .hint("take the vision projector of the model (…-vision-F16.gguf or mmproj….gguf)"));
    }
    let projector_type = match header.str("clip.projector_type")?.filter(|s| !s.is_empty()) {
        Some(name) => name,
        None => header.need_str("clip.vision.projector_type")?,
    };
    let key = |name: &str| format!("clip.vision.{name}");
    let e = header.need_u32(&key("embedding_length"), 1..=MAX_WIDTH)?;
    // Some of the types that only get the general checks have no tower at all.
    let least = u32::from(["resampler", "minicpmv4_6"].contains(&projector_type.as_str()));
    let layers = header.need_u32(&key("block_count"), least..=MAX_LAYERS)?;
    let n_head = header.need_u32(&key("attention.head_count"), least..=4096)?;
    let ff = header.need_u32(&key("feed_forward_length"), 0..=1 << 20)?;
    header.need_u32(&key("projection_dim"), 0..=1 << 20)?;
    header.need_f32(&key("attention.layer_norm_epsilon"), 0.0..=1.0)?;
    let image_size = header.need_u32(&key("image_size"), 0..=8192)?;
    let patch_size = header.need_u32(&key("patch_size"), 1..=1024)?;
    if header.bool("clip.use_gelu")? == Some(true) && header.bool("clip.use_silu")? == Some(true) {
        return Err(wrong_value("clip.use_gelu and clip.use_silu are both true".to_owned()));
    }
    check_mean(header)?;
    check_layer_lists(header, layers)?;
    match header.u32_in(&key("attention.head_dim"), 0..=4096)?.filter(|&n| n > 0) {
        None if n_head > 0 && e % n_head != 0 => {
            return Err(wrong_value(format!(
                "clip.vision.embedding_length is {e}, which {n_head} heads do not divide"
            )));
        }
        _ => {}
    }

    let name = header.str("general.name")?;
    let mut projector = Projector {
        path: PathBuf::new(),
        random: is_random(header, name.as_deref()),
        demo: flag(header, "vidette.demo"),
        name,
        projector_type,
        minicpmv_version: header.i32("clip.minicpmv_version")?,
        width: None,
        image_size,
        patch_size,
        queries: None,
        n_embd: e,
        n_layer: layers,
        bytes: header.file_len,
        layout_checked: false,
    };
    let tower = Tower { e: u64::from(e), layers, ff: u64::from(ff), patch: u64::from(patch_size) };
    match projector.projector_type.as_str() {
        "resampler" => check_resampler(header, &tower, &mut projector)?,
        "minicpmv4_6" => check_merger(header, &tower, &mut projector)?,
        _ => {
            for tensor in &header.tensors {
                if tensor.ggml.name != "I32" {
                    want_weight(tensor)?;
                }
            }
        }
    }
    Ok(projector)
}

fn refuse_other_kinds(header: &Header) -> Result<()> {
    let kind = FileKind::of(header);
    match kind {
        FileKind::Projector => Ok(()),
        FileKind::Language => Err(Error::invalid(
            "model_swapped",
            "this is a language model where the vision projector (mmproj) is expected",
        )
        .hint("put the model's vision projector there (…-vision-F16.gguf or mmproj….gguf); MODEL_PATH names the language model")),
        _ => Err(Error::invalid(
            "model_wrong_kind",
            format!("this is {} where the vision projector is expected", kind.words()),
        )
        .hint("put the model's vision projector there (…-vision-F16.gguf or mmproj….gguf)")),
    }
}

fn check_types(header: &Header) -> Result<()> {
    for (key, value) in &header.metadata {
        let tail = key.strip_prefix("clip.vision").or_else(|| key.strip_prefix("clip.audio"));
        let known = TYPED_KEYS.iter().find(|(k, _)| k == key || Some(*k) == tail);
        if let Some((_, kind)) = known
            && value.kind() != *kind
        {
            return Err(wrong_kind(key, value.kind(), &kind.to_string()));
        }
    }
    Ok(())
}

fn check_mean(header: &Header) -> Result<()> {
    for key in ["clip.vision.image_mean", "clip.vision.image_std"] {
        let values = match header.array(key, &[Kind::F32])?.map(|a| &a.items) {
            Some(Items::Values(values)) if values.len() >= 3 => values,
            _ => return Err(wrong_value(format!("{key} must have three elements"))),
        };
        let sane = |x: f32| x.is_finite() && x.abs() <= 1e3 && (key.ends_with("mean") || x > 1e-6);
        if !values.iter().all(|v| matches!(v, Value::F32(x) if sane(*x))) {
            return Err(wrong_value(format!("{key} has an element that cannot be right")));
        }
    }
    Ok(())
}

fn check_layer_lists(header: &Header, layers: u32) -> Result<()> {
    for (key, low) in [("clip.vision.feature_layer", -1), ("clip.vision.wa_layer_indexes", 0)] {
        if let Some(array) = header.array(key, &[Kind::I32])? {
            let Items::Values(values) = &array.items else { return Err(wrong_value(format!("{key} is too long"))) };
            let inside = |n: i32| (low..=layers as i32).contains(&n);
            if !values.iter().all(|v| matches!(v, Value::I32(n) if inside(*n))) {
                return Err(wrong_value(format!("{key} names a layer that is not there")));
            }
        }
    }
    match header.array("clip.vision.image_grid_pinpoints", &[Kind::I32])? {
        Some(array) if array.len % 2 != 0 => {
            Err(wrong_value("clip.vision.image_grid_pinpoints has an odd number of elements".to_owned()))
        }
        _ => Ok(()),
    }
}

fn weight<'a>(header: &'a Header, name: &str, dims: &[u64]) -> Result<&'a Tensor> {
    let tensor = header.need_tensor(name, dims)?;
    want_weight(tensor)?;
    Ok(tensor)
}

fn float(header: &Header, name: &str, dims: &[u64]) -> Result<()> {
    want_f32(header.need_tensor(name, dims)?)
}

fn float_if(header: &Header, name: &str, dims: &[u64]) -> Result<()> {
    header.tensor_if(name, dims)?.map_or(Ok(()), want_f32)
}

/// The SigLIP tower that both MiniCPM projectors stand on.
fn check_tower(header: &Header, t: &Tower, p: &Projector) -> Result<()> {
    let heads = header.u32("clip.vision.attention.head_count")?.unwrap_or(0);
    if header.u32("clip.vision.attention.head_count_kv")?.is_some_and(|n| n != heads) {
        return Err(wrong_value("clip.vision.attention.head_count_kv differs from head_count".to_owned()));
    }
    let head_dim = header.u32("clip.vision.attention.head_dim")?.filter(|&n| n > 0);
    if head_dim.is_some_and(|n| u64::from(n) * u64::from(heads) != t.e) {
        return Err(wrong_value("clip.vision.attention.head_dim does not fit the width and the heads".to_owned()));
    }
    let patches = p.image_size / p.patch_size;
    if p.image_size == 0 || !p.image_size.is_multiple_of(p.patch_size) || u64::from(patches).pow(2) > POSITIONS {
        return Err(wrong_value(format!(
            "clip.vision.image_size is {} and patch_size {}: a side must be 1 to 70 whole patches",
            p.image_size, p.patch_size
        )));
    }
    let patch = header.need_tensor("v.patch_embd.weight", &[t.patch, t.patch, 3, t.e])?;
    if ![GgmlType::F16, GgmlType::F32].contains(&patch.ggml) {
        return Err(wrong_type(patch, "F16 or F32"));
    }
    float_if(header, "v.patch_embd.bias", &[t.e])?;
    weight(header, "v.position_embd.weight", &[t.e, POSITIONS])?;
    for name in ["v.post_ln.weight", "v.post_ln.bias", "v.pre_ln.weight", "v.pre_ln.bias"] {
        float_if(header, name, &[t.e])?;
    }
    for i in 0..t.layers {
        let name = |part: &str| format!("v.blk.{i}.{part}");
        for part in ["attn_q", "attn_k", "attn_v", "attn_out"] {
            weight(header, &name(&format!("{part}.weight")), &[t.e, t.e])?;
            float_if(header, &name(&format!("{part}.bias")), &[t.e])?;
        }
        for part in ["ln1", "ln2"] {
            float(header, &name(&format!("{part}.weight")), &[t.e])?;
            float_if(header, &name(&format!("{part}.bias")), &[t.e])?;
        }
        // Old converters named the two feed-forward matrices the wrong way round, and llama.cpp swaps
        // them back when the one called "down" takes the tower's width.
        let down = header.tensor(&name("ffn_down.weight")).and_then(|x| x.dims.first().copied());
        let (up, down) = if down == Some(t.e) { ("ffn_down", "ffn_up") } else { ("ffn_up", "ffn_down") };
        let first = header.tensor(&name(&format!("{up}.weight"))).and_then(|x| x.dims.get(1).copied());
        let ff = if t.ff > 0 { t.ff } else { first.unwrap_or(0) };
        weight(header, &name(&format!("{up}.weight")), &[t.e, ff])?;
        weight(header, &name(&format!("{down}.weight")), &[ff, t.e])?;
        float_if(header, &name(&format!("{up}.bias")), &[ff])?;
        float_if(header, &name(&format!("{down}.bias")), &[t.e])?;
    }
    refuse_extras(header)
}

/// clip picks up optional tensors by name and builds another graph with them; here there are none.
fn refuse_extras(header: &Header) -> Result<()> {
    for tensor in &header.tensors {
        let Some(rest) = tensor.name.strip_prefix("v.") else { continue };
        let fits = match rest.strip_prefix("blk.").and_then(|r| r.split_once('.')) {
            None => !["class_embd", "patch_embd.weight.1"].contains(&rest) && !rest.starts_with("norm_embd."),
            Some((_, part)) => part
                .split_once('.')
                .is_some_and(|(name, kind)| BLOCK_PARTS.contains(&name) && ["weight", "bias"].contains(&kind)),
        };
        if !fits {
            return Err(wrong_tensor(format!(
                "the tensor {} does not belong to this kind of projector",
                shown(&tensor.name)
            )));
        }
    }
    Ok(())
}

/// MiniCPM-V up to 4.5 and MiniCPM-o: a tower and a resampler.
fn check_resampler(header: &Header, t: &Tower, p: &mut Projector) -> Result<()> {
    // Without the key llama.cpp takes version 2.
    let version = p.minicpmv_version.unwrap_or(2);
    if !VERSIONS.contains(&version) {
        return Err(Error::invalid(
            "model_projector_version",
            format!(
                "clip.minicpmv_version is {version}; llama.cpp knows 2, 3, 4, 5, 6 and 100045 (MiniCPM-o 4.5). \
                 Other numbers, such as 451, come from another converter"
            ),
        )
        .hint("take the vision file that the model's authors publish, or convert it with llama.cpp's own script"));
    }
    p.minicpmv_version = Some(version);
    check_tower(header, t, p)?;

    let proj = header.tensor("resampler.proj.weight");
    let d = proj
        .and_then(|x| x.dims.first().copied())
        .ok_or_else(|| wrong_tensor("the tensor resampler.proj.weight is missing".to_owned()))?;
    if d % RESAMPLER_HEAD != 0 || d > u64::from(MAX_WIDTH) {
        return Err(wrong_tensor(format!("the resampler is {d} wide; it must be a multiple of {RESAMPLER_HEAD}")));
    }
    let fallback = if version == 2 { 96 } else { 64 };
    let queries = header.u32_in("clip.minicpmv_query_num", 0..=MAX_QUERIES)?.filter(|&n| n > 0).unwrap_or(fallback);
    float(header, "resampler.query", &[d, u64::from(queries)])?;
    let table = header
        .need_tensor("resampler.pos_embed_k", &[d, POSITIONS])
        .map_err(|error| Error { message: format!("{} (llama.cpp has 70 by 70 positions)", error.message), ..error })?;
    want_weight(table)?;
    weight(header, "resampler.proj.weight", &[d, d])?;
    weight(header, "resampler.kv.weight", &[t.e, d])?;
    for part in ["q", "k", "v", "out"] {
        weight(header, &format!("resampler.attn.{part}.weight"), &[d, d])?;
        float(header, &format!("resampler.attn.{part}.bias"), &[d])?;
    }
    for part in ["q", "kv", "post"] {
        float(header, &format!("resampler.ln_{part}.weight"), &[d])?;
        float(header, &format!("resampler.ln_{part}.bias"), &[d])?;
    }
    p.width = u32::try_from(d).ok();
    p.queries = Some(queries);
    p.layout_checked = true;
    Ok(())
}

/// MiniCPM-V 4.6: a tower with a merger in it, and a merger after it.
fn check_merger(header: &Header, t: &Tower, p: &mut Projector) -> Result<()> {
    check_tower(header, t, p)?;
    let scale = header.u32("clip.vision.projector.scale_factor")?.unwrap_or(4);
    if scale != 2 && scale != 4 {
        return Err(wrong_value(format!("clip.vision.projector.scale_factor is {scale}; it must be 2 or 4")));
    }
    if let Some(Items::Values(values)) = header.array("clip.vision.wa_layer_indexes", &[Kind::I32])?.map(|a| &a.items)
        && let Some(Value::I32(first)) = values.first()
        && !(0..t.layers as i32).contains(first)
    {
        return Err(wrong_value(format!("clip.vision.wa_layer_indexes names layer {first} of {}", t.layers)));
    }
    let e = t.e;
    let inner = |name: &str| header.tensor(name).and_then(|x| x.dims.get(1).copied()).unwrap_or(1);
    if scale == 4 {
        for part in ["weight", "bias"] {
            float(header, &format!("v.vit_merger.ln1.{part}"), &[e])?;
            float(header, &format!("v.vit_merger.ds_ln.{part}"), &[4 * e])?;
        }
        for part in ["attn_q", "attn_k", "attn_v", "attn_out"] {
            weight(header, &format!("v.vit_merger.{part}.weight"), &[e, e])?;
            float_if(header, &format!("v.vit_merger.{part}.bias"), &[e])?;
        }
        let ff = inner("v.vit_merger.ds_ffn_up.weight");
        weight(header, "v.vit_merger.ds_ffn_up.weight", &[4 * e, ff])?;
        weight(header, "v.vit_merger.ds_ffn_down.weight", &[ff, e])?;
        float_if(header, "v.vit_merger.ds_ffn_up.bias", &[ff])?;
        float_if(header, "v.vit_merger.ds_ffn_down.bias", &[e])?;
    }
    let ff = inner("mm.up.weight");
    let d = inner("mm.down.weight");
    float(header, "mm.input_norm.weight", &[4 * e])?;
    float_if(header, "mm.input_norm.bias", &[4 * e])?;
    weight(header, "mm.up.weight", &[4 * e, ff])?;
    weight(header, "mm.down.weight", &[ff, d])?;
    float_if(header, "mm.up.bias", &[ff])?;
    float_if(header, "mm.down.bias", &[d])?;
    p.width = u32::try_from(d).ok();
    p.layout_checked = true;
    Ok(())
}
