//! What goes wrong between two programs: a TCP proxy that fails on command, servers that lie, and a sampler of what a
//! process holds. Not here: what is expected of whoever suffers it (`tests/faults_*.rs`).
#![allow(dead_code, reason = "every test file takes its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does to connections, those that are open and those that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Nobody listens, and open connections are reset.
    Refuse,
    /// Connections are taken and reset at once; open ones too.
    Reset,
    /// Connections are taken and stay open; nothing passes either way.
    Blackhole,
    /// The server's bytes pass at so many a second.
    Throttle(usize),
    /// A connection ends after so many of the server's bytes, counted anew for each.
    CutAfter(usize),
    /// The server's side is gone, and the client is never told.
    HalfOpen,
}

/// A proxy on a port of its own in front of a server on loopback. It ends with its owner.
pub struct FaultProxy {
    pub port: u16,
    mode: watch::Sender<Mode>,
    accepted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FaultProxy {
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = watch::Sender::new(Mode::Pass);
        let accepted = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(listener, server, mode.subscribe(), Arc::clone(&accepted)));
        Self { port, mode, accepted, task }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Connections taken so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(first: TcpListener, server: u16, mut mode: watch::Receiver<Mode>, accepted: Arc<AtomicUsize>) {
    let at = first.local_addr().unwrap();
    let mut listener = Some(first);
    let mut open = tokio::task::JoinSet::new();
    loop {
        if *mode.borrow_and_update() == Mode::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = listen_again(at).await;
        }
        let next = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            Some(_) = open.join_next() => {}
            taken = next => if let Ok((client, _)) = taken {
                accepted.fetch_add(1, Ordering::SeqCst);
                open.spawn(relay(client, server, mode.clone()));
            },
        }
    }
}

async fn listen_again(at: SocketAddr) -> Option<TcpListener> {
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(at).await {
            return Some(listener);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the proxy's port was taken by another");
}

async fn relay(mut client: TcpStream, server: u16, mut mode: watch::Receiver<Mode>) {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await.ok();
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut passed = 0;
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Refuse | Mode::Reset => {
                let _reset_is_what_closing_does_now = client.set_zero_linger();
                return;
            }
            Mode::HalfOpen => server = None,
            _ => {}
        }
        let stands_still = matches!(now, Mode::Blackhole | Mode::HalfOpen);
        let Some(peer) = server.as_mut().filter(|_| !stands_still) else {
            // A server that was never there closes; a half-open connection stays as it is.
            if (!stands_still && server.is_none()) || mode.changed().await.is_err() {
                return;
            }
            continue;
        };
        let most = if let Mode::Throttle(rate) = now { (rate / 20).clamp(1, 16 * 1024) } else { 16 * 1024 };
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            read = client.read(&mut up) => match read {
                Ok(n @ 1..) => if peer.write_all(&up[..n]).await.is_err() { return },
                _ => return,
            },
            read = peer.read(&mut down[..most]) => {
                let Ok(mut n @ 1..) = read else { return };
                if let Mode::CutAfter(limit) = now {
                    n = n.min(limit.saturating_sub(passed));
                }
                if client.write_all(&down[..n]).await.is_err() {
                    return;
                }
                passed += n;
                match now {
                    Mode::CutAfter(limit) if passed >= limit => return,
                    Mode::Throttle(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    _ => {}
                }
            }
        }
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub threads: usize,
    pub files: usize,
    pub kib: usize,
}

/// What the process `pid` (or `self`) holds now.
pub fn held(pid: &str) -> Held {
    let count = |what| std::fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB");
    Held { threads: count("task"), files: count("fd"), kib: rss.parse().unwrap() }
}

/// Seconds of processor time that this process has used.
pub fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime, in hundredths.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// A server that answers each request (a head that ends with an empty line) with what `answer` makes of it, or, for
/// `None`, with silence. It ends with the runtime.
pub async fn answering(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut unread = Vec::new();
                while let Ok(1..) = client.read_buf(&mut unread).await {
                    while let Some(end) = unread.windows(4).position(|w| w == b"\r\n\r\n") {
                        let head: Vec<u8> = unread.drain(..end + 4).collect();
                        let Some(said) = answer(&String::from_utf8_lossy(&head)) else { continue };
                        if client.write_all(&said).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    port
}

/// An RTSP answer to `request` with this description as its body; other requests than DESCRIBE get plain consent.
pub fn rtsp_describe(request: &str, sdp: &[u8], length: usize) -> Vec<u8> {
    let number = request.lines().find_map(|l| l.strip_prefix("CSeq:")).unwrap_or("0").trim();
    let head = format!("RTSP/1.0 200 OK\r\nCSeq: {number}\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n");
    if !request.starts_with("DESCRIBE") {
        return format!("{head}Session: 1\r\n\r\n").into_bytes();
    }
    let head = format!("{head}Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), sdp].concat()
}
