//! Model files that llama.cpp would abort on are refused, each with its own code; good ones pass.

#[path = "support/models_gguf.rs"]
mod models_gguf;

use std::fs;
use std::path::Path;

use models_gguf::{
    Eyes, F16, F32, Gguf, V, language, language_qwen35, merger, projector, projector_merger, resampler, s,
};
use vidette::models::gguf::Header;
use vidette::models::inspect::{self, FileKind, read_language_model, read_projector};
use vidette::models::{check_pair, find, inspect_file, inspect_language_model, inspect_projector};

fn code_of_language(g: &Gguf) -> &'static str {
    let (header, len) = g.header();
    Header::read(&header[..], len).and_then(|h| read_language_model(&h)).map_or_else(|e| e.code, |_| "accepted")
}

fn code_of_projector(g: &Gguf) -> &'static str {
    let (header, len) = g.header();
    Header::read(&header[..], len).and_then(|h| read_projector(&h)).map_or_else(|e| e.code, |_| "accepted")
}

type Damage = (&'static str, fn(&mut Gguf), &'static str);

fn set(g: &mut Gguf, key: &str, value: V) {
    g.set(key, value);
}

#[test]
fn a_good_pair_is_described_and_fits() {
    let dir = tempfile::tempdir().unwrap();
    language().write(&dir.path().join("tiny-Q4_K_M.gguf"));
    projector().write(&dir.path().join("vision/tiny-vision-F16.gguf"));
    let files = find(dir.path()).unwrap();
    let model = inspect_language_model(&files.language).unwrap();
    let eyes = inspect_projector(&files.projector).unwrap();
    assert_eq!((model.n_embd, model.n_layer, model.n_head, model.n_head_kv, model.head_dim), (128, 2, 2, 1, 128));
    assert_eq!((model.n_ff, model.n_vocab, model.context_length), (Some(256), 49, 4096));
    assert_eq!((model.quantisation.as_str(), model.random, model.chat_template), ("F32", true, true));
    assert!(model.has_token("<image>") && !model.has_token("<|tts_bos|>") && model.newline_token);
    assert_eq!((eyes.width, eyes.queries, eyes.minicpmv_version), (Some(128), Some(64), Some(100_045)));
    assert_eq!((eyes.image_size, eyes.patch_size, eyes.layout_checked, eyes.random), (448, 14, true, true));
    check_pair(&model, &eyes).unwrap();
    for (path, kind, word) in
        [(&files.language, FileKind::Language, "RANDOM"), (&files.projector, FileKind::Projector, "resampler")]
    {
        let report = inspect_file(path).unwrap();
        assert_eq!(report.kind(), kind);
        assert!(report.to_string().contains(word), "{report}");
    }
}

#[test]
fn the_demo_model_says_so_and_advice_is_taken_where_it_can_be_right() {
    let read = |g: &Gguf| {
        let (header, len) = g.header();
        read_language_model(&Header::read(&header[..], len).unwrap()).unwrap()
    };
    let plain = read(&language());
    assert!(!plain.demo && plain.sampling.is_empty());
    let mut g = language();
    g.set("vidette.demo", V::Bool(true))
        .set("general.sampling.temp", V::F32(0.0))
        .set("general.sampling.top_k", V::I32(40))
        .set("general.sampling.penalty_repeat", V::F32(1.0));
    let model = read(&g);
    assert!(model.demo);
    assert_eq!(model.sampling.to_string(), "temperature 0, top_k 40, repeat_penalty 1");
    let dir = tempfile::tempdir().unwrap();
    let shown = inspect_file(&g.write(&dir.path().join("demo.gguf"))).unwrap().to_string();
    assert!(shown.contains("temperature 0, top_k 40") && shown.contains("demo model"), "{shown}");
    // What can't be right is no advice, and no reason to refuse the file.
    for (name, value) in [
        ("temp", V::F32(f32::NAN)),
        ("temp", V::F32(f32::INFINITY)),
        ("temp", V::Str("hot".into())),
        ("top_p", V::F32(1.5)),
        ("top_k", V::I32(-1)),
        ("top_k", V::U32(u32::MAX)),
        ("min_p", V::F32(-0.1)),
        ("penalty_repeat", V::F32(0.0)),
    ] {
        let mut g = language();
        g.set(&format!("general.sampling.{name}"), value);
        assert!(read(&g).sampling.is_empty(), "{name}");
    }
}

