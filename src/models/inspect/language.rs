//! Language models: what llama.cpp reads from the header without asking whether it can be right.
//! Each check here stands for an assertion, a division or an index in llama.cpp that would otherwise
//! end the process, or for an error of which llama.cpp tells the reason only in its log.
//! Not here: projectors, whether two files belong together.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::{FileKind, LanguageModel, SamplingAdvice};
use crate::error::{Error, Result};
use crate::models::fields::{want_f32, want_weight, wrong_tensor, wrong_value};
use crate::models::ggml::file_type_name;
use crate::models::gguf::{Header, Items, Kind, Value, shown};

/// The special tokens worth knowing about.
pub const KNOWN_TOKENS: &[&str] = &[
    "<image>",
    "</image>",
    "<slice>",
    "</slice>",
    "<image_id>",
    "</image_id>",
    "<unit>",
    "</unit>",
    "<think>",
    "</think>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|tts_bos|>",
    "<|tts_eos|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<|spk_bos|>",
    "<|spk_eos|>",
    "<|listen|>",
    "<|speak|>",
];

/// llama.cpp's bound on layers (`LLAMA_MAX_LAYERS`).
const MAX_LAYERS: u32 = 512;
/// llama.cpp's bound on experts (`LLAMA_MAX_EXPERTS`).
const MAX_EXPERTS: u32 = 1024;
/// Wider than any model; keeps products of two widths far from overflow.
const MAX_WIDTH: u32 = 1 << 20;
const MAX_HEADS: u32 = 4096;
const MAX_CONTEXT: u32 = 1 << 26;

const TOKENIZERS: &[&str] =
    &["llama", "bert", "gpt2", "hybriddna", "whitespace", "t5", "rwkv", "test", "plamo2", "gemma4"];

const TOKEN_IDS: &[&str] = &[
    "bos_token_id",
    "eos_token_id",
    "eot_token_id",
    "eom_token_id",
    "unknown_token_id",
    "seperator_token_id",
    "padding_token_id",
    "cls_token_id",
    "mask_token_id",
    "fim_pre_token_id",
    "fim_suf_token_id",
    "fim_mid_token_id",
    "fim_pad_token_id",
    "fim_rep_token_id",
    "fim_sep_token_id",
    "prefix_token_id",
    "suffix_token_id",
    "middle_token_id",
];

/// The numbers that the tensor shapes follow from.
struct Shape {
    n_embd: u64,
    n_vocab: u64,
    n_layer: u32,
    /// Layers of multi-token prediction at the end; they are no part of the trunk.
    n_nextn: u32,
    n_head: u64,
    n_head_kv: u64,
    head_dim: u64,
}

/// Checks a header as that of a language model. The path in the result is empty.
///
/// # Errors
/// A `model_…` code; the message does not name the file.
pub fn read_language_model(header: &Header) -> Result<LanguageModel> {
    refuse_other_kinds(header)?;
    let arch = header.need_str("general.architecture")?;
    let key = |name: &str| format!("{arch}.{name}");
    if header.u16("split.count")?.unwrap_or(0) > 1 {
        return Err(Error::invalid(
            "model_split_file",
            "this is one part of a split model, which Vidette does not read",
        )
        .hint("join the parts with `llama-gguf-split --merge`, or take a file that is in one piece"));
    }

    let n_embd = header.need_u32(&key("embedding_length"), 1..=MAX_WIDTH)?;
    let n_layer = header.need_u32(&key("block_count"), 1..=MAX_LAYERS)?;
    let n_nextn = header.u32_in(&key("nextn_predict_layers"), 0..=n_layer - 1)?.unwrap_or(0);
    let context_length = header.need_u32(&key("context_length"), 1..=MAX_CONTEXT)?;
    let (n_head, n_head_kv) = heads(header, &arch, n_layer)?;
    let head_dim = head_dim(header, &arch, n_embd, n_head)?;
    check_rope(header, &arch, head_dim)?;
    check_experts(header, &arch, n_layer)?;
    for name in ["attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"] {
        header.f32_in(&key(name), 0.0..=1.0)?;
    }
    if header.u32(&key("pooling_type"))?.unwrap_or(0) != 0 || header.bool(&key("attention.causal"))? == Some(false) {
        return Err(Error::invalid("model_not_generative", "this model makes embeddings of text; it cannot write")
            .hint("take a language model for chat"));
    }

    let vocab = read_vocab(header)?;
    let shape = Shape {
        n_embd: u64::from(n_embd),
        n_vocab: u64::from(vocab.size),
        n_layer,
        n_nextn,
        n_head: u64::from(n_head),
        n_head_kv: u64::from(n_head_kv),
        head_dim: u64::from(head_dim),
    };
    check_tensors(header, &arch, &shape)?;
    let n_ff = match header.get(&key("feed_forward_length")) {
        Some(Value::U32(n)) => Some(*n),
        _ => None,
    };
    header.per_layer(&key("feed_forward_length"), n_layer, 0..=MAX_WIDTH)?;

    let name = header.str("general.name")?;
    Ok(LanguageModel {
        path: PathBuf::new(),
        random: is_random(header, name.as_deref()),
        demo: flag(header, "vidette.demo"),
        sampling: SamplingAdvice::read(header),
        name,
        architecture: arch,
        n_embd,
        n_layer,
        n_head,
        n_head_kv,
        head_dim,
        n_ff,
        n_vocab: vocab.size,
        context_length,
        chat_template: header.str("tokenizer.chat_template")?.is_some_and(|t| !t.trim().is_empty()),
        quantisation: quantisation(header)?,
        bytes: header.file_len,
        parameters: header.tensors.iter().fold(0, |sum: u64, t| sum.saturating_add(t.elements())),
        special_tokens: vocab.special,
        newline_token: vocab.newline,
    })
}

