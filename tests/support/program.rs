//! The program as its users have it: a process, its page's address, its log, and what its streams say.
//! Not here: what is expected of it (`tests/end_to_end.rs`, `tests/program.rs`).
#![allow(dead_code)] // Every test file takes its own part of this.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The folder of the tiny random model.
pub fn tiny_model() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("gguf/tiny-random");
    assert!(folder.join("vision").exists(), "the tiny model is missing: run `make tiny-model`");
    folder
}

/// The command, without anything of the caller's environment that could change it.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vidette"));
    command.args(args).env_clear().current_dir(env!("CARGO_TARGET_TMPDIR"));
    for name in ["PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// A running program; killed when dropped.
pub struct Program {
    child: Child,
    log: Arc<(Mutex<String>, Condvar)>,
    pub address: String,
}

impl Program {
    /// Starts `vidette run` with the tiny model, on a free port, and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        let model = tiny_model();
        let mut all = vec!["run"];
        all.extend(args);
        all.extend(["--server-port", "0", "--model-path", model.to_str().unwrap()]);
        Self::start_command(command(&all))
    }

    /// Starts this command and waits until it listens.
    pub fn start_command(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let log = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let lines = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in lines.lines().map_while(Result::ok) {
                    log.0.lock().unwrap().push_str(&format!("{line}\n"));
                    log.1.notify_all();
                }
            }
        });
        let mut program = Self { child, log, address: String::new() };
        let line = program.wait_for_log("open http://");
        program.address = line.split("open ").nth(1).unwrap().split('/').nth(2).unwrap().to_owned();
        program
    }

    /// Waits for a log line that contains `text`.
    pub fn wait_for_log(&self, text: &str) -> String {
        let until = Instant::now() + Duration::from_secs(30);
        let mut log = self.log.0.lock().unwrap();
        loop {
            if let Some(line) = log.lines().find(|l| l.contains(text)) {
                return line.to_owned();
            }
            assert!(Instant::now() < until, "no log line with {text:?} in:\n{log}");
            log = self.log.1.wait_timeout(log, Duration::from_millis(100)).unwrap().0;
        }
    }

    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// (status code, body)
    pub fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut answer = agent().get(self.url(path)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap())
    }

    /// A header of the answer.
    pub fn header(&self, path: &str, name: &str) -> String {
        let answer = agent().get(self.url(path)).call().unwrap();
        answer.headers()[name].to_str().unwrap().to_owned()
    }

    pub fn json(&self, path: &str) -> Value {
        let (code, body) = self.get(path);
        assert_eq!(code, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    /// (status code, body)
    pub fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let mut answer =
            agent().post(self.url(path)).header("Content-Type", "application/json").send(body.to_string()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    /// (status code, body)
    pub fn put(&self, path: &str, body: &Value) -> (u16, String) {
        let mut answer =
            agent().put(self.url(path)).header("Content-Type", "application/json").send(body.to_string()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    /// A body that goes on.
    pub fn stream(&self, path: &str) -> BufReader<Box<dyn Read + Send>> {
        let answer = agent().get(self.url(path)).call().unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        BufReader::new(Box::new(answer.into_body().into_reader()))
    }

    pub fn events(&self) -> Events {
        Events { lines: self.stream("/api/stream") }
    }

    /// Waits until the status is as wanted.
    pub fn until(&self, what: &str, seconds: u64, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_secs(seconds);
        loop {
            let status = self.json("/api/status");
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < until, "not {what} within {seconds} s: {status:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn signal(&self, name: &str) {
        Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap();
    }

    /// Waits for the end; how it ended and after how long.
    pub fn wait(&mut self, seconds: u64) -> (ExitStatus, Duration) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, began.elapsed());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the program did not end within {seconds} s:\n{}", self.log());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(5)))
        .timeout_recv_response(Some(Duration::from_secs(20)))
        .build()
        .into()
}

/// Server-sent events, one at a time.
pub struct Events {
    lines: BufReader<Box<dyn Read + Send>>,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Sse {
    pub event: String,
    pub id: Option<u64>,
    pub data: Value,
}

impl Events {
    /// The next event; comments are passed over. `None` at the end.
    pub fn next(&mut self) -> Option<Sse> {
        let mut sse = Sse { event: String::new(), id: None, data: Value::Null };
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            match line.split_once(':') {
                Some(("event", v)) => sse.event = v.trim().to_owned(),
                Some(("id", v)) => sse.id = v.trim().parse().ok(),
                Some(("data", v)) => sse.data = serde_json::from_str(v.trim()).unwrap(),
                _ if line.is_empty() && !sse.event.is_empty() => return Some(sse),
                _ => {}
            }
        }
    }

    /// The next event of this name.
    pub fn next_of(&mut self, name: &str) -> Sse {
        loop {
            let sse = self.next().unwrap_or_else(|| panic!("the stream ended before {name}"));
            if sse.event == name {
                return sse;
            }
        }
    }
}

/// Parts of a `multipart/x-mixed-replace` body.
pub struct Parts {
    pub body: BufReader<Box<dyn Read + Send>>,
}

/// One picture.
pub struct PicturePart {
    pub seq: u64,
    /// Its capture, seconds since 1970.
    pub taken: f64,
    pub jpeg: Vec<u8>,
}

impl Parts {
    /// The next picture; fails when the framing is wrong.
    pub fn next(&mut self) -> PicturePart {
        let mut line = String::new();
        while line.trim().is_empty() {
            line.clear();
            assert!(self.body.read_line(&mut line).unwrap() > 0, "the body ended");
        }
        assert_eq!(line, "--frame\r\n");
        let (mut length, mut seq, mut taken) = (None, None, None);
        loop {
            line.clear();
            self.body.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name {
                "Content-Length" => length = value.parse::<usize>().ok(),
                "X-Frame-Seq" => seq = value.parse().ok(),
                "X-Timestamp" => taken = value.parse().ok(),
                "Content-Type" => assert_eq!(value, "image/jpeg"),
                _ => {}
            }
        }
        let mut jpeg = vec![0; length.expect("a Content-Length")];
        self.body.read_exact(&mut jpeg).unwrap();
        let mut end = [0; 2];
        self.body.read_exact(&mut end).unwrap();
        assert_eq!(&end, b"\r\n");
        PicturePart { seq: seq.expect("an X-Frame-Seq"), taken: taken.expect("an X-Timestamp"), jpeg }
    }
}

/// A clip of moving test pictures, 640x360 at 25 fps, made by ffmpeg.
pub fn clip(name: &str, seconds: u32) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let made = Command::new("ffmpeg")
        .args(["-y", "-loglevel", "error", "-f", "lavfi", "-i"])
        .arg(format!("testsrc=size=640x360:rate=25:duration={seconds}"))
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p"])
        .arg(&path)
        .status()
        .expect("ffmpeg is installed by `make test`");
    assert!(made.success());
    path
}
