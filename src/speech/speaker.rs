//! One stream's speaker: hands clauses to the voice, paces their sound by a clock of 20 ms, and tells what became of
//! each utterance. Its clock runs while anybody listens; a stream that nobody listens to is not spoken, because one
//! voice serves all of them.
//! Not here: what is said next (`script`), the sound's queue (`audio`), what is commented on (`commentary`).

use super::script::{Pacing, Script};
use super::speakable::speakable;
use super::{Clause, ClauseEvent, ClauseHandle, Piece, Voice, VoiceState, VoiceStatus};
use crate::audio::{AudioHub, FRAME_TIME, ListenerStatus, PictureDelay, Playout, Resampler, SAMPLE_RATE};
use crate::bus::{Bus, Event, Speech, SpeechPhase};
use crate::error::Error;
use crate::metrics::{Metrics, StreamLabel};
use crate::shutdown::Shutdown;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::{Interval, MissedTickBehavior};

/// The voice makes the next clause when less sound than this waits to be played. What waits is so bounded by this
/// and the longest clause.
const LOOKAHEAD: usize = 2 * SAMPLE_RATE as usize;

/// A clock this far behind catches up.
const BEHIND: Duration = Duration::from_millis(100);
/// It makes one frame in this time then, so that listeners can take them; all at once they would overrun them.
const BREATH: Duration = Duration::from_millis(1);

/// The voice of one stream as `/api/status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeechStatus {
    /// Whether a voice was asked for.
    pub enabled: bool,
    /// The voice's name; `null` when it is off.
    pub name: Option<&'static str>,
    pub state: SpeakerState,
    /// Why nothing is spoken, and what to do; `null` when all is well.
    pub reason: Option<String>,
    /// Why another voice speaks than the one to be preferred; `null` when none is to be.
    pub note: Option<String>,
    /// Of `/api/audio-stream`.
    pub sample_rate: u32,
    pub channels: u32,
    pub format: &'static str,
    /// Clients of the sound.
    pub listeners: usize,
    /// The utterance being spoken.
    pub utterance: Option<u64>,
    /// Utterances spoken to their end.
    pub spoken: u64,
    /// Frames of 20 ms that the stream's clock has counted while anybody listened.
    pub frames: u64,
    /// Seconds that viewers' pictures wait so that picture and voice agree; `null` when they do not.
    pub picture_delay_s: Option<f64>,
    /// What became of the samples of each who listens now.
    pub audience: Vec<ListenerStatus>,
}

/// What the speaker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeakerState {
    Off,
    Loading,
    Ready,
    Speaking,
    Unavailable,
}

impl SpeechStatus {
    /// No voice was asked for.
    pub fn off() -> Self {
        Self {
            enabled: false,
            name: None,
            state: SpeakerState::Off,
            reason: Some(off().to_string()),
            note: None,
            sample_rate: SAMPLE_RATE,
            channels: 1,
            format: "s16le",
            listeners: 0,
            utterance: None,
            spoken: 0,
            frames: 0,
            picture_delay_s: None,
            audience: Vec::new(),
        }
    }
}

fn off() -> Error {
    Error::unavailable("voice_off", "the voice is off").hint("set ENABLE_TTS=true to hear the commentary")
}

/// The handle of a stream's speaker. Nothing here waits.
pub struct Speaker {
    shared: Mutex<Shared>,
    bell: Notify,
    hub: Arc<AudioHub>,
    voice: watch::Receiver<VoiceStatus>,
    bus: Arc<Bus>,
    metrics: Arc<Metrics>,
    label: StreamLabel,
    picture_delay: Option<Arc<PictureDelay>>,
}

#[derive(Default)]
struct Shared {
    script: Script,
    /// What is being played is to end now.
    cut: bool,
    /// The utterance that nobody listened to, or that came while there was no voice.
    ignored: Option<u64>,
    /// The utterance being played, and since when.
    on_air: Option<(u64, Instant)>,
    spoken: u64,
}

