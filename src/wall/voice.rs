//! The voice through the wall: its door in the parent, and the clauses that are with the child.
//! Not here: the child's side (`child`), the voice itself (`speech`).

use super::wire::{TO_CHILD, ToChild, VoiceTold, pack};
use crate::cancel::CancelFlag;
use crate::error::Error;
use crate::speech::OWN_VOICE;
use crate::speech::minicpm::MiniCpmConfig;
use crate::speech::{Clause, ClauseEvent, ClauseHandle, Voice, VoiceState, VoiceStatus};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc, watch};

/// Clauses and words about them that wait for the child. A stream has one clause with the voice at most; if it were
/// full, a clause would fail and be counted (`speech_failed`).
const WAITING: usize = 256;
/// Events of one clause that wait for its speaker: more than the longest clause has. If it were full, the clause would
/// fail and be counted.
const EVENTS: usize = 1024;

/// The model's own voice, in the engine's process.
pub struct ProcessVoice {
    desk: Arc<VoiceDesk>,
}

/// What the speakers' side and the keeper share.
pub(super) struct VoiceDesk {
    state: Mutex<State>,
    tell: watch::Sender<VoiceStatus>,
    /// Rings when something waits or is cancelled.
    bell: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// The voice that is wanted, if any.
    wanted: Option<MiniCpmConfig>,
    waiting: VecDeque<Message>,
    /// Why no clause is taken.
    closed: Option<String>,
}

enum Message {
    Clause(Box<Clause>, Spoken),
    Forget { stream: String, utterance: u64 },
}

/// A clause that was handed in.
struct Spoken {
    events: mpsc::Sender<ClauseEvent>,
    cancel: CancelFlag,
}

impl VoiceDesk {
    pub(super) fn new(bell: Arc<Notify>) -> Self {
        Self { state: Mutex::default(), tell: watch::Sender::new(VoiceStatus::default()), bell }
    }

    /// From now on each child has this voice.
    pub(super) fn want(self: &Arc<Self>, config: MiniCpmConfig) -> ProcessVoice {
        let mut state = self.lock();
        state.wanted = Some(config);
        let now = match &state.closed {
            Some(why) => told(VoiceState::Unavailable, Some(why.clone())),
            None => told(VoiceState::Loading, None),
        };
        drop(state);
        self.tell.send_replace(now);
        self.bell.notify_one();
        ProcessVoice { desk: Arc::clone(self) }
    }

    /// The child is lost: what waits fails, and the voice is being loaded again.
    pub(super) fn lost(&self, why: &str) {
        self.fail_waiting(why);
        if self.lock().wanted.is_some() {
            self.tell.send_replace(told(VoiceState::Loading, Some(why.to_owned())));
        }
    }

    /// There will be no further child.
    pub(super) fn close(&self, why: &str) {
        self.lock().closed = Some(why.to_owned());
        self.fail_waiting(why);
        if self.lock().wanted.is_some() {
            self.tell.send_replace(told(VoiceState::Unavailable, Some(why.to_owned())));
        }
    }

