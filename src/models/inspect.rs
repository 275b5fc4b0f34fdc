//! Looks into model files before llama.cpp does. What llama.cpp would abort on is refused here with a
//! sentence that names the file, what is wrong and what to do.
//! Not here: reading the bytes (`gguf`), finding the files (`layout`), tensor data (only its place and size).

mod language;
mod projector;
mod report;
mod sampling;

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

pub use language::{KNOWN_TOKENS, read_language_model};
pub use projector::{VERSIONS, read_projector};
pub use report::{Report, size};
pub use sampling::SamplingAdvice;

use super::gguf::{Header, split_part};
use crate::error::{Error, Kind as ErrorKind, Result};

/// A language model that llama.cpp may open.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageModel {
    pub path: PathBuf,
    pub name: Option<String>,
    /// llama.cpp's name of the architecture, such as `qwen3`.
    pub architecture: String,
    /// Width of the embeddings.
    pub n_embd: u32,
    pub n_layer: u32,
    /// Attention heads, the most of any layer.
    pub n_head: u32,
    pub n_head_kv: u32,
    pub head_dim: u32,
    /// Width of the feed-forward part, when it is one number for all layers.
    pub n_ff: Option<u32>,
    pub n_vocab: u32,
    /// Tokens that the model was trained for.
    pub context_length: u32,
    pub chat_template: bool,
    /// Such as `Q4_K_M`.
    pub quantisation: String,
    /// Size of the file.
    pub bytes: u64,
    /// Weights in all.
    pub parameters: u64,
    /// Which of [`KNOWN_TOKENS`] the vocabulary has, in a form that llama.cpp finds.
    pub special_tokens: Vec<String>,
    /// The vocabulary can write a line break as one token.
    pub newline_token: bool,
    /// The weights are random numbers, for tests; what the model says means nothing.
    pub random: bool,
    /// The small demo model that comes with the program, by its own word (`vidette.demo`).
    pub demo: bool,
    /// How its makers want its words chosen.
    pub sampling: SamplingAdvice,
}

impl LanguageModel {
    /// True when the vocabulary has this special token.
    pub fn has_token(&self, text: &str) -> bool {
        self.special_tokens.iter().any(|t| t == text)
    }
}

/// A vision projector (mmproj) that llama.cpp may open.
#[derive(Debug, Clone, PartialEq)]
pub struct Projector {
    pub path: PathBuf,
    pub name: Option<String>,
    /// llama.cpp's name, such as `resampler`.
    pub projector_type: String,
    /// Which MiniCPM-V or -o it belongs to; 100045 is MiniCPM-o 4.5.
    pub minicpmv_version: Option<i32>,
    /// Width of what it hands to the language model, where the layout is known here.
    pub width: Option<u32>,
    /// Pixels of a side of one slice.
    pub image_size: u32,
    /// Pixels of a side of one patch.
    pub patch_size: u32,
    /// Embeddings per slice, where it is a fixed number.
    pub queries: Option<u32>,
    /// Width of the vision tower.
    pub n_embd: u32,
    pub n_layer: u32,
    /// Size of the file.
    pub bytes: u64,
    pub random: bool,
    /// The demo model's, by the file's own word.
    pub demo: bool,
    /// Every tensor was held against the layout; false means that only general checks were possible.
    pub layout_checked: bool,
}

/// What a GGUF file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Language,
    Projector,
    Audio,
    Tts,
    TtsProjector,
    Token2Wav,
    Unknown,
}

