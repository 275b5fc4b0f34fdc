//! Mistakes in how the program is started: each ends it at once with 64 (a wrong use) or 1 (something in its surroundings),
//! and one sentence that names what is wrong. Not here: values one by one (`config::tests`).
#![cfg(all(feature = "ingest", feature = "llama"))]

#[path = "support/program.rs"]
mod program;

use program::command;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

#[test]
fn mistakes_end_with_a_sentence_and_the_right_code() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    std::fs::write(at("empty.gguf"), b"").unwrap();
    std::fs::write(at("text.gguf"), b"hello").unwrap();
    std::fs::write(at("unknown.yaml"), "capture_fsp: 2\n").unwrap();
    std::fs::write(at("list.yaml"), "- a\n- b\n").unwrap();
    std::fs::write(at("binary.yaml"), [0, 159, 146, 150]).unwrap();
    std::fs::write(at("large.yaml"), vec![b'#'; 2 << 20]).unwrap();
    std::fs::write(at("variable.yaml"), "streams: {a: {source: \"rtsp://u:${NO_SUCH_VARIABLE}@h/\"}}\n").unwrap();
    std::fs::write(at("shut.yaml"), "capture_fps: 2\n").unwrap();
    std::fs::set_permissions(at("shut.yaml"), std::fs::Permissions::from_mode(0o000)).unwrap();
    std::fs::create_dir(at("no-models")).unwrap();
    let none = at("no-models");
    let anywhere = ["--server-port", "0", "--models-dir", &none];
    let mut table: Vec<(Vec<String>, i32, &str)> = Vec::new();
    let mut case = |args: &[&str], code, words| {
        table.push((args.iter().map(|a| (*a).to_owned()).collect(), code, words));
    };
    case(&["run", "--no-such-flag"], 64, "--no-such-flag");
    case(&["walk", "--run"], 64, "--run");
    case(&["run", "--capture-fps", "many"], 64, "--capture-fps");
    case(&["run", "--capture-fps", "-1"], 64, "'-1'");
    case(&["run", "--capture-fps=0"], 64, "CAPTURE_FPS");
    case(&["run", "--capture-fps=NaN"], 64, "CAPTURE_FPS");
    case(&["run", "--server-port", "70000"], 64, "--server-port");
    case(&["run", "--server-host", "everywhere"], 64, "SERVER_HOST");
    case(&["run", "--server-host", "0.0.0.0"], 64, "API_TOKEN");
    case(&["run", "--server-host", "::"], 64, "API_TOKEN");
    case(&["run", "--api-token", "short"], 64, "API_TOKEN");
    case(&["run", "--max-connections", "1"], 64, "MAX_CONNECTIONS");
    case(&["run", "--tls", "maybe"], 64, "TLS");
    case(&["run", "--tls-cert", "a.pem"], 64, "TLS_KEY");
    case(&["run", "--tls-cert", &at("none.pem"), "--tls-key", &at("none.pem"), "--server-port", "0"], 64, "none.pem");
    case(&["run", "--log", "loud=very=much"], 64, "log filter");
    case(&["run", "--profile", "opera"], 64, "PROFILE");
    case(&["run", "--config", &at("none.yaml")], 64, "none.yaml");
    case(&["run", "--config", &at("unknown.yaml")], 64, "capture_fsp");
    case(&["run", "--config", &at("list.yaml")], 64, "list.yaml");
    case(&["run", "--config", &at("binary.yaml")], 64, "binary.yaml");
    case(&["run", "--config", &at("large.yaml")], 64, "large.yaml");
    case(&["run", "--config", &at("variable.yaml")], 64, "NO_SUCH_VARIABLE");
    case(&["run", "--config", folder.path().to_str().unwrap()], 64, "configuration file");
    case(&["run", "--server-port", &port, "--models-dir", &none], 1, "is taken by another program");
    case(
        &[&["run", "--server-host", "192.0.2.1", "--allow-no-token"][..], &anywhere].concat(),
        64,
        "no address of this machine",
    );
    case(&[&["run", "--model-path", &at("none.gguf")][..], &anywhere].concat(), 1, "none.gguf");
    case(&[&["run", "--model-path", &at("empty.gguf")][..], &anywhere].concat(), 64, "empty.gguf");
    case(&[&["run", "--model-path", &at("text.gguf")][..], &anywhere].concat(), 64, "text.gguf");
    case(&[&["run", "--model-path", &none][..], &anywhere].concat(), 1, "no-models");
    case(&[&["run", "exec:ls"][..], &anywhere].concat(), 64, "exec:");
    case(&[&["run", "rtsp://h/ ! filesink"][..], &anywhere].concat(), 64, "space");
    case(&[&["run", "test:no-such-pattern"][..], &anywhere].concat(), 64, "no test pattern of that name");
    let mut wrong = Vec::new();
    for (args, code, words) in table {
        let arguments: Vec<&str> = args.iter().map(String::as_str).collect();
        let begun = Instant::now();
        let output = command(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() != Some(code) || !said.contains(words) || said.contains("panicked") {
            wrong.push(format!("{args:?} ended with {:?}, wanted {code} and {words:?}:\n{said}", output.status.code()));
        }
        assert!(begun.elapsed().as_secs() < 20, "{args:?} took {:?}", begun.elapsed());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Root reads everything, so this can be told only for others.
    let own = std::process::Command::new("id").arg("-u").output().unwrap().stdout;
    if own != b"0\n" {
        let output = command(&["check-config", "--config", &at("shut.yaml")]).output().unwrap();
        assert_eq!(output.status.code(), Some(64));
    }
}
