//! The set of all streams, by name. Not here: one stream's workings (`stream`, `cycle`).

use super::capacity::Capacity;
use super::stream::{Settings, Stream};
use crate::audio::AudioHub;
use crate::bus::Bus;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::source::SourceHandle;
use crate::speech::{Pacing, Speaker, Voice};
use crate::webcam::RoomStatus;
use crate::window::SharedWindow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Most streams at once.
pub const MAX_STREAMS: usize = 64;

/// What a new stream needs from outside: a window, a bus, and a supervisor that feeds both.
pub struct StreamParts {
    pub window: Arc<SharedWindow>,
    pub bus: Arc<Bus>,
    pub source: SourceHandle,
    /// The source's own sound, where there may be any.
    pub sound: Option<Arc<AudioHub>>,
    /// Its LiveKit room, where there is one.
    pub room: Option<RoomParts>,
}

/// What a stream and its LiveKit room tell each other.
pub struct RoomParts {
    /// What the program is doing about the room.
    pub status: watch::Receiver<RoomStatus>,
    /// Called once with the stream's speaker, when it has one.
    pub hear: Box<dyn FnOnce(&Speaker) + Send>,
}

/// Makes the parts of a stream of the given name. Called on the runtime.
pub type MakeParts = Box<dyn Fn(&str) -> StreamParts + Send + Sync>;

/// All streams of the process.
pub struct Streams {
    make: MakeParts,
    settings: Settings,
    engine: Arc<dyn Engine>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    /// One for all streams; `None` when none was asked for.
    voice: Option<(Arc<dyn Voice>, Pacing)>,
    capacity: Arc<Capacity>,
    by_name: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    stream: Arc<Stream>,
    task: tokio::task::JoinHandle<()>,
    speaking: Option<tokio::task::JoinHandle<()>>,
}

impl Streams {
    /// No streams yet.
    pub fn new(
        make: MakeParts,
        settings: Settings,
        engine: Arc<dyn Engine>,
        metrics: Arc<Metrics>,
        shutdown: Shutdown,
    ) -> Self {
        let capacity = Arc::new(Capacity::new(settings.interval));
        Self { make, settings, engine, metrics, shutdown, voice: None, capacity, by_name: Mutex::default() }
    }

    /// The same, spoken: every stream made from now on has a speaker.
    #[must_use]
    pub fn with_voice(mut self, voice: Arc<dyn Voice>, pacing: Pacing) -> Self {
        self.voice = Some((voice, pacing));
        self
    }

    /// The stream of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Stream>> {
        self.lock().get(name).map(|e| Arc::clone(&e.stream))
    }

    /// All streams, by name.
    pub fn list(&self) -> Vec<Arc<Stream>> {
        self.lock().values().map(|e| Arc::clone(&e.stream)).collect()
    }

    /// The stream of that name, made if there is none; true when it was made. Must be called on the runtime.
    ///
    /// # Errors
    /// When the name is not acceptable or there are too many streams.
    pub fn ensure(&self, name: &str) -> Result<(Arc<Stream>, bool)> {
        check_name(name)?;
        let mut by_name = self.lock();
        if let Some(entry) = by_name.get(name) {
            return Ok((Arc::clone(&entry.stream), false));
        }
        if by_name.len() >= MAX_STREAMS {
            return Err(Error::new(
                Kind::Conflict,
                "too_many_streams",
                format!("there are {MAX_STREAMS} streams already"),
            )
            .hint("delete one first"));
        }
        let StreamParts { window, bus, source, sound, room } = (self.make)(name);
        let (speaker, speaking) = self.voice.as_ref().map(|voice| self.speaker(name, voice, &bus)).unzip();
        let room = room.map(|room| {
            if let Some(speaker) = &speaker {
                (room.hear)(speaker);
            }
            room.status
        });
        let engine = (self.engine.status(), Arc::clone(&self.capacity));
        let stream = Stream::new(Arc::from(name), &self.settings, (bus, window), (source, sound), engine, speaker);
        let stream = Arc::new(stream.with_room(room));
        let task = super::cycle::spawn(
            Arc::clone(&stream),
            Arc::clone(&self.engine),
            self.settings.clone(),
            Arc::clone(&self.metrics),
            self.shutdown.clone(),
        );
        by_name.insert(name.to_owned(), Entry { stream: Arc::clone(&stream), task, speaking });
        Ok((stream, true))
    }

    /// Stops the stream and forgets it.
    ///
    /// # Errors
    /// When there is no stream of that name, or its supervisor is gone.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let entry = self.lock().remove(name);
        let Some(entry) = entry else {
            return Err(Error::not_found("stream_unknown", "there is no stream of that name")
                .hint("GET /api/streams lists them"));
        };
        let stopped = entry.stream.stop().await;
        entry.task.abort();
        if let Some(speaking) = entry.speaking {
            speaking.abort();
        }
        stopped
    }

    fn speaker(
        &self,
        name: &str,
        (voice, pacing): &(Arc<dyn Voice>, Pacing),
        bus: &Arc<Bus>,
    ) -> (Arc<Speaker>, tokio::task::JoinHandle<()>) {
        let (voice, metrics) = (Arc::clone(voice), Arc::clone(&self.metrics));
        Speaker::spawn(name, voice, *pacing, Arc::clone(bus), metrics, self.shutdown.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a stream may have this name.
///
/// # Errors
/// When it is not 1 to 64 letters, digits, '-' or '_'.
pub fn check_name(name: &str) -> Result<()> {
    let fits =
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if fits {
        return Ok(());
    }
    Err(Error::invalid("stream_name", "a stream's name has 1 to 64 letters, digits, '-' or '_'")
        .hint("choose another name"))
}
