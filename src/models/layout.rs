//! Where the files of one model lie: the layout that MiniCPM-o 4.5 is published in, and the usual
//! `mmproj*.gguf` beside the model. Goes by names only. Not here: looking into files (`inspect`).

use std::fs;
use std::path::{Path, PathBuf};

use super::catalog::{Catalog, Role};
use super::gguf::split_part;
use crate::error::{Error, Result};

/// The folder of the tiny model with random weights that the tests make.
const RANDOM_DIR: &str = "tiny-random";
/// The folder of the small demo model that comes with the program.
const DEMO_DIR: &str = "demo";
const TOKEN2WAV_DIR: &str = "token2wav-gguf";
/// The quantisation that is taken when a folder holds several.
const PREFERRED: &str = "Q4_K_M";

/// The five files that turn audio tokens into sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token2Wav {
    pub encoder: PathBuf,
    pub flow_matching: PathBuf,
    pub flow_extra: PathBuf,
    pub hifigan2: PathBuf,
    /// The default voice.
    pub prompt_cache: PathBuf,
}

/// The files of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    pub language: PathBuf,
    /// The vision projector.
    pub projector: PathBuf,
    /// The speech model.
    pub tts: Option<PathBuf>,
    pub tts_projector: Option<PathBuf>,
    pub token2wav: Option<Token2Wav>,
    /// The encoder for hearing; Vidette does not need it.
    pub audio: Option<PathBuf>,
    /// Choices made and things missing, one sentence each, for the log.
    pub notes: Vec<String>,
}

impl ModelFiles {
    /// True when all files that speaking needs are there.
    pub fn can_speak(&self) -> bool {
        self.tts.is_some() && self.tts_projector.is_some() && self.token2wav.is_some()
    }
}

/// Finds a model's files from its language model or its folder. In a folder with several language
/// models the Q4_K_M is taken, else the smallest; the choice is in `notes`.
///
/// # Errors
/// `model_file_not_found`, `model_split_file`, `model_projector_missing` or `model_projector_ambiguous`.
pub fn find(path: &Path) -> Result<ModelFiles> {
    let mut notes = Vec::new();
    if !path.exists() {
        return Err(Error::not_found(
            "model_file_not_found",
            format!("{}: there is no such file or folder", path.display()),
        )
        .hint("run `vidette pull` to get a model, or set MODEL_PATH to one that is there"));
    }
    let (language, root) = if path.is_dir() {
        (choose_language(path, &mut notes)?, path.to_owned())
    } else {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        (path.to_owned(), parent.to_owned())
    };
    let projector = choose_projector(&root, &language)?;
    let tts_files = ggufs(&root.join("tts"));
    let tts_projector = one(&tts_files, |n| n.contains("projector"), "speech projector", &mut notes);
    let tts = one(&tts_files, |n| n.contains("tts") && !n.contains("projector"), "speech model", &mut notes);
    let audio = one(&ggufs(&root.join("audio")), |_| true, "audio encoder", &mut notes);
    let token2wav = token2wav(&root.join(TOKEN2WAV_DIR), &mut notes);
    let files = ModelFiles { language, projector, tts, tts_projector, token2wav, audio, notes };
    Ok(with_speech_note(files))
}

fn with_speech_note(mut files: ModelFiles) -> ModelFiles {
    let parts = [files.tts.is_some(), files.tts_projector.is_some(), files.token2wav.is_some()];
    if !files.can_speak() && parts.contains(&true) {
        files.notes.push(
            "some files of the speech model are missing, so this model can't speak; `vidette pull` completes them"
                .to_owned(),
        );
    }
    files
}

/// Finds the best model under a folder of models: those of the catalogue in its order, then other
/// folders by name, then the demo model, then the tiny one with random weights.
///
/// # Errors
/// `model_none_installed` when there is none.
pub fn find_default(gguf_dir: &Path) -> Result<ModelFiles> {
    for entry in Catalog::builtin()?.entries() {
        let dir = gguf_dir.join(&entry.dir);
        let there = |role| entry.files.iter().filter(|f| f.role == role).all(|f| dir.join(&f.local).is_file());
        if there(Role::Language)
            && there(Role::Vision)
            && let Some(language) = entry.files.iter().find(|f| f.role == Role::Language)
        {
            return find(&dir.join(&language.local));
        }
    }
    let mut folders: Vec<PathBuf> =
        fs::read_dir(gguf_dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    folders.sort_by_key(|p| {
        let name = p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        (usize::from(name == DEMO_DIR) + 2 * usize::from(name == RANDOM_DIR), name)
    });
    // Folders that hold no whole model are passed over: a half-finished download must not hide the demo model.
    folders.iter().find_map(|folder| find(folder).ok()).ok_or_else(|| {
        Error::not_found("model_none_installed", format!("there is no model in {}", gguf_dir.display()))
            .hint("`vidette models` lists what there is and what it weighs; `vidette pull MODEL` gets one")
    })
}

/// The GGUF files directly in a folder, by name. A folder that can't be read has none.
fn ggufs(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) && p.is_file())
        .collect();
    files.sort();
    files
}

