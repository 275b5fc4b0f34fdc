//! The handlers that read and change state. Not here: the rules (`commentary`), live bodies (`sse`, `mjpeg`).

use super::answer::{Answer, Refusal, json};
use super::body::fields;
use super::server::Face;
use crate::bus::Utterance;
use crate::commentary::{Stream, StreamStatus};
use crate::error::Error;
use crate::source::AskedBy;
use crate::webcam::NoTicket;
use bytes::Bytes;
use serde::Serialize;
use serde_json::json as object;
use std::sync::Arc;
use std::time::Duration;
use warp::http::StatusCode;
use warp::http::header::{HeaderValue, RETRY_AFTER, SET_COOKIE};

/// How long a wrong token waits for its answer, so that guessing is slow.
pub(super) const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(250);

/// A stream in the list of all.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    status: StreamStatus,
    last_utterance: Option<Utterance>,
}

/// The stream that the path names, or the default one.
pub(super) fn find(face: &Face, name: Option<&str>) -> Result<Arc<Stream>, Refusal> {
    face.streams.get(name.unwrap_or(&face.config.default_stream)).ok_or_else(|| {
        Error::not_found("stream_unknown", "there is no stream of that name").hint("GET /api/streams lists them").into()
    })
}

fn told(status: StatusCode, stream: &Stream) -> Answer {
    Ok(json(status, &stream.status()))
}

pub(super) async fn start(name: Option<String>, face: Arc<Face>, body: Bytes) -> Answer {
    let [source, instruction] = fields(&body, ["source", "instruction"])?;
    let source = source.ok_or_else(|| {
        Error::invalid("source_missing", "no source was given")
            .hint("send {\"source\": \"rtsp://…\"} or {\"source\": \"test:smpte\"}")
    })?;
    let stream = match name {
        Some(name) => find(&face, Some(&name))?,
        // The default stream comes back when someone has deleted it.
        None => face.streams.ensure(&face.config.default_stream)?.0,
    };
    stream.start_for(&source, instruction.as_deref(), AskedBy::Client).await?;
    told(StatusCode::OK, &stream)
}

pub(super) async fn stop(name: Option<String>, face: Arc<Face>, body: Bytes) -> Answer {
    let [] = fields(&body, [])?;
    let stream = find(&face, name.as_deref())?;
    stream.stop().await?;
    told(StatusCode::OK, &stream)
}

/// Back to the last source that was no webcam.
pub(super) async fn resume(name: Option<String>, face: Arc<Face>, body: Bytes) -> Answer {
    let [] = fields(&body, [])?;
    let stream = find(&face, name.as_deref())?;
    stream.resume().await?;
    told(StatusCode::OK, &stream)
}

pub(super) async fn instruction(name: Option<String>, face: Arc<Face>, body: Bytes) -> Answer {
    let [instruction, profile] = fields(&body, ["instruction", "profile"])?;
    let stream = find(&face, name.as_deref())?;
    stream.instruct(instruction.as_deref(), profile.as_deref())?;
    told(StatusCode::OK, &stream)
}

pub(super) async fn profiles(name: Option<String>, face: Arc<Face>) -> Answer {
    let stream = find(&face, name.as_deref())?;
    Ok(json(StatusCode::OK, &object!({"profiles": stream.profiles()})))
}

pub(super) async fn status(name: Option<String>, face: Arc<Face>) -> Answer {
    told(StatusCode::OK, &*find(&face, name.as_deref())?)
}

pub(super) async fn list(face: Arc<Face>) -> Answer {
    let said = |stream: &Stream| stream.bus().last_said();
    let streams: Vec<_> =
        face.streams.list().iter().map(|s| Listed { last_utterance: said(s), status: s.status() }).collect();
    Ok(json(StatusCode::OK, &object!({"default": face.config.default_stream, "streams": streams})))
}

/// Makes the stream if there is none of that name; what the body gives applies to it either way.
pub(super) async fn put(name: String, face: Arc<Face>, body: Bytes) -> Answer {
    let [source, instruction] = fields(&body, ["source", "instruction"])?;
    let (stream, made) = face.streams.ensure(&name)?;
    let done = match (&source, &instruction) {
        (Some(source), instruction) => stream.start_for(source, instruction.as_deref(), AskedBy::Client).await,
        (None, Some(instruction)) => stream.instruct(Some(instruction), None),
        (None, None) => Ok(()),
    };
    if let Err(error) = done {
        if made && let Err(also) = face.streams.remove(&name).await {
            tracing::debug!(error = %also, "a stream that could not be started could not be removed either");
        }
        return Err(error.into());
    }
    told(if made { StatusCode::CREATED } else { StatusCode::OK }, &stream)
}

pub(super) async fn delete(name: String, face: Arc<Face>, body: Bytes) -> Answer {
    let [] = fields(&body, [])?;
    face.streams.remove(&name).await?;
    let mut response = super::answer::Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// A ticket to the stream's LiveKit room.
pub(super) async fn ticket(name: Option<String>, face: Arc<Face>, body: Bytes) -> Answer {
    let [] = fields(&body, [])?;
    let stream = find(&face, name.as_deref())?;
    let Some(tickets) = &face.config.tickets else {
        return Err(Error::unavailable("livekit_off", "LiveKit is off, so there is no room to join")
            .hint("set LIVEKIT_ENABLED=true with LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET")
            .into());
    };
    match tickets.ticket(stream.name()) {
        Ok(ticket) => Ok(json(StatusCode::OK, &ticket)),
        Err(NoTicket::Failed(error)) => Err(error.into()),
        Err(NoTicket::TooMany(wait)) => {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let refusal = Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_tokens",
                "too many tokens were asked for in a short time",
                &format!("ask again in {seconds} s"),
            );
            Err(refusal.with_header(RETRY_AFTER, HeaderValue::from(seconds.max(1))))
        }
    }
}

/// Turns the token into a cookie.
pub(super) async fn session(face: Arc<Face>, body: Bytes) -> Answer {
    let [token] = fields(&body, ["token"])?;
    let Some(expected) = face.guard.token() else {
        return Ok(json(StatusCode::OK, &object!({"token_needed": false})));
    };
    if !token.is_some_and(|t| expected.matches(t.trim())) {
        tokio::time::sleep(WRONG_TOKEN_DELAY).await;
        return Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the API token is wrong",
            "it is the value of API_TOKEN",
        ));
    }
    let mut response = json(StatusCode::OK, &object!({"token_needed": true}));
    if let Some(cookie) = face.session_cookie() {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}
