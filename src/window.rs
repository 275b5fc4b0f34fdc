//! Frames in memory and the choice of them: a ring of numbered frames bounded by count and bytes.
//! Not here: decoding (`ingest`), JPEGs for viewers (`bus`), prompts (`commentary`).

use crate::frame::Frame;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Bounds of a ring. The oldest frame goes first; what goes is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most frames kept.
    pub frames: usize,
    /// Most bytes of pixels kept. One frame is always kept, however large.
    pub bytes: usize,
}

/// Which frames of the ring make one look of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Most frames in a look.
    pub frames: usize,
    /// Before the newest frame those whose number is a multiple of this; 1 takes neighbours. So the next look has the
    /// same ones, and what the engine made of them serves again.
    pub stride: usize,
}

/// A reader asked for frames that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{missed} frames were dropped before they were read; the oldest kept is number {next}")]
pub struct Missed {
    /// How many frames between the wanted one and the oldest kept.
    pub missed: u64,
    /// Number of the oldest frame that is still there.
    pub next: u64,
}

/// The ring itself: synchronous, without locks.
#[derive(Debug)]
pub struct FrameWindow {
    frames: VecDeque<Arc<Frame>>,
    bounds: Bounds,
    bytes: usize,
    taken: u64,
    dropped: u64,
}

impl FrameWindow {
    /// An empty ring. A count of zero is taken as one.
    pub fn new(bounds: Bounds) -> Self {
        let bounds = Bounds { frames: bounds.frames.max(1), ..bounds };
        Self { frames: VecDeque::new(), bounds, bytes: 0, taken: 0, dropped: 0 }
    }

    /// Appends a frame and drops old ones until the bounds hold. Frames must come in rising order;
    /// one that does not is refused and `false` returned.
    pub fn push(&mut self, frame: Arc<Frame>) -> bool {
        if self.frames.back().is_some_and(|newest| newest.seq >= frame.seq) {
            return false;
        }
        self.bytes += frame.bytes();
        self.taken += 1;
        self.frames.push_back(frame);
        while self.frames.len() > self.bounds.frames || (self.bytes > self.bounds.bytes && self.frames.len() > 1) {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.dropped += 1;
        }
        true
    }

    /// Forgets all frames, as when another source starts. They don't count as dropped.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    /// The newest frame and before it those of [`Pick::stride`], at most `frames` in all, oldest first.
    /// Fewer when the ring holds fewer; empty when it is empty.
    pub fn pick(&self, pick: Pick) -> Vec<Arc<Frame>> {
        let stride = pick.stride.max(1) as u64;
        let mut newest_first = self.frames.iter().rev();
        let newest = newest_first.next();
        let earlier = newest_first.filter(|frame| frame.seq % stride == 0);
        let mut chosen: Vec<_> = newest.into_iter().chain(earlier).take(pick.frames).cloned().collect();
        chosen.reverse();
        chosen
    }

    /// All frames from number `seq` on, oldest first.
    ///
    /// # Errors
    /// [`Missed`] when frame `seq` or later ones were dropped already; read on from `next`.
    pub fn read_from(&self, seq: u64) -> Result<Vec<Arc<Frame>>, Missed> {
        match self.frames.front() {
            Some(oldest) if seq < oldest.seq => Err(Missed { missed: oldest.seq - seq, next: oldest.seq }),
            _ => Ok(self.frames.iter().filter(|f| f.seq >= seq).cloned().collect()),
        }
    }

    /// The newest frame.
    pub fn newest(&self) -> Option<&Arc<Frame>> {
        self.frames.back()
    }

    /// Frames held now.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True when no frame is held.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes of pixels held now.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames taken since the start.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Frames dropped for the bounds since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// A ring that the ingest thread fills and others read, with a bell for new frames.
#[derive(Debug)]
pub struct SharedWindow {
    ring: Mutex<FrameWindow>,
    newest: watch::Sender<Option<u64>>,
}

impl SharedWindow {
    /// An empty shared ring.
    pub fn new(bounds: Bounds) -> Self {
        Self { ring: Mutex::new(FrameWindow::new(bounds)), newest: watch::Sender::new(None) }
    }

    /// See [`FrameWindow::push`]; also rings the bell.
    pub fn push(&self, frame: Arc<Frame>) -> bool {
        let seq = frame.seq;
        let taken = self.lock().push(frame);
        if taken {
            self.newest.send_replace(Some(seq));
        }
        taken
    }

    /// See [`FrameWindow::clear`].
    pub fn clear(&self) {
        self.lock().clear();
        self.newest.send_replace(None);
    }

    /// See [`FrameWindow::taken`].
    pub fn taken(&self) -> u64 {
        self.lock().taken()
    }

    /// See [`FrameWindow::pick`].
    pub fn pick(&self, pick: Pick) -> Vec<Arc<Frame>> {
        self.lock().pick(pick)
    }

    /// See [`FrameWindow::read_from`].
    ///
    /// # Errors
    /// [`Missed`] when the reader fell behind.
    pub fn read_from(&self, seq: u64) -> Result<Vec<Arc<Frame>>, Missed> {
        self.lock().read_from(seq)
    }

    /// (frames, bytes, dropped) now.
    pub fn level(&self) -> (usize, usize, u64) {
        let ring = self.lock();
        (ring.len(), ring.bytes(), ring.dropped())
    }

