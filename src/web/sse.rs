//! `GET /api/stream`: a stream's events as Server-Sent Events, with ids, replay, and word of what was missed.
//! Not here: the keeping of events (`bus`), the deadline of a client that does not read (`deadline`).

use super::answer::Answer;
use super::api::find;
use super::server::Face;
use crate::bus::{Bus, Event, Numbered};
use crate::commentary::Stream;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use bytes::Bytes;
use serde::Serialize;
use serde_json::json as object;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use warp::Reply;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_TYPE, HeaderValue};

/// Time after which a browser comes back, ms.
const RETRY: &str = "retry: 1000\n";
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The live events. `Last-Event-ID` (or `?last_event_id=`) resumes after that event.
pub(super) async fn stream(name: Option<String>, face: Arc<Face>, headers: HeaderMap, query: String) -> Answer {
    let stream = find(&face, name.as_deref())?;
    let feed = Feed::open(&stream, &face, last_seen(&headers, &query));
    let body = futures_util::stream::unfold(feed, |mut feed| async move {
        let piece = feed.next().await?;
        Some((Ok::<_, Infallible>(piece), feed))
    });
    let mut response = warp::reply::stream(body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would collect the events otherwise.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// An id that can't be read is as good as none: the browser starts afresh.
fn last_seen(headers: &HeaderMap, query: &str) -> Option<u64> {
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let query = || query.split('&').find_map(|pair| pair.strip_prefix("last_event_id="));
    header.or_else(query)?.parse().ok()
}

/// One client's place in the events. Holds nothing that keeps a deleted stream alive.
struct Feed {
    stream: Weak<Stream>,
    /// What is told before the live events; bounded by what the bus keeps.
    first: Option<Bytes>,
    replay: VecDeque<Arc<Numbered>>,
    live: Receiver<Arc<Numbered>>,
    over: bool,
    keep_alive: Duration,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

impl Feed {
    fn open(stream: &Arc<Stream>, face: &Face, last_seen: Option<u64>) -> Self {
        let subscription = Bus::subscribe(stream.bus(), last_seen);
        let mut first = RETRY.to_owned();
        first.push_str(&block("status", None, &stream.status()));
        if subscription.missed > 0 {
            face.metrics.events_lagged.inc_by(subscription.missed);
            first.push_str(&lagged(subscription.missed));
        }
        Self {
            stream: Arc::downgrade(stream),
            first: Some(first.into()),
            replay: subscription.replay.into(),
            live: subscription.live,
            over: false,
            keep_alive: face.config.keep_alive,
            metrics: Arc::clone(&face.metrics),
            shutdown: face.shutdown.clone(),
        }
    }

    /// The next piece of the body; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        while let Some(event) = self.replay.pop_front() {
            // Of several changes of the status in a row, the last tells all.
            if event.event == Event::Status && self.replay.front().is_some_and(|next| next.event == Event::Status) {
                continue;
            }
            return Some(self.write(&event));
        }
        let heard = tokio::select! {
            biased;
            () = self.shutdown.wait() => return Some(self.bye("shutdown")),
            heard = tokio::time::timeout(self.keep_alive, self.live.recv()) => heard,
        };
        Some(match heard {
            Ok(Ok(event)) => self.write(&event),
            Ok(Err(RecvError::Lagged(missed))) => {
                self.metrics.events_lagged.inc_by(missed);
                lagged(missed).into()
            }
            Ok(Err(RecvError::Closed)) => self.bye("stream_deleted"),
            Err(_silence) => KEEP_ALIVE,
        })
    }

    fn write(&mut self, event: &Numbered) -> Bytes {
        let id = Some(event.id);
        match &event.event {
            Event::Token { utterance, text } => {
                block("token", id, &object!({"utterance": utterance, "text": text})).into()
            }
            Event::Utterance(utterance) => block("utterance", id, utterance).into(),
            Event::Speech(speech) => block("speech", id, speech).into(),
            Event::Status => match self.stream.upgrade() {
                Some(stream) => block("status", id, &stream.status()).into(),
                None => self.bye("stream_deleted"),
            },
        }
    }

    fn bye(&mut self, reason: &str) -> Bytes {
        self.over = true;
        block("bye", None, &object!({"reason": reason})).into()
    }
}

fn lagged(missed: u64) -> String {
    block("lagged", None, &object!({"missed": missed}))
}

/// One event. JSON has no bare line break, so its data is one line.
fn block(event: &str, id: Option<u64>, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).unwrap_or_else(|error| {
        tracing::error!(%error, event, "an event could not be written as JSON");
        "null".to_owned()
    });
    match id {
        Some(id) => format!("event: {event}\nid: {id}\ndata: {data}\n\n"),
        None => format!("event: {event}\ndata: {data}\n\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_id_comes_from_the_header_or_the_query() {
        let mut headers = HeaderMap::new();
        assert_eq!(last_seen(&headers, ""), None);
        assert_eq!(last_seen(&headers, "a=1&last_event_id=7"), Some(7));
        headers.insert("last-event-id", HeaderValue::from_static("9"));
        assert_eq!(last_seen(&headers, "last_event_id=7"), Some(9));
        for odd in ["", "-1", "x", "99999999999999999999999"] {
            headers.insert("last-event-id", HeaderValue::from_str(odd).unwrap());
            assert_eq!(last_seen(&headers, ""), None, "{odd}");
        }
    }

    #[test]
    fn text_of_the_model_cannot_break_out_of_its_event() {
        let text = block("token", Some(3), &object!({"text": "a\n\nevent: bye\r\ndata: x"}));
        assert_eq!(text, "event: token\nid: 3\ndata: {\"text\":\"a\\n\\nevent: bye\\r\\ndata: x\"}\n\n");
    }
}