fn refuse_other_kinds(header: &Header) -> Result<()> {
    let kind = FileKind::of(header);
    match kind {
        FileKind::Language | FileKind::Unknown => Ok(()),
        FileKind::Projector => Err(Error::invalid(
            "model_swapped",
            "this is a vision projector (mmproj) where the language model is expected",
        )
        .hint("the two files are swapped: MODEL_PATH names the language model, the projector is found beside it")),
        _ => Err(Error::invalid(
            "model_wrong_kind",
            format!("this is {} where the language model is expected", kind.words()),
        )
        .hint("name the language model, for instance MiniCPM-o-4_5-Q4_K_M.gguf")),
    }
}

/// True when the file says of itself that its weights are random.
pub(super) fn is_random(header: &Header, name: Option<&str>) -> bool {
    flag(header, "vidette.random") || name.is_some_and(|n| n.to_ascii_lowercase().contains("random"))
}

/// What the file says of itself under this key; false when it says nothing.
pub(super) fn flag(header: &Header, key: &str) -> bool {
    match header.get(key) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::Str(text)) => text == "true",
        _ => false,
    }
}

fn quantisation(header: &Header) -> Result<String> {
    if let Some(name) = header.u32("general.file_type")?.and_then(file_type_name) {
        return Ok(name.to_owned());
    }
    let mut bytes: HashMap<&str, u64> = HashMap::new();
    for tensor in &header.tensors {
        let sum = bytes.entry(tensor.ggml.name).or_default();
        *sum = sum.saturating_add(tensor.bytes);
    }
    let most = bytes.into_iter().max_by_key(|&(name, sum)| (sum, name));
    Ok(most.map_or_else(|| "unknown".to_owned(), |(name, _)| format!("mostly {name}")))
}

/// Heads and heads for keys and values, the most of any layer.
fn heads(header: &Header, arch: &str, n_layer: u32) -> Result<(u32, u32)> {
    let head_key = format!("{arch}.attention.head_count");
    let kv_key = format!("{arch}.attention.head_count_kv");
    let n_head = header.per_layer(&head_key, n_layer, 0..=MAX_HEADS)?.unwrap_or_default();
    let n_kv = header.per_layer(&kv_key, n_layer, 0..=MAX_HEADS)?.unwrap_or_else(|| n_head.clone());
    let at = |values: &[u32], i: usize| values.get(i).or_else(|| values.first()).copied().unwrap_or(0);
    for i in 0..n_head.len().max(n_kv.len()) {
        let (q, kv) = (at(&n_head, i), at(&n_kv, i));
        if kv > 0 && q % kv != 0 {
            return Err(wrong_value(format!("{head_key} is {q}, which is not a multiple of {kv_key}, {kv}")));
        }
    }
    let most = |values: &[u32]| values.iter().copied().max().unwrap_or(0);
    let attends = |t: &str| t.contains(".attn_q.") || t.contains(".attn_qkv.");
    if most(&n_head) == 0 && header.tensors.iter().any(|t| attends(&t.name)) {
        return Err(wrong_value(format!("{head_key} is missing or zero, but the model has attention layers")));
    }
    Ok((most(&n_head), most(&n_kv)))
}

