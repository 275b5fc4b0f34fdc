//! Finds ggml's other backends (CUDA, …), which are plugins: `libggml-NAME.so` in the folder `backends` beside the
//! program, or in the one that was named. Without any the processor computes.
//! Not here: loading one (`ffi`); how one is built (`packaging/backends`).

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static NAMED: OnceLock<PathBuf> = OnceLock::new();

/// Has plugins looked for in `folder` and nowhere else. Only before llama.cpp starts; the first call counts.
pub fn look_in(folder: PathBuf) {
    // A second call comes from a second engine in one process (tests), which shares llama.cpp anyway.
    let _first = NAMED.set(folder);
}

/// The plugins that there are, by name.
pub(super) fn found() -> Vec<PathBuf> {
    let folder = NAMED.get().cloned().or_else(|| Some(std::env::current_exe().ok()?.parent()?.join("backends")));
    folder.map(|folder| in_folder(&folder)).unwrap_or_default()
}

fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) => {
            if NAMED.get().is_some() {
                tracing::warn!("the folder of GPU backends, {}, can't be read: {e}", folder.display());
            }
            return Vec::new();
        }
    };
    let plugin = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with("libggml-") && name.ends_with(".so")
    };
    let mut found: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).filter(plugin).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plugins_are_taken_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libggml-vulkan.so", "libggml-cuda.so", ".libggml-cuda.so.new", "libggml-cuda.txt", "readme"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let names: Vec<_> = in_folder(folder.path());
        assert_eq!(names, ["libggml-cuda.so", "libggml-vulkan.so"].map(|n| folder.path().join(n)));
        assert_eq!(in_folder(&folder.path().join("none")), Vec::<PathBuf>::new());
    }
}
