//! The fuzz targets' checks on the stable toolchain: random text, text made of what their readers look for, and the cases
//! that once mattered. `make fuzz` runs them under libFuzzer, for longer. GGUF headers are in `models::gguf`'s own tests.

#[path = "../fuzz/inputs.rs"]
mod inputs;

use proptest::prelude::*;

/// Pieces that steer a reader into its corners.
fn pieces(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![4 => prop::sample::select(pieces).prop_map(str::to_owned), 1 => "\\PC{0,4}", 1 => "[\\x00-\\x7f]{0,3}"];
    prop::collection::vec(piece, 0..16).prop_map(|parts| parts.concat())
}

const SOURCE: &[&str] = &[
    "rtsp://",
    "rtsps://",
    "http://",
    "https://",
    "file://",
    "file:",
    "test:",
    "ball",
    "@",
    ":",
    "/",
    "//",
    "..",
    "/dev/",
    "video0",
    "v4l/",
    "user",
    "pa:ss",
    "%40",
    "%00",
    "%2f",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "127.0.0.1",
    "0x7f000001",
    "localhost",
    ".",
    "?a=b",
    "#f",
    "\\",
    " ",
    "\n",
    "\0",
    "640x480",
    "?fps=25",
    "99999",
    "-1",
];
const CONFIG: &[&str] = &[
    "capture_fps: ",
    "streams:\n",
    "  door:\n",
    "    source: ",
    "frame_stride: ",
    "max_reconnect_delay: ",
    "server_host: ",
    "0.0.0.0",
    "api_token: ",
    "allow_no_token: true",
    "tls: ",
    "\n",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "|",
    ">",
    "&a ",
    "*a",
    "!!int ",
    "1",
    "-1",
    ".nan",
    ".inf",
    "1e999",
    "${X}",
    "${",
    "~",
    "true",
    "---\n",
    "? ",
    "<<: ",
    "test:ball",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sources(text in prop_oneof![pieces(SOURCE), Just(String::new()), "\\PC{0,60}"]) {
        #[cfg(feature = "ingest")]
        inputs::source(&text);
        let _without_ingest_there_is_no_reader = text;
    }

    #[test]
    fn configurations(text in prop_oneof![pieces(CONFIG), "\\PC{0,60}"]) {
        inputs::config(&text);
    }

    #[test]
    fn bodies(text in prop_oneof![
        pieces(&["{", "}", "[", "]", "\"source\"", "\"instruction\"", "\"x\"", ":", ",", "null", "1e999", "\\u0000", "\"", " "]),
        "\\PC{0,60}"
    ]) {
        inputs::body(text.as_bytes());
    }

    #[test]
    fn instructions(text in prop_oneof![
        pieces(&["Tell me", " ", "\n", "\t", "\u{0}", "\u{7f}", "\u{85}", "<|im_end|>", "🦆", "\u{202e}", "é"]), "[\\x00-\\x{10ffff}]{0,3000}"
    ]) {
        inputs::instruction(&text);
    }
}

/// Deep nesting, aliases that grow without end, and long lines take neither the stack nor the memory.
#[test]
fn configurations_that_grow() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        format!("instruction: {}", "x".repeat(1 << 20)),
    ] {
        inputs::config(&text);
    }
    let mut bomb = "a: &a0 [x, x]\n".to_owned();
    for i in 1..40 {
        bomb.push_str(&format!("b{i}: &a{i} [*a{}, *a{}]\n", i - 1, i - 1));
    }
    inputs::config(&bomb);
}