impl Speaker {
    /// A speaker and its task, which ends by `shutdown`, or aborted; the sound's listeners see the end then.
    pub fn spawn(
        stream: &str,
        voice: Arc<dyn Voice>,
        pacing: Pacing,
        bus: Arc<Bus>,
        metrics: Arc<Metrics>,
        shutdown: Shutdown,
    ) -> (Arc<Self>, tokio::task::JoinHandle<()>) {
        let speaker = Arc::new(Self {
            shared: Mutex::default(),
            bell: Notify::new(),
            hub: Arc::new(AudioHub::new(stream, Arc::clone(&metrics))),
            voice: voice.status(),
            bus,
            metrics,
            label: StreamLabel::new(stream),
            picture_delay: pacing.picture_delay.map(|first| Arc::new(PictureDelay::new(first))),
        });
        let task = Task {
            closing: CloseOnDrop(Arc::clone(&speaker.hub)),
            speaker: Arc::clone(&speaker),
            stream: stream.to_owned(),
            voice,
            pacing,
            job: None,
            on_air: None,
            free_at: None,
            clock: None,
            behind: false,
        };
        (speaker, tokio::spawn(task.run(shutdown)))
    }

    /// A piece of an utterance, as it is written. `captured` is its newest frame's.
    pub fn say(&self, utterance: u64, captured: Instant, mut piece: Piece) {
        let mut shared = self.lock();
        if shared.ignored == Some(utterance) {
            return;
        }
        if !shared.script.knows(utterance) {
            let (able, by_tokens) = {
                let voice = self.voice.borrow();
                (voice.state == VoiceState::Ready, voice.by_tokens)
            };
            // The answer may have been asked for when nobody listened yet, or another voice spoke.
            let fits = !by_tokens || !piece.hidden.is_empty();
            if !by_tokens {
                piece.hidden.clear();
            }
            if !able || !fits || *self.hub.listeners().borrow() == 0 {
                shared.ignored = Some(utterance);
                if able {
                    self.metrics.speech_unheard.get_or_create(&self.label).inc();
                }
                return;
            }
        }
        if let Some(replaced) = shared.script.say(utterance, captured, piece, now()) {
            self.unspoken(replaced, SpeechPhase::Replaced);
        }
        drop(shared);
        self.bell.notify_one();
    }

    /// True when an answer that is asked for now should bring tokens with hidden states: somebody listens, and the
    /// voice goes by them.
    pub fn wants_tokens(&self) -> bool {
        let voice = self.voice.borrow();
        voice.by_tokens && voice.state == VoiceState::Ready && *self.hub.listeners().borrow() > 0
    }

    /// An utterance's text is over.
    pub fn end(&self, utterance: u64) {
        if self.lock().script.end(utterance, now()) {
            self.metrics.speech_shortened.get_or_create(&self.label).inc();
        }
        self.bell.notify_one();
    }

    /// Nothing of what was said so far counts any more: the sound fades within 20 ms of its clock.
    pub fn cancel(&self) {
        let mut shared = self.lock();
        let (_, waiting) = shared.script.clear();
        shared.cut = true;
        if let Some(waiting) = waiting {
            self.unspoken(waiting, SpeechPhase::Cancelled);
        }
        drop(shared);
        self.bell.notify_one();
    }

    /// When the first sample of the utterance went out, if it is being played.
    pub fn first_audio(&self, utterance: u64) -> Option<Instant> {
        self.lock().on_air.filter(|(number, _)| *number == utterance).map(|(_, at)| at)
    }

    /// How long viewers' pictures wait; `None` when they do not.
    pub fn picture_delay(&self) -> Option<Arc<PictureDelay>> {
        self.picture_delay.clone()
    }

    /// Where the sound is.
    pub fn hub(&self) -> &Arc<AudioHub> {
        &self.hub
    }

    /// How it is.
    pub fn status(&self) -> SpeechStatus {
        let voice = self.voice.borrow().clone();
        let shared = self.lock();
        let utterance = shared.on_air.map(|(number, _)| number);
        let state = match voice.state {
            _ if utterance.is_some() => SpeakerState::Speaking,
            VoiceState::Off => SpeakerState::Off,
            VoiceState::Loading => SpeakerState::Loading,
            VoiceState::Ready => SpeakerState::Ready,
            VoiceState::Unavailable => SpeakerState::Unavailable,
        };
        let spoken = shared.spoken;
        drop(shared);
        let audience = self.hub.status();
        SpeechStatus {
            enabled: true,
            name: voice.name,
            state,
            reason: voice.reason,
            note: voice.note,
            listeners: audience.len(),
            utterance,
            spoken,
            frames: self.hub.frames(),
            picture_delay_s: self.picture_delay.as_ref().map(|delay| delay.now().as_secs_f64()),
            audience,
            ..SpeechStatus::off()
        }
    }

