//! The server: binding, the accept loop with its limits, and the end.
//! Not here: what is answered (`routes` and the handlers), deadlines of writes (`deadline`).
//!
//! The loop is our own because warp's has no limit of connections, no timer for slow heads, and waits without
//! end for live streams when it is told to stop.

use super::answer::{self, Refusal, Response};
use super::config::WebConfig;
use super::deadline::Deadline;
use super::guard::Guard;
use super::routes::{self, Router};
use super::token::Token;
use super::{api, body, tls};
use crate::commentary::Streams;
use crate::engine::{EngineState, EngineStatus};
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use warp::http::header::{HeaderValue, SET_COOKIE};
use warp::http::{Method, Request, StatusCode};

/// Bytes that the kernel holds for a client that reads slowly (Linux takes twice as much for its own books).
const SEND_BUFFER: u32 = 256 * 1024;
/// Connections that wait for the accept loop.
const BACKLOG: u32 = 512;
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
/// Bytes that the protocol collects for a client before it asks a body for more.
const MAX_BUFFER: usize = 64 * 1024;
/// Refused connections that get time to read why; further ones are closed at once.
const MAX_REFUSALS: usize = 256;
const REFUSAL_TIME: Duration = Duration::from_millis(300);
/// Pause after a failure to accept, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all requests share.
pub(super) struct Face {
    pub(super) streams: Arc<Streams>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) engine: watch::Receiver<EngineStatus>,
    /// True once the engine was ready.
    pub(super) been_ready: AtomicBool,
    pub(super) guard: Guard,
    pub(super) page_policy: HeaderValue,
    pub(super) config: WebConfig,
    pub(super) shutdown: Shutdown,
}

impl Face {
    /// The cookie of a session that begins now; `None` without a token.
    pub(super) fn session_cookie(&self) -> Option<HeaderValue> {
        self.guard.token()?.set_cookie(SystemTime::now(), self.config.tls.is_some())
    }
}

/// Binds a listener whose connections hold a bounded amount of unsent data. Must be called on the runtime.
///
/// # Errors
/// When the address is taken, or is not this machine's.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        // Accepted sockets inherit it.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            Error::new(Kind::Conflict, "port_taken", format!("{address} is taken by another program"))
                .hint("set SERVER_PORT to a free port, or 0 to get one")
        }
        io::ErrorKind::AddrNotAvailable => {
            Error::invalid("address_not_here", format!("{address} is no address of this machine"))
                .hint("set SERVER_HOST to 127.0.0.1, or to 0.0.0.0 for all addresses")
        }
        io::ErrorKind::PermissionDenied => {
            Error::new(Kind::Denied, "port_denied", format!("{address} may not be bound"))
                .hint("set SERVER_PORT to 1024 or above")
        }
        _ => Error::internal("bind_failed", format!("{address} can't be bound: {error}")),
    })
}

/// Serves until `shutdown`, then ends every live stream with its farewell and returns after
/// [`WebConfig::stop_grace`] at the latest.
pub async fn serve(
    listener: TcpListener,
    streams: Arc<Streams>,
    metrics: Arc<Metrics>,
    engine: watch::Receiver<EngineStatus>,
    config: WebConfig,
    shutdown: Shutdown,
) {
    let guard = Guard::new(&config.allowed_hosts, config.api_token.as_ref().map(Token::new));
    let been_ready = AtomicBool::new(engine.borrow().state == EngineState::Ready);
    let mut engine_watch = engine.clone();
    let page_policy = answer::page_policy(&config.tickets.as_ref().map(|t| t.origins()).unwrap_or_default());
    let face = Arc::new(Face { streams, metrics, engine, been_ready, guard, page_policy, config, shutdown });
    let router = routes::router(Arc::clone(&face));
    let places = Arc::new(Semaphore::new(face.config.max_connections));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    // Bounded by the two semaphores.
    let mut connections = JoinSet::new();
    let mut over = pin!(face.shutdown.wait());
    let mut engine_lives = true;
    loop {
        tokio::select! {
            biased;
            () = &mut over => break,
            changed = engine_watch.changed(), if engine_lives => {
                engine_lives = changed.is_ok();
                if engine_watch.borrow_and_update().state == EngineState::Ready {
                    face.been_ready.store(true, Ordering::Relaxed);
                }
            }
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        connections.spawn(connection(socket, Arc::clone(&face), router.clone(), place));
                    }
                    Err(_) => {
                        face.metrics.http_refused.inc();
                        if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                            connections.spawn(refuse(socket, face.config.max_connections, place));
                        }
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(face.config.stop_grace, async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "connections did not end in time and were cut off");
        connections.shutdown().await;
    }
}

