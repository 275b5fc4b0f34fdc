//! The words between who receives a browser's camera (`livekit`), who decodes it (`ingest`), who shows what became of
//! it (`commentary`, `web`) and who puts them together (`wiring`). Nobody here knows a protocol or a codec's inside.
//! Not here: the room (`livekit`), decoding (`ingest`).

use crate::error::Error;
use bytes::Bytes;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

/// Encoded pictures that wait for the decoder (2 s of 30 a second). When it is full the new one goes, with all that
/// depend on it, and a key frame is asked for; [`RoomStatus::frames_dropped`] counts them.
pub const QUEUE: usize = 64;

/// How a camera's pictures are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Vp8,
    Vp9,
    /// With start codes, one access unit at a time.
    H264,
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::H264 => "H.264",
        })
    }
}

/// One encoded picture, whole.
#[derive(Clone)]
pub struct Encoded {
    /// Rises with every camera and every connection: pictures of different tracks can't share a decoder.
    pub track: u64,
    pub codec: Codec,
    /// It can be decoded without any before it.
    pub keyframe: bool,
    /// From the track's first picture.
    pub pts: Duration,
    pub data: Bytes,
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded {{ track: {}, {}, {} bytes }}", self.track, self.codec, self.data.len())
    }
}

/// What the program is doing about a stream's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum RoomState {
    /// Not there: nobody has asked for a token lately.
    #[default]
    Away,
    /// Joining.
    Connecting,
    /// In the room; nobody's camera is on.
    Waiting,
    /// In the room, and a camera is on, though it may be muted.
    Camera,
    /// The connection was lost or refused; waiting for the next attempt.
    Retrying,
}

/// A stream's room as `/api/status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct RoomStatus {
    pub state: RoomState,
    /// The signalling connection stands.
    pub connected: bool,
    /// Why it does not, in plain words with what to do.
    pub message: Option<String>,
    /// Attempts since the connection was last well.
    pub attempt: u32,
    /// Seconds from the failure to the next attempt.
    pub retry_in_s: Option<f64>,
    /// Others in the room.
    pub people: usize,
    /// Identity of the one whose camera is taken: the one that was switched on last.
    pub camera: Option<String>,
    /// That camera is muted, so that no pictures come.
    pub muted: bool,
    /// The voice's track is published.
    pub voice: bool,
    /// Times that the room was joined, minus one.
    pub reconnects: u64,
    /// Encoded pictures lost because the decoder was too slow.
    pub frames_dropped: u64,
    /// Pictures that came and were of no use, because one before them was lost on the way.
    pub frames_undecodable: u64,
    /// Times that a key frame was asked for: at the beginning of each camera, and after losses.
    pub keyframes_asked: u64,
}

/// The receiving end of a camera's pictures; the decoder's.
#[derive(Debug)]
pub struct Camera {
    pub frames: mpsc::Receiver<Encoded>,
    pub status: watch::Receiver<RoomStatus>,
    wanted: watch::Sender<bool>,
    keyframe: Arc<Notify>,
    dropped: Arc<AtomicU64>,
}

impl Camera {
    /// Says whether pictures are wanted at all. While they are not, none are asked of the room.
    pub fn want(&self, wanted: bool) {
        self.wanted.send_replace(wanted);
    }

    /// Asks for a picture that can be decoded by itself.
    pub fn ask_for_keyframe(&self) {
        self.keyframe.notify_one();
    }

    /// Counts a picture that the decoder was too slow for. The `first` of several in a row has a key frame asked for.
    pub fn lost(&self, first: bool) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if first {
            self.ask_for_keyframe();
        }
    }
}

/// The sending end; the room's.
#[derive(Debug)]
pub struct CameraFeed {
    frames: mpsc::Sender<Encoded>,
    status: watch::Sender<RoomStatus>,
    /// Ends when the [`Camera`] is dropped: the stream is gone.
    pub wanted: watch::Receiver<bool>,
    pub keyframe: Arc<Notify>,
    dropped: Arc<AtomicU64>,
}

