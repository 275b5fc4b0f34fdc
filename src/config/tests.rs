//! Configuration: precedence, ranges, the file, and the documents that must agree with the flags.

use super::*;
use clap::{CommandFactory, Parser};

struct Fixed(&'static [(&'static str, &'static str)]);

impl Environment for Fixed {
    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
    }
}

const NOTHING: Fixed = Fixed(&[]);

fn config(options: Options) -> Result<Config> {
    Config::new(None, options, &NOTHING)
}

#[test]
fn defaults_are_the_predecessors() {
    let c = config(Options::default()).unwrap();
    assert_eq!((c.video.capture_fps, c.commentary.pick), (2.0, Pick { frames: 4, stride: 2 }));
    assert_eq!(c.commentary.interval, Duration::from_secs(1));
    assert_eq!(c.server.address.to_string(), "127.0.0.1:8199");
    assert_eq!((c.video.reconnect_delay.as_secs(), c.video.max_reconnect_delay.as_secs()), (1, 30));
    assert_eq!(c.streams.len(), 1);
}

#[test]
fn a_given_option_goes_over_the_files() {
    let given = Options { capture_fps: Some(5.0), ..Options::default() };
    let file = Options { capture_fps: Some(1.0), frame_stride: Some(3), ..Options::default() };
    let c = config(given.or(file)).unwrap();
    assert_eq!((c.video.capture_fps, c.commentary.pick.stride), (5.0, 3));
}

#[test]
fn the_models_advice_stands_between_what_was_set_and_the_defaults() {
    let set = Options { top_p: Some(0.5), seed: Some(7), ..Options::default() };
    let chosen = config(set).unwrap().commentary.sampling;
    let advice = SamplingChoice { temperature: Some(0.0), top_p: Some(0.1), ..SamplingChoice::default() };
    let sampling = chosen.or(advice).complete();
    assert_eq!((sampling.temperature, sampling.top_p, sampling.seed), (0.0, 0.5, Some(7)));
    assert_eq!((sampling.top_k, sampling.repeat_penalty), (100, 1.05));
}

#[test]
fn every_wrong_value_is_named() {
    let d = Options::default;
    for (options, name) in [
        (Options { capture_fps: Some(f64::NAN), ..d() }, "CAPTURE_FPS"),
        (Options { capture_fps: Some(0.0), ..d() }, "CAPTURE_FPS"),
        (Options { frames_per_inference: Some(0), ..d() }, "FRAMES_PER_INFERENCE"),
        (Options { frame_stride: Some(1000), ..d() }, "FRAME_STRIDE"),
        (Options { inference_interval: Some(-1.0), ..d() }, "INFERENCE_INTERVAL"),
        (Options { change_threshold: Some(1.5), ..d() }, "CHANGE_THRESHOLD"),
        (Options { reconnect_delay: Some(40.0), ..d() }, "MAX_RECONNECT_DELAY"),
        (Options { reconnect_delay: Some(f64::INFINITY), ..d() }, "RECONNECT_DELAY"),
        (Options { jpeg_quality: Some(0), ..d() }, "JPEG_QUALITY"),
        (Options { context_tokens: Some(1), ..d() }, "CONTEXT_TOKENS"),
        (Options { temperature: Some(-1.0), ..d() }, "TEMPERATURE"),
        (Options { profile: Some("opera".into()), ..d() }, "PROFILE"),
        (Options { decoder: Some("quantum".into()), ..d() }, "DECODER"),
        (Options { voice: Some("opera".into()), ..d() }, "VOICE"),
        (Options { espeak_voice: Some("-f/etc/passwd".into()), ..d() }, "ESPEAK_VOICE"),
        (Options { espeak_voice: Some(String::new()), ..d() }, "ESPEAK_VOICE"),
        (Options { tts_pause_after: Some(-1.0), ..d() }, "TTS_PAUSE_AFTER"),
        (Options { kv_type: Some("q2".to_owned()), ..d() }, "KV_TYPE"),
        (Options { encode_ahead: Some("yes".to_owned()), ..d() }, "ENCODE_AHEAD"),
        (Options { stream_delay_init: Some(16.0), ..d() }, "STREAM_DELAY_INIT"),
        (Options { tts_max_delay: Some(f64::NAN), ..d() }, "TTS_MAX_DELAY"),
        (Options { rtsp_transport: Some("pigeon".into()), ..d() }, "RTSP_TRANSPORT"),
        (Options { server_host: Some("my house".into()), ..d() }, "SERVER_HOST"),
        (Options { api_token: Some("short".into()), ..d() }, "API_TOKEN"),
        (Options { tls: Some("on".into()), ..d() }, "TLS"),
        (Options { tls_cert: Some("a.pem".into()), ..d() }, "TLS_KEY"),
        (Options { tls_key: Some("a.pem".into()), ..d() }, "TLS_CERT"),
    ] {
        let error = config(options).unwrap_err();
        assert!(error.message.contains(name), "{name}: {error}");
        assert!(!error.message.contains("short"), "a token is never shown");
    }
}

#[test]
fn the_voice_is_off_unless_asked_for() {
    let voice = |enable_tts, voice: Option<&str>| {
        let options = Options { enable_tts, voice: voice.map(str::to_owned), ..Options::default() };
        Config::new(None, options, &Fixed(&[("PATH", "/bin")])).unwrap().voice
    };
    assert_eq!(voice(None, None), None);
    assert_eq!(voice(Some(false), Some("espeak")), None);
    assert_eq!(voice(None, Some("minicpm-o")), None);
    assert_eq!(voice(Some(true), Some("off")), None);
    let auto = voice(Some(true), None).unwrap();
    assert_eq!((auto.choice, auto.search_path.as_str()), (VoiceChoice::Auto, "/bin"));
    assert_eq!((auto.pause_after.as_millis(), auto.max_delay.as_secs()), (500, 6));
    assert_eq!(voice(Some(true), Some("minicpm-o")).unwrap().choice, VoiceChoice::MiniCpmO);
}