fn head_dim(header: &Header, arch: &str, n_embd: u32, n_head: u32) -> Result<u32> {
    let key_length = header.u32_in(&format!("{arch}.attention.key_length"), 1..=MAX_WIDTH)?;
    header.u32_in(&format!("{arch}.attention.value_length"), 1..=MAX_WIDTH)?;
    match key_length {
        Some(n) => Ok(n),
        None if n_head == 0 => Ok(0),
        None if !n_embd.is_multiple_of(n_head) => {
            Err(wrong_value(format!("{arch}.embedding_length is {n_embd}, which {n_head} heads do not divide")))
        }
        None => Ok(n_embd / n_head),
    }
}

fn check_rope(header: &Header, arch: &str, head_dim: u32) -> Result<()> {
    let key = |name: &str| format!("{arch}.rope.{name}");
    let scaling = header.str(&key("scaling.type"))?;
    if let Some(name) = scaling.filter(|s| !["none", "linear", "yarn", "longrope"].contains(&s.as_str())) {
        return Err(wrong_value(format!("{} is {}, which llama.cpp does not know", key("scaling.type"), shown(&name))));
    }
    header.f32_in(&key("freq_base"), f32::MIN_POSITIVE..=f32::MAX)?;
    for name in ["scaling.factor", "scale_linear", "scaling.attn_factor"] {
        header.f32_in(&key(name), 0.0..=f32::MAX)?;
    }
    header.u32_in(&key("scaling.original_context_length"), 1..=MAX_CONTEXT)?;
    if let Some(n) = header.u32_in(&key("dimension_count"), 0..=MAX_WIDTH)?
        && (n % 2 != 0 || (head_dim > 0 && n > head_dim))
    {
        return Err(wrong_value(format!("{} is {n} with heads {head_dim} wide", key("dimension_count"))));
    }
    Ok(())
}

/// The assertions on experts at the top of llama.cpp's `load_hparams`.
fn check_experts(header: &Header, arch: &str, n_layer: u32) -> Result<()> {
    let key = |name: &str| format!("{arch}.{name}");
    let experts = header.u32_in(&key("expert_count"), 0..=MAX_EXPERTS)?.unwrap_or(0);
    let used = header.per_layer(&key("expert_used_count"), n_layer, 0..=MAX_EXPERTS)?.unwrap_or_default();
    let used = used.into_iter().max().unwrap_or(0);
    let groups = header.u32(&key("expert_group_count"))?.unwrap_or(0);
    let groups_used = header.u32(&key("expert_group_used_count"))?.unwrap_or(0);
    let sane = if experts == 0 {
        used == 0 && groups == 0
    } else {
        (1..=experts).contains(&used)
            && groups < experts
            && (groups <= 1 || (experts % groups == 0 && (1..groups).contains(&groups_used)))
    };
    if sane {
        return Ok(());
    }
    Err(wrong_value(format!(
        "the expert counts do not fit each other ({experts} experts, {used} used, {groups} groups, {groups_used} used)"
    )))
}

struct Vocab {
    size: u32,
    special: Vec<String>,
    newline: bool,
}

