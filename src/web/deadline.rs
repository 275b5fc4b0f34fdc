//! A socket whose writes have a deadline. It stands under the HTTP protocol, not in the bodies of the live
//! streams: a client that stops reading freezes its body, so no check written there would ever run.
//! Not here: limits on what is read (`server`: head, `body`: body).

use crate::metrics::Metrics;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A connection that fails when a write has waited for longer than `limit`.
pub(super) struct Deadline {
    socket: TcpStream,
    limit: Duration,
    /// Runs while a write waits.
    timer: Option<Pin<Box<Sleep>>>,
    /// The deadline has passed; the protocol may ask once more, but it counts once.
    cut: bool,
    metrics: Arc<Metrics>,
}

impl Deadline {
    pub(super) fn new(socket: TcpStream, limit: Duration, metrics: Arc<Metrics>) -> Self {
        Self { socket, limit, timer: None, cut: false, metrics }
    }

    /// Passes on what the socket said of a write, and counts the time that it says "not now".
    fn watch<T>(&mut self, cx: &mut Context<'_>, said: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if said.is_ready() {
            self.timer = None;
            return said;
        }
        let limit = self.limit;
        ready!(self.timer.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx));
        if !std::mem::replace(&mut self.cut, true) {
            self.metrics.http_slow_clients.inc();
            // What is still queued in the kernel would wait there for minutes; drop it with the connection.
            if let Err(error) = self.socket.set_zero_linger() {
                tracing::debug!(%error, "could not set the linger time of a slow client");
            }
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")))
    }
}

impl AsyncRead for Deadline {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Deadline {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.watch(cx, said)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.watch(cx, said)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP socket has nothing to flush; a write that waits is still counted by its own timer.
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
