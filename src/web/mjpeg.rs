//! Pictures: `GET /api/mjpeg` (motion JPEG, newest wins; as late as the voice where that is wanted), `GET /api/frame` (one JPEG) and the small one of an utterance.
//! Not here: JPEG encoding (`ingest`, which only does it while a receiver from here lives), the deadline of a
//! client that does not read (`deadline`).

use super::answer::{Answer, typed};
use super::api::find;
use super::server::Face;
use crate::audio::PictureDelay;
use crate::error::Error;
use crate::frame::Jpeg;
use crate::metrics::{Metrics, StreamLabel};
use crate::shutdown::Shutdown;
use crate::thumbnail::MAX_THUMBNAILS;
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch::Receiver;
use warp::Reply;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderValue};

/// A picture of this age is shown at once to a new viewer; an older one only if no newer comes soon.
const FRESH: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(1);
/// Most pictures that wait for the voice, for each viewer; they share the bytes.
const MOST_WAITING: usize = 400;

/// The pictures as they come. There is no queue: a viewer who is slower than the source gets the newest
/// picture each time, and those between are skipped.
pub(super) async fn video(name: Option<String>, face: Arc<Face>) -> Answer {
    let stream = find(&face, name.as_deref())?;
    let viewer = Viewer {
        pictures: stream.bus().pictures(),
        shutdown: face.shutdown.clone(),
        begun: false,
        late: stream.speaker().and_then(|speaker| speaker.picture_delay()).map(|delay| Late {
            delay,
            waiting: VecDeque::new(),
            metrics: Arc::clone(&face.metrics),
            label: StreamLabel::new(stream.name()),
        }),
    };
    drop(stream);
    let parts = futures_util::stream::unfold(viewer, |mut viewer| async move {
        let jpeg = viewer.next().await?;
        Some((part(&jpeg), viewer))
    });
    // The pieces of a part go out together or not at all, whenever the end comes.
    let body = parts.flat_map(|pieces| futures_util::stream::iter(pieces.map(Ok::<_, Infallible>)));
    let mut response = warp::reply::stream(body).into_response();
    let media_type = HeaderValue::from_static("multipart/x-mixed-replace; boundary=frame");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// One JPEG, newer than the request if one comes in time.
pub(super) async fn frame(name: Option<String>, face: Arc<Face>) -> Answer {
    let asked = Instant::now();
    let stream = find(&face, name.as_deref())?;
    let mut pictures = stream.bus().pictures();
    drop(stream);
    let newer = pictures.wait_for(|p| p.as_ref().is_some_and(|p| p.captured > asked));
    let newer = tokio::select! {
        newer = tokio::time::timeout(face.config.frame_wait, newer) => newer.ok().and_then(|p| p.ok()?.clone()),
        () = face.shutdown.wait() => None,
    };
    let Some(jpeg) = newer.or_else(|| pictures.borrow().clone()) else {
        return Err(Error::unavailable("no_picture", "there is no picture yet")
            .hint("start a source, or see /api/status for what is wrong with it")
            .into());
    };
    let mut response = typed(StatusCode::OK, "image/jpeg", jpeg.data.clone());
    response.headers_mut().insert("x-frame-seq", HeaderValue::from(jpeg.seq));
    if let Ok(time) = HeaderValue::from_str(&timestamp(&jpeg)) {
        response.headers_mut().insert("x-timestamp", time);
    }
    Ok(response)
}

/// The small picture of a recent utterance.
pub(super) async fn thumbnail(name: Option<String>, id: String, face: Arc<Face>) -> Answer {
    let stream = find(&face, name.as_deref())?;
    let Some(thumbnail) = id.parse().ok().and_then(|id| stream.thumbnails().get(id)) else {
        return Err(Error::not_found("utterance_frame_gone", "there is no picture of that utterance, or no longer")
            .hint(format!("those of the last {MAX_THUMBNAILS} utterances with words are kept"))
            .into());
    };
    let mut response = typed(StatusCode::OK, "image/jpeg", thumbnail.jpeg);
    response.headers_mut().insert("x-frame-seq", HeaderValue::from(thumbnail.seq));
    if let Ok(time) = HeaderValue::from_str(&unix_seconds(thumbnail.wall)) {
        response.headers_mut().insert("x-timestamp", time);
    }
    Ok(response)
}

struct Viewer {
    pictures: Receiver<Option<Arc<Jpeg>>>,
    shutdown: Shutdown,
    begun: bool,
    /// `None` for pictures at once.
    late: Option<Late>,
}

/// Pictures that wait until the voice is as far.
struct Late {
    delay: Arc<PictureDelay>,
    /// Oldest first, at most [`MOST_WAITING`]; the oldest goes for a newer one.
    waiting: VecDeque<Arc<Jpeg>>,
    metrics: Arc<Metrics>,
    label: StreamLabel,
}

impl Late {
    fn push(&mut self, jpeg: Arc<Jpeg>) {
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
            self.metrics.pictures_dropped.get_or_create(&self.label).inc();
        }
        self.waiting.push_back(jpeg);
    }

    /// The newest picture whose time has come.
    fn due(&mut self, now: Instant) -> Option<Arc<Jpeg>> {
        let mut due = None;
        while self.turn().is_some_and(|at| at <= now) {
            due = self.waiting.pop_front();
        }
        due
    }

    /// When the next picture's time comes.
    fn turn(&self) -> Option<Instant> {
        self.waiting.front().map(|jpeg| jpeg.captured + self.delay.now())
    }
}