fn read_vocab(header: &Header) -> Result<Vocab> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let model = header.need_str(&key("model"))?;
    if !TOKENIZERS.contains(&model.as_str()) {
        return Err(Error::invalid(
            "model_tokenizer",
            format!("the tokenizer {} is not one that llama.cpp can write text with", shown(&model)),
        )
        .hint("take a language model for chat"));
    }
    header.str(&key("pre"))?;
    let tokens = header.need_strings(&key("tokens"))?;
    let size = u32::try_from(tokens.len()).ok().filter(|&n| n > 0 && n <= i32::MAX as u32);
    let size = size.ok_or_else(|| wrong_value("the vocabulary is empty".to_owned()))?;
    let ids = unique(tokens)?;

    let types = header.array(&key("token_type"), &[Kind::I32])?;
    let scores = header.array(&key("scores"), &[Kind::F32, Kind::I32])?;
    for (name, array) in [("token_type", types), ("scores", scores)] {
        if let Some(array) = array.filter(|a| a.len != u64::from(size)) {
            return Err(wrong_value(format!("{} has {} elements for {size} tokens", key(name), array.len)));
        }
    }
    if ["gpt2", "hybriddna", "whitespace", "gemma4"].contains(&model.as_str()) {
        let pre = header.str(&key("pre"))?;
        if header.array(&key("merges"), &[Kind::Str])?.is_none() && pre.as_deref() != Some("kimi-k2") {
            header.need_strings(&key("merges"))?;
        }
    }
    for name in TOKEN_IDS {
        if let Some(id) = header.u32(&key(name))?.filter(|&id| id >= size) {
            return Err(wrong_value(format!("{} is {id}, but there are only {size} tokens", key(name))));
        }
    }
    for (flag, id) in [("add_bos_token", "bos_token_id"), ("add_eos_token", "eos_token_id")] {
        if header.bool(&key(flag))? == Some(true) && header.u32(&key(id))?.is_none() {
            return Err(wrong_value(format!("{} is true, but {} is missing", key(flag), key(id))));
        }
    }
    for flag in ["add_sep_token", "add_space_prefix", "remove_extra_whitespaces"] {
        header.bool(&key(flag))?;
    }
    header.u32(&key("token_type_count"))?;
    header.array(&key("suppress_tokens"), &[Kind::I32])?;

    // llama.cpp finds a token by the text it prints for it, which is nothing for these types.
    let printable = |id: usize| {
        let kind = match types.map(|t| &t.items) {
            Some(Items::I32s(all)) => all.get(id).copied(),
            Some(Items::Values(all)) => all.get(id).and_then(|v| if let Value::I32(n) = v { Some(*n) } else { None }),
            _ => Some(1),
        };
        // normal, unknown, control, user-defined, byte
        matches!(kind, Some(1..=4 | 6))
    };
    let has = |text: &str| ids.get(text).is_some_and(|&id| printable(id));
    // Byte-level vocabularies write the line break as U+010A.
    let newline = if model == "gpt2" { has("\u{10a}") } else { has("\n") || has("<0x0A>") };
    let special = KNOWN_TOKENS.iter().filter(|t| has(t)).map(|&t| t.to_owned()).collect();
    Ok(Vocab { size, special, newline })
}

/// Tokens by text; llama.cpp asserts that no two are the same (empty ones get a name by number).
fn unique(tokens: &[String]) -> Result<HashMap<&str, usize>> {
    let mut ids = HashMap::with_capacity(tokens.len());
    let mut named = HashSet::new();
    for (i, token) in tokens.iter().enumerate() {
        if token.is_empty() {
            named.insert(format!("[EMPTY_{i}]"));
        } else if let Some(first) = ids.insert(token.as_str(), i) {
            return Err(Error::invalid(
                "model_vocabulary",
                format!("the tokens {first} and {i} of the vocabulary are both {}", shown(token)),
            )
            .hint("the file is damaged or its converter is broken; take the published file"));
        }
    }
    match named.iter().find(|n| ids.contains_key(n.as_str())) {
        Some(name) => Err(Error::invalid("model_vocabulary", format!("the token {} is there twice", shown(name)))),
        None => Ok(ids),
    }
}

fn check_tensors(header: &Header, arch: &str, shape: &Shape) -> Result<()> {
    for tensor in &header.tensors {
        // Index tables of some mixtures of experts are integers.
        if tensor.ggml.name != "I32" {
            want_weight(tensor)?;
        }
        if tensor.name.ends_with("norm.weight") || tensor.name.ends_with(".bias") {
            want_f32(tensor)?;
        }
        let block = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next());
        let block = block.map(|digits| digits.parse::<u32>().ok().filter(|n| n.to_string() == digits));
        if let Some(number) = block
            && number.is_none_or(|n| n >= shape.n_layer)
        {
            return Err(wrong_tensor(format!(
                "the tensor {} belongs to no layer; {arch}.block_count is {}",
                shown(&tensor.name),
                shape.n_layer
            )));
        }
    }
    want_weight(header.need_tensor("token_embd.weight", &[shape.n_embd, shape.n_vocab])?)?;
    header.need_tensor("output_norm.weight", &[shape.n_embd])?;
    header.tensor_if("output.weight", &[shape.n_embd, shape.n_vocab])?;
    let blocks: HashSet<&str> =
        header.tensors.iter().filter_map(|t| t.name.strip_prefix("blk.")?.split('.').next()).collect();
    if let Some(absent) = (0..shape.n_layer).find(|i| !blocks.contains(i.to_string().as_str())) {
        return Err(wrong_tensor(format!("there is no tensor of layer {absent} of {}", shape.n_layer)));
    }
    match arch {
        "qwen3" => check_qwen3(header, shape),
        "qwen35" => check_qwen35(header, shape),
        _ => Ok(()),
    }
}

