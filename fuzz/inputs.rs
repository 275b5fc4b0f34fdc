//! What outsiders can write, each given to its reader: the answer may be a refusal, but never a panic, and what is accepted
//! keeps its promises. Shared by the fuzz targets and, for machines without a nightly toolchain, by `tests/fuzz.rs`.
#![allow(dead_code, reason = "each target takes its own")]

use vidette::commentary::check_instruction;
use vidette::config::{Config, Environment, Options};

struct Nothing;

impl Environment for Nothing {
    fn get(&self, _: &str) -> Option<String> {
        None
    }
}

/// A configuration file: accepted ones hold to the ranges that the program relies on.
pub fn config(text: &str) {
    let Ok(options) = serde_saphyr::from_str::<Options>(text) else { return };
    if let Ok(config) = Config::new(None, options, &Nothing) {
        assert!(config.commentary.pick.frames >= 1 && config.commentary.pick.stride >= 1);
        assert!(config.video.capture_fps > 0.0 && config.video.capture_fps.is_finite());
        assert!(config.video.reconnect_delay <= config.video.max_reconnect_delay);
        assert!(
            config.server.address.ip().is_loopback() || config.server.api_token.is_some() || text.contains("token")
        );
        assert!(config.streams.iter().any(|stream| stream.name == "main"));
    }
}

/// An instruction: an accepted one is trimmed, bounded, and without control characters but line breaks and tabs.
pub fn instruction(text: &str) {
    if let Ok(taken) = check_instruction(text) {
        assert!(!taken.is_empty() && taken.len() <= 2048 && taken.trim() == taken);
        assert!(taken.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\r')));
    }
}

/// The body of a request: an accepted one is a JSON object with known fields of text.
pub fn body(bytes: &[u8]) {
    if vidette::web::takes_body(bytes) && !bytes.is_empty() {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes).unwrap();
        assert!(object.iter().all(|(name, value)| {
            matches!(name.as_str(), "source" | "instruction" | "profile") && (value.is_string() || value.is_null())
        }));
    }
}

/// A source string, as an operator and as a client who may open nothing.
#[cfg(feature = "ingest")]
pub fn source(text: &str) {
    use vidette::ingest::{Files, Policy, SourceSpec};
    let closed =
        Policy { network: false, private: false, files: Files::Nowhere, devices: false, test: false, own_port: None };
    assert!(SourceSpec::parse(text, &closed).is_err(), "everything is closed");
    match SourceSpec::parse(text, &Policy::default()) {
        Ok(SourceSpec::Rtsp(net) | SourceSpec::Http(net)) => {
            let url = net.url.expose();
            assert!(matches!(url.scheme(), "rtsp" | "rtsps" | "http" | "https"));
            assert!(url.username().is_empty() && url.password().is_none(), "credentials are apart");
            assert!(url.host_str().is_some_and(|host| !host.is_empty()));
            assert!(!text.contains(['\n', '\r', '\0', '\\']));
        }
        Ok(SourceSpec::Device(path)) => assert!(path.starts_with("/dev")),
        Ok(SourceSpec::File(path)) => assert!(!path.starts_with("/dev")),
        Ok(SourceSpec::Test(_) | SourceSpec::Webcam) | Err(_) => {}
    }
}
