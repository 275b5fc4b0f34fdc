//! What crosses the wall: messages, how they lie on the socket, and their bounds. Each message is two lengths, a body
//! of postcard and a tail of raw bytes (pixels), so that pixels are copied by the kernel only.
//! Not here: who sends what when (`keeper`, `child`).
//!
//! Both ends are one build, so there is nothing to be compatible with; still the child checks it, and the parent takes
//! nothing on trust: whatever can't be right ends the child, never the parent.

use crate::engine::{EngineConfig, EngineState, EngineStatus, GpuMemory, JobEvent, JobFinish, Prompt, Sampling};
use crate::error::{Error, Kind};
use crate::speech::minicpm::MiniCpmConfig;
use crate::speech::{Clause, ClauseEvent, VoiceState, VoiceStatus};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What both ends must be.
pub(super) const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "/1");

/// The two lengths before each message, little-endian: body and tail.
const HEAD: usize = 8;
/// At least so much room is offered to a read.
const READ: usize = 64 * 1024;

/// Most bytes of a body and of a tail.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    body: usize,
    tail: usize,
}

/// A look's words, or a clause with its hidden states; 64 of the largest frames.
pub(super) const TO_CHILD: Limits = Limits { body: 16 << 20, tail: 512 << 20 };
/// An event, whose hidden states may be those of many tokens that made no text; no tail.
pub(super) const FROM_CHILD: Limits = Limits { body: 32 << 20, tail: 0 };

/// What the parent says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToChild {
    /// First of all.
    Setup(Box<Setup>),
    /// A look; its tail are the pixels of the frames that the child does not have, in order.
    Job(Box<Look>),
    /// The look is not wanted any more.
    Cancel { id: u64 },
    /// A voice is wanted as well; once.
    Voice(Box<MiniCpmConfig>),
    /// Words for it.
    Clause { id: u64, clause: Box<Clause> },
    /// The clause is not wanted any more.
    CancelClause { id: u64 },
    /// The utterance is over.
    Forget { stream: String, utterance: u64 },
}

/// What the child needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    pub build: String,
    /// Number of the parent's process.
    pub parent: u32,
    /// A tracing filter.
    pub log: String,
    /// Time between two pulses.
    pub pulse: Duration,
    pub engine: EngineConfig,
    /// Where llama.cpp's backends are looked for, if not at its own place.
    pub backends: Option<PathBuf>,
}

/// [`Job`](crate::engine::Job) on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Look {
    pub id: u64,
    pub stream: String,
    pub prompt: Prompt,
    pub frames: Vec<Sent>,
    pub max_tokens: u32,
    pub sampling: Sampling,
    pub for_voice: bool,
    pub urgent: bool,
    pub novelty: f32,
}

/// One frame of a look.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Sent {
    pub seq: u64,
    pub width: u32,
    pub height: u32,
    /// Its share of the tail; 0 when the child has it.
    pub bytes: usize,
}

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromChild {
    /// How its engine is, at first and when it changes.
    Engine(Told),
    /// Steps of the engine's thread so far, and whether more are to be expected.
    Pulse { beats: u64, working: bool },
    /// What became of a look.
    Event { id: u64, event: Said },
    /// How its voice is, at first and when it changes.
    Voice(VoiceTold),
    /// What became of a clause.
    Clause { id: u64, event: ClauseEvent },
}

/// What of the engine's status only the child knows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    Loading,
    /// Told again when the memory has changed.
    Ready {
        device: Option<String>,
        gpu_memory: Option<GpuMemory>,
        context_tokens: u32,
        load_s: Option<f64>,
    },
    Failed {
        message: String,
    },
}

impl Told {
    /// From the child's own status.
    pub(super) fn of(status: &EngineStatus) -> Self {
        match status.state {
            EngineState::Ready => Self::Ready {
                device: status.device.clone(),
                gpu_memory: status.gpu_memory,
                context_tokens: status.context_tokens,
                load_s: status.load_s,
            },
            EngineState::Failed => {
                Self::Failed { message: status.message.clone().unwrap_or_else(|| "the engine failed".to_owned()) }
            }
            EngineState::Absent | EngineState::Loading | EngineState::Restarting => Self::Loading,
        }
    }
}

/// What of the voice's status only the child knows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct VoiceTold {
    pub state: VoiceState,
    pub reason: Option<String>,
    pub note: Option<String>,
    pub by_tokens: bool,
}

impl From<&VoiceStatus> for VoiceTold {
    fn from(status: &VoiceStatus) -> Self {
        let VoiceStatus { state, name: _, reason, note, by_tokens } = status.clone();
        Self { state, reason, note, by_tokens }
    }
}

