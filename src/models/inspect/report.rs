//! What `vidette inspect FILE` prints. Not here: printing.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{FileKind, LanguageModel, Projector};
use crate::models::gguf::{Header, shown};

/// What a file turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    Language(Box<LanguageModel>),
    Projector(Box<Projector>),
    /// A file of the voice, or one that Vidette does not know: only its header was checked.
    Other {
        path: PathBuf,
        kind: FileKind,
        architecture: Option<String>,
        name: Option<String>,
        tensors: usize,
        bytes: u64,
    },
}

impl Report {
    pub(super) fn other(path: &Path, kind: FileKind, header: &Header) -> Self {
        Report::Other {
            path: path.to_owned(),
            kind,
            architecture: header.str("general.architecture").ok().flatten(),
            name: header.str("general.name").ok().flatten(),
            tensors: header.tensors.len(),
            bytes: header.file_len,
        }
    }

    /// What the file is for.
    pub fn kind(&self) -> FileKind {
        match self {
            Report::Language(_) => FileKind::Language,
            Report::Projector(_) => FileKind::Projector,
            Report::Other { kind, .. } => *kind,
        }
    }
}

/// Bytes as people read them: `4.68 GiB`.
pub fn size(bytes: u64) -> String {
    let exact = bytes as f64;
    for (unit, factor) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >> factor > 0 {
            return format!("{:.2} {unit}", exact / f64::from(1u32 << factor));
        }
    }
    format!("{bytes} bytes")
}

/// Weights as people count them: `8.19 billion`.
fn count(parameters: u64) -> String {
    match parameters as f64 {
        n if n >= 1e9 => format!("{:.2} billion", n / 1e9),
        n => format!("{:.2} million", n / 1e6),
    }
}

fn line(f: &mut fmt::Formatter<'_>, label: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {label:<16} {value}")
}

fn named(f: &mut fmt::Formatter<'_>, name: Option<&String>) -> fmt::Result {
    name.map_or(Ok(()), |name| line(f, "name", shown(name)))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Language(model) => model.fmt(f),
            Report::Projector(projector) => projector.fmt(f),
            Report::Other { path, kind, architecture, name, tensors, bytes } => {
                writeln!(f, "{}: {}", path.display(), kind.words())?;
                named(f, name.as_ref())?;
                if let Some(architecture) = architecture {
                    line(f, "architecture", shown(architecture))?;
                }
                line(f, "tensors", tensors)?;
                line(f, "size", size(*bytes))?;
                line(f, "checked", "header and tensor table only")
            }
        }
    }
}

impl fmt::Display for LanguageModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.path.display(), FileKind::Language.words())?;
        named(f, self.name.as_ref())?;
        line(f, "architecture", &self.architecture)?;
        line(f, "weights", format!("{}, {}", count(self.parameters), self.quantisation))?;
        line(f, "size", size(self.bytes))?;
        line(f, "width", self.n_embd)?;
        line(f, "layers", self.n_layer)?;
        line(f, "heads", format!("{} ({} for keys and values), {} wide", self.n_head, self.n_head_kv, self.head_dim))?;
        line(f, "vocabulary", self.n_vocab)?;
        line(f, "context", format!("{} tokens", self.context_length))?;
        line(f, "chat template", if self.chat_template { "yes" } else { "no" })?;
        line(f, "special tokens", self.special_tokens.join(" "))?;
        if !self.sampling.is_empty() {
            line(f, "sampling", format!("{} (the file's recommendation)", self.sampling))?;
        }
        if self.demo {
            line(f, "demo model", "it knows simple drawn scenes only")?;
        }
        if self.random {
            line(f, "RANDOM WEIGHTS", "for tests; what it says means nothing")?;
        }
        Ok(())
    }
}

impl fmt::Display for Projector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.path.display(), FileKind::Projector.words())?;
        named(f, self.name.as_ref())?;
        line(f, "type", &self.projector_type)?;
        if let Some(version) = self.minicpmv_version {
            line(f, "MiniCPM version", version)?;
        }
        if let Some(width) = self.width {
            line(f, "output width", width)?;
        }
        if let Some(queries) = self.queries {
            line(f, "embeddings", format!("{queries} a slice"))?;
        }
        line(f, "slice", format!("{0} x {0} pixels in patches of {1}", self.image_size, self.patch_size))?;
        line(f, "vision tower", format!("{} layers, width {}", self.n_layer, self.n_embd))?;
        line(f, "size", size(self.bytes))?;
        line(f, "checked", if self.layout_checked { "every tensor" } else { "header and tensor table only" })?;
        if self.demo {
            line(f, "demo model", "it knows simple drawn scenes only")?;
        }
        if self.random {
            line(f, "RANDOM WEIGHTS", "for tests; what it sees means nothing")?;
        }
        Ok(())
    }
}