    fn fail_waiting(&self, why: &str) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        for message in waiting {
            if let Message::Clause(_, spoken) = message {
                let _nobody_listens = spoken.events.try_send(failed(why));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Voice for ProcessVoice {
    fn submit(&self, clause: Clause) -> ClauseHandle {
        let flag = CancelFlag::ringing(Arc::clone(&self.desk.bell));
        let (handle, events, cancel) = ClauseHandle::pair_of(EVENTS, flag);
        let mut state = self.desk.lock();
        let refusal = match &state.closed {
            Some(why) => Some(why.clone()),
            None => (state.waiting.len() >= WAITING).then(|| "the voice takes no more clauses".to_owned()),
        };
        match refusal {
            // The channel is fresh and has room.
            Some(why) => drop(events.try_send(failed(&why))),
            None => state.waiting.push_back(Message::Clause(Box::new(clause), Spoken { events, cancel })),
        }
        drop(state);
        self.desk.bell.notify_one();
        handle
    }

    fn forget(&self, stream: &str, utterance: u64) {
        let mut state = self.desk.lock();
        // When there is no room the voice's patience ends it.
        if state.wanted.is_some() && state.waiting.len() < WAITING {
            state.waiting.push_back(Message::Forget { stream: stream.to_owned(), utterance });
            drop(state);
            self.desk.bell.notify_one();
        }
    }

    fn status(&self) -> watch::Receiver<VoiceStatus> {
        self.desk.tell.subscribe()
    }
}

fn told(state: VoiceState, reason: Option<String>) -> VoiceStatus {
    VoiceStatus { state, name: Some(OWN_VOICE), reason, note: None, by_tokens: true }
}

fn failed(why: &str) -> ClauseEvent {
    ClauseEvent::Failed { code: "voice_process".to_owned(), message: why.to_owned() }
}

/// The voice's part of the talk with one child.
pub(super) struct VoiceTalk {
    desk: Arc<VoiceDesk>,
    /// The child was told of the voice.
    opened: bool,
    loading: bool,
    next_id: u64,
    spoken: HashMap<u64, Spoken>,
    /// Messages of the voice so far.
    beats: u64,
}

impl VoiceTalk {
    pub(super) fn new(desk: Arc<VoiceDesk>) -> Self {
        Self { desk, opened: false, loading: false, next_id: 0, spoken: HashMap::new(), beats: 0 }
    }

    /// What there is to say to the child now: cancels first.
    pub(super) fn hand_in(&mut self, out: &mut VecDeque<Bytes>) -> Result<(), String> {
        let gone: Vec<u64> = self.spoken.iter().filter(|(_, s)| s.cancel.is_set()).map(|(id, _)| *id).collect();
        for id in gone {
            self.spoken.remove(&id);
            out.push_back(pack(&ToChild::CancelClause { id }, 0, TO_CHILD)?);
        }
        let desk = Arc::clone(&self.desk);
        let mut state = desk.lock();
        if let Some(config) = state.wanted.as_ref().filter(|_| !self.opened) {
            (self.opened, self.loading) = (true, true);
            out.push_back(pack(&ToChild::Voice(Box::new(config.clone())), 0, TO_CHILD)?);
        }
        while let Some(message) = state.waiting.pop_front() {
            match message {
                Message::Clause(_, spoken) if spoken.cancel.is_set() => {}
                Message::Clause(clause, spoken) => {
                    self.next_id += 1;
                    match pack(&ToChild::Clause { id: self.next_id, clause }, 0, TO_CHILD) {
                        Ok(message) => {
                            out.push_back(message);
                            self.spoken.insert(self.next_id, spoken);
                        }
                        Err(why) => drop(spoken.events.try_send(failed(&why))),
                    }
                }
                Message::Forget { stream, utterance } => {
                    out.push_back(pack(&ToChild::Forget { stream, utterance }, 0, TO_CHILD)?);
                }
            }
        }
        Ok(())
    }

    /// The child said how its voice is.
    pub(super) fn told(&mut self, told: VoiceTold) {
        self.beats += 1;
        self.loading = told.state == VoiceState::Loading;
        let VoiceTold { state, reason, note, by_tokens } = told;
        self.desk.tell.send_replace(VoiceStatus { state, name: Some(OWN_VOICE), reason, note, by_tokens });
    }

    /// Something became of a clause; of one that was cancelled meanwhile nobody wants to know.
    pub(super) fn event(&mut self, id: u64, event: ClauseEvent) {
        self.beats += 1;
        let last = !matches!(event, ClauseEvent::Pcm { .. });
        let Some(spoken) = self.spoken.get(&id) else { return };
        let taken = spoken.events.try_send(event).is_ok();
        if last || !taken {
            // A speaker that does not get all of it sees the channel end.
            self.spoken.remove(&id);
        }
    }

    /// Messages so far, whether more are to be expected, and whether it loads.
    pub(super) fn pulse(&self) -> (u64, bool, bool) {
        (self.beats, self.loading || !self.spoken.is_empty(), self.loading)
    }

    /// The child is lost.
    pub(super) fn fail_all(&mut self, why: &Error) {
        for (_, spoken) in self.spoken.drain() {
            // A speaker whose channel is full, or who is gone, sees it end.
            let _full_or_gone = spoken.events.try_send(failed(&why.message));
        }
    }
}