fn report(ended: std::result::Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

/// Counts a connection for as long as it lives.
struct Counted {
    metrics: Arc<Metrics>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.http_connections.dec();
    }
}

async fn connection(socket: TcpStream, face: Arc<Face>, router: Router, place: OwnedSemaphorePermit) {
    face.metrics.http_connections.inc();
    let _counted = Counted { metrics: Arc::clone(&face.metrics), _place: place };
    let Ok(reached) = socket.local_addr().map(|a| a.ip()) else { return };
    // Tokens are small and shall not wait for more.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "could not turn Nagle's algorithm off");
    }
    let deadline = |socket| Deadline::new(socket, face.config.write_timeout, Arc::clone(&face.metrics));
    let Some(tls) = &face.config.tls else { return talk(deadline(socket), &face, router, reached).await };
    let limit = face.config.header_timeout;
    let handshake = async {
        let mut first = [0];
        // Looked at and left where it is; an empty read is a client that left.
        if socket.peek(&mut first).await? > 0 && !tls::is_handshake(&first) {
            tell_of_tls(socket).await?;
            return Ok(None);
        }
        tls.acceptor.accept(deadline(socket)).await.map(Some)
    };
    let refused = tokio::select! {
        shaken = tokio::time::timeout(limit, handshake) => match shaken {
            Ok(Ok(Some(stream))) => return talk(stream, &face, router, reached).await,
            Ok(Ok(None)) => "the client spoke plain HTTP".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        },
        () = face.shutdown.wait() => return,
    };
    face.metrics.tls_failures.inc();
    // Scanners and browsers that don't know the certificate: none of it is a fault of ours.
    tracing::debug!(reason = refused, "no TLS connection came about");
}

/// Says in plain HTTP that this port wants TLS, once the request's head had time to arrive: an answer that comes with the
/// request half read is lost with the reset that follows.
async fn tell_of_tls(mut socket: TcpStream) -> io::Result<()> {
    let mut head = vec![0; MAX_HEAD];
    let _all_that_matters_is_that_it_was_read = socket.read(&mut head).await?;
    socket.write_all(answer::tls_needed().as_bytes()).await?;
    socket.shutdown().await
}

/// HTTP on a connection, however it is carried.
async fn talk<S>(socket: S, face: &Arc<Face>, router: Router, reached: IpAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| respond(Arc::clone(face), router.clone(), reached, request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(face.config.header_timeout)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(socket), service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = face.shutdown.wait() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // Clients go away in many ways; none of them is a fault of ours.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Says that there are too many connections, and gives the client a moment to read it: closing at once
/// would reset the connection over what the client has sent.
async fn refuse(mut socket: TcpStream, limit: usize, _place: OwnedSemaphorePermit) {
    let talk = async {
        socket.write_all(answer::too_many_connections(limit).as_bytes()).await?;
        socket.shutdown().await?;
        let mut unread = [0; 1024];
        while socket.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(REFUSAL_TIME, talk).await {
        tracing::trace!(%error, "a refused client went away");
    }
}

/// One request, from the guard to the dressed answer.
async fn respond(
    face: Arc<Face>,
    router: Router,
    reached: IpAddr,
    request: Request<Incoming>,
) -> std::result::Result<Response, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match admitted(&face, router, reached, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    answer::dress(response.headers_mut(), &face.page_policy);
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    Ok(response)
}

async fn admitted(
    face: &Face,
    router: Router,
    reached: IpAddr,
    request: Request<Incoming>,
) -> std::result::Result<Response, Refusal> {
    let (mut parts, incoming) = request.into_parts();
    let admitted = match face.guard.admit(&parts, reached) {
        Ok(admitted) => admitted,
        Err((refusal, wrong_token)) => {
            if wrong_token {
                tokio::time::sleep(api::WRONG_TOKEN_DELAY).await;
            }
            body::drain(incoming).await;
            return Err(refusal);
        }
    };
    let bytes = body::read(admitted.route.body, &parts.headers, incoming, face.config.body_timeout).await?;
    if parts.method == Method::HEAD {
        // The protocol leaves the body out by itself.
        parts.method = Method::GET;
    }
    let service = TowerToHyperService::new(warp::service(router));
    let answering = service.call(Request::from_parts(parts, Full::new(bytes)));
    match tokio::time::timeout(face.config.answer_timeout, answering).await {
        Ok(Ok(mut response)) => {
            if admitted.renew
                && let Some(cookie) = face.session_cookie()
            {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
            Ok(response)
        }
        Ok(Err(never)) => match never {},
        Err(_) => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "answer_timeout",
            "the answer took too long",
            "see GET /api/status, and try again",
        )),
    }
}