/// A table of the tensors of one layer and their dimensions.
type Layer = Vec<(&'static str, Vec<u64>)>;

/// The feed-forward part and its norm, which both architectures share.
fn feed_forward(e: u64, ff: u64) -> Layer {
    vec![("ffn_gate.weight", vec![e, ff]), ("ffn_up.weight", vec![e, ff]), ("ffn_down.weight", vec![ff, e])]
}

fn one_number(header: &Header, key: &str, most: u32) -> Result<u64> {
    Ok(u64::from(header.need_u32(key, 1..=most)?))
}

/// MiniCPM-o 4.5's language model: every tensor, and no other.
fn check_qwen3(header: &Header, s: &Shape) -> Result<()> {
    header.need_f32("qwen3.attention.layer_norm_rms_epsilon", 0.0..=1.0)?;
    one_number(header, "qwen3.attention.head_count", MAX_HEADS)?;
    header.u32_in("qwen3.attention.head_count_kv", 1..=MAX_HEADS)?;
    same_heads(header, "qwen3", s.head_dim)?;
    if header.u32("qwen3.rope.dimension_count")?.is_some_and(|n| u64::from(n) != s.head_dim)
        || !s.head_dim.is_multiple_of(2)
    {
        return Err(wrong_value(format!("the heads are {} wide, which qwen3 cannot rotate", s.head_dim)));
    }
    let other_width = header.u32("qwen3.embedding_length_out")?.is_some_and(|n| u64::from(n) != s.n_embd);
    if s.n_nextn > 0 || other_width || header.u32("qwen3.expert_count")?.unwrap_or(0) > 0 {
        return Err(wrong_value("the metadata has entries that qwen3 does not have".to_owned()));
    }
    let (e, q, kv) = (s.n_embd, s.head_dim * s.n_head, s.head_dim * s.n_head_kv);
    let mut layer = feed_forward(e, one_number(header, "qwen3.feed_forward_length", MAX_WIDTH)?);
    layer.extend([
        ("attn_norm.weight", vec![e]),
        ("attn_q_norm.weight", vec![s.head_dim]),
        ("attn_k_norm.weight", vec![s.head_dim]),
        ("attn_output.weight", vec![q, e]),
        ("ffn_norm.weight", vec![e]),
    ]);
    let fused: Layer = vec![("attn_qkv.weight", vec![e, q + 2 * kv])];
    let apart: Layer =
        vec![("attn_q.weight", vec![e, q]), ("attn_k.weight", vec![e, kv]), ("attn_v.weight", vec![e, kv])];
    let optional: Layer = vec![
        ("attn_q.bias", vec![q]),
        ("attn_k.bias", vec![kv]),
        ("attn_v.bias", vec![kv]),
        ("attn_qkv.bias", vec![q + 2 * kv]),
    ];
    let mut known: HashSet<String> =
        ["token_embd.weight", "output_norm.weight", "output.weight"].map(str::to_owned).into();
    for i in 0..s.n_layer {
        let attention = if header.tensor(&format!("blk.{i}.attn_qkv.weight")).is_some() { &fused } else { &apart };
        for (name, dims) in layer.iter().chain(attention) {
            let name = format!("blk.{i}.{name}");
            header.need_tensor(&name, dims)?;
            // Formats with a scale per tensor keep it beside the weight.
            for scale in ["scale", "input_scale"].map(|s| name.replace("weight", s)) {
                if let Some(tensor) = header.tensor_if(&scale, &[1])? {
                    want_f32(tensor)?;
                    known.insert(scale);
                }
            }
            known.insert(name);
        }
        for (name, dims) in &optional {
            let name = format!("blk.{i}.{name}");
            header.tensor_if(&name, dims)?;
            known.insert(name);
        }
    }
    match header.tensors.iter().find(|t| !known.contains(&t.name)) {
        None => Ok(()),
        Some(tensor) => Err(wrong_tensor(format!(
            "the tensor {} does not belong to a qwen3 model; llama.cpp would refuse the file",
            shown(&tensor.name)
        ))),
    }
}

fn same_heads(header: &Header, arch: &str, head_dim: u64) -> Result<()> {
    let value = header.u32(&format!("{arch}.attention.value_length"))?;
    if value.is_some_and(|n| u64::from(n) != head_dim) {
        return Err(wrong_value(format!("{arch}.attention.value_length differs from the width of keys, {head_dim}")));
    }
    Ok(())
}

/// MiniCPM-V 4.6's language model, which alternates linear attention with full attention.
fn check_qwen35(header: &Header, s: &Shape) -> Result<()> {
    header.need_f32("qwen35.attention.layer_norm_rms_epsilon", 0.0..=1.0)?;
    one_number(header, "qwen35.attention.head_count", MAX_HEADS)?;
    header.u32_in("qwen35.attention.head_count_kv", 1..=MAX_HEADS)?;
    same_heads(header, "qwen35", s.head_dim)?;
    let ssm = |name: &str| one_number(header, &format!("qwen35.ssm.{name}"), MAX_WIDTH);
    let (conv, inner, state) = (ssm("conv_kernel")?, ssm("inner_size")?, ssm("state_size")?);
    let (v_heads, k_heads) = (ssm("time_step_rank")?, ssm("group_count")?);
    if inner != state * v_heads || v_heads % k_heads != 0 {
        return Err(wrong_value("the qwen35.ssm entries do not fit each other".to_owned()));
    }
    let linear = linear_layers(header, s)?;
    let (e, q, kv) = (s.n_embd, s.head_dim * s.n_head, s.head_dim * s.n_head_kv);
    let mut both = feed_forward(e, one_number(header, "qwen35.feed_forward_length", MAX_WIDTH)?);
    both.extend([("attn_norm.weight", vec![e]), ("post_attention_norm.weight", vec![e])]);
    let conv_dim = 2 * state * k_heads + inner;
    let recurrent: Layer = vec![
        ("attn_qkv.weight", vec![e, conv_dim]),
        ("attn_gate.weight", vec![e, inner]),
        ("ssm_conv1d.weight", vec![conv, conv_dim]),
        ("ssm_dt.bias", vec![v_heads]),
        ("ssm_a", vec![v_heads]),
        ("ssm_beta.weight", vec![e, v_heads]),
        ("ssm_alpha.weight", vec![e, v_heads]),
        ("ssm_norm.weight", vec![state]),
        ("ssm_out.weight", vec![inner, e]),
    ];
    let full: Layer = vec![
        ("attn_q.weight", vec![e, 2 * q]),
        ("attn_k.weight", vec![e, kv]),
        ("attn_v.weight", vec![e, kv]),
        ("attn_output.weight", vec![q, e]),
        ("attn_q_norm.weight", vec![s.head_dim]),
        ("attn_k_norm.weight", vec![s.head_dim]),
    ];
    for i in 0..s.n_layer - s.n_nextn {
        let kind = if linear.get(i as usize).copied().unwrap_or(false) { &recurrent } else { &full };
        for (name, dims) in both.iter().chain(kind) {
            let tensor = header.need_tensor(&format!("blk.{i}.{name}"), dims)?;
            if ["ssm_conv1d.weight", "ssm_a"].contains(name) {
                want_f32(tensor)?;
            }
        }
    }
    Ok(())
}

/// Which layers have linear attention.
fn linear_layers(header: &Header, s: &Shape) -> Result<Vec<bool>> {
    let sections = header.array("qwen35.rope.dimension_sections", &[Kind::I32, Kind::U32])?;
    if sections.is_none_or(|a| a.len != 4) {
        return Err(wrong_value("qwen35.rope.dimension_sections must have four elements".to_owned()));
    }
    let key = "qwen35.attention.recurrent_layers";
    if let Some(array) = header.array(key, &[Kind::Bool, Kind::U32, Kind::I32])? {
        let Items::Values(values) = &array.items else { return Err(wrong_value(format!("{key} is too long"))) };
        if array.len != u64::from(s.n_layer) {
            return Err(wrong_value(format!("{key} has {} elements for {} layers", array.len, s.n_layer)));
        }
        return Ok(values.iter().map(|v| !matches!(v, Value::Bool(false) | Value::U32(0) | Value::I32(0))).collect());
    }
    let interval = header.u32_in("qwen35.full_attention_interval", 1..=MAX_LAYERS)?.unwrap_or(4);
    Ok((0..s.n_layer).map(|i| (i + 1) % interval != 0).collect())
}