#[test]
fn an_open_address_needs_a_token_or_a_word() {
    let open = Options { server_host: Some("0.0.0.0".into()), ..Options::default() };
    assert_eq!(config(open.clone()).unwrap_err().code, "server_open");
    assert!(config(Options { allow_no_token: Some(true), ..open.clone() }).is_ok());
    assert!(config(Options { api_token: Some("0123456789abcdef".into()), ..open }).is_ok());
}

#[test]
fn the_file_takes_streams_and_secrets_from_the_environment() {
    let text = "capture_fps: 4\nstreams:\n  door:\n    source: rtsp://me:${DOOR}@cam/1\n    profile: security\n  yard: {source: \"test:ball\"}\n";
    let options: Options = serde_saphyr::from_str(text).unwrap();
    let c = Config::new(None, options.clone(), &Fixed(&[("DOOR", "pa}ss")])).unwrap();
    let names: Vec<_> = c.streams.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["door", "main", "yard"]);
    assert_eq!(c.streams[0].source.as_ref().unwrap().expose(), "rtsp://me:pa}ss@cam/1");
    assert!(!format!("{c:?}").contains("pa}ss"));
    let missing = Config::new(None, options, &NOTHING).unwrap_err();
    assert!(missing.message.contains("DOOR"), "{missing}");
}

#[test]
fn a_wrong_file_says_what_and_where() {
    let folder = tempfile::tempdir().unwrap();
    for (text, word) in
        [("capture_fsp: 2\n", "capture_fsp"), ("capture_fps: soon\n", "config"), ("streams: [1]\n", "config")]
    {
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        let error = read_file(&path).unwrap_err();
        assert!(error.to_string().contains(word) && error.to_string().contains("config.yaml"), "{error}");
    }
    assert!(read_file(&folder.path().join("none.yaml")).unwrap_err().to_string().contains("none.yaml"));
}

#[test]
fn every_flag_has_a_variable_a_help_text_and_a_row_in_the_documents() {
    let command = Arguments::command();
    let mut table = String::from("| Flag | Environment | File key | Meaning | Default |\n|---|---|---|---|---|\n");
    let mut example = String::from(
        "# Copy to .env and change what you need; `make run` reads it. All options: docs/CONFIGURATION.md\n",
    );
    for arg in command.get_arguments().filter(|a| !a.is_positional()) {
        let Some(long) = arg.get_long().filter(|l| !["help", "version", "config"].contains(l)) else { continue };
        let env = arg.get_env().unwrap_or_else(|| panic!("--{long} has no variable")).to_str().unwrap();
        let help = arg.get_help().unwrap_or_else(|| panic!("--{long} has no help")).to_string();
        let (meaning, default) = help.split_once("Default: ").unwrap_or_else(|| panic!("--{long} names no default"));
        let key = long.replace('-', "_");
        table.push_str(&format!("| `--{long}` | `{env}` | `{key}` | {} | {default} |\n", meaning.trim()));
        example.push_str(&format!(
            "# {}\n#{env}={}\n",
            meaning.trim(),
            if default.contains(' ') { "" } else { default }
        ));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (doc, env_file) = (root.join("docs/CONFIGURATION.md"), root.join(".env.example"));
    let text = std::fs::read_to_string(&doc).unwrap();
    let (open, close) = ("<!-- table of options -->\n", "<!-- end of table -->");
    let (before, rest) = text.split_once(open).expect("docs/CONFIGURATION.md has its marks");
    let (old, after) = rest.split_once(close).expect("docs/CONFIGURATION.md has its marks");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&doc, format!("{before}{open}{table}{close}{after}")).unwrap();
        std::fs::write(&env_file, &example).unwrap();
        return;
    }
    assert_eq!(old, table, "run `make docs` to write the table anew");
    assert_eq!(std::fs::read_to_string(env_file).unwrap(), example, "run `make docs` to write .env.example anew");
}

#[test]
fn the_command_line_is_sound() {
    Arguments::command().debug_assert();
    let plain = Arguments::parse_from(["vidette", "test:ball", "--capture-fps", "3"]);
    assert_eq!(plain.run.source.as_deref(), Some("test:ball"));
    assert_eq!(plain.run.options.capture_fps, Some(3.0));
    let run = Arguments::parse_from(["vidette", "run", "rtsp://h/s", "--no-loop"]);
    assert!(matches!(run.command, Some(Command::Run(r)) if r.options.no_loop == Some(true) && r.source.is_some()));
    let pull = Arguments::parse_from(["vidette", "pull", "minicpm-o-4.5"]);
    assert!(matches!(pull.command, Some(Command::Pull(_))));
}

#[test]
fn the_engines_process_gets_no_secrets() {
    for name in ["PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LC_ALL", "MALLOC_ARENA_MAX", "LD_LIBRARY_PATH"] {
        assert!(is_for_child(name), "{name}");
    }
    for name in ["API_TOKEN", "HF_TOKEN", "CAMERA_PASSWORD", "LIVEKIT_API_SECRET", "NOTIFY_SOCKET", "PATHS", "AWS_KEY"]
    {
        assert!(!is_for_child(name), "{name}");
    }
}