fn lower_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

fn is_projector_name(name: &str) -> bool {
    name.contains("mmproj") || name.contains("-vision-")
}

fn list(files: &[PathBuf]) -> String {
    files.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn choose_language(dir: &Path, notes: &mut Vec<String>) -> Result<PathBuf> {
    let all = ggufs(dir);
    let companion =
        |name: &str| is_projector_name(name) || ["-audio-", "-tts-", "-projector-"].iter().any(|p| name.contains(p));
    let models: Vec<PathBuf> = all.iter().filter(|p| !companion(&lower_name(p))).cloned().collect();
    let (split, whole): (Vec<PathBuf>, Vec<PathBuf>) = models
        .into_iter()
        .partition(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| split_part(n).is_some()));
    let size = |p: &PathBuf| fs::metadata(p).map_or(u64::MAX, |m| m.len());
    let preferred = whole.iter().find(|p| lower_name(p).contains(&PREFERRED.to_ascii_lowercase()));
    let chosen = preferred.or_else(|| whole.iter().min_by_key(|p| size(p)));
    if let Some(chosen) = chosen {
        if whole.len() > 1 {
            let why = if preferred.is_some() { "the Q4_K_M one" } else { "the smallest" };
            let name = chosen.file_name().unwrap_or_default().to_string_lossy();
            notes.push(format!("{} holds {} language models; {name}, {why}, is taken", dir.display(), whole.len()));
        }
        return Ok(chosen.clone());
    }
    if let Some(part) = split.first() {
        return Err(Error::invalid(
            "model_split_file",
            format!("{}: the model is split into parts, which Vidette does not read", part.display()),
        )
        .hint("join the parts with `llama-gguf-split --merge`, or take a file that is in one piece"));
    }
    let message = format!("{}: there is no language model (.gguf) in this folder", dir.display());
    Err(Error::not_found("model_file_not_found", message)
        .hint("`vidette pull` gets one; for a model in a folder below, name that folder"))
}

fn choose_projector(root: &Path, language: &Path) -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = ggufs(root).into_iter().filter(|p| is_projector_name(&lower_name(p))).collect();
    found.extend(ggufs(&root.join("vision")));
    found.retain(|p| p != language);
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Error::not_found(
            "model_projector_missing",
            format!("{}: its vision projector is not beside it, so it could not see", language.display()),
        )
        .hint("`vidette pull` gets both; otherwise put the projector into the folder `vision` or beside the model as mmproj….gguf")),
        several => Err(Error::invalid(
            "model_projector_ambiguous",
            format!("{}: several vision projectors could belong to it: {}", language.display(), list(several)),
        )
        .hint("leave one of them there and move the others away")),
    }
}

/// The one file that fits; of several the first by name, with a note.
fn one(files: &[PathBuf], fits: impl Fn(&str) -> bool, what: &str, notes: &mut Vec<String>) -> Option<PathBuf> {
    let fitting: Vec<PathBuf> = files.iter().filter(|p| fits(&lower_name(p))).cloned().collect();
    if let [first, _, ..] = fitting.as_slice() {
        notes.push(format!("there is more than one {what}; {} is taken", first.display()));
    }
    fitting.into_iter().next()
}