impl FileKind {
    /// Tells the kind from architecture and tensor names.
    pub fn of(header: &Header) -> Self {
        let has = |name: &str| header.tensor(name).is_some();
        let architecture = header.str("general.architecture").ok().flatten().unwrap_or_default();
        if architecture == "clip" {
            FileKind::Projector
        } else if has("emb_code.0.weight") || has("head_code.0.weight") {
            FileKind::Tts
        } else if architecture == "projector" || (has("linear1.weight") && has("linear2.weight")) {
            FileKind::TtsProjector
        } else if architecture == "whisper" || has("encoder.conv1.weight") {
            FileKind::Audio
        } else if [
            "estimator.in_proj.weight",
            "up_layer.conv.weight",
            "input_embedding.weight",
            "m_source.l_linear.weight",
            "prompt_cache.estimator_att_cache",
        ]
        .iter()
        .any(|name| has(name))
        {
            FileKind::Token2Wav
        } else if has("token_embd.weight") || header.get("tokenizer.ggml.tokens").is_some() {
            FileKind::Language
        } else {
            FileKind::Unknown
        }
    }

    /// In words, with an article.
    pub fn words(self) -> &'static str {
        match self {
            FileKind::Language => "a language model",
            FileKind::Projector => "a vision projector (mmproj)",
            FileKind::Audio => "an audio encoder",
            FileKind::Tts => "the speech model (TTS)",
            FileKind::TtsProjector => "the speech model's projector",
            FileKind::Token2Wav => "a part of the vocoder (token2wav)",
            FileKind::Unknown => "something unknown to Vidette",
        }
    }
}

/// Looks into a language model.
///
/// # Errors
/// One of the `model_…` codes of `docs/MODELS.md`; the message starts with the path.
pub fn inspect_language_model(path: &Path) -> Result<LanguageModel> {
    let header = read_header(path)?;
    let mut model = read_language_model(&header).map_err(|e| in_file(path, e))?;
    model.path = path.to_owned();
    Ok(model)
}

/// Looks into a vision projector.
///
/// # Errors
/// One of the `model_…` codes of `docs/MODELS.md`; the message starts with the path.
pub fn inspect_projector(path: &Path) -> Result<Projector> {
    let header = read_header(path)?;
    let mut projector = read_projector(&header).map_err(|e| in_file(path, e))?;
    projector.path = path.to_owned();
    Ok(projector)
}

/// Looks into any GGUF file: finds out what it is and inspects it as that.
///
/// # Errors
/// As the other two functions.
pub fn inspect_file(path: &Path) -> Result<Report> {
    let header = read_header(path)?;
    Ok(match FileKind::of(&header) {
        FileKind::Language => {
            let mut model = read_language_model(&header).map_err(|e| in_file(path, e))?;
            model.path = path.to_owned();
            Report::Language(Box::new(model))
        }
        FileKind::Projector => {
            let mut projector = read_projector(&header).map_err(|e| in_file(path, e))?;
            projector.path = path.to_owned();
            Report::Projector(Box::new(projector))
        }
        kind => Report::other(path, kind, &header),
    })
}

/// Whether the two belong together.
///
/// # Errors
/// `model_pair_width` or `model_pair_tokens`.
pub fn check_pair(model: &LanguageModel, projector: &Projector) -> Result<()> {
    if let Some(width) = projector.width
        && width != model.n_embd
    {
        return Err(Error::invalid(
            "model_pair_width",
            format!(
                "{} hands over embeddings of width {width}, but {} takes {}",
                projector.path.display(),
                model.path.display(),
                model.n_embd
            ),
        )
        .hint("the two files belong to different models; take both from the same folder of the hub"));
    }
    if !matches!(projector.projector_type.as_str(), "resampler" | "minicpmv4_6") {
        return Ok(());
    }
    let mut absent: Vec<&str> =
        ["<image>", "</image>", "<slice>", "</slice>"].into_iter().filter(|t| !model.has_token(t)).collect();
    if !model.newline_token {
        absent.push("the line break");
    }
    if absent.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(
        "model_pair_tokens",
        format!(
            "the vocabulary of {} lacks {}, which {} needs around every image",
            model.path.display(),
            absent.join(", "),
            projector.path.display()
        ),
    )
    .hint("a plain language model of the same width does not do; take the language model that was published with the projector"))
}

