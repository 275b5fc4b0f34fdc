//! A participant in streams' LiveKit rooms: takes the camera of the person there, gives the stream's voice, and makes
//! the tokens with which browsers join. Signalling is LiveKit's own crate, media is str0m, Opus is GStreamer's.
//! Not here: decoding pictures (`ingest`, through [`crate::webcam`]), who speaks (`speech`), the route that hands out
//! tokens (`web`), option names (`config`).
//!
//! [`LiveKit`] is the front desk, `room` one stream's participant and its reconnects, `session` one connection, `people`
//! who is there and whose camera is taken, `intake` pictures on their way to the decoder, `voice` the encoder, `peer`
//! one WebRTC connection on its sockets, `token` what a token allows.

mod intake;
mod loss;
mod opus;
mod peer;
mod people;
mod rate;
mod room;
mod session;
mod token;
mod voice;

use crate::audio::AudioHub;
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::shutdown::Shutdown;
use crate::webcam::{CameraFeed, NoTicket, Ticket, Tickets};
use rate::Rate;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use url::Url;

/// How long a token is good for. A browser that is in the room gets fresh ones from the server.
pub const TOKEN_LIFE: Duration = Duration::from_secs(600);
/// Tokens for one stream that may be asked for at once, and the time in which one more may.
const TOKENS_AT_ONCE: u32 = 10;
const TOKEN_EVERY: Duration = Duration::from_secs(6);

/// What the rooms need to know.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveKitConfig {
    /// `ws` or `wss`, as this program reaches the server.
    pub url: Url,
    /// The same as browsers reach it.
    pub public_url: Url,
    pub api_key: String,
    pub api_secret: Secret<String>,
    /// What every room's name begins with; `None` derives it from the secret.
    pub room_prefix: Option<String>,
    /// How long the participant stays in a room without people. With [`TOKEN_LIFE`] nobody can come back after that
    /// without a new token, which brings the participant back too.
    pub empty_grace: Duration,
    /// Wait before the first new attempt; it doubles from there.
    pub reconnect_delay: Duration,
    /// Longest wait between attempts.
    pub max_reconnect_delay: Duration,
}

/// The front desk: gives out tickets, and wakes the participant of the room they are for.
#[derive(Debug)]
pub struct LiveKit {
    config: Arc<LiveKitConfig>,
    prefix: String,
    rooms: Mutex<BTreeMap<String, Desk>>,
}

/// One stream at the desk.
#[derive(Debug)]
struct Desk {
    knock: Arc<Notify>,
    rate: Rate,
}

impl LiveKit {
    /// A desk without rooms.
    pub fn new(config: LiveKitConfig) -> Self {
        let prefix = config.room_prefix.clone().unwrap_or_else(|| derived_prefix(&config.api_secret));
        Self { config: Arc::new(config), prefix, rooms: Mutex::default() }
    }

    /// Starts the participant of the room of `stream`. It joins when a ticket is asked for or the camera is wanted, and
    /// ends with `shutdown` or when the other end of `feed` is dropped. Call it within a tokio runtime, after
    /// `ingest::init`. `voice` tells of the stream's sound once there is any.
    ///
    /// # Errors
    /// When the reconnect delays are out of order.
    pub fn open(
        &self,
        stream: &str,
        feed: CameraFeed,
        voice: watch::Receiver<Option<Arc<AudioHub>>>,
        shutdown: Shutdown,
    ) -> Result<JoinHandle<()>> {
        let knock = Arc::new(Notify::new());
        let room = room::Room::new(stream, self.room(stream), Arc::clone(&self.config), Arc::clone(&knock), feed)?;
        let mut rooms = self.lock();
        // Participants that have ended hold no knocker any more.
        rooms.retain(|_, desk| Arc::strong_count(&desk.knock) > 1);
        rooms.insert(stream.to_owned(), Desk { knock, rate: Rate::new(TOKENS_AT_ONCE, TOKEN_EVERY) });
        drop(rooms);
        Ok(tokio::spawn(room.run(voice, shutdown)))
    }