/// [`JobEvent`] on its way. Instants are nanoseconds of the monotonic clock, which is the same for all processes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    Started { at: u64 },
    Encoded { at: u64, encoded: u32 },
    Prefilled { at: u64, tokens: u32 },
    Text { at: u64, text: String, tokens: Vec<i32>, hidden: Vec<f32> },
    Done { at: u64, tokens: u32, finish: JobFinish },
    Replaced,
    Failed { kind: Kind, code: String, message: String, hint: Option<String> },
}

impl From<JobEvent> for Said {
    fn from(event: JobEvent) -> Self {
        match event {
            JobEvent::Started { at } => Self::Started { at: nanoseconds(at) },
            JobEvent::Encoded { at, encoded } => Self::Encoded { at: nanoseconds(at), encoded },
            JobEvent::Prefilled { at, tokens } => Self::Prefilled { at: nanoseconds(at), tokens },
            JobEvent::Text { at, text, tokens, hidden } => Self::Text { at: nanoseconds(at), text, tokens, hidden },
            JobEvent::Done { at, tokens, finish } => Self::Done { at: nanoseconds(at), tokens, finish },
            JobEvent::Replaced => Self::Replaced,
            JobEvent::Failed(e) => {
                Self::Failed { kind: e.kind, code: e.code.to_owned(), message: e.message, hint: e.hint }
            }
        }
    }
}

impl Said {
    /// The event, none of whose instants is before `earliest` or after now.
    pub(super) fn event(self, earliest: Instant) -> JobEvent {
        let at = |ns| instant(ns, earliest);
        match self {
            Self::Started { at: ns } => JobEvent::Started { at: at(ns) },
            Self::Encoded { at: ns, encoded } => JobEvent::Encoded { at: at(ns), encoded },
            Self::Prefilled { at: ns, tokens } => JobEvent::Prefilled { at: at(ns), tokens },
            Self::Text { at: ns, text, tokens, hidden } => JobEvent::Text { at: at(ns), text, tokens, hidden },
            Self::Done { at: ns, tokens, finish } => JobEvent::Done { at: at(ns), tokens, finish },
            Self::Replaced => JobEvent::Replaced,
            Self::Failed { kind, code, message, hint } => {
                JobEvent::Failed(Error { kind, code: known_code(code), message, hint })
            }
        }
    }
}

fn now() -> (Instant, u64) {
    let time = clock_gettime(ClockId::Monotonic);
    let ns = u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0);
    (Instant::now(), ns)
}

fn nanoseconds(at: Instant) -> u64 {
    let (now, ns) = now();
    let ago = now.saturating_duration_since(at).as_nanos();
    ns.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX))
}

fn instant(ns: u64, earliest: Instant) -> Instant {
    let (now, now_ns) = now();
    let at = now.checked_sub(Duration::from_nanos(now_ns.saturating_sub(ns)));
    at.map_or(earliest, |at| at.clamp(earliest.min(now), now))
}

/// Codes are static, because a build has a closed set of them; of what comes from the child only so many are learned.
fn known_code(code: String) -> &'static str {
    const MOST: usize = 256;
    static CODES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut codes = CODES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = codes.get(code.as_str()) {
        return known;
    }
    let sound = code.len() <= 64 && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !sound || codes.len() == MOST {
        return "engine_error";
    }
    let code: &'static str = Box::leak(code.into_boxed_str());
    codes.insert(code);
    code
}

/// A message but for its tail, of which it says the length.
///
/// # Errors
/// When it is larger than can be.
pub(super) fn pack<T: Serialize>(message: &T, tail: usize, limits: Limits) -> Result<Bytes, String> {
    let mut out = BytesMut::with_capacity(256);
    out.put_bytes(0, HEAD);
    let mut out = postcard::to_extend(message, out).map_err(|e| e.to_string())?;
    let body = out.len() - HEAD;
    let fits = |length, most| u32::try_from(length).ok().filter(|_| length <= most);
    let (Some(body), Some(tail)) = (fits(body, limits.body), fits(tail, limits.tail)) else {
        return Err(format!("a message of {body} and {tail} bytes is too large"));
    };
    out[..4].copy_from_slice(&body.to_le_bytes());
    out[4..HEAD].copy_from_slice(&tail.to_le_bytes());
    Ok(out.freeze())
}

/// Makes messages of bytes as they come.
#[derive(Debug)]
pub(super) struct Unpacker {
    buffer: BytesMut,
    limits: Limits,
}

impl Unpacker {
    pub(super) fn new(limits: Limits) -> Self {
        Self { buffer: BytesMut::new(), limits }
    }

