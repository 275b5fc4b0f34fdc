//! One stream: a camera with its window, instruction, history and commentary, and the handle to all that.
//! Not here: the loop itself (`cycle`), the set of all streams (`registry`).

use super::capacity::{Capacity, Load};
use super::profiles::{PROFILES, Profile};
use crate::audio::AudioHub;
use crate::bus::{Bus, Event};
use crate::engine::{EngineState, EngineStatus, SamplingChoice};
use crate::error::{Error, Kind, Result};
use crate::process::Usage;
use crate::secret::Secret;
use crate::source::{AskedBy, SourceHandle, SourceState, SourceStatus};
use crate::speech::{Speaker, SpeechStatus};
use crate::thumbnail::Thumbnails;
use crate::webcam::RoomStatus;
use crate::window::{Pick, SharedWindow};
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What the status calls a browser's webcam, which comes through LiveKit.
pub const WEBCAM: &str = "webcam";

/// Longest instruction, bytes of UTF-8.
pub const MAX_INSTRUCTION: usize = 2048;

/// How the loop works; the same for all streams unless a stream's own settings say otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub pick: Pick,
    /// Least time from one look's end to the next look's start.
    pub interval: Duration,
    /// Share of a tile's range by which it must change to count; 0 turns the gate off.
    pub change_threshold: f64,
    /// Most tokens of an answer.
    pub max_tokens: u32,
    /// What the person, and then the model's file, chose; the defaults fill the rest.
    pub sampling: SamplingChoice,
    pub profile: &'static Profile,
    /// The person's instruction from the configuration; the profile's own when absent.
    pub instruction: Option<String>,
}

/// What the loop is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum CommentaryState {
    /// Stopped by the person, or not started.
    #[default]
    Stopped,
    /// Waiting for the engine to be ready.
    WaitingForEngine,
    /// Waiting for frames.
    WaitingForFrames,
    /// Between two looks.
    Pausing,
    /// The scene has not changed; no look is taken.
    Unchanged,
    /// A look is with the engine, before its first token.
    Looking,
    /// An answer is being written.
    Speaking,
}

/// The loop as `/api/status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct CommentaryStatus {
    pub state: CommentaryState,
    /// The instruction in force.
    pub instruction: String,
    pub profile: String,
    /// Looks taken, answered with words, answered with "...", not taken for want of change, cut off, failed.
    pub looks: u64,
    pub utterances: u64,
    pub skips: u64,
    pub unchanged: u64,
    pub cancelled: u64,
    pub errors: u64,
    /// The last look's failure, in plain words.
    pub message: Option<String>,
}

/// All of a stream's state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamStatus {
    pub stream: String,
    pub source: SourceStatus,
    /// The last source that was no webcam, which [`Stream::resume`] opens; credentials removed.
    pub previous_source: Option<String>,
    /// The program is in the stream's LiveKit room.
    pub livekit_connected: bool,
    /// That room; `None` while LiveKit is off.
    pub livekit: Option<RoomStatus>,
    pub commentary: CommentaryStatus,
    pub engine: EngineStatus,
    /// How busy the model is with all streams together, and how many fit.
    pub load: Load,
    pub voice: SpeechStatus,
    /// Frames arrive.
    pub capture_healthy: bool,
    /// The model can look.
    pub model_ready: bool,
    /// A voice was asked for.
    pub tts_enabled: bool,
    /// Seconds since the newest frame left the decoder.
    pub frame_age_s: Option<f64>,
    /// Frames taken for the model so far, and those of them that went for newer ones (normal: the window is full).
    pub frames: u64,
    pub frames_dropped: u64,
    /// Frames in the window now, and bytes of them.
    pub window_frames: usize,
    pub window_bytes: usize,
    /// Clients of the video, and of the text.
    pub viewers: usize,
    pub listeners: usize,
    pub uptime_s: f64,
    /// What the whole program takes.
    pub process: Usage,
}

/// What the person wants now; a change of it cancels the running answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Orders {
    pub running: bool,
    pub profile: &'static Profile,
    pub instruction: String,
    /// Rises with every order, so that the same words given twice still cut off the running answer.
    pub serial: u64,
}

/// A source to go back to, with what may be shown of it.
#[derive(Debug)]
struct Previous {
    source: Secret<String>,
    /// Whoever goes back to it may do no more than who named it.
    asked_by: AskedBy,
    shown: String,
}

/// One stream. Cheap to share; everything it does goes through channels.
#[derive(Debug)]
pub struct Stream {
    name: Arc<str>,
    bus: Arc<Bus>,
    window: Arc<SharedWindow>,
    thumbnails: Thumbnails,
    source: SourceHandle,
    sound: Option<Arc<AudioHub>>,
    previous: Mutex<Option<Previous>>,
    orders: watch::Sender<Orders>,
    commentary: watch::Sender<CommentaryStatus>,
    engine: watch::Receiver<EngineStatus>,
    /// `None` when no voice was asked for.
    speaker: Option<Arc<Speaker>>,
    /// `None` while LiveKit is off.
    room: Option<watch::Receiver<RoomStatus>>,
    capacity: Arc<Capacity>,
    born: Instant,
}

