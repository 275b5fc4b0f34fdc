//! The real HTTP server on a free port, with a source and an engine that do nothing by themselves: tests put
//! pictures and events on the bus. And a client that is as plain as can be, to see bytes and not intentions.
//! Not here: what is tested.
#![allow(dead_code, reason = "every test file uses its own part")]

use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use vidette::bus::{Bus, Event, Finish, Stamps, Utterance};
use vidette::commentary::{PROFILES, Settings, StreamParts, Streams};
use vidette::engine::{Engine, EngineState, EngineStatus, Job, JobEvent, JobHandle, SamplingChoice};
use vidette::error::Error;
use vidette::frame::Jpeg;
use vidette::metrics::Metrics;
use vidette::shutdown::{Shutdown, Trigger};
use vidette::source::{COMMANDS, SourceCommand, SourceFault, SourceHandle, SourceState, SourceStatus};
use vidette::web::{WebConfig, bind, serve};
use vidette::window::{Bounds, Pick, SharedWindow};

/// Longest that a test waits for anything that should come at once.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An engine that is whatever the test says and refuses every look.
pub struct StillEngine(pub watch::Sender<EngineStatus>);

impl Engine for StillEngine {
    fn submit(&self, _: Job) -> JobHandle {
        let (handle, events, _) = JobHandle::pair();
        let refused = events.try_send(JobEvent::Failed(Error::unavailable("still", "this engine never looks")));
        assert!(refused.is_ok());
        handle
    }

    fn status(&self) -> watch::Receiver<EngineStatus> {
        self.0.subscribe()
    }
}

/// The server and all its ends.
pub struct Server {
    pub at: SocketAddr,
    pub streams: Arc<Streams>,
    pub metrics: Arc<Metrics>,
    pub engine: watch::Sender<EngineStatus>,
    pub trigger: Trigger,
    pub serving: JoinHandle<()>,
}

pub fn engine_status(state: EngineState) -> EngineStatus {
    EngineStatus { state, model: Some("tiny".into()), device: Some("cpu".into()), ..EngineStatus::default() }
}

/// Starts it with the stream `main` on a free port.
pub async fn start(config: WebConfig) -> Server {
    start_at("127.0.0.1:0".parse().unwrap(), config).await
}

/// Starts it with the stream `main`.
pub async fn start_at(address: SocketAddr, config: WebConfig) -> Server {
    let engine = watch::Sender::new(engine_status(EngineState::Ready));
    let (trigger, shutdown) = vidette::shutdown::pair();
    let metrics = Arc::new(Metrics::new());
    let settings = Settings {
        pick: Pick { frames: 4, stride: 2 },
        interval: Duration::from_secs(1),
        change_threshold: 0.0,
        max_tokens: 64,
        sampling: SamplingChoice::default(),
        profile: &PROFILES[0],
        instruction: None,
    };
    let streams = Arc::new(Streams::new(
        Box::new(|_| parts()),
        settings,
        Arc::new(StillEngine(engine.clone())),
        Arc::clone(&metrics),
        shutdown.clone(),
    ));
    streams.ensure("main").unwrap();
    let listener = bind(address).unwrap();
    let at = listener.local_addr().unwrap();
    let serving =
        tokio::spawn(run(listener, Arc::clone(&streams), Arc::clone(&metrics), engine.subscribe(), config, shutdown));
    Server { at, streams, metrics, engine, trigger, serving }
}

async fn run(
    listener: tokio::net::TcpListener,
    streams: Arc<Streams>,
    metrics: Arc<Metrics>,
    engine: watch::Receiver<EngineStatus>,
    config: WebConfig,
    shutdown: Shutdown,
) {
    serve(listener, streams, metrics, engine, config, shutdown).await;
}

impl Server {
    pub fn bus(&self) -> Arc<Bus> {
        Arc::clone(self.streams.get("main").unwrap().bus())
    }
}

/// A window, a bus, and a supervisor that refuses sources that begin with "bad", loses those that begin with
/// "lost", and has every other at once.
fn parts() -> StreamParts {
    let bus = Arc::new(Bus::new());
    let (commands, mut orders) = mpsc::channel(COMMANDS);
    let status = watch::Sender::new(SourceStatus::default());
    let source = SourceHandle::new(commands, status.subscribe());
    let told = Arc::clone(&bus);
    tokio::spawn(async move {
        while let Some(order) = orders.recv().await {
            match order {
                SourceCommand::Start { source, reply, .. } if source.expose().starts_with("bad") => {
                    let refusal = Error::invalid("source_scheme", "this is no source that can be opened");
                    assert!(reply.send(Err(refusal.hint("try test:smpte"))).is_ok());
                }
                SourceCommand::Start { source, reply, .. } => {
                    let source = source.expose().clone();
                    let lost = source.starts_with("lost");
                    status.send_replace(SourceStatus {
                        state: if lost { SourceState::Retrying } else { SourceState::Streaming },
                        message: lost.then(|| "cam.lan can't be reached: connection refused".to_owned()),
                        fault: lost.then_some(SourceFault::Network),
                        attempt: if lost { 3 } else { 0 },
                        retry_in_s: lost.then_some(8.0),
                        source: Some(source),
                        width: 960,
                        height: 540,
                        ..SourceStatus::default()
                    });
                    assert!(reply.send(Ok(())).is_ok());
                    told.publish(Event::Status);
                }
                SourceCommand::Stop { reply } => {
                    status.send_replace(SourceStatus::default());
                    assert!(reply.send(()).is_ok());
                    told.publish(Event::Status);
                }
            }
        }
    });
    let window = Arc::new(SharedWindow::new(Bounds { frames: 8, bytes: 1 << 20 }));
    StreamParts { window, bus, source, sound: None, room: None }
}