#[test]
fn the_small_models_layouts_pass_too() {
    assert_eq!(code_of_language(&language_qwen35()), "accepted");
    let (header, len) = projector_merger().header();
    let eyes = read_projector(&Header::read(&header[..], len).unwrap()).unwrap();
    assert_eq!((eyes.width, eyes.layout_checked), (Some(128), true));
    // The newer naming of the feed-forward matrices.
    let mut g = projector();
    for t in &mut g.tensors {
        t.name = t.name.replace("ffn_down", "ffn_x").replace("ffn_up", "ffn_down").replace("ffn_x", "ffn_up");
    }
    assert_eq!(code_of_projector(&g), "accepted");
    // Other architectures and projectors get the general checks.
    let mut g = language();
    for (key, value) in &mut g.kv {
        *key = key.replace("qwen3.", "llama.");
        if key == "general.architecture" {
            *value = s("llama");
        }
    }
    assert_eq!(code_of_language(&g), "accepted");
}

/// The published sizes tell that the layouts here are the published ones, to the tensor and its type.
#[test]
fn the_published_projectors_have_the_layout_that_is_checked() {
    let big = Eyes {
        width: 1152,
        ff: 4304,
        heads: 16,
        layers: 27,
        out: 4096,
        merger_ff: 17216,
        merger_out_ff: 4608,
        positions: F16,
    };
    for (g, published, tensors) in [
        (resampler(big), 1_095_113_184u64, 455),
        (merger(Eyes { out: 1024, positions: F32, ..big }), 1_108_746_944, 459),
    ] {
        let (bytes, len) = g.header();
        let header = Header::read(&bytes[..], len).unwrap();
        assert_eq!(header.tensors.len(), tensors);
        assert!(read_projector(&header).unwrap().layout_checked);
        let data = len - header.data_start;
        // What is left is a header of about 58 bytes a tensor and some metadata.
        assert!((20_000..40_000).contains(&(published - data)), "{data}");
    }
}

const LANGUAGE: &[Damage] = &[
    ("no architecture", |g| g.unset("general.architecture"), "model_metadata_missing"),
    ("width of another type", |g| set(g, "qwen3.embedding_length", V::U64(128)), "model_metadata_type"),
    ("no layers", |g| set(g, "qwen3.block_count", V::U32(0)), "model_metadata_value"),
    ("too many layers", |g| set(g, "qwen3.block_count", V::U32(513)), "model_metadata_value"),
    ("a layer more than there is", |g| set(g, "qwen3.block_count", V::U32(3)), "model_tensor_shape"),
    ("a layer fewer than there is", |g| set(g, "qwen3.block_count", V::U32(1)), "model_tensor_shape"),
    ("no heads", |g| set(g, "qwen3.attention.head_count", V::U32(0)), "model_metadata_value"),
    (
        "heads that kv heads do not divide",
        |g| set(g, "qwen3.attention.head_count_kv", V::U32(3)),
        "model_metadata_value",
    ),
    ("another number of heads", |g| set(g, "qwen3.attention.head_count", V::U32(4)), "model_tensor_shape"),
    (
        "keys and values of different width",
        |g| set(g, "qwen3.attention.value_length", V::U32(64)),
        "model_metadata_value",
    ),
    ("odd rotation", |g| set(g, "qwen3.rope.dimension_count", V::U32(127)), "model_metadata_value"),
    ("partial rotation", |g| set(g, "qwen3.rope.dimension_count", V::U32(64)), "model_metadata_value"),
    ("rope base zero", |g| set(g, "qwen3.rope.freq_base", V::F32(0.0)), "model_metadata_value"),
    ("rope base not a number", |g| set(g, "qwen3.rope.freq_base", V::F32(f32::NAN)), "model_metadata_value"),
    ("unknown rope scaling", |g| set(g, "qwen3.rope.scaling.type", s("bent")), "model_metadata_value"),
    ("negative epsilon", |g| set(g, "qwen3.attention.layer_norm_rms_epsilon", V::F32(-1.0)), "model_metadata_value"),
    ("no epsilon", |g| g.unset("qwen3.attention.layer_norm_rms_epsilon"), "model_metadata_missing"),
    ("experts used without experts", |g| set(g, "qwen3.expert_used_count", V::U32(2)), "model_metadata_value"),
    ("all layers for prediction", |g| set(g, "qwen3.nextn_predict_layers", V::U32(2)), "model_metadata_value"),
    ("pooling", |g| set(g, "qwen3.pooling_type", V::U32(3)), "model_not_generative"),
    ("no context", |g| set(g, "qwen3.context_length", V::U32(0)), "model_metadata_value"),
    ("a split model", |g| set(g, "split.count", V::U16(3)), "model_split_file"),
    ("feed-forward width", |g| set(g, "qwen3.feed_forward_length", V::U32(255)), "model_tensor_shape"),
    ("unknown tokenizer", |g| set(g, "tokenizer.ggml.model", s("abacus")), "model_tokenizer"),
    ("no tokens", |g| set(g, "tokenizer.ggml.tokens", V::Strs(vec![])), "model_metadata_value"),
    ("no merges", |g| g.unset("tokenizer.ggml.merges"), "model_metadata_missing"),
    ("token types too short", |g| set(g, "tokenizer.ggml.token_type", V::I32s(vec![1; 48])), "model_metadata_value"),
    ("scores of the wrong type", |g| set(g, "tokenizer.ggml.scores", V::Strs(vec![])), "model_metadata_type"),
    ("end token out of range", |g| set(g, "tokenizer.ggml.eos_token_id", V::U32(49)), "model_metadata_value"),
    (
        "a token twice",
        |g| {
            let mut tokens: Vec<String> = (0..48).map(|i| i.to_string()).collect();
            tokens.push("7".to_owned());
            set(g, "tokenizer.ggml.tokens", V::Strs(tokens));
        },
        "model_vocabulary",
    ),
    ("rows of the vocabulary", |g| g.tensor("token_embd.weight").dims[1] = 48, "model_tensor_shape"),
    ("no output norm", |g| g.drop_tensor("output_norm.weight"), "model_tensor_shape"),
    ("no query matrix", |g| g.drop_tensor("blk.1.attn_q.weight"), "model_tensor_shape"),
    ("a matrix of integers", |g| g.tensor("blk.0.ffn_up.weight").kind = 24, "model_tensor_type"),
    ("a norm of half floats", |g| g.tensor("blk.0.attn_norm.weight").kind = F16, "model_tensor_type"),
    (
        "a tensor that qwen3 does not have",
        |g| {
            g.add("blk.0.extra.weight", &[128], F32);
        },
        "model_tensor_shape",
    ),
    ("an alignment that is none", |g| set(g, "general.alignment", V::U32(24)), "model_header_invalid"),
    ("overlapping tensors", |g| g.shift = Some((1, -32)), "model_header_invalid"),
    ("a gap between tensors", |g| g.shift = Some((1, 32)), "model_header_invalid"),
    ("an offset off the grid", |g| g.shift = Some((1, 4)), "model_header_invalid"),
    ("an empty dimension", |g| g.tensor("output.weight").dims[0] = 0, "model_header_invalid"),
    ("an unknown tensor type", |g| g.tensor("output.weight").kind = 99, "model_header_invalid"),
    (
        "rows that are no whole blocks",
        |g| {
            let t = g.tensor("output.weight");
            t.kind = 2;
            t.dims[0] = 100
        },
        "model_header_invalid",
    ),
];

