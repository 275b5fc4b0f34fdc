//! A small HTTP server on real sockets that answers as a test tells it, also badly.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    /// By lower-case name.
    pub headers: HashMap<String, String>,
    /// Requests for this path before this one.
    pub nth: usize,
}

impl Request {
    /// First byte asked for.
    pub fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What Content-Length says instead of the truth.
    pub claimed: Option<usize>,
    /// No Content-Length, but chunks.
    pub chunked: bool,
    /// Bytes of the body after which the connection is closed.
    pub cut: Option<usize>,
    /// Bytes of the body after which nothing comes for this long.
    pub stall: Option<(usize, Duration)>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), claimed: None, chunked: false, cut: None, stall: None }
    }

    pub fn ok(body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..Self::status(200) }.with("ETag", "\"v1\"")
    }

    /// The file, or the rest of it if that was asked for.
    pub fn file(request: &Request, body: &[u8]) -> Self {
        match request.from() {
            None => Self::ok(body),
            Some(at) if at < body.len() => Self { status: 206, ..Self::ok(&body[at..]) }
                .with("Content-Range", &format!("bytes {at}-{}/{}", body.len() - 1, body.len())),
            Some(_) => Self::status(416),
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }
}

pub struct Server {
    pub url: String,
    pub port: u16,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Serves until the process ends.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&log));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                // A client that goes away in the middle is part of the tests.
                thread::spawn(move || drop(serve(stream, &*answer, &seen)));
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), port, log }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// Requests whose path ends so.
    pub fn requests_for(&self, end: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|r| r.path.ends_with(end)).collect()
    }
}

fn serve(stream: TcpStream, answer: &dyn Fn(&Request) -> Reply, log: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let request = {
        let mut log = log.lock().unwrap();
        let nth = log.iter().filter(|r| r.path == path).count();
        log.push(Request { path, headers, nth });
        log.last().unwrap().clone()
    };
    reply(stream, &answer(&request))
}

fn reply(mut out: TcpStream, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &if reply.chunked {
        "Transfer-Encoding: chunked\r\n\r\n".to_owned()
    } else {
        format!("Content-Length: {}\r\n\r\n", reply.claimed.unwrap_or(reply.body.len()))
    };
    out.write_all(head.as_bytes())?;
    let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    let pause = reply.stall.map_or(end, |(at, _)| at.min(end));
    for (i, part) in [&reply.body[..pause], &reply.body[pause..end]].into_iter().enumerate() {
        if i == 1
            && let Some((_, long)) = reply.stall
        {
            out.flush()?;
            thread::sleep(long);
        }
        if reply.chunked && !part.is_empty() {
            write!(out, "{:x}\r\n", part.len())?;
        }
        out.write_all(part)?;
        if reply.chunked && !part.is_empty() {
            out.write_all(b"\r\n")?;
        }
    }
    if reply.chunked && reply.cut.is_none() {
        out.write_all(b"0\r\n\r\n")?;
    }
    out.flush()
}
