//! Frames to embeddings, each once: the vision tower with its cache.
//! Not here: resampling (`preprocess`), decoding embeddings (`session`).

use super::ahead::Ahead;
use super::ffi::{Model, Token};
use super::preprocess;
use super::tower::{ImagePart, Part, Vision};
use crate::error::{Error, Result};
use crate::frame::Frame;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::Scope;

/// How the projector wants its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrameLayout {
    /// MiniCPM-V/o (`resampler`): one slice a frame, aspect kept, between `<image>` and `</image>`.
    OneSlice,
    /// Any other: whatever libmtmd makes of the picture.
    Whole,
}

/// An encoded frame: pieces to decode in order.
pub struct EncodedFrame {
    pub parts: Vec<Part>,
    /// Cells in the KV cache.
    pub tokens: usize,
    bytes: usize,
}

impl EncodedFrame {
    fn new(parts: Vec<Part>) -> Self {
        let (mut tokens, mut bytes) = (0, 0);
        for part in &parts {
            match part {
                Part::Tokens(t) => tokens += t.len(),
                Part::Image(ImagePart { tokens: n, rows, .. }) => {
                    tokens += n;
                    bytes += size_of_val(rows.as_slice());
                }
            }
        }
        Self { parts, tokens, bytes }
    }
}

/// The vision tower and the embeddings it made lately.
pub struct Eye<'m> {
    tower: Tower<'m>,
    layout: FrameLayout,
    needs_helper: bool,
    image_start: Vec<Token>,
    image_end: Vec<Token>,
    cache: Cache,
    /// Cells that a frame takes, once that is known; the same for all frames of a layout with one slice.
    frame_tokens: Option<usize>,
}

enum Tower<'m> {
    Here(Vision<'m>),
    /// With threads of their own.
    Ahead(Ahead),
    /// On the way there.
    Moving,
}

impl<'m> Eye<'m> {
    /// Loads the tower. At most `cache_bytes` of embeddings are kept; the least recently used go first.
    ///
    /// # Errors
    /// When libmtmd refuses the file, or a one-slice model lacks its image tokens.
    pub fn load(
        path: &Path,
        model: &'m Model,
        layout: FrameLayout,
        use_gpu: bool,
        threads: i32,
        cache_bytes: usize,
    ) -> Result<Self> {
        let (mut image_start, mut image_end) = (Vec::new(), Vec::new());
        if layout == FrameLayout::OneSlice {
            // Without these libmtmd aborts the process at the first picture.
            let token = |text: &str| {
                model.special(text).ok_or_else(|| {
                    Error::invalid(
                        "model_pair_tokens",
                        format!("the language model has no {text} token, which {} needs", path.display()),
                    )
                    .hint("take the language model and the vision file from one set")
                })
            };
            image_start.push(token("<image>")?);
            image_end.push(token("</image>")?);
        }
        let vision = Vision::load(path, model, use_gpu, threads)?;
        let (needs_helper, tower) = (vision.needs_helper(), Tower::Here(vision));
        let cache = Cache::new(cache_bytes);
        Ok(Self { tower, layout, needs_helper, image_start, image_end, cache, frame_tokens: None })
    }

    /// True when decoding needs libmtmd's helper.
    pub fn needs_helper(&self) -> bool {
        self.needs_helper
    }

    /// From now on frames are encoded on threads of their own, within `scope`; not where the tower is needed here, too, or
    /// frames are resized by libmtmd.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn work_ahead<'scope>(&mut self, scope: &'scope Scope<'scope, '_>) -> Result<()>
    where
        'm: 'scope,
    {
        if self.layout == FrameLayout::OneSlice && !self.needs_helper {
            self.tower = match std::mem::replace(&mut self.tower, Tower::Moving) {
                Tower::Here(vision) => Tower::Ahead(Ahead::start(scope, vision)?),
                other => other,
            };
        }
        Ok(())
    }

    /// The threads that encode, if there are any.
    pub fn ahead(&self) -> Option<&Ahead> {
        match &self.tower {
            Tower::Ahead(ahead) => Some(ahead),
            Tower::Here(_) | Tower::Moving => None,
        }
    }