    /// Where to put what comes next; there is room for the rest of the message that has begun.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        let rest = self.whole().ok().flatten().map_or(0, |(body, tail)| HEAD + body + tail);
        self.buffer.reserve(rest.saturating_sub(self.buffer.len()).max(READ));
        &mut self.buffer
    }

    /// The next message and its tail, if all of it is there.
    ///
    /// # Errors
    /// When what is there is no message; then there is no way on.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(T, Bytes)>, String> {
        let Some((body, tail)) = self.whole()? else { return Ok(None) };
        if self.buffer.len() < HEAD + body + tail {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let body = self.buffer.split_to(body);
        let tail = self.buffer.split_to(tail).freeze();
        match postcard::take_from_bytes(&body) {
            Ok((message, [])) => Ok(Some((message, tail))),
            Ok((_, rest)) => Err(format!("{} bytes too many", rest.len())),
            Err(e) => Err(e.to_string()),
        }
    }

    /// The lengths of the message that has begun.
    fn whole(&self) -> Result<Option<(usize, usize)>, String> {
        let Some(mut head) = self.buffer.get(..HEAD) else { return Ok(None) };
        let (body, tail) = (head.get_u32_le() as usize, head.get_u32_le() as usize);
        if body > self.limits.body || tail > self.limits.tail {
            return Err(format!("a message of {body} and {tail} bytes"));
        }
        Ok(Some((body, tail)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(text: &str) -> FromChild {
        FromChild::Event {
            id: 7,
            event: Said::Text { at: 1, text: text.to_owned(), tokens: vec![3, -1], hidden: vec![0.5; 4] },
        }
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut_of_the_bytes(texts in proptest::collection::vec(".{0,300}", 1..8),
                                                 tail in proptest::collection::vec(any::<u8>(), 0..500),
                                                 cut in 1usize..700) {
            let mut bytes = Vec::new();
            for text in &texts {
                bytes.extend_from_slice(&pack(&event(text), tail.len(), TO_CHILD).unwrap());
                bytes.extend_from_slice(&tail);
            }
            let mut unpacker = Unpacker::new(TO_CHILD);
            let mut heard = Vec::new();
            for piece in bytes.chunks(cut) {
                unpacker.room().extend_from_slice(piece);
                while let Some((message, with)) = unpacker.next::<FromChild>().unwrap() {
                    let FromChild::Event { id: 7, event: Said::Text { text, .. } } = message else { panic!() };
                    prop_assert_eq!(&with[..], &tail[..]);
                    heard.push(text);
                }
            }
            prop_assert_eq!(heard, texts);
        }

        #[test]
        fn nonsense_is_refused_or_waited_for_but_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut unpacker = Unpacker::new(FROM_CHILD);
            unpacker.room().extend_from_slice(&bytes);
            while let Ok(Some((message, _))) = unpacker.next::<FromChild>() {
                if let FromChild::Event { event, .. } = message {
                    let _any = event.event(Instant::now());
                }
            }
            prop_assert!(unpacker.room().capacity() < 2 * FROM_CHILD.body, "no more room is made than a message may have");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_on_both_sides() {
        let long = "x".repeat(FROM_CHILD.body);
        assert!(pack(&event(&long), 0, FROM_CHILD).is_err() && pack(&event(""), 1, FROM_CHILD).is_err());
        let mut unpacker = Unpacker::new(FROM_CHILD);
        unpacker.room().extend_from_slice(&[0xff; HEAD]);
        assert!(unpacker.next::<FromChild>().is_err());
        let mut unpacker = Unpacker::new(FROM_CHILD);
        let whole = pack(&event("a"), 0, FROM_CHILD).unwrap();
        unpacker.room().extend_from_slice(&[&[whole[0] + 1, 0, 0, 0, 0, 0, 0, 0], &whole[HEAD..], &[0]].concat());
        assert_eq!(unpacker.next::<FromChild>().err().as_deref(), Some("1 bytes too many"));
    }

    #[test]
    fn instants_keep_their_place_and_stay_within_reason() {
        let before = Instant::now();
        std::thread::sleep(Duration::from_millis(5));
        let at = Instant::now();
        std::thread::sleep(Duration::from_millis(5));
        let back = instant(nanoseconds(at), before);
        let off = back.max(at) - back.min(at);
        assert!(off < Duration::from_millis(2), "{off:?}");
        assert_eq!(instant(0, before), before);
        assert!(instant(u64::MAX, before) <= Instant::now());
    }

    #[test]
    fn codes_are_learned_within_bounds() {
        let code = known_code("frame_size".to_owned());
        assert!(std::ptr::eq(code, known_code("frame_size".to_owned())));
        assert_eq!(known_code("Not A Code".to_owned()), "engine_error");
        assert_eq!(known_code("x".repeat(65)), "engine_error");
    }
}