#[test]
fn damaged_language_models_are_refused() {
    for (what, damage, code) in LANGUAGE {
        let mut g = language();
        damage(&mut g);
        assert_eq!(code_of_language(&g), *code, "{what}");
    }
}

const QWEN35: &[Damage] = &[
    ("a division by zero", |g| set(g, "qwen35.full_attention_interval", V::U32(0)), "model_metadata_value"),
    ("no heads for keys", |g| set(g, "qwen35.ssm.group_count", V::U32(0)), "model_metadata_value"),
    ("sizes that do not fit", |g| set(g, "qwen35.ssm.inner_size", V::U32(96)), "model_metadata_value"),
    ("a matrix that llama.cpp takes as optional", |g| g.drop_tensor("blk.0.attn_qkv.weight"), "model_tensor_shape"),
    ("rotation sections", |g| set(g, "qwen35.rope.dimension_sections", V::I32s(vec![1; 3])), "model_metadata_value"),
];

#[test]
fn damaged_small_language_models_are_refused() {
    for (what, damage, code) in QWEN35 {
        let mut g = language_qwen35();
        damage(&mut g);
        assert_eq!(code_of_language(&g), *code, "{what}");
    }
}

const PROJECTOR: &[Damage] = &[
    ("a foreign version", |g| set(g, "clip.minicpmv_version", V::I32(451)), "model_projector_version"),
    ("a version of another type", |g| set(g, "clip.minicpmv_version", V::U32(100_045)), "model_metadata_type"),
    ("patch size zero", |g| set(g, "clip.vision.patch_size", V::U32(0)), "model_metadata_value"),
    ("patch size of another type", |g| set(g, "clip.vision.patch_size", V::F32(14.0)), "model_metadata_type"),
    ("image size zero", |g| set(g, "clip.vision.image_size", V::U32(0)), "model_metadata_value"),
    ("image size huge", |g| set(g, "clip.vision.image_size", V::U32(8190)), "model_metadata_value"),
    ("no heads", |g| set(g, "clip.vision.attention.head_count", V::U32(0)), "model_metadata_value"),
    ("heads that do not divide", |g| set(g, "clip.vision.attention.head_count", V::U32(5)), "model_metadata_value"),
    ("other heads for keys", |g| set(g, "clip.vision.attention.head_count_kv", V::U32(2)), "model_metadata_value"),
    ("layers without end", |g| set(g, "clip.vision.block_count", V::U32(u32::MAX)), "model_metadata_value"),
    ("a layer more than there is", |g| set(g, "clip.vision.block_count", V::U32(3)), "model_tensor_shape"),
    ("negative epsilon", |g| set(g, "clip.vision.attention.layer_norm_epsilon", V::F32(-1.0)), "model_metadata_value"),
    ("a short mean", |g| set(g, "clip.vision.image_mean", V::F32s(vec![0.5])), "model_metadata_value"),
    ("a deviation of zero", |g| set(g, "clip.vision.image_std", V::F32s(vec![0.0; 3])), "model_metadata_value"),
    ("a flag that is a number", |g| set(g, "clip.use_gelu", V::U32(1)), "model_metadata_type"),
    ("a name that is a number", |g| set(g, "general.name", V::U32(1)), "model_metadata_type"),
    (
        "feature layers of another type",
        |g| set(g, "clip.vision.feature_layer", V::F32s(vec![1.0])),
        "model_metadata_type",
    ),
    ("queries", |g| set(g, "clip.minicpmv_query_num", V::U32(65)), "model_tensor_shape"),
    ("no vision", |g| set(g, "clip.has_vision_encoder", V::Bool(false)), "model_projector_no_vision"),
    ("no position table", |g| g.drop_tensor("v.position_embd.weight"), "model_tensor_shape"),
    ("a short position table", |g| g.tensor("v.position_embd.weight").dims[1] = 1024, "model_tensor_shape"),
    ("no patch embedding", |g| g.drop_tensor("v.patch_embd.weight"), "model_tensor_shape"),
    ("a patch embedding in bf16", |g| g.tensor("v.patch_embd.weight").kind = 30, "model_tensor_type"),
    ("no query matrix", |g| g.drop_tensor("v.blk.1.attn_q.weight"), "model_tensor_shape"),
    ("a bias in half floats", |g| g.tensor("v.blk.0.attn_q.bias").kind = F16, "model_tensor_type"),
    ("a query in half floats", |g| g.tensor("resampler.query").kind = F16, "model_tensor_type"),
    (
        "a class embedding",
        |g| {
            g.add("v.class_embd", &[64], F32);
        },
        "model_tensor_shape",
    ),
    (
        "fused attention",
        |g| {
            g.add("v.blk.0.attn_qkv.weight", &[64, 192], F32);
        },
        "model_tensor_shape",
    ),
    ("a width off the heads", |g| g.tensor("resampler.proj.weight").dims = vec![96, 96], "model_tensor_shape"),
    ("a projection that is not square", |g| g.tensor("resampler.proj.weight").dims[1] = 64, "model_tensor_shape"),
    ("resampler positions", |g| g.tensor("resampler.pos_embed_k").dims[1] = 4899, "model_tensor_shape"),
];