    /// The tower itself, for that helper.
    ///
    /// # Errors
    /// When it is with threads of its own.
    pub fn vision(&mut self) -> Result<&mut Vision<'m>> {
        match &mut self.tower {
            Tower::Here(vision) => Ok(vision),
            Tower::Ahead(_) | Tower::Moving => Err(Error::internal("frame_thread", "the vision tower is elsewhere")),
        }
    }

    /// Cells that each frame will take, when that is known before it is encoded.
    pub fn frame_tokens(&self) -> Option<usize> {
        self.frame_tokens
    }

    /// The frame's embeddings if they are there.
    pub fn cached(&mut self, stream: &Arc<str>, seq: u64) -> Option<Rc<EncodedFrame>> {
        self.cache.get(stream, seq)
    }

    /// Has a frame encoded, if there is somebody who does and it is not encoded yet. False when it has to be ordered again.
    pub fn order(&self, stream: &Arc<str>, frame: &Arc<Frame>, urgent: bool) -> bool {
        let ahead = self.ahead().filter(|_| !self.cache.has(stream, frame.seq));
        ahead.is_none_or(|ahead| ahead.order(stream, frame, urgent))
    }

    /// True when a look at this frame would wait until it is encoded elsewhere.
    pub fn awaits(&self, stream: &Arc<str>, seq: u64) -> bool {
        !self.cache.has(stream, seq) && self.ahead().is_some_and(|ahead| !ahead.is_ready(stream, seq))
    }

    /// The frame's embeddings, from the cache when they are there; true when they were made now.
    ///
    /// # Errors
    /// When the frame can't be resampled or encoded.
    pub fn look(&mut self, stream: &Arc<str>, frame: &Arc<Frame>) -> Result<(Rc<EncodedFrame>, bool)> {
        if let Some(encoded) = self.cache.get(stream, frame.seq) {
            return Ok((encoded, false));
        }
        let encoded = match &self.tower {
            Tower::Ahead(ahead) => {
                ahead.order(stream, frame, true);
                self.between_tokens(ahead.fetch(stream, frame.seq)?)
            }
            Tower::Here(_) | Tower::Moving => self.encode(frame)?,
        };
        if self.layout == FrameLayout::OneSlice {
            self.frame_tokens = Some(encoded.tokens);
        }
        let encoded = Rc::new(encoded);
        self.cache.put(stream, frame.seq, &encoded);
        Ok((encoded, true))
    }

    /// Encodes without the cache.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub fn encode(&mut self, frame: &Frame) -> Result<EncodedFrame> {
        let layout = self.layout;
        let vision = self.vision()?;
        match layout {
            FrameLayout::Whole => Ok(EncodedFrame::new(vision.encode(&frame.rgb, frame.width, frame.height, false)?)),
            FrameLayout::OneSlice => {
                let prepared = preprocess::prepare(&frame.rgb, frame.width, frame.height)?;
                let parts = vision.encode(&prepared.rgb, prepared.width, prepared.height, true)?;
                Ok(self.between_tokens(parts))
            }
        }
    }

    fn between_tokens(&self, picture: Vec<Part>) -> EncodedFrame {
        let mut parts = vec![Part::Tokens(self.image_start.clone())];
        parts.extend(picture);
        parts.push(Part::Tokens(self.image_end.clone()));
        EncodedFrame::new(parts)
    }
}

/// Embeddings by (stream, frame number), bounded by bytes; least recently used goes first.
struct Cache {
    entries: VecDeque<(Arc<str>, u64, Rc<EncodedFrame>)>,
    bytes: usize,
    limit: usize,
}

impl Cache {
    fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, limit }
    }

    fn has(&self, stream: &Arc<str>, seq: u64) -> bool {
        self.entries.iter().any(|(s, n, _)| *n == seq && s.as_ref() == stream.as_ref())
    }

    fn get(&mut self, stream: &Arc<str>, seq: u64) -> Option<Rc<EncodedFrame>> {
        let i = self.entries.iter().position(|(s, n, _)| *n == seq && s.as_ref() == stream.as_ref())?;
        let entry = self.entries.remove(i)?;
        let encoded = Rc::clone(&entry.2);
        self.entries.push_back(entry);
        Some(encoded)
    }

    fn put(&mut self, stream: &Arc<str>, seq: u64, encoded: &Rc<EncodedFrame>) {
        self.bytes += encoded.bytes;
        self.entries.push_back((Arc::clone(stream), seq, Rc::clone(encoded)));
        while self.bytes > self.limit {
            let Some((_, _, oldest)) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_embedding_goes_first() {
        let mut cache = Cache::new(200);
        let (a, b): (Arc<str>, Arc<str>) = (Arc::from("a"), Arc::from("b"));
        let frame = || Rc::new(EncodedFrame { parts: Vec::new(), tokens: 0, bytes: 80 });
        cache.put(&a, 1, &frame());
        cache.put(&b, 1, &frame());
        assert!(cache.get(&a, 1).is_some());
        cache.put(&a, 2, &frame());
        assert!(cache.get(&b, 1).is_none(), "b's was used longest ago");
        assert!(cache.get(&a, 1).is_some() && cache.get(&a, 2).is_some());
        assert_eq!(cache.bytes, 160);
    }
}