    /// Number of the newest frame, as it changes.
    pub fn bell(&self) -> watch::Receiver<Option<u64>> {
        self.newest.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, FrameWindow> {
        // No method of the ring can stop half-way, so a poisoned lock still holds a sound ring.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Instant, SystemTime};

    fn frame(seq: u64, bytes: usize) -> Arc<Frame> {
        Arc::new(Frame {
            seq,
            pts: None,
            captured: Instant::now(),
            wall: SystemTime::now(),
            width: 1,
            height: 1,
            rgb: vec![0; bytes].into(),
        })
    }

    fn numbers(frames: &[Arc<Frame>]) -> Vec<u64> {
        frames.iter().map(|f| f.seq).collect()
    }

    proptest! {
        #[test]
        fn bounds_hold_and_the_newest_survives(sizes in proptest::collection::vec(0usize..50, 1..60),
                                               max_frames in 0usize..12, max_bytes in 0usize..200) {
            let mut ring = FrameWindow::new(Bounds { frames: max_frames, bytes: max_bytes });
            for (i, size) in sizes.iter().enumerate() {
                prop_assert!(ring.push(frame(i as u64, *size)));
                prop_assert!(ring.len() <= max_frames.max(1));
                prop_assert!(ring.bytes() <= max_bytes || ring.len() == 1);
                prop_assert_eq!(ring.newest().unwrap().seq, i as u64);
                prop_assert_eq!(ring.dropped() + ring.len() as u64, i as u64 + 1);
                let held: usize = ring.read_from(ring.dropped()).unwrap().iter().map(|f| f.bytes()).sum();
                prop_assert_eq!(held, ring.bytes());
            }
        }

        #[test]
        fn a_pick_ends_at_the_newest_and_keeps_its_stride(held in 1u64..40, frames in 1usize..10, stride in 1usize..6) {
            let mut ring = FrameWindow::new(Bounds { frames: 100, bytes: usize::MAX });
            (0..held).for_each(|i| { ring.push(frame(i, 1)); });
            let picked = numbers(&ring.pick(Pick { frames, stride }));
            prop_assert_eq!(*picked.last().unwrap(), held - 1);
            let stride = stride as u64;
            let earlier = &picked[..picked.len() - 1];
            prop_assert!(earlier.iter().all(|seq| seq % stride == 0));
            prop_assert!(earlier.windows(2).all(|w| w[1] - w[0] == stride));
            prop_assert!(earlier.last().is_none_or(|last| held - 1 - last <= stride));
            prop_assert_eq!(picked.len(), ((held - 1).div_ceil(stride) as usize + 1).min(frames));
            // The next frame's look needs one new frame, and at most one that was only the newest before.
            ring.push(frame(held, 1));
            let next = numbers(&ring.pick(Pick { frames, stride: stride as usize }));
            let new = next.iter().filter(|seq| !picked.contains(seq)).count();
            prop_assert!(new <= 1, "{picked:?} {next:?}");
        }

        #[test]
        fn a_reader_loses_nothing_without_being_told(held in 1u64..40, keep in 1usize..20, from in 0u64..50) {
            let mut ring = FrameWindow::new(Bounds { frames: keep, bytes: usize::MAX });
            (0..held).for_each(|i| { ring.push(frame(i, 1)); });
            match ring.read_from(from) {
                Ok(frames) => prop_assert_eq!(numbers(&frames), (from..held.max(from)).collect::<Vec<_>>()),
                Err(Missed { missed, next }) => {
                    prop_assert_eq!(from + missed, next);
                    prop_assert_eq!(ring.read_from(next).unwrap().len() as u64, held - next);
                }
            }
        }
    }

    /// Real threads on real cores: one puts in, one clears, two read. Whatever they see is whole and in order.
    #[test]
    fn threads_see_whole_frames_in_order_within_the_bounds() {
        let ring = SharedWindow::new(Bounds { frames: 8, bytes: 4096 });
        let over = std::sync::atomic::AtomicBool::new(false);
        let done = || over.load(std::sync::atomic::Ordering::Relaxed);
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    while !done() {
                        let frames = ring.pick(Pick { frames: 8, stride: 1 });
                        assert!(frames.windows(2).all(|w| w[1].seq == w[0].seq + 1));
                        // Each frame is of its number's last byte alone.
                        assert!(frames.iter().all(|f| f.rgb.iter().all(|byte| *byte == f.seq as u8)));
                        let (count, bytes, _) = ring.level();
                        assert!(count <= 8 && (bytes <= 4096 || count == 1));
                    }
                });
            }
            threads.spawn(|| {
                while !done() {
                    ring.clear();
                    std::thread::sleep(std::time::Duration::from_micros(300));
                }
            });
            for seq in 0..20_000u64 {
                let rgb = vec![seq as u8; 64 + (seq as usize * 37) % 1000].into();
                assert!(ring.push(Arc::new(Frame { rgb, ..(*frame(seq, 0)).clone() })));
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn a_frame_out_of_order_is_refused() {
        let ring = SharedWindow::new(Bounds { frames: 4, bytes: 100 });
        assert!(ring.push(frame(5, 1)));
        assert!(!ring.push(frame(5, 1)));
        assert!(!ring.push(frame(3, 1)));
        assert_eq!(*ring.bell().borrow(), Some(5));
        ring.clear();
        assert_eq!(ring.level(), (0, 0, 0));
    }
}