#[test]
fn damaged_projectors_are_refused() {
    for (what, damage, code) in PROJECTOR {
        let mut g = projector();
        damage(&mut g);
        assert_eq!(code_of_projector(&g), *code, "{what}");
    }
    let merger: &[Damage] = &[
        ("a scale that is none", |g| set(g, "clip.vision.projector.scale_factor", V::U32(3)), "model_metadata_value"),
        ("no merger", |g| g.drop_tensor("v.vit_merger.attn_q.weight"), "model_tensor_shape"),
        (
            "a layer that is not there",
            |g| set(g, "clip.vision.wa_layer_indexes", V::I32s(vec![2])),
            "model_metadata_value",
        ),
    ];
    for (what, damage, code) in merger {
        let mut g = projector_merger();
        damage(&mut g);
        assert_eq!(code_of_projector(&g), *code, "{what}");
    }
}

#[test]
fn pairs_that_do_not_fit_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let eyes = inspect_projector(&projector().write(&dir.path().join("p.gguf"))).unwrap();
    let mut narrow = inspect_language_model(&language().write(&dir.path().join("l.gguf"))).unwrap();
    narrow.n_embd = 256;
    let error = check_pair(&narrow, &eyes).unwrap_err();
    assert_eq!(error.code, "model_pair_width");
    assert!(error.message.contains("p.gguf") && error.message.contains("l.gguf") && error.message.contains("256"));

    for (token, kind) in [("x", 3), ("<image>", 5)] {
        let mut g = language();
        for (key, value) in &mut g.kv {
            match value {
                V::Strs(tokens) if key.ends_with("tokens") => tokens[44] = token.to_owned(),
                V::I32s(types) => types[44] = kind,
                _ => {}
            }
        }
        let plain = inspect_language_model(&g.write(&dir.path().join("plain.gguf"))).unwrap();
        let error = check_pair(&plain, &eyes).unwrap_err();
        assert_eq!(error.code, "model_pair_tokens");
        assert!(error.message.contains("lacks <image>,"), "{}", error.message);
    }
}

