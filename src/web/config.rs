//! What the server can be told. Not here: option names and their parsing (`config`).

use super::tls::Tls;
use crate::secret::Secret;
use crate::webcam::Tickets;
use std::sync::Arc;
use std::time::Duration;

/// Limits and permissions of the HTTP server. `Default` is fit for a server on loopback.
#[derive(Debug, Clone)]
pub struct WebConfig {
    /// When set, everything but the page's files, `/live`, `/ready` and `POST /api/session` asks for it.
    pub api_token: Option<Secret<String>>,
    /// Connections are TLS ones.
    pub tls: Option<Tls>,
    /// Host names under which the server may be asked for, beside `localhost`, `127.0.0.1`, `[::1]` and the
    /// address on which a connection came in. `*` allows every name (for a proxy that checks by itself).
    pub allowed_hosts: Vec<String>,
    /// The stream that `/api/start`, `/api/stream` and so on mean.
    pub default_stream: String,
    /// Most connections at once; further ones get a 503 and are closed.
    pub max_connections: usize,
    /// Longest time that a write may wait for the client to read.
    pub write_timeout: Duration,
    /// Longest time for a request's head, counted from the connection's start or the last answer.
    pub header_timeout: Duration,
    /// Longest time for a request's body.
    pub body_timeout: Duration,
    /// Longest time until a handler has to answer. Live streams only have to start in that time.
    pub answer_timeout: Duration,
    /// Silence after which an SSE stream gets a comment.
    pub keep_alive: Duration,
    /// Longest time that `/api/frame` waits for a picture newer than the request.
    pub frame_wait: Duration,
    /// Time that open connections get to end after the shutdown's signal.
    pub stop_grace: Duration,
    /// Who makes tickets to streams' LiveKit rooms; `None` while LiveKit is off.
    pub tickets: Option<Arc<dyn Tickets>>,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            api_token: None,
            tls: None,
            allowed_hosts: Vec::new(),
            default_stream: "main".to_owned(),
            max_connections: 64,
            write_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(20),
            keep_alive: Duration::from_secs(15),
            frame_wait: Duration::from_secs(3),
            stop_grace: Duration::from_secs(3),
            tickets: None,
        }
    }
}