impl Stream {
    pub(super) fn new(
        name: Arc<str>,
        settings: &Settings,
        (bus, window): (Arc<Bus>, Arc<SharedWindow>),
        (source, sound): (SourceHandle, Option<Arc<AudioHub>>),
        (engine, capacity): (watch::Receiver<EngineStatus>, Arc<Capacity>),
        speaker: Option<Arc<Speaker>>,
    ) -> Self {
        let instruction = settings.instruction.clone().unwrap_or_else(|| settings.profile.instruction.to_owned());
        let orders = Orders { running: false, profile: settings.profile, instruction, serial: 0 };
        let commentary = CommentaryStatus {
            instruction: orders.instruction.clone(),
            profile: orders.profile.name.to_owned(),
            ..CommentaryStatus::default()
        };
        Self {
            name,
            bus,
            window,
            thumbnails: Thumbnails::default(),
            source,
            sound,
            previous: Mutex::default(),
            orders: watch::Sender::new(orders),
            commentary: watch::Sender::new(commentary),
            engine,
            speaker,
            room: None,
            capacity,
            born: Instant::now(),
        }
    }

    /// The same, with its LiveKit room.
    pub(super) fn with_room(self, room: Option<watch::Receiver<RoomStatus>>) -> Self {
        Self { room, ..self }
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What all streams' looks are counted in.
    pub(super) fn capacity(&self) -> &Arc<Capacity> {
        &self.capacity
    }

    /// Where its pictures and events are.
    pub fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }

    /// Who speaks it; `None` when no voice was asked for.
    pub fn speaker(&self) -> Option<&Arc<Speaker>> {
        self.speaker.as_ref()
    }

    /// The source's own sound; `None` where no source can have any.
    pub fn source_sound(&self) -> Option<&Arc<AudioHub>> {
        self.sound.as_ref()
    }

    /// The source as it is now.
    pub fn source(&self) -> SourceStatus {
        self.source.status().borrow().clone()
    }

    /// The pictures of its recent utterances.
    pub fn thumbnails(&self) -> &Thumbnails {
        &self.thumbnails
    }

    /// Opens `source`, which the operator named, in place of what is open and starts commenting.
    ///
    /// # Errors
    /// When the source string or the instruction is not acceptable; then nothing has changed.
    pub async fn start(&self, source: &str, instruction: Option<&str>) -> Result<()> {
        self.start_for(source, instruction, AskedBy::Operator).await
    }

