//! Clients that misbehave or come in crowds, and the end: what they cost, and that others don't notice.
//! Not here: what the API says (`web_http`).

#[path = "support/web_server.rs"]
mod web_server;

use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use vidette::web::WebConfig;
use web_server::{Client, PATIENCE, Server, ask, picture, start, token, within};

/// Clients that never read.
const STALLED: usize = 50;

/// Memory and descriptors are the whole process's, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Bytes of memory that this process has in use. Server and clients both live in it.
fn resident() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Pictures at a rate, until dropped.
struct Camera(tokio::task::JoinHandle<()>);

impl Camera {
    fn start(server: &Server, every: Duration, bytes: usize) -> Self {
        let bus = server.bus();
        Self(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            for seq in 1.. {
                ticks.tick().await;
                bus.show(picture(seq, bytes));
            }
        }))
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts the parts that a healthy viewer gets in `time`.
async fn parts_in(video: &mut Client, time: Duration) -> usize {
    let mut parts = 0;
    let counting = async {
        while let Some(chunk) = video.chunk().await {
            parts += usize::from(chunk.starts_with(b"--frame"));
        }
    };
    let ended = tokio::time::timeout(time, counting).await;
    assert!(ended.is_err(), "the healthy viewer was cut off");
    parts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_readers_are_cut_off_and_others_do_not_notice() {
    let _alone = ALONE.lock().await;
    let limit = Duration::from_secs(1);
    let server = start(WebConfig { write_timeout: limit, ..WebConfig::default() }).await;
    let _camera = Camera::start(&server, Duration::from_millis(40), 60_000);
    let mut healthy = Client::connect(server.at).await;
    healthy.open("/api/mjpeg", "").await;
    parts_in(&mut healthy, Duration::from_millis(500)).await;
    let (memory, files) = (resident(), open_files());
    let mut stalled = Vec::new();
    for i in 0..STALLED {
        let mut client = Client::narrow(server.at).await;
        let path = if i % 4 == 3 { "/api/stream" } else { "/api/mjpeg" };
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        stalled.push(client);
    }
    within(PATIENCE, "all of them", || server.metrics.http_connections.get() == 1 + STALLED as i64).await;
    // Text enough to fill the sockets of those who listen.
    let text = "x".repeat(10_000);
    let bus = server.bus();
    let talking = tokio::spawn(async move {
        loop {
            bus.publish(token(1, &text));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let slow_clients = server.metrics.http_slow_clients.clone();
    let cutting = tokio::spawn(within(PATIENCE, "their end", move || slow_clients.get() == STALLED as u64));
    let watching = Duration::from_secs(5);
    let parts = parts_in(&mut healthy, watching).await;
    let grown = resident() - memory;
    talking.abort();
    let rate = parts as f64 / watching.as_secs_f64();
    assert!(rate >= 0.9 * 25.0, "the healthy viewer got {rate} pictures a second");
    let took = cutting.await.unwrap();
    assert!(took < limit + Duration::from_secs(2), "{took:?}");
    let cut = server.metrics.http_slow_clients.get();
    println!("{cut} cut off within {took:?}; healthy {rate:.1}/s; memory +{} KiB", grown / 1024);
    assert_eq!(cut, STALLED as u64);
    assert_eq!(server.metrics.http_connections.get(), 1);
    assert_eq!(server.bus().viewers(), 1);
    // What the bus keeps for those who come back (1024 events of 10 kB) is meant to stay.
    assert!(grown < 24 << 20, "memory grew by {grown} bytes");
    drop(stalled);
    assert!(open_files() <= files, "a descriptor was kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_fresh_whole_pictures() {
    let _alone = ALONE.lock().await;
    let server = start(WebConfig::default()).await;
    let mut slow = Client::narrow(server.at).await;
    slow.open("/api/mjpeg", "").await;
    let _camera = Camera::start(&server, Duration::from_millis(10), 60_000);
    let mut seen = Vec::new();
    while seen.len() < 30 {
        let head = slow.chunk().await.unwrap();
        let seq = String::from_utf8(head).unwrap();
        let seq: u64 = seq.split("X-Frame-Seq: ").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
        let data = slow.chunk().await.unwrap();
        assert_eq!((data.len(), &data[..8]), (60_000, &seq.to_be_bytes()[..]));
        assert_eq!(slow.chunk().await.unwrap(), b"\r\n");
        seen.push(seq);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    assert!(seen.last().unwrap() > &90, "none was skipped: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_refused_at_once() {
    let _alone = ALONE.lock().await;
    let server = start(WebConfig::default()).await;
    let _camera = Camera::start(&server, Duration::from_millis(40), 30_000);
    let mut early = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(server.at).await;
        client.open("/api/mjpeg", "").await;
        early.push(client);
    }
    let memory = resident();
    let watching = tokio::spawn(async move {
        let mut least = usize::MAX;
        for parts in futures_util::future::join_all(early.iter_mut().map(|c| parts_in(c, Duration::from_secs(2)))).await
        {
            least = least.min(parts);
        }
        (least, early)
    });
    // They keep the connection that they get, so that the limit is really reached.
    let crowd = (0..500).map(|_| {
        tokio::spawn(async move {
            let mut socket = TcpStream::connect(server.at).await.unwrap();
            let begun = Instant::now();
            socket.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut bytes = vec![0; 2048];
            let read = tokio::time::timeout(PATIENCE, socket.read(&mut bytes)).await.unwrap();
            let text = String::from_utf8(bytes[..read.unwrap_or(0)].to_vec()).unwrap();
            (text, begun.elapsed(), socket)
        })
    });
    let answers: Vec<_> = futures_util::future::join_all(crowd).await.into_iter().map(Result::unwrap).collect();
    let count = |begin: &str| answers.iter().filter(|(text, _, _)| text.starts_with(begin)).count();
    let (served, refused) = (count("HTTP/1.1 200"), count("HTTP/1.1 503"));
    let slowest = answers.iter().map(|(_, took, _)| *took).max().unwrap();
    println!("{served} served, {refused} refused, slowest {slowest:?}, memory +{} KiB", (resident() - memory) / 1024);
    assert_eq!(served, 56);
    // Beyond the refusals that get time to be read, a connection is closed without a word.
    assert!(refused >= 256, "{refused} were told why");
    assert_eq!(server.metrics.http_refused.get(), 444);
    assert!(answers.iter().any(|(text, _, _)| text.contains("\"code\":\"too_many_connections\"")));
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(resident() - memory < 32 << 20);
    let (least, _early) = watching.await.unwrap();
    assert!(least >= 45, "an early viewer got {least} of 50 pictures");
    // And when the crowd is gone, there is room again.
    drop(answers);
    within(PATIENCE, "room", || server.metrics.http_connections.get() == 8).await;
    assert_eq!(ask(server.at, "GET", "/live", "", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_bodies_are_reaped() {
    let _alone = ALONE.lock().await;
    let limit = Duration::from_millis(500);
    let config = WebConfig { header_timeout: limit, body_timeout: limit, max_connections: 256, ..WebConfig::default() };
    let server = start(config).await;
    let mut slow = Vec::new();
    for i in 0..200 {
        let mut client = Client::connect(server.at).await;
        client.send(["", "G", "GET /live HTTP/1.1\r\nHo", "POST /api/stop HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"][i % 4]).await;
        slow.push(client);
    }
    let dripping = tokio::spawn(async move {
        loop {
            for client in &mut slow {
                // Those that were closed refuse, which is the point.
                let _closed = client.socket.write_all(b"a").await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    within(PATIENCE, "them", || server.metrics.http_connections.get() == 200).await;
    let begun = Instant::now();
    let normal = ask(server.at, "GET", "/live", "", "").await;
    println!("a normal request meanwhile took {:?}", begun.elapsed());
    assert!(normal.status == 200 && begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // A body's time begins when its head is whole, and the connection then waits for the next head.
    let took = within(PATIENCE, "their end", || server.metrics.http_connections.get() == 0).await;
    println!("reaped in {took:?}");
    assert!(took < limit * 8, "{took:?}");
    dripping.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_comes_in_time_with_streams_open() {
    let _alone = ALONE.lock().await;
    let server = start(WebConfig::default()).await;
    let camera = Camera::start(&server, Duration::from_millis(40), 30_000);
    let mut videos = Vec::new();
    let mut events = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(server.at).await;
        client.open("/api/mjpeg", "").await;
        videos.push(client);
    }
    for _ in 0..2 {
        let mut client = Client::connect(server.at).await;
        client.open("/api/stream", "").await;
        events.push(client);
    }
    let _idle = Client::connect(server.at).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    server.trigger.fire();
    for client in &mut videos {
        let body = client.rest().await;
        assert!(body.ends_with(b"\xAB\r\n"), "the last part is whole");
    }
    for client in &mut events {
        assert!(
            String::from_utf8(client.rest().await)
                .unwrap()
                .ends_with("event: bye\ndata: {\"reason\":\"shutdown\"}\n\n")
        );
    }
    tokio::time::timeout(Duration::from_secs(3), server.serving).await.expect("an idle connection held it up").unwrap();
    println!("ended in {:?}", begun.elapsed());
    assert!(TcpStream::connect(server.at).await.is_err(), "the port is free");
    drop(camera);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_does_not_wait_for_those_who_do_not_read() {
    let _alone = ALONE.lock().await;
    let grace = Duration::from_millis(700);
    let server = start(WebConfig { stop_grace: grace, ..WebConfig::default() }).await;
    let _camera = Camera::start(&server, Duration::from_millis(10), 60_000);
    let mut stalled = Vec::new();
    for _ in 0..5 {
        let mut client = Client::narrow(server.at).await;
        client.send("GET /api/mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        stalled.push(client);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    server.trigger.fire();
    server.serving.await.unwrap();
    assert!(begun.elapsed() < grace + Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(server.metrics.http_connections.get(), 0);
    assert_eq!(server.metrics.http_slow_clients.get(), 0);
}
