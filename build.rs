//! Lends the program's ggml to backends that are loaded as plugins (`packaging/backends`): their `ggml_*` symbols are
//! open and must be found in the program. Not here: llama.cpp's own build (the crate `llama-cpp-sys-2`).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let on_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if on_linux && std::env::var_os("CARGO_FEATURE_LLAMA").is_some() {
        // Also for tests and benches, which load models themselves.
        println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol=ggml_*");
    }
}