    /// An utterance that was not heard at all.
    fn unspoken(&self, utterance: u64, phase: SpeechPhase) {
        self.count(phase);
        let speech = Speech { utterance, phase, first_audio_ms: None, last_audio_ms: None, audio_ms: 0.0 };
        self.bus.publish(Event::Speech(speech));
    }

    fn count(&self, phase: SpeechPhase) {
        let m = &self.metrics;
        let counter = match phase {
            SpeechPhase::Begun => return,
            SpeechPhase::Spoken => &m.speech_spoken,
            SpeechPhase::Cancelled => &m.speech_cancelled,
            SpeechPhase::Late => &m.speech_late,
            SpeechPhase::Replaced => &m.speech_replaced,
            SpeechPhase::Unheard => &m.speech_unheard,
            SpeechPhase::Failed => &m.speech_failed,
        };
        counter.get_or_create(&self.label).inc();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Speaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Speaker").field("stream", &self.label.stream).finish_non_exhaustive()
    }
}

/// On the runtime's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Ends the listeners' wait, however the task ends.
struct CloseOnDrop(Arc<AudioHub>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Task {
    speaker: Arc<Speaker>,
    stream: String,
    voice: Arc<dyn Voice>,
    pacing: Pacing,
    /// The clause that is with the voice.
    job: Option<ClauseHandle>,
    on_air: Option<OnAir>,
    /// The next utterance begins no sooner.
    free_at: Option<Instant>,
    /// Runs while anybody listens.
    clock: Option<Interval>,
    /// The clock is behind, because this task was not woken in time.
    behind: bool,
    closing: CloseOnDrop,
}

/// An utterance from its first clause's being handed in to its last sample.
struct OnAir {
    utterance: u64,
    captured: Instant,
    written: Instant,
    /// The next clause's place.
    index: u32,
    /// The last clause was handed in.
    complete: bool,
    shortened: bool,
    resampler: Option<Resampler>,
    playout: Playout,
    first_audio: Option<Instant>,
    samples: u64,
    /// What it ends as, when that is not its proper end.
    end: Option<SpeechPhase>,
}

impl Task {
    async fn run(mut self, shutdown: Shutdown) {
        let speaker = Arc::clone(&self.speaker);
        let mut listeners = speaker.hub.listeners();
        let mut voice = speaker.voice.clone();
        let mut voice_lives = true;
        // Somebody may have come before this task began.
        self.audience(*listeners.borrow_and_update());
        loop {
            self.advance();
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                // Before the clock, so that a cancel is heeded even while the clock has to catch up.
                () = speaker.bell.notified() => {}
                due = tick(&mut self.clock, self.behind) => {
                    self.behind = due.elapsed() > BEHIND;
                    self.frame();
                }
                event = next(&mut self.job) => self.heard(event),
                changed = listeners.changed() => match changed {
                    Ok(()) => self.audience(*listeners.borrow_and_update()),
                    Err(_) => break,
                },
                changed = voice.changed(), if voice_lives => {
                    voice_lives = changed.is_ok();
                    speaker.bus.publish(Event::Status);
                }
            }
        }
        tracing::trace!(stream = self.stream, listeners = *self.closing.0.listeners().borrow(), "the speaker ends");
    }

    /// Does what there is to do now.
    fn advance(&mut self) {
        let speaker = Arc::clone(&self.speaker);
        let mut shared = speaker.lock();
        if std::mem::take(&mut shared.cut) && self.on_air.is_some() {
            drop(shared);
            self.cut(SpeechPhase::Cancelled);
            shared = speaker.lock();
        }
        if self.on_air.is_none() && self.free_at.is_none_or(|at| at <= now()) {
            self.on_air = self.begin(&mut shared.script);
        }
        let Some(on_air) = self.on_air.as_mut().filter(|on_air| on_air.end.is_none() && !on_air.complete) else {
            return;
        };
        if self.job.is_some() || on_air.playout.len() >= LOOKAHEAD {
            return;
        }
        let Some(line) = shared.script.line() else { return };
        on_air.complete = line.last;
        if line.text.is_empty() && line.tokens.is_empty() && on_air.index == 0 {
            // Nothing of it can be pronounced.
            on_air.playout.close();
            return;
        }
        let clause = Clause {
            stream: self.stream.clone(),
            utterance: on_air.utterance,
            index: on_air.index,
            // Whichever voice gets it, even one that took over in the middle, gets nothing but plain words.
            text: speakable(&line.text).unwrap_or_default(),
            tokens: line.tokens,
            hidden: line.hidden,
            last: line.last,
        };
        on_air.index += 1;
        drop(shared);
        self.job = Some(self.voice.submit(clause));
    }

    /// The next utterance, if one waits that is not late.
    fn begin(&self, script: &mut Script) -> Option<OnAir> {
        let part = script.begin()?;
        let (utterance, captured, written) = (part.utterance, part.captured, part.written);
        if now().saturating_duration_since(written) > self.pacing.max_delay {
            script.speaking = None;
            self.speaker.unspoken(utterance, SpeechPhase::Late);
            return None;
        }
        Some(OnAir {
            utterance,
            captured,
            written,
            index: 0,
            complete: false,
            shortened: false,
            resampler: None,
            playout: Playout::default(),
            first_audio: None,
            samples: 0,
            end: None,
        })
    }

    /// The voice said something; `None` when it went away.
    fn heard(&mut self, event: Option<ClauseEvent>) {
        let Some(on_air) = self.on_air.as_mut() else { return self.job = None };
        let failure = match event {
            Some(ClauseEvent::Pcm { rate, samples }) => match on_air.take(rate, &samples) {
                Ok(()) => return,
                Err(error) => error.to_string(),
            },
            Some(ClauseEvent::Done { cut }) => {
                self.job = None;
                if cut && !std::mem::replace(&mut on_air.shortened, true) {
                    self.speaker.metrics.speech_shortened.get_or_create(&self.speaker.label).inc();
                }
                match on_air.complete.then(|| on_air.close()) {
                    None | Some(Ok(())) => return,
                    Some(Err(error)) => error.to_string(),
                }
            }
            Some(ClauseEvent::Failed { message, .. }) => message,
            None => "the voice went away".to_owned(),
        };
        tracing::warn!(stream = self.stream, utterance = on_air.utterance, "not spoken to its end: {failure}");
        self.voice.forget(&self.stream, on_air.utterance);
        // What was made before it is played.
        on_air.end.get_or_insert(SpeechPhase::Failed);
        if on_air.close().is_err() {
            on_air.playout.close();
        }
        self.job = None;
        self.speaker.lock().script.speaking = None;
    }

    /// Ends what is being played, with a fade.
    fn cut(&mut self, end: SpeechPhase) {
        self.job = None;
        let Some(on_air) = self.on_air.as_mut() else { return };
        self.voice.forget(&self.stream, on_air.utterance);
        on_air.end.get_or_insert(end);
        on_air.resampler = None;
        if on_air.first_audio.is_none() {
            on_air.playout = Playout::default();
        }
        on_air.playout.cut();
        self.speaker.lock().script.speaking = None;
        if self.clock.is_none() {
            self.off_air();
        }
    }

    /// The clock ticked: one frame is due, of sound or of silence.
    fn frame(&mut self) {
        let hub = &self.speaker.hub;
        let Some(on_air) = self.on_air.as_mut() else {
            hub.publish(now(), None, None);
            return;
        };
        let at = now();
        let late = on_air.first_audio.is_none()
            && on_air.end.is_none()
            && at.saturating_duration_since(on_air.written) > self.pacing.max_delay;
        let next = if late { None } else { on_air.playout.next_frame() };
        match next {
            Some((samples, sound)) => {
                hub.publish(at, Some(on_air.utterance), Some(&samples));
                on_air.samples += sound as u64;
                if on_air.first_audio.is_none() {
                    on_air.first_audio = Some(at);
                    self.begun();
                }
            }
            None => {
                hub.publish(at, on_air.first_audio.map(|_| on_air.utterance), None);
            }
        }
        if late {
            self.cut(SpeechPhase::Late);
        }
        if self.on_air.as_ref().is_some_and(|on_air| on_air.playout.is_over()) {
            self.off_air();
        }
    }

    fn begun(&self) {
        let (Some(on_air), speaker) = (&self.on_air, &self.speaker) else { return };
        let Some(at) = on_air.first_audio else { return };
        speaker.lock().on_air = Some((on_air.utterance, at));
        let took = at.saturating_duration_since(on_air.captured);
        speaker.metrics.first_audio_seconds.get_or_create(&speaker.label).observe(took.as_secs_f64());
        if let Some(delay) = &speaker.picture_delay {
            delay.heard(took);
        }
        let from_text = at.saturating_duration_since(on_air.written).as_secs_f64();
        speaker.metrics.text_to_audio_seconds.get_or_create(&speaker.label).observe(from_text);
        speaker.bus.publish(Event::Speech(on_air.speech(SpeechPhase::Begun)));
    }

    /// The utterance is over, one way or another.
    fn off_air(&mut self) {
        let Some(on_air) = self.on_air.take() else { return };
        self.job = None;
        let speaker = &self.speaker;
        let phase = on_air.end.unwrap_or(SpeechPhase::Spoken);
        let mut shared = speaker.lock();
        // An utterance that is cut off was taken out of the script by whoever cut it.
        if shared.script.speaking.as_ref().is_some_and(|part| part.utterance == on_air.utterance) {
            shared.script.speaking = None;
        }
        shared.on_air = None;
        let silent = on_air.first_audio.is_none();
        if phase == SpeechPhase::Spoken && !silent {
            shared.spoken += 1;
        }
        drop(shared);
        if phase == SpeechPhase::Spoken && silent {
            return;
        }
        self.free_at = (!silent).then(|| now() + self.pacing.pause_after);
        speaker.count(phase);
        let speech = on_air.speech(phase);
        if let Some(ms) = speech.last_audio_ms.filter(|_| phase == SpeechPhase::Spoken) {
            speaker.metrics.last_audio_seconds.get_or_create(&speaker.label).observe(ms / 1e3);
        }
        speaker.bus.publish(Event::Speech(speech));
    }

    /// So many listen now.
    fn audience(&mut self, listeners: usize) {
        if listeners == 0 {
            self.clock = None;
            let (_, waiting) = self.speaker.lock().script.clear();
            if let Some(waiting) = waiting {
                self.speaker.unspoken(waiting, SpeechPhase::Unheard);
            }
            self.cut(SpeechPhase::Unheard);
        } else if self.clock.is_none() {
            let mut clock = tokio::time::interval(FRAME_TIME);
            // However late we are woken, every frame is made: time as heard does not stand still.
            clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
            self.clock = Some(clock);
        }
    }
}