fn token2wav(dir: &Path, notes: &mut Vec<String>) -> Option<Token2Wav> {
    if !dir.is_dir() {
        return None;
    }
    let mut absent = Vec::new();
    let mut file = |name: &str| {
        let path = dir.join(name);
        if !path.is_file() {
            absent.push(name.to_owned());
        }
        path
    };
    let files = Token2Wav {
        encoder: file("encoder.gguf"),
        flow_matching: file("flow_matching.gguf"),
        flow_extra: file("flow_extra.gguf"),
        hifigan2: file("hifigan2.gguf"),
        prompt_cache: file("prompt_cache.gguf"),
    };
    if absent.is_empty() {
        return Some(files);
    }
    notes.push(format!("{} lacks {}", dir.display(), absent.join(", ")));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(root: &Path, files: &[(&str, usize)]) {
        for (name, size) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; *size]).unwrap();
        }
    }

    const PUBLISHED: &[(&str, usize)] = &[
        ("MiniCPM-o-4_5-Q4_0.gguf", 1),
        ("MiniCPM-o-4_5-Q4_K_M.gguf", 2),
        ("MiniCPM-o-4_5-F16.gguf", 3),
        ("vision/MiniCPM-o-4_5-vision-F16.gguf", 1),
        ("audio/MiniCPM-o-4_5-audio-F16.gguf", 1),
        ("tts/MiniCPM-o-4_5-tts-F16.gguf", 1),
        ("tts/MiniCPM-o-4_5-projector-F16.gguf", 1),
        ("token2wav-gguf/encoder.gguf", 1),
        ("token2wav-gguf/flow_matching.gguf", 1),
        ("token2wav-gguf/flow_extra.gguf", 1),
        ("token2wav-gguf/hifigan2.gguf", 1),
        ("token2wav-gguf/prompt_cache.gguf", 1),
    ];

    #[test]
    fn the_published_layout_is_found_from_folder_and_file() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), PUBLISHED);
        let files = find(dir.path()).unwrap();
        assert!(files.language.ends_with("MiniCPM-o-4_5-Q4_K_M.gguf"));
        assert!(files.projector.ends_with("vision/MiniCPM-o-4_5-vision-F16.gguf"));
        assert!(files.tts.as_ref().unwrap().ends_with("tts/MiniCPM-o-4_5-tts-F16.gguf"));
        assert!(files.tts_projector.as_ref().unwrap().ends_with("tts/MiniCPM-o-4_5-projector-F16.gguf"));
        assert!(files.can_speak() && files.audio.is_some());
        assert_eq!(files.notes.len(), 1, "{:?}", files.notes);
        let files = find(&dir.path().join("MiniCPM-o-4_5-F16.gguf")).unwrap();
        assert!(files.language.ends_with("MiniCPM-o-4_5-F16.gguf") && files.notes.is_empty());
    }

    #[test]
    fn without_the_preferred_one_the_smallest_is_taken_and_said() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &[("m-Q8_0.gguf", 9), ("m-Q5_K_M.gguf", 5), ("mmproj-m.gguf", 1)]);
        let files = find(dir.path()).unwrap();
        assert!(files.language.ends_with("m-Q5_K_M.gguf"));
        assert!(files.notes[0].contains("the smallest"));
    }

    #[test]
    fn what_is_missing_or_doubtful_has_its_own_code() {
        let dir = tempfile::tempdir().unwrap();
        let code = || find(dir.path()).unwrap_err().code;
        assert_eq!(find(&dir.path().join("no")).unwrap_err().code, "model_file_not_found");
        assert_eq!(code(), "model_file_not_found");
        make(dir.path(), &[("m-00001-of-00002.gguf", 1), ("m-00002-of-00002.gguf", 1)]);
        assert_eq!(code(), "model_split_file");
        make(dir.path(), &[("m.gguf", 1)]);
        assert_eq!(code(), "model_projector_missing");
        make(dir.path(), &[("mmproj-a.gguf", 1), ("vision/b.gguf", 1)]);
        let error = find(dir.path()).unwrap_err();
        assert_eq!(error.code, "model_projector_ambiguous");
        assert!(error.message.contains("mmproj-a.gguf") && error.message.contains("b.gguf"));
    }

    #[test]
    fn an_incomplete_voice_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        make(
            dir.path(),
            &[("m.gguf", 1), ("mmproj.gguf", 1), ("token2wav-gguf/encoder.gguf", 1), ("tts/x-tts-F16.gguf", 1)],
        );
        let files = find(dir.path()).unwrap();
        assert!(!files.can_speak());
        assert!(files.notes.iter().any(|n| n.contains("flow_matching.gguf")), "{:?}", files.notes);
    }

    #[test]
    fn the_default_goes_from_the_catalogue_down_to_random_weights() {
        let dir = tempfile::tempdir().unwrap();
        let chosen = || find_default(dir.path()).map(|f| f.language.strip_prefix(dir.path()).unwrap().to_owned());
        assert_eq!(chosen().unwrap_err().code, "model_none_installed");
        for (folder, file) in [("tiny-random", "llm"), ("demo", "demo"), ("mine", "mine")] {
            make(&dir.path().join(folder), &[(&format!("{file}.gguf"), 1), ("mmproj.gguf", 1)]);
            assert_eq!(chosen().unwrap(), Path::new(folder).join(format!("{file}.gguf")));
        }
        for name in ["minicpm-v-4.6", "minicpm-o-4.5"] {
            let entry = Catalog::builtin().unwrap().get(name).unwrap();
            for file in entry.files.iter().filter(|f| matches!(f.role, Role::Language | Role::Vision)) {
                make(&dir.path().join(&entry.dir), &[(file.local.as_str(), 1)]);
            }
            assert!(chosen().unwrap().starts_with(&entry.dir));
        }
    }
}
