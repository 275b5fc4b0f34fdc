//! The catalogue of models that `vidette pull` knows: what they are, what they need, and their files
//! with size and SHA-256 where these are known. It is `gguf/catalog.toml`, built into the program.
//! Not here: downloading (`pull`), what is installed (`layout`).

use std::path::{Component, Path};
use std::sync::OnceLock;

use serde::Deserialize;

use crate::error::{Error, Result};

const BUILTIN: &str = include_str!("../../gguf/catalog.toml");

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Language,
    Vision,
    Tts,
    TtsProjector,
    Token2wav,
    Audio,
}

impl Role {
    /// True for the files that only speaking needs.
    pub fn is_voice(self) -> bool {
        matches!(self, Role::Tts | Role::TtsProjector | Role::Token2wav)
    }
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Path in the repository.
    pub path: String,
    /// Path below the model's folder; the same as in the repository when empty.
    #[serde(rename = "as", default)]
    pub local: String,
    /// Size, where it is known; otherwise the hub is asked.
    pub bytes: Option<u64>,
    /// SHA-256 in lower-case hexadecimal, where it is known; otherwise the hub is asked.
    pub sha256: Option<String>,
    pub role: Role,
}

/// What a model needs to run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// In words.
    pub text: String,
    /// Memory (of the machine or the GPU) that the weights and a small context take.
    pub min_bytes: u64,
}

/// One model in one quantisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What `vidette pull` takes.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    pub title: String,
    pub summary: String,
    pub licence: String,
    pub repo: String,
    /// A commit of the repository, so that files can't change under the checksums.
    pub revision: String,
    /// Folder below the folder of models; quantisations of one model share it.
    pub dir: String,
    pub needs: Needs,
    pub files: Vec<ModelFile>,
}

impl Entry {
    /// Sum of the sizes of the files that `wanted` accepts, and whether all of them are known.
    pub fn known_bytes(&self, wanted: impl Fn(&ModelFile) -> bool) -> (u64, bool) {
        let files = self.files.iter().filter(|f| wanted(f));
        files.fold((0, true), |(sum, all), f| match f.bytes {
            Some(n) => (sum + n, all),
            None => (sum, false),
        })
    }
}

/// All models, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    family: Vec<RawFamily>,
}

/// Models that share everything but the language model.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFamily {
    title: String,
    summary: String,
    licence: String,
    repo: String,
    revision: String,
    dir: String,
    #[serde(default)]
    files: Vec<ModelFile>,
    model: Vec<RawModel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModel {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    title: String,
    summary: String,
    needs: Needs,
    file: ModelFile,
}

impl Catalog {
    /// The catalogue that is built in.
    ///
    /// # Errors
    /// `catalog_invalid`, which the tests rule out.
    pub fn builtin() -> Result<&'static Self> {
        static PARSED: OnceLock<Result<Catalog>> = OnceLock::new();
        PARSED.get_or_init(|| Self::parse(BUILTIN)).as_ref().map_err(Clone::clone)
    }

    /// Reads a catalogue from TOML.
    ///
    /// # Errors
    /// `catalog_invalid`.
    pub fn parse(text: &str) -> Result<Self> {
        let broken =
            |why: String| Error::internal("catalog_invalid", format!("the catalogue of models is broken: {why}"));
        let raw: Raw = toml::from_str(text).map_err(|e| broken(e.to_string()))?;
        let mut entries = Vec::new();
        for family in raw.family {
            for model in family.model {
                let mut files = vec![model.file];
                files.extend(family.files.iter().cloned());
                for file in &mut files {
                    if file.local.is_empty() {
                        file.local.clone_from(&file.path);
                    }
                }
                entries.push(Entry {
                    name: model.name,
                    aliases: model.aliases,
                    title: format!("{} {}", family.title, model.title),
                    summary: format!("{} {}", family.summary, model.summary),
                    licence: family.licence.clone(),
                    repo: family.repo.clone(),
                    revision: family.revision.clone(),
                    dir: family.dir.clone(),
                    needs: model.needs,
                    files,
                });
            }
        }
        let catalog = Self { entries };
        catalog.check().map_err(broken)?;
        Ok(catalog)
    }

    fn check(&self) -> Result<(), String> {
        let mut names = Vec::new();
        for entry in &self.entries {
            names.push(&entry.name);
            names.extend(&entry.aliases);
            if !is_plain(&entry.dir) {
                return Err(format!("{}: the folder {:?} is not below the folder of models", entry.name, entry.dir));
            }
            for file in &entry.files {
                if !is_plain(&file.local) || !is_plain(&file.path) {
                    return Err(format!("{}: the path {:?} is not a plain relative one", entry.name, file.local));
                }
                let hex = |s: &String| s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if !file.sha256.as_ref().is_none_or(hex) {
                    return Err(format!("{}: the SHA-256 of {} is malformed", entry.name, file.path));
                }
            }
        }
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("the name {} is there twice", pair[0])),
            None => Ok(()),
        }
    }

    /// All entries, best first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of this name or alias; case does not matter.
    ///
    /// # Errors
    /// `model_unknown`, with the names that there are.
    pub fn get(&self, name: &str) -> Result<&Entry> {
        let same = |other: &String| other.eq_ignore_ascii_case(name.trim());
        self.entries.iter().find(|e| same(&e.name) || e.aliases.iter().any(same)).ok_or_else(|| {
            let names: Vec<&str> = self.entries.iter().map(|e| e.name.as_str()).collect();
            Error::not_found("model_unknown", format!("there is no model {name:?} in the catalogue"))
                .hint(format!("there are: {}", names.join(", ")))
        })
    }
}

/// A relative path of plain names, the same on every system.
fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\\')
        && !path.contains(':')
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_catalogue_is_sound() {
        let catalog = Catalog::builtin().unwrap();
        for entry in catalog.entries() {
            let count = |role| entry.files.iter().filter(|f| f.role == role).count();
            assert_eq!((count(Role::Language), count(Role::Vision)), (1, 1), "{}", entry.name);
            assert!(entry.revision.len() == 40, "{} is not pinned to a commit", entry.name);
            let (bytes, _) = entry.known_bytes(|f| !f.role.is_voice() && f.role != Role::Audio);
            assert!(entry.needs.min_bytes >= bytes, "{} needs less than its files weigh", entry.name);
        }
        let entry = catalog.get("MiniCPM-o-4.5").unwrap();
        assert_eq!(entry.name, "minicpm-o-4.5-q4_k_m");
        assert_eq!(entry.files.iter().filter(|f| f.role == Role::Token2wav).count(), 5);
        let (_, all_known) = entry.known_bytes(|_| true);
        assert!(all_known);
        assert!(catalog.get("minicpm-v-4.6").is_ok());
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = Catalog::builtin().unwrap().get("gpt").unwrap_err();
        assert_eq!(error.code, "model_unknown");
        assert!(error.hint.unwrap().contains("minicpm-v-4.6"));
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for (from, to) in
            [("as = \"../x\"", "plain relative"), ("as = \"/x\"", "plain relative"), ("sha256 = \"A\"", "malformed")]
        {
            let text = format!(
                "[[family]]\ntitle='t'\nsummary='s'\nlicence='l'\nrepo='r/r'\nrevision='m'\ndir='d'\n[[family.model]]\nname='n'\n\
                 title='q'\nsummary='s'\nneeds={{text='x',min_bytes=1}}\n[family.model.file]\npath='m.gguf'\nrole='language'\n{from}\n"
            );
            let error = Catalog::parse(&text).unwrap_err();
            assert!(error.message.contains(to), "{}", error.message);
        }
    }
}
