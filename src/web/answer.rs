//! The shapes of answers: JSON, errors with their status, and the headers that every answer carries.
//! Not here: what is answered (`api`, `ops`), live bodies (`sse`, `mjpeg`).

use crate::error::{Error, Kind};
use serde::Serialize;
use warp::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use warp::http::{HeaderMap, StatusCode};

/// What a handler gives to warp.
pub(super) type Response = warp::reply::Response;
/// What a handler returns.
pub(super) type Answer = Result<Response, Refusal>;

/// An error with the HTTP status that tells it, and a header that belongs to that status.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    error: Box<Error>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Refusal {
    /// An error of HTTP itself, which has no place among the kinds of [`Error`].
    pub(super) fn new(status: StatusCode, code: &'static str, message: &str, hint: &str) -> Self {
        // The kind is not shown; the status stands for it.
        Self { status, error: Box::new(Error::invalid(code, message).hint(hint)), header: None }
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = json(self.status, &error_json(&self.error));
        if let Some(header) = self.header {
            response.headers_mut().insert(header.0, header.1);
        }
        response
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error.kind {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Denied => StatusCode::FORBIDDEN,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let header =
            (status == StatusCode::SERVICE_UNAVAILABLE).then(|| Box::new((RETRY_AFTER, HeaderValue::from_static("1"))));
        Self { status, error: Box::new(error), header }
    }
}

/// `{"error":{"code","message","hint"}}`
fn error_json(error: &Error) -> serde_json::Value {
    serde_json::json!({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
}

/// The whole answer to a connection that is one too many, for a socket without a protocol on it.
pub(super) fn too_many_connections(limit: usize) -> String {
    let error = Error::unavailable("too_many_connections", format!("{limit} connections are open already"))
        .hint("close a viewer, or try again later");
    let body = error_json(&error).to_string();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         retry-after: 1\r\ncache-control: no-store\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The whole answer to plain HTTP on a port that wants TLS, likewise.
pub(super) fn tls_needed() -> String {
    let error = Error::invalid("tls_needed", "this port speaks HTTPS, and the request came as plain HTTP")
        .hint("write https:// instead of http://");
    let body = error_json(&error).to_string();
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => typed(status, "application/json", text.into()),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            typed(StatusCode::INTERNAL_SERVER_ERROR, "application/json", INTERNAL.to_owned().into())
        }
    }
}

const INTERNAL: &str =
    r#"{"error":{"code":"internal","message":"the answer could not be written","hint":"see the program's log"}}"#;

/// An answer with a media type.
pub(super) fn typed(status: StatusCode, media_type: &'static str, body: bytes::Bytes) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

const ALWAYS: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// What a page from here may do; `connect` are further origins that it may talk to.
pub(super) fn page_policy(connect: &[String]) -> HeaderValue {
    let policy = |connect: &str| {
        format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self'; \
             connect-src 'self'{connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    };
    let origins: String = connect.iter().map(|origin| format!(" {origin}")).collect();
    HeaderValue::try_from(policy(&origins))
        .or_else(|_| HeaderValue::try_from(policy("")))
        .unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// Puts on what every answer carries. What a handler said about caching stays.
pub(super) fn dress(headers: &mut HeaderMap, page_policy: &HeaderValue) {
    headers.insert(CONTENT_SECURITY_POLICY, page_policy.clone());
    for (name, value) in ALWAYS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