impl Viewer {
    /// The next picture to show; `None` when the stream or the program ends.
    async fn next(&mut self) -> Option<Arc<Jpeg>> {
        let Some(late) = &mut self.late else { return self.newest().await };
        loop {
            if let Some(jpeg) = late.due(Instant::now()) {
                return Some(jpeg);
            }
            let turn = late.turn();
            let its_turn = async {
                match turn {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return None,
                changed = self.pictures.changed() => {
                    changed.ok()?;
                    if let Some(jpeg) = self.pictures.borrow_and_update().clone() {
                        late.push(jpeg);
                    }
                }
                () = its_turn => {}
            }
        }
    }

    async fn newest(&mut self) -> Option<Arc<Jpeg>> {
        if !std::mem::replace(&mut self.begun, true)
            && let Some(jpeg) = self.first().await
        {
            return Some(jpeg);
        }
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.wait() => return None,
                changed = self.pictures.changed() => changed.ok()?,
            }
            if let Some(jpeg) = self.pictures.borrow_and_update().clone() {
                return Some(jpeg);
            }
        }
    }

    /// What a new viewer sees first. The last picture may be from when somebody last watched.
    async fn first(&mut self) -> Option<Arc<Jpeg>> {
        let last = self.pictures.borrow_and_update().clone()?;
        if last.captured.elapsed() > FRESH && !self.shutdown.is_shutdown() {
            let newer = tokio::time::timeout(SOON, self.pictures.changed()).await;
            if newer.is_ok() {
                return self.pictures.borrow_and_update().clone();
            }
        }
        Some(last)
    }
}

/// A part of the multipart body, in three pieces so that the picture is not copied for each viewer.
fn part(jpeg: &Jpeg) -> [Bytes; 3] {
    let head = format!(
        "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\nX-Frame-Seq: {}\r\nX-Timestamp: {}\r\n\r\n",
        jpeg.data.len(),
        jpeg.seq,
        timestamp(jpeg)
    );
    [head.into(), jpeg.data.clone(), Bytes::from_static(b"\r\n")]
}

/// The wall clock at the picture's capture, seconds since 1970.
fn timestamp(jpeg: &Jpeg) -> String {
    unix_seconds(SystemTime::now().checked_sub(jpeg.captured.elapsed()).unwrap_or(UNIX_EPOCH))
}

/// Cut to milliseconds, as the stamps of an utterance are.
fn unix_seconds(wall: SystemTime) -> String {
    let ms = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg(seq: u64, captured: Instant) -> Arc<Jpeg> {
        Arc::new(Jpeg { seq, captured, data: Bytes::from_static(b"") })
    }

    #[test]
    fn a_late_viewer_gets_the_newest_picture_whose_time_has_come_and_keeps_a_bounded_number() {
        let metrics = Arc::new(Metrics::new());
        let delay = Arc::new(PictureDelay::new(Duration::from_secs(2)));
        let label = StreamLabel::new("main");
        let mut late = Late { delay, waiting: VecDeque::new(), metrics: Arc::clone(&metrics), label: label.clone() };
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        (0..5).for_each(|n| late.push(jpeg(n, at(n * 100))));
        assert!(late.due(at(1_999)).is_none());
        assert_eq!(late.due(at(2_250)).map(|j| j.seq), Some(2));
        assert!(late.due(at(2_250)).is_none());
        assert_eq!(late.turn(), Some(at(2_300)));
        (5..5 + MOST_WAITING as u64).for_each(|n| late.push(jpeg(n, at(n * 100))));
        assert_eq!(late.waiting.len(), MOST_WAITING);
        assert_eq!(metrics.pictures_dropped.get_or_create(&label).get(), 2);
    }
}