/// Opens a file and reads its header.
///
/// # Errors
/// The sentences for missing, empty, truncated and foreign files.
pub fn read_header(path: &Path) -> Result<Header> {
    let (file, len) = open(path)?;
    Header::read(BufReader::with_capacity(1 << 16, file), len).map_err(|e| in_file(path, e))
}

/// The same error with the file named first.
fn in_file(path: &Path, error: Error) -> Error {
    Error { message: format!("{}: {}", path.display(), error.message), ..error }
}

/// Opens what looks like a GGUF file and gives its length.
fn open(path: &Path) -> Result<(File, u64)> {
    let shown = path.display();
    let refuse = |code, message: String, hint: &str| Err(Error::invalid(code, message).hint(hint));
    let failed = |e: std::io::Error| {
        if e.kind() == std::io::ErrorKind::NotFound {
            Error::not_found("model_file_not_found", format!("{shown}: there is no such file"))
                .hint("run `vidette pull` to get a model, or set MODEL_PATH to one that is there")
        } else {
            Error::new(ErrorKind::Unavailable, "model_file_unreadable", format!("{shown}: {e}"))
                .hint("check the file's permissions and the disk")
        }
    };
    // Asked before opening: opening a named pipe would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return refuse(
            "model_is_directory",
            format!("{shown}: this is a folder where a GGUF file is expected"),
            "name the .gguf file in it",
        );
    }
    if !metadata.is_file() {
        return refuse("model_not_a_file", format!("{shown}: this is not a regular file"), "name a .gguf file");
    }
    if metadata.len() == 0 {
        return refuse("model_file_empty", format!("{shown}: the file is empty"), "fetch it again");
    }
    if let Some((number, of)) = path.file_name().and_then(|n| n.to_str()).and_then(split_part) {
        return refuse(
            "model_split_file",
            format!("{shown}: this is part {number} of {of} of a split model, which Vidette does not read"),
            "join the parts with `llama-gguf-split --merge`, or take a file that is in one piece",
        );
    }
    let mut file = File::open(path).map_err(failed)?;
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(512).read_to_end(&mut start).map_err(failed)?;
    if let Some((code, what, hint)) = foreign(&start) {
        return refuse(code, format!("{shown}: {what}"), hint);
    }
    file.rewind().map_err(failed)?;
    Ok((file, metadata.len()))
}

/// What a file that is no GGUF file is instead, where that can be told.
fn foreign(start: &[u8]) -> Option<(&'static str, &'static str, &'static str)> {
    if start.starts_with(b"GGUF") {
        return None;
    }
    let text = String::from_utf8_lossy(start).trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    Some(if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<?xml") {
        (
            "model_is_html",
            "this is a web page saved under the name of a model",
            "download the file itself (on the hub: the link with /resolve/ in it, or `vidette pull`)",
        )
    } else if text.starts_with("version https://git-lfs") {
        (
            "model_is_lfs_pointer",
            "this is a git-lfs pointer, not the model",
            "run `git lfs pull` in that folder, or `vidette pull`",
        )
    } else if text.starts_with('{') && text.contains("error") {
        (
            "model_not_gguf",
            "this is a server's error message saved under the name of a model",
            "download the file again; the message may say that a token is needed",
        )
    } else if start.starts_with(b"PK") {
        (
            "model_not_gguf",
            "this is a zip archive or a PyTorch checkpoint, not a GGUF file",
            "take the model's GGUF files",
        )
    } else if [b"lmgg", b"tjgg", b"fmgg", b"algg"].iter().any(|magic| start.starts_with(*magic)) {
        (
            "model_not_gguf",
            "this is a model in ggml's old format from before GGUF",
            "take a current GGUF file of the model",
        )
    } else {
        ("model_not_gguf", "this is not a GGUF file", "give a .gguf file; `vidette pull` gets one")
    })
}