    /// The room of a stream.
    pub fn room(&self, stream: &str) -> String {
        format!("{}-{stream}", self.prefix)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Desk>> {
        // No step in between leaves the map half changed.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tickets for LiveKit {
    fn ticket(&self, stream: &str) -> std::result::Result<Ticket, NoTicket> {
        let mut rooms = self.lock();
        let desk = rooms
            .get_mut(stream)
            .ok_or_else(|| NoTicket::Failed(Error::not_found("room_unknown", "the stream has no LiveKit room")))?;
        desk.rate.take(Instant::now()).map_err(NoTicket::TooMany)?;
        let knock = Arc::clone(&desk.knock);
        drop(rooms);
        let (room, identity) = (self.room(stream), visitor());
        let token = token::visitor(&self.config, &room, &identity, SystemTime::now()).map_err(NoTicket::Failed)?;
        knock.notify_one();
        let url = self.config.public_url.as_str().trim_end_matches('/').to_owned();
        Ok(Ticket { url, room, token, identity, expires_s: TOKEN_LIFE.as_secs() })
    }

    fn origins(&self) -> Vec<String> {
        let url = &self.config.public_url;
        let Some(host) = url.host_str() else { return Vec::new() };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        // LiveKit's client asks over HTTP why a WebSocket was refused.
        let http = if url.scheme() == "wss" { "https" } else { "http" };
        [url.scheme(), http].map(|scheme| format!("{scheme}://{host}{port}")).into()
    }
}

/// An identity that nobody else in the room has.
fn visitor() -> String {
    let bits = RandomState::new().hash_one(Instant::now());
    format!("viewer-{bits:016x}")
}

/// A prefix that stays the same with the same secret and can't be guessed without it.
fn derived_prefix(secret: &Secret<String>) -> String {
    let digest = Sha256::new().chain_update(b"vidette room 1\0").chain_update(secret.expose()).finalize();
    digest.iter().take(6).fold(String::from("vidette-"), |mut prefix, byte| {
        // Writing into a String can't fail.
        let _infallible = write!(prefix, "{byte:02x}");
        prefix
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn config() -> LiveKitConfig {
        let url = Url::parse("ws://127.0.0.1:7880").unwrap();
        LiveKitConfig {
            public_url: Url::parse("wss://meet.example:8443/").unwrap(),
            url,
            api_key: "APIabc".into(),
            api_secret: Secret::new("q8Zt3LwXv0nRk5JbYc7PdH2sMfA9uGeT".into()),
            room_prefix: None,
            empty_grace: TOKEN_LIFE,
            reconnect_delay: Duration::from_secs(1),
            max_reconnect_delay: Duration::from_secs(30),
        }
    }

    #[tokio::test]
    async fn tickets_are_counted_and_name_the_streams_room() {
        let desk = LiveKit::new(config());
        assert!(matches!(desk.ticket("main"), Err(NoTicket::Failed(e)) if e.code == "room_unknown"));
        let (_trigger, shutdown) = crate::shutdown::pair();
        let (feed, _camera) = crate::webcam::camera();
        let _task = desk.open("main", feed, watch::channel(None).1, shutdown).unwrap();
        let ticket = desk.ticket("main").unwrap();
        assert_eq!((ticket.url.as_str(), ticket.expires_s), ("wss://meet.example:8443", 600));
        assert!(ticket.room.ends_with("-main") && ticket.room.len() > 20, "{}", ticket.room);
        assert_ne!(desk.ticket("main").unwrap().identity, ticket.identity);
        let refused = (0..TOKENS_AT_ONCE).find_map(|_| desk.ticket("main").err()).unwrap();
        assert!(matches!(refused, NoTicket::TooMany(wait) if wait <= TOKEN_EVERY));
        assert_eq!(desk.origins(), ["wss://meet.example:8443", "https://meet.example:8443"]);
    }
}