    /// As [`start`](Self::start), if whoever asks may name that source.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_for(&self, source: &str, instruction: Option<&str>, asked_by: AskedBy) -> Result<()> {
        let instruction = instruction.map(check_instruction).transpose()?;
        self.source.start_for(source, asked_by).await?;
        let shown = self.source.status().borrow().source.clone().unwrap_or_default();
        if shown != WEBCAM {
            *self.previous() = Some(Previous { source: Secret::new(source.to_owned()), asked_by, shown });
        }
        self.orders.send_modify(|orders| {
            orders.running = true;
            orders.serial += 1;
            if let Some(instruction) = instruction {
                orders.instruction = instruction;
            }
        });
        self.show_orders();
        Ok(())
    }

    /// Opens the last source again that was no webcam: after one, after a stop, or anew.
    ///
    /// # Errors
    /// When there was none, or it is not acceptable any more.
    pub async fn resume(&self) -> Result<()> {
        let previous = self.previous().as_ref().map(|p| (p.source.clone(), p.asked_by));
        let Some((source, asked_by)) = previous else {
            return Err(Error::new(Kind::Conflict, "nothing_to_resume", "there is no earlier source to go back to")
                .hint("start one with POST /api/start"));
        };
        self.start_for(source.expose(), None, asked_by).await
    }

    /// Closes the source and stops commenting. Doing it twice does no harm.
    ///
    /// # Errors
    /// When the source's supervisor is gone.
    pub async fn stop(&self) -> Result<()> {
        self.orders.send_modify(|orders| {
            orders.running = false;
            orders.serial += 1;
        });
        self.source.stop().await?;
        self.bus.clear_picture();
        self.window.clear();
        self.bus.publish(Event::Status);
        Ok(())
    }

    /// Changes the instruction, the profile or both; the running answer is cut off at once.
    /// A profile alone brings its own instruction with it.
    ///
    /// # Errors
    /// When neither is given, the instruction is not acceptable or no such profile exists.
    pub fn instruct(&self, instruction: Option<&str>, profile: Option<&str>) -> Result<()> {
        if instruction.is_none() && profile.is_none() {
            return Err(Error::invalid("nothing_to_change", "neither an instruction nor a profile was given")
                .hint("send {\"instruction\": \"…\"} or {\"profile\": \"…\"} or both"));
        }
        let instruction = instruction.map(check_instruction).transpose()?;
        let profile = profile.map(find_profile).transpose()?;
        self.orders.send_modify(|orders| {
            if let Some(profile) = profile {
                orders.profile = profile;
                orders.instruction = profile.instruction.to_owned();
            }
            if let Some(instruction) = instruction {
                orders.instruction = instruction;
            }
            orders.serial += 1;
        });
        self.show_orders();
        Ok(())
    }

    /// The profiles to choose from.
    pub fn profiles(&self) -> &'static [Profile] {
        PROFILES
    }

    /// All of the state now.
    pub fn status(&self) -> StreamStatus {
        let (window_frames, window_bytes, frames_dropped) = self.window.level();
        let newest = self.window.pick(Pick { frames: 1, stride: 1 }).pop();
        let mut source = self.source.status().borrow().clone();
        let wait = |at: Instant| at.saturating_duration_since(Instant::now()).as_secs_f64();
        source.next_attempt_in_s = source.next_attempt.map(wait);
        let engine = self.engine.borrow().clone();
        let livekit = self.room.as_ref().map(|room| room.borrow().clone());
        StreamStatus {
            stream: self.name.to_string(),
            capture_healthy: source.state == SourceState::Streaming,
            model_ready: engine.state == EngineState::Ready,
            tts_enabled: self.speaker.is_some(),
            frame_age_s: newest.as_ref().map(|frame| frame.captured.elapsed().as_secs_f64()),
            frames: self.window.taken(),
            frames_dropped,
            source,
            previous_source: self.previous().as_ref().map(|p| p.shown.clone()),
            livekit_connected: livekit.as_ref().is_some_and(|room| room.connected),
            livekit,
            commentary: self.commentary.borrow().clone(),
            engine,
            load: self.capacity.load(),
            voice: self.speaker.as_ref().map_or_else(SpeechStatus::off, |speaker| speaker.status()),
            window_frames,
            window_bytes,
            viewers: self.bus.viewers(),
            listeners: self.bus.listeners(),
            uptime_s: self.born.elapsed().as_secs_f64(),
            process: Usage::now(self.engine.borrow().process),
        }
    }

    fn previous(&self) -> MutexGuard<'_, Option<Previous>> {
        self.previous.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn orders(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    pub(super) fn window(&self) -> &Arc<SharedWindow> {
        &self.window
    }

    pub(super) fn source_status(&self) -> watch::Receiver<SourceStatus> {
        self.source.status()
    }

    pub(super) fn engine_status(&self) -> watch::Receiver<EngineStatus> {
        self.engine.clone()
    }

    /// Changes the commentary's status; `Event::Status` goes out when anything but counters changed.
    pub(super) fn note(&self, change: impl FnOnce(&mut CommentaryStatus)) {
        let before = self.commentary.borrow().clone();
        self.commentary.send_modify(change);
        let after = self.commentary.borrow();
        let told = |s: &CommentaryStatus| (s.state, s.instruction.clone(), s.profile.clone(), s.message.clone());
        if told(&before) != told(&after) {
            self.bus.publish(Event::Status);
        }
    }

    fn show_orders(&self) {
        let orders = self.orders.borrow().clone();
        self.note(|status| {
            status.instruction = orders.instruction;
            status.profile = orders.profile.name.to_owned();
        });
    }
}

/// An instruction fit for a prompt: trimmed, bounded, without control characters.
///
/// # Errors
/// When it is empty, longer than 2048 bytes or holds a control character.
pub fn check_instruction(text: &str) -> Result<String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::invalid("instruction_empty", "the instruction is empty")
            .hint("say in a sentence what the commentary should be about"));
    }
    if text.len() > MAX_INSTRUCTION {
        return Err(Error::new(
            Kind::TooLarge,
            "instruction_too_long",
            format!("the instruction is {} bytes long; the most is {MAX_INSTRUCTION}", text.len()),
        )
        .hint("shorten it"));
    }
    if let Some(c) = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) {
        return Err(Error::invalid(
            "instruction_control_character",
            format!("the instruction holds the control character U+{:04X}", c as u32),
        )
        .hint("send plain text"));
    }
    Ok(text.to_owned())
}

/// The profile of that name.
///
/// # Errors
/// When there is none; the hint names those there are.
pub fn find_profile(name: &str) -> Result<&'static Profile> {
    Profile::find(name).ok_or_else(|| {
        let known: Vec<_> = PROFILES.iter().map(|p| p.name).collect();
        Error::not_found("profile_unknown", "there is no profile of that name")
            .hint(format!("the profiles are {}", known.join(", ")))
    })
}
