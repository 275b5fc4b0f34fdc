//! Asking a running server whether it lives, as a container's health check does. Not here: what it answers (`ops`).

use super::tls::{self, Certificate};
use crate::error::{Error, Result};
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest time for the whole of it.
const LIMIT: Duration = Duration::from_secs(4);
/// Bytes of an answer that are read.
const MOST: u64 = 16 * 1024;

/// `GET /live` of the server at `address`, over TLS when it has this certificate. The answer's body.
///
/// # Errors
/// When it does not answer in time, or says that it does not live.
pub async fn probe(address: SocketAddr, certificate: Option<&Certificate>) -> Result<String> {
    let connector = certificate.map(tls::connector).transpose()?;
    let asking = async {
        let socket = TcpStream::connect(address).await?;
        match connector {
            Some(connector) => ask(connector.connect(ServerName::IpAddress(address.ip().into()), socket).await?).await,
            None => ask(socket).await,
        }
    };
    let down = |why: String| {
        Error::unavailable("not_live", format!("the server at {address} does not answer: {why}"))
            .hint("see its log; a restart may help")
    };
    let answer = tokio::time::timeout(LIMIT, asking)
        .await
        .map_err(|_| down(format!("nothing came within {} s", LIMIT.as_secs())))?
        .map_err(|error| down(error.to_string()))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or("nothing");
    if status == "200" { Ok(body.to_owned()) } else { Err(down(format!("status {status}, {body}"))) }
}

async fn ask(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<String> {
    socket.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    socket.take(MOST).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