impl OnAir {
    fn take(&mut self, rate: u32, samples: &[i16]) -> crate::error::Result<()> {
        if self.resampler.as_ref().is_none_or(|resampler| resampler.rate() != rate) {
            let before = self.resampler.replace(Resampler::new(rate)?);
            self.playout.push(&before.map_or_else(|| Ok(Vec::new()), Resampler::finish)?);
        }
        if let Some(resampler) = &mut self.resampler {
            self.playout.push(&resampler.push(samples)?);
        }
        Ok(())
    }

    /// The voice has made all of it.
    fn close(&mut self) -> crate::error::Result<()> {
        if let Some(resampler) = self.resampler.take() {
            self.playout.push(&resampler.finish()?);
        }
        self.playout.close();
        Ok(())
    }

    fn speech(&self, phase: SpeechPhase) -> Speech {
        let ms = |at: Instant| at.saturating_duration_since(self.captured).as_secs_f64() * 1e3;
        let audio = Duration::from_secs_f64(self.samples as f64 / f64::from(SAMPLE_RATE));
        let over = phase != SpeechPhase::Begun;
        Speech {
            utterance: self.utterance,
            phase,
            first_audio_ms: self.first_audio.map(ms),
            last_audio_ms: self.first_audio.filter(|_| over).map(|_| ms(now())),
            audio_ms: if over { audio.as_secs_f64() * 1e3 } else { 0.0 },
        }
    }
}

/// When the frame was due that is to be made now. Giving up the wait loses no frame.
async fn tick(clock: &mut Option<Interval>, behind: bool) -> tokio::time::Instant {
    let Some(clock) = clock else { return std::future::pending().await };
    if behind {
        tokio::time::sleep(BREATH).await;
    }
    clock.tick().await
}

async fn next(job: &mut Option<ClauseHandle>) -> Option<ClauseEvent> {
    match job {
        Some(job) => job.events.recv().await,
        None => std::future::pending().await,
    }
}