#[test]
fn what_is_no_model_has_its_own_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let write = |name: &str, bytes: &[u8]| {
        fs::write(path(name), bytes).unwrap();
        path(name)
    };
    let whole = language().write(&path("whole.gguf"));
    let len = fs::metadata(&whole).unwrap().len();
    let cut = language().write(&path("cut.gguf"));
    fs::File::options().write(true).open(&cut).unwrap().set_len(len - 1000).unwrap();
    let eyes = projector().write(&path("eyes.gguf"));
    let mut tts = Gguf::default();
    tts.set("general.architecture", s("llama")).add("emb_code.0.weight", &[768, 8], F32);
    let tts = tts.write(&path("tts.gguf"));

    let cases: Vec<(&Path, &str, &str)> = vec![
        (Path::new("/nowhere/m.gguf"), "model_file_not_found", "vidette pull"),
        (dir.path(), "model_is_directory", "folder"),
        (Path::new("/dev/null"), "model_not_a_file", "regular"),
        (&cut, "model_file_truncated", "truncated"),
        (&eyes, "model_swapped", "projector"),
        (&tts, "model_wrong_kind", "speech"),
    ];
    let refused = |path: &Path, code: &str, word: &str| {
        let error = inspect_language_model(path).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(error.message.starts_with(&path.display().to_string()), "{error}");
        assert!(error.hint.is_some(), "{error}");
    };
    for (path, code, word) in cases {
        refused(path, code, word);
    }
    for (name, bytes, code, word) in [
        ("empty.gguf", &b""[..], "model_file_empty", "empty"),
        ("page.gguf", b"\n <!DOCTYPE html><html>", "model_is_html", "web page"),
        ("lfs.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "model_is_lfs_pointer", "git lfs"),
        ("json.gguf", b"{\"error\":\"Repository not found\"}", "model_not_gguf", "error message"),
        ("zip.gguf", b"PK\x03\x04", "model_not_gguf", "zip"),
        ("old.gguf", b"tjgg\x01\0\0\0", "model_not_gguf", "old format"),
        ("noise.gguf", b"\x07\x08\x09", "model_not_gguf", "not a GGUF"),
        ("big.gguf", b"GGUF\0\0\0\x03", "model_version", "big-endian"),
        ("m-00001-of-00005.gguf", b"GGUF", "model_split_file", "1 of 5"),
    ] {
        refused(&write(name, bytes), code, word);
    }
    let needed = inspect_language_model(&cut).unwrap_err().message;
    assert!(needed.contains(&format!("{} bytes", len - 1000)), "{needed}");
    let error = inspect_projector(&whole).unwrap_err();
    assert_eq!(error.code, "model_swapped");
    assert!(matches!(inspect_file(&tts).unwrap().kind(), FileKind::Tts));
}

/// Small and the same on every run: xorshift.
struct Noise(u64);

impl Noise {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

#[test]
fn thousands_of_random_mutations_never_panic() {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for g in [language(), language_qwen35(), projector(), projector_merger()] {
        let (header, len) = g.header();
        for round in 0..1500 {
            let mut bytes = header.clone();
            for _ in 0..1 + noise.below(4) {
                let at = noise.below(bytes.len());
                match round % 3 {
                    0 => bytes[at] = noise.below(256) as u8,
                    1 => bytes[at] ^= 1 << noise.below(8),
                    _ => {
                        let value = [0u64, 1, 0xff, u64::MAX, 1 << 31, 1 << 63][noise.below(6)].to_le_bytes();
                        let end = (at + 8).min(bytes.len());
                        bytes[at..end].copy_from_slice(&value[..end - at]);
                    }
                }
            }
            if let Ok(header) = Header::read(&bytes[..], len) {
                let _either_way = read_language_model(&header);
                let _either_way = read_projector(&header);
                let _any_kind = inspect::FileKind::of(&header);
            }
        }
    }
}
