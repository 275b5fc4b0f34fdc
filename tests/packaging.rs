//! What is shipped beside the program agrees with it: the container's packages, the example settings, the dashboard and the
//! alerts. Not here: whether they run (`scripts/check-dockerfile.sh`, `make dist`).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The words of a variable of the Makefile, continued lines and all.
fn makefile(variable: &str) -> Vec<String> {
    let text = read("Makefile").replace("\\\n", " ");
    let line = text.lines().find_map(|l| l.strip_prefix(variable)?.strip_prefix(" = ")).expect("the variable is there");
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_image_installs_what_the_makefile_does() {
    let dockerfile = read("Dockerfile");
    let (build, run) = dockerfile.split_once("\nFROM ${BASE}\n").expect("two stages");
    for (variable, stage) in [("BUILD_PACKAGES", build), ("RUN_PACKAGES", run)] {
        for package in makefile(variable) {
            assert!(
                stage.split_whitespace().any(|word| word == package),
                "{package} of {variable} is not in its stage"
            );
        }
    }
    let toolchain = read("rust-toolchain.toml");
    let version = toolchain.lines().find_map(|l| l.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(dockerfile.contains(&format!("ARG RUST_VERSION={version}\n")), "the image builds with another Rust");
    for model in ["COPY gguf", ".gguf"] {
        assert!(!dockerfile.contains(model), "a model is in the image");
    }
    assert!(read(".dockerignore").lines().any(|l| l == "gguf") && dockerfile.contains("\nUSER 10001\n"));
}

/// Every value that `.env.example` shows is taken by the program, and every variable that `compose.yaml` sets exists.
#[test]
fn the_example_settings_are_the_programs_own() {
    let example = read(".env.example");
    let shown = example.lines().filter_map(|l| l.strip_prefix('#')?.split_once('=')).collect::<Vec<_>>();
    assert!(shown.len() > 40, "the settings were found");
    let mut check = Command::new(env!("CARGO_BIN_EXE_vidette"));
    check.arg("check-config").env_clear().current_dir(env!("CARGO_TARGET_TMPDIR"));
    check.envs(shown.iter().copied().filter(|(_, value)| !value.is_empty() && *value != "none"));
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let compose = read("compose.yaml");
    let app = compose.split("  livekit:").next().unwrap();
    let set = app.split("environment:\n").nth(1).unwrap().lines().take_while(|l| l.starts_with("      "));
    for name in set.filter_map(|l| l.trim().split_once(": ")).map(|(name, _)| name).filter(|n| !n.starts_with('#')) {
        assert!(shown.iter().any(|(known, _)| *known == name), "compose.yaml sets {name}, which is no setting");
    }
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let metrics = read("src/metrics.rs");
    let dashboard = read("packaging/grafana.json");
    assert!(serde_json::from_str::<serde_json::Value>(&dashboard).is_ok());
    let mut asked = BTreeSet::new();
    for text in [dashboard.as_str(), &read("packaging/alerts.yaml"), &read("docs/OPERATION.md")] {
        for rest in text.split("vidette_").skip(1) {
            asked.insert(rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned());
        }
    }
    assert!(asked.len() > 20, "{asked:?}");
    for name in asked {
        let base = ["_total", "_seconds_bucket", "_seconds_count"].iter().find_map(|end| name.strip_suffix(end));
        let base = base.unwrap_or(&name);
        assert!(metrics.contains(&format!("\"{base}\"")), "nothing counts vidette_{name}");
    }
}
