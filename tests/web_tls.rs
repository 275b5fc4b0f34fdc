//! HTTPS as clients and those who misbehave on it see it. Not here: what is answered (`web_http`), certificates and their
//! files (`web::tls`).

#[path = "support/program.rs"]
mod program;
#[path = "support/web_server.rs"]
mod web_server;

use program::command;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use ureq::tls::{Certificate as Root, RootCerts, TlsConfig};
use vidette::secret::Secret;
use vidette::web::{Certificate, Tls, WebConfig};
use web_server::{PATIENCE, picture, start, within};

const TOKEN: &str = "a-token-of-some-length";

fn tls(folder: &Path) -> Tls {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    Tls::open(&Certificate::SelfSigned { folder: folder.to_owned() }, &names).unwrap()
}

/// A client that trusts the certificate in `folder` and no other: names and signature are checked as browsers do.
fn client(folder: &Path) -> ureq::Agent {
    let pem = std::fs::read(folder.join("tls-self-signed.pem")).unwrap();
    let roots = RootCerts::new_with_certs(&[Root::from_pem(&pem).unwrap()]);
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_connect(Some(PATIENCE));
    config.tls_config(TlsConfig::builder().root_certs(roots).build()).build().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_is_served_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let api_token = Some(Secret::new(TOKEN.to_owned()));
    let server = start(WebConfig { tls: Some(tls(folder.path())), api_token, ..WebConfig::default() }).await;
    let (agent, port) = (client(folder.path()), server.at.port());
    let bus = server.bus();
    let asked = tokio::task::spawn_blocking(move || {
        for host in ["localhost", "127.0.0.1"] {
            let mut answer = agent.get(format!("https://{host}:{port}/live")).call().unwrap();
            assert_eq!(answer.status().as_u16(), 200);
            assert_eq!(answer.body_mut().read_to_string().unwrap(), r#"{"live":true}"#);
        }
        let url = |path: &str| format!("https://localhost:{port}{path}");
        assert_eq!(agent.get(url("/api/status")).call().unwrap().status().as_u16(), 401);
        let session = agent
            .post(url("/api/session"))
            .header("Content-Type", "application/json")
            .header("Origin", format!("https://localhost:{port}"))
            .send(format!(r#"{{"token":"{TOKEN}"}}"#))
            .unwrap();
        let cookie = session.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(cookie.ends_with("; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap();
        let status = agent.get(url("/api/status")).header("Cookie", cookie).call().unwrap();
        assert_eq!(status.status().as_u16(), 200);
        // Cookies without any that the page would not get.
        assert!(!status.headers().contains_key("set-cookie"), "it is young");
        // A body without end.
        let video = agent.get(url("/api/mjpeg")).header("Cookie", cookie).call().unwrap();
        let mut lines = BufReader::new(video.into_body().into_reader()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "--frame");
    });
    let showing = tokio::spawn(async move {
        for seq in 1.. {
            bus.show(picture(seq, 1000));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    asked.await.unwrap();
    showing.abort();
    assert_eq!(server.metrics.tls_failures.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_on_the_tls_port_is_told_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(WebConfig { tls: Some(tls(folder.path())), ..WebConfig::default() }).await;
    for request in ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "hello"] {
        let mut socket = TcpStream::connect(server.at).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
        assert!(answer.contains("\"code\":\"tls_needed\""), "{answer}");
    }
    assert_eq!(server.metrics.tls_failures.get(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_handshakes_that_never_end_are_reaped() {
    let folder = tempfile::tempdir().unwrap();
    let limit = Duration::from_secs(1);
    let config = WebConfig {
        tls: Some(tls(folder.path())),
        header_timeout: limit,
        max_connections: 256,
        ..WebConfig::default()
    };
    let server = start(config).await;
    // Nothing, a first byte, half a ClientHello, and one that promises more than it sends.
    let beginnings: [&[u8]; 4] =
        [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x16\x03\x01\x40\x00"];
    let mut slow = Vec::new();
    for i in 0..200 {
        let mut socket = TcpStream::connect(server.at).await.unwrap();
        socket.write_all(beginnings[i % 4]).await.unwrap();
        slow.push(socket);
    }
    within(PATIENCE, "all of them", || server.metrics.http_connections.get() == 200).await;
    let (agent, port) = (client(folder.path()), server.at.port());
    let begun = Instant::now();
    let served = move || agent.get(format!("https://localhost:{port}/live")).call().unwrap().status().as_u16();
    assert_eq!(tokio::task::spawn_blocking(served).await.unwrap(), 200, "others are served meanwhile");
    let normal = begun.elapsed();
    let took = within(PATIENCE, "their end", || server.metrics.http_connections.get() <= 1).await;
    println!("a whole request meanwhile took {normal:?}; 200 unfinished handshakes were reaped within {took:?}");
    assert_eq!(server.metrics.tls_failures.get(), 200);
    // And those that drip do not live longer for it.
    let mut dripping = TcpStream::connect(server.at).await.unwrap();
    let begun = Instant::now();
    while dripping.write_all(b"\x16").await.is_ok() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() < PATIENCE, "one byte at a time kept the connection alive");
    drop(slow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_is_cut_off_over_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let limit = Duration::from_secs(1);
    let config = WebConfig { tls: Some(tls(folder.path())), write_timeout: limit, ..WebConfig::default() };
    let server = start(config).await;
    let (agent, port, bus) = (client(folder.path()), server.at.port(), server.bus());
    let showing = tokio::spawn(async move {
        for seq in 1.. {
            bus.show(picture(seq, 60_000));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let open = move || agent.get(format!("https://localhost:{port}/api/mjpeg")).call().unwrap();
    let _unread = tokio::task::spawn_blocking(open).await.unwrap();
    within(PATIENCE, "the cut", || server.metrics.http_slow_clients.get() == 1).await;
    within(PATIENCE, "the end", || server.metrics.http_connections.get() == 0).await;
    showing.abort();
}

fn port_of(address: &str) -> String {
    address.rsplit(':').next().unwrap().to_owned()
}

/// The program with `TLS=self-signed`: what it says, what it leaves, and that it is the same at the next start.
#[test]
fn the_program_makes_its_certificate_and_names_its_fingerprint() {
    let (folder, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let state = folder.path().join("state");
    let mut fingerprints = Vec::new();
    for _ in 0..2 {
        let mut run = command(&["run", "--server-port", "0", "--models-dir", models.path().to_str().unwrap()]);
        run.env("TLS", "self-signed").env("STATE_DIR", &state).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = run.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let named = lines.find(|line| line.contains("SHA-256 fingerprint is ")).expect("a fingerprint");
        fingerprints.push(named.rsplit(' ').next().unwrap().to_owned());
        let address = lines.find_map(|line| Some(line.split_once("open https://")?.1.split('/').next()?.to_owned()));
        let named_address = address.expect("an address");
        let answer = client(&state).get(format!("https://{named_address}/live")).call();
        let code = answer.map(|a| a.status().as_u16());
        let port = port_of(&named_address);
        let health = |tls: &str| {
            let mut health = command(&["health", "--server-port", &port, "--tls", tls]);
            health.env("STATE_DIR", &state).output().unwrap().status.code()
        };
        assert_eq!((health("self-signed"), health("off")), (Some(0), Some(1)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(code.unwrap(), 200);
        let file = std::fs::metadata(state.join("tls-self-signed.pem")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fingerprints[0], fingerprints[1]);
}