/// A picture of `bytes` bytes that is no real JPEG; its number is in its first bytes.
pub fn picture(seq: u64, bytes: usize) -> Arc<Jpeg> {
    let mut data = vec![0xAB; bytes.max(8)];
    data[..8].copy_from_slice(&seq.to_be_bytes());
    Arc::new(Jpeg { seq, captured: Instant::now(), data: Bytes::from(data) })
}

pub fn token(utterance: u64, text: &str) -> Event {
    Event::Token { utterance, text: text.to_owned() }
}

/// An utterance with stamps as a fast machine would give them.
pub fn utterance(number: u64, text: &str, finish: Finish, unix_ms: u64) -> Event {
    Event::Utterance(Box::new(Utterance {
        utterance: number,
        text: text.to_owned(),
        skipped: text == "...",
        finish,
        instruction: "Tell me what you see.".to_owned(),
        tokens: 12,
        frames: 4,
        frames_encoded: 2,
        stamps: Stamps {
            oldest_frame: 10,
            newest_frame: 16,
            newest_frame_unix_ms: unix_ms,
            window_ms: 1500.0,
            start_ms: 4.0,
            encode_done_ms: Some(220.0),
            prefill_done_ms: Some(410.0),
            first_token_ms: Some(470.0),
            last_token_ms: Some(1250.0),
            first_audio_ms: None,
            last_audio_ms: None,
        },
    }))
}

/// A client over a bare socket.
pub struct Client {
    pub socket: TcpStream,
    unread: Vec<u8>,
    chunked: bool,
}

/// Status, headers (lower case names) and body of an answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Client {
    pub async fn connect(at: SocketAddr) -> Self {
        Self::of(TcpStream::connect(at).await.unwrap())
    }

    pub fn of(socket: TcpStream) -> Self {
        Self { socket, unread: Vec::new(), chunked: false }
    }

    /// A client whose kernel takes little before it has to read.
    pub async fn narrow(at: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::of(socket.connect(at).await.unwrap())
    }

    pub async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    /// Asks for a live stream and reads the head of the answer.
    pub async fn open(&mut self, path: &str, headers: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
        self.head().await
    }

    pub async fn head(&mut self) -> Reply {
        let end = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break end;
            }
            assert!(self.fill().await > 0, "the answer's head broke off: {:?}", String::from_utf8_lossy(&self.unread));
        };
        let head = String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        self.chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Reply { status, head, body: Vec::new() }
    }

    /// A whole answer.
    pub async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        if self.chunked {
            while let Some(chunk) = self.chunk().await {
                reply.body.extend(chunk);
            }
        } else {
            let length: usize = reply.header("content-length").map_or(0, |l| l.parse().unwrap());
            while self.unread.len() < length {
                assert!(self.fill().await > 0, "the answer's body broke off");
            }
            reply.body = self.unread.drain(..length).collect();
        }
        reply
    }

    /// The next chunk of a live stream; `None` at its proper end.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let (start, length) = loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let digits = std::str::from_utf8(&self.unread[..end]).unwrap();
                break (end + 2, usize::from_str_radix(digits, 16).unwrap());
            }
            assert!(self.fill().await > 0, "the stream broke off between chunks");
        };
        while self.unread.len() < start + length + 2 {
            assert!(self.fill().await > 0, "the stream broke off within a chunk");
        }
        let chunk = self.unread.drain(..start + length + 2).skip(start).take(length).collect();
        (length > 0).then_some(chunk)
    }

    /// Chunks until their text holds `end`; everything read.
    pub async fn until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.contains(end) {
            let chunk = self.chunk().await.unwrap_or_else(|| panic!("the stream ended before {end:?}: {text}"));
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        text
    }

    /// Everything to the proper end of a live stream.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await {
            all.extend(chunk);
        }
        all
    }

    /// Reads more; 0 at the connection's end.
    pub async fn fill(&mut self) -> usize {
        let read = self.socket.read_buf(&mut self.unread);
        tokio::time::timeout(PATIENCE, read).await.expect("nothing came").unwrap_or(0)
    }
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|w| w == wanted)
}

/// One request on a connection of its own. `headers` are whole lines.
pub async fn ask(at: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Reply {
    let mut client = Client::connect(at).await;
    let json = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    client
        .send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{json}{headers}\r\n{body}"
        ))
        .await;
    client.reply().await
}

/// Waits until `holds`, for up to `limit`; how long it took.
pub async fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "{what} did not come within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}
