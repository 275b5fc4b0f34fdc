//! Takes the page's third-party code (`vendor/VENDOR.md`) into the program, when it was fetched, with its licences;
//! fetching is the Makefile's, nothing here reaches for the network. And lends the program's ggml to backends that are
//! loaded as plugins (`packaging/backends`): their `ggml_*` symbols are open and must be found in the program.
//! Not here: Vidette's own page (`web/page.rs`), llama.cpp's own build (the crate `llama-cpp-sys-2`).

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

const CLIENT: &str = "livekit-client";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A folder, so that packages that appear or go are noticed.
    println!("cargo:rerun-if-changed=vendor");
    lend_ggml();
    take_vendor();
}

fn lend_ggml() {
    let on_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if on_linux && env::var_os("CARGO_FEATURE_LLAMA").is_some() {
        // Also for tests and benches, which load models themselves.
        println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol=ggml_*");
    }
}

fn take_vendor() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names the folder"));
    let packages = Path::new("vendor/node_modules");
    let script = packages.join(CLIENT).join("dist/livekit-client.umd.js");
    let (text, licences) = if script.is_file() {
        let (wanted, found) = (pinned(), version(&packages.join(CLIENT)));
        assert!(
            found.as_deref() == Some(wanted.as_str()),
            "vendor/node_modules has {CLIENT} {}, but vendor/package.json wants {wanted}: run `npm ci` in vendor/",
            found.unwrap_or_default()
        );
        (fs::read_to_string(&script).expect("the client can be read"), licences(packages))
    } else {
        println!(
            "cargo:warning=vendor/node_modules is missing: this build has no webcam in the browser (`make build` fetches it)"
        );
        (String::new(), String::new())
    };
    fs::write(out.join("livekit-client.js"), text).expect("the folder can be written");
    fs::write(out.join("licences.txt"), licences).expect("the folder can be written");
}

fn json(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

fn pinned() -> String {
    let package = json(Path::new("vendor/package.json")).expect("vendor/package.json can be read");
    package["dependencies"][CLIENT].as_str().expect("vendor/package.json pins the client").to_owned()
}

fn version(package: &Path) -> Option<String> {
    Some(json(&package.join("package.json"))?["version"].as_str()?.to_owned())
}

/// Name, version, licence and the licence's text of every package.
fn licences(packages: &Path) -> String {
    let mut folders = Vec::new();
    for folder in entries(packages) {
        let scope = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with('@'));
        if scope { folders.extend(entries(&folder)) } else { folders.push(folder) }
    }
    folders.sort_by_key(|folder| (!folder.ends_with(CLIENT), folder.clone()));
    let mut all = String::new();
    for folder in folders {
        let Some(package) = json(&folder.join("package.json")) else { continue };
        let word = |key: &str| package[key].as_str().unwrap_or("unknown").to_owned();
        let texts = entries(&folder).into_iter().filter(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            ["licen", "notice", "copying"].iter().any(|start| name.starts_with(start))
        });
        let texts: Vec<_> = texts.filter_map(|file| fs::read_to_string(file).ok()).collect();
        let _infallible =
            writeln!(all, "{}\n{} {}: {}\n", "=".repeat(80), word("name"), word("version"), word("license"));
        for text in texts {
            let _infallible = writeln!(all, "{}\n", text.trim());
        }
    }
    all
}

/// What is in a folder, in order, but for what is hidden.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<_> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| !path.file_name().unwrap_or_default().to_string_lossy().starts_with('.'));
    found.sort();
    found
}