impl CameraFeed {
    /// Hands a picture on. False when there is no room: those that depend on it are lost with it.
    pub fn push(&self, picture: Encoded) -> bool {
        let taken = self.frames.try_send(picture).is_ok();
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Changes the status; nobody is woken when nothing changed.
    pub fn tell(&self, change: impl FnOnce(&mut RoomStatus)) {
        let mut next = self.status.borrow().clone();
        change(&mut next);
        next.frames_dropped = self.dropped.load(Ordering::Relaxed);
        self.status.send_if_modified(|status| {
            let changed = *status != next;
            *status = next;
            changed
        });
    }

    /// The status now.
    pub fn status(&self) -> RoomStatus {
        self.status.borrow().clone()
    }
}

/// Both ends of one stream's camera.
pub fn camera() -> (CameraFeed, Camera) {
    let (frames_in, frames) = mpsc::channel(QUEUE);
    let (status_in, status) = watch::channel(RoomStatus::default());
    let (wanted_in, wanted) = watch::channel(false);
    let (keyframe, dropped) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
    let feed = CameraFeed {
        frames: frames_in,
        status: status_in,
        wanted,
        keyframe: Arc::clone(&keyframe),
        dropped: Arc::clone(&dropped),
    };
    (feed, Camera { frames, status, wanted: wanted_in, keyframe, dropped })
}

/// What a browser needs to join a stream's room. The answer of `POST /api/livekit/token`.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Ticket {
    /// Address of the LiveKit server as a browser reaches it.
    pub url: String,
    pub room: String,
    /// Good for this room only: to publish a camera and a microphone and to hear, nothing else.
    pub token: String,
    pub identity: String,
    /// The token's life, seconds.
    pub expires_s: u64,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket {{ room: {}, identity: {}, token: *** }}", self.room, self.identity)
    }
}

/// Why there is no ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoTicket {
    /// Too many were asked for; the next one is there after this time.
    TooMany(Duration),
    Failed(Error),
}

/// Who makes tickets. A ticket that was made also brings the program into the room.
pub trait Tickets: fmt::Debug + Send + Sync {
    /// A fresh ticket for the room of `stream`.
    ///
    /// # Errors
    /// [`NoTicket`].
    fn ticket(&self, stream: &str) -> Result<Ticket, NoTicket>;
    /// Origins to which a page must be allowed to connect, for its `Content-Security-Policy`.
    fn origins(&self) -> Vec<String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(track: u64) -> Encoded {
        Encoded { track, codec: Codec::Vp8, keyframe: true, pts: Duration::ZERO, data: Bytes::from_static(b"x") }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_what_is_lost_is_counted() {
        let (feed, mut camera) = camera();
        for i in 0..QUEUE as u64 + 3 {
            assert_eq!(feed.push(picture(i)), i < QUEUE as u64);
        }
        feed.tell(|status| status.people = 1);
        assert_eq!(camera.status.borrow_and_update().frames_dropped, 3);
        assert_eq!(camera.frames.recv().await.unwrap().track, 0);
        feed.tell(|status| status.people = 1);
        assert!(!camera.status.has_changed().unwrap(), "nothing changed");
        camera.lost(false);
        feed.tell(|_| {});
        assert_eq!(camera.status.borrow().frames_dropped, 4, "also those lost behind it");
        drop(camera);
        assert!(feed.wanted.has_changed().is_err(), "the stream's end is seen");
    }

    #[test]
    fn a_ticket_does_not_show_its_token() {
        let ticket = Ticket {
            url: "ws://h".into(),
            room: "r".into(),
            token: "geheim".into(),
            identity: "i".into(),
            expires_s: 600,
        };
        assert!(!format!("{ticket:?}").contains("geheim"));
    }
}
