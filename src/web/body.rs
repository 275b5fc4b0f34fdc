//! Bodies of requests: how large, of what type, how soon, and their fields.
//! Not here: what the fields mean (`api`, `commentary`).

use super::answer::Refusal;
use super::routes;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use std::time::Duration;
use warp::http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use warp::http::{HeaderMap, StatusCode};

/// Most bytes of a body.
pub(super) const MAX_BODY: usize = 16 * 1024;
/// Most bytes of a refused body that are read and thrown away. Closing a socket with unread bytes resets it,
/// and the client would see that in place of the refusal.
const MAX_DRAIN: usize = 256 * 1024;
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// The whole body of an admitted request.
///
/// # Errors
/// 411, 413, 415, 400 or 408, as the body or its headers deserve.
pub(super) async fn read(
    wanted: routes::Body,
    headers: &HeaderMap,
    body: Incoming,
    limit: Duration,
) -> Result<Bytes, Refusal> {
    if let Err(refusal) = check(wanted, headers) {
        drain(body).await;
        return Err(refusal);
    }
    if wanted == routes::Body::None {
        drain(body).await;
        return Ok(Bytes::new());
    }
    match tokio::time::timeout(limit, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        // The length was checked, so this is a connection that broke or lied.
        Ok(Err(_)) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "body_incomplete",
            "the body did not arrive whole",
            "send as many bytes as Content-Length says",
        )),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            "the body took too long to arrive",
            "send it at once",
        )),
    }
}

/// Throws away what the client has sent, within bounds.
pub(super) async fn drain(body: Incoming) {
    if !hyper::body::Body::is_end_stream(&body) {
        let drained = tokio::time::timeout(DRAIN_TIME, Limited::new(body, MAX_DRAIN).collect()).await;
        tracing::trace!(in_time = drained.is_ok(), "threw away a body");
    }
}

fn check(wanted: routes::Body, headers: &HeaderMap) -> Result<(), Refusal> {
    if wanted == routes::Body::None {
        return Ok(());
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()).and_then(|l| l.parse::<u64>().ok());
    let unknown = headers.contains_key(TRANSFER_ENCODING) || (length.is_none() && wanted == routes::Body::Required);
    if unknown {
        return Err(Refusal::new(
            StatusCode::LENGTH_REQUIRED,
            "length_required",
            "the request must say its body's length",
            "send Content-Length and no Transfer-Encoding",
        ));
    }
    let length = length.unwrap_or(0);
    if length > MAX_BODY as u64 {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "the body is larger than 16 KiB",
            "send less",
        ));
    }
    let media_type = headers.get(CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or("");
    let essence = media_type.split(';').next().unwrap_or("").trim();
    if length > 0 && !essence.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "the body's Content-Type is not application/json",
            "send \"Content-Type: application/json\"",
        ));
    }
    Ok(())
}

/// The named text fields of a JSON object; absent ones and `null` are `None`. No body is an empty object.
///
/// # Errors
/// 400 when it is no JSON object, or has other fields or other types. Nothing of the body's values is
/// repeated in the message: they may be secret.
pub(super) fn fields<const N: usize>(body: &[u8], names: [&str; N]) -> Result<[Option<String>; N], Refusal> {
    let mut found = [const { None }; N];
    if body.is_empty() {
        return Ok(found);
    }
    let bad = |code, message: &str, hint: &str| Refusal::new(StatusCode::BAD_REQUEST, code, message, hint);
    let known = || if N == 0 { "none".to_owned() } else { names.join(", ") };
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| {
        let message = format!("the body is no JSON (line {}, column {})", error.line(), error.column());
        bad("json_invalid", &message, "send a JSON object")
    })?;
    let serde_json::Value::Object(object) = value else {
        return Err(bad("json_not_object", "the body is no JSON object", "send a JSON object"));
    };
    for (name, value) in object {
        let Some(place) = names.iter().position(|known| *known == name) else {
            return Err(bad(
                "field_unknown",
                "the body has a field that is not known here",
                &format!("fields: {}", known()),
            ));
        };
        found[place] = match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text),
            _ => {
                let message = format!("the field \"{}\" is no text", names[place]);
                return Err(bad("field_type", &message, "put it in quotation marks"));
            }
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_taken_and_strange_ones_refused() {
        let [a, b] = fields(br#"{"a":"x","b":null}"#, ["a", "b"]).unwrap();
        assert_eq!((a.as_deref(), b), (Some("x"), None));
        assert_eq!(fields(b"", ["a"]).unwrap(), [None]);
        for bad in ["{", "[]", "1", "\"rtsp://u:p@h\"", r#"{"c":"x"}"#, r#"{"a":1}"#, "\u{0}"] {
            assert!(fields(bad.as_bytes(), ["a"]).is_err(), "{bad}");
        }
        assert!(fields(b"\xff", ["a"]).is_err());
    }

    proptest! {
        #[test]
        fn fields_round_trip(a in "\\PC*", b in proptest::option::of("\\PC*")) {
            let body = serde_json::json!({"a": a, "b": b}).to_string();
            prop_assert_eq!(fields(body.as_bytes(), ["a", "b"]).unwrap(), [Some(a), b]);
        }

        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _either_way = fields(&body, ["a"]);
        }
    }
}
