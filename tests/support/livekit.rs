//! A real LiveKit server on loopback, and a person with a camera in one of its rooms.
//! Not here: what is expected (`tests/livekit.rs`).

use serde_json::Value;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub const KEY: &str = "APIloopback";
pub const SECRET: &str = "q8Zt3LwXv0nRk5JbYc7PdH2sMfA9uGeT";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn program() -> PathBuf {
    let named = std::env::var_os("VIDETTE_LIVEKIT_SERVER").map(PathBuf::from);
    let server = named.unwrap_or_else(|| root().join("target/tools/livekit-server"));
    assert!(server.exists(), "{} is missing: run scripts/livekit-server.sh", server.display());
    server
}

/// A port that the system does not give to outgoing connections by itself, so that it is still free after a restart.
pub fn free<T>(bind: impl Fn(u16) -> std::io::Result<T>) -> T {
    (0..1000u32)
        .find_map(|_| bind(20_000 + (RandomState::new().hash_one(0u8) % 10_000) as u16).ok())
        .expect("a port is free")
}

/// A server; killed when dropped.
pub struct Server {
    child: Option<Child>,
    config: String,
    log: PathBuf,
    pub port: u16,
    /// Where its media is.
    pub media: u16,
}

impl Server {
    /// Starts one on free ports.
    pub fn start(name: &str) -> Self {
        // Taken together, so that they differ; given back just before the server takes them.
        let tcp = [0, 1].map(|_| free(|port| TcpListener::bind(("127.0.0.1", port))));
        let udp = free(|port| UdpSocket::bind(("127.0.0.1", port)));
        let [port, ice_tcp] = tcp.each_ref().map(|l| l.local_addr().unwrap().port());
        let media = udp.local_addr().unwrap().port();
        let config = format!(
            "port: {port}\nbind_addresses: [\"127.0.0.1\"]\nrtc:\n  udp_port: {media}\n  tcp_port: {ice_tcp}\n  \
             node_ip: 127.0.0.1\n  enable_loopback_candidate: true\n  use_external_ip: false\n  \
             interfaces: {{includes: [lo]}}\n  ips: {{includes: [\"127.0.0.1/32\"]}}\n\
             keys: {{{KEY}: {SECRET}}}\nlogging: {{level: info}}\n"
        );
        drop((tcp, udp));
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("livekit-{name}.log"));
        let mut server = Self { child: None, config, log, port, media };
        server.up();
        server
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// Starts it again, on the same ports.
    pub fn up(&mut self) {
        let log = std::fs::File::create(&self.log).unwrap();
        let child = Command::new(program())
            .args(["--config-body", &self.config])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "no server: {}", std::fs::read_to_string(&self.log).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it without a goodbye.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it in its tracks, as a machine that hangs, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}

/// A person in a room; gone when dropped.
pub struct Person {
    child: Child,
    commands: ChildStdin,
    told: Arc<(Mutex<Vec<Value>>, Condvar)>,
}

impl Person {
    /// Joins with a ticket as `POST /api/livekit/token` gives it. `how` is the codec, and what else the client takes.
    pub fn join(ticket: &Value, how: &[&str]) -> Self {
        let python = root().join(".venv/bin/python");
        assert!(python.exists(), "the Python environment is missing: run `make tiny-model`");
        let mut child = Command::new(python)
            .arg(root().join("tests/support/livekit_client.py"))
            .args([ticket["url"].as_str().unwrap(), ticket["token"].as_str().unwrap()])
            .args(how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let lines = BufReader::new(child.stdout.take().unwrap());
        let writer = Arc::clone(&told);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    writer.0.lock().unwrap().push(event);
                    writer.1.notify_all();
                }
            }
        });
        let commands = child.stdin.take().unwrap();
        let person = Self { child, commands, told };
        person.until("connected", |e| e["event"] == "connected");
        person
    }

    pub fn say(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    /// Everything told so far.
    pub fn told(&self) -> Vec<Value> {
        self.told.0.lock().unwrap().clone()
    }

    /// The first event, of now or later, that is as wanted.
    pub fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until_after(what, 0, wanted)
    }

    /// The same, without the first `skip` events.
    pub fn until_after(&self, what: &str, skip: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_secs(120);
        let mut told = self.told.0.lock().unwrap();
        loop {
            if let Some(event) = told.iter().skip(skip).find(|e| wanted(e)) {
                return event.clone();
            }
            assert!(Instant::now() < until, "not {what}: {told:#?}");
            told = self.told.1.wait_timeout(told, Duration::from_millis(100)).unwrap().0;
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _gone_already = writeln!(self.commands, "quit");
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}
