//! Frames encoded on threads of their own while the language model works: one makes them ready for the vision tower
//! (about 14 ms of a processor for each), one has the tower encode them, on a stream of the GPU that is not the language
//! model's. Not here: what is made of them (`vision`), whose turn it is (`desk`), how they are resized (`preprocess`).

use super::preprocess;
use super::tower::{Chunks, Part, Splitter, Vision};
use crate::error::{Error, Result};
use crate::frame::Frame;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::Duration;

/// Most frames that are ordered and not fetched; one more is refused, and ordered again later.
const MOST: usize = 256;

/// Frames made ready that wait for the tower.
const BETWEEN: usize = 1;

/// How long one waits for frames at most before looking around.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// What a frame is known by: stream and number.
type Name = (Arc<str>, u64);

/// The engine's side. Dropped, it ends the threads.
pub struct Ahead(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    /// Ordered and not fetched; what is not in here any more is dropped when it is done.
    wanted: HashSet<Name>,
    /// Next first. True for those that a person waits for.
    orders: VecDeque<(Name, Arc<Frame>, bool)>,
    ready: HashMap<Name, Result<Vec<Part>>>,
    ended: bool,
}

impl Ahead {
    /// Starts the threads within `scope`; the tower is theirs from now on.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start<'scope, 'm: 'scope>(scope: &'scope Scope<'scope, '_>, vision: Vision<'m>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (give, take) = sync_channel(BETWEEN);
        let (theirs, splitter) = (Arc::clone(&shared), vision.splitter());
        let split = move || split(&theirs, &splitter, &give);
        let theirs = Arc::clone(&shared);
        let encode = move || encode(&theirs, vision, &take);
        let no_thread = |e| Error::unavailable("engine_thread", format!("there can be no thread for frames: {e}"));
        let ahead = Self(shared);
        std::thread::Builder::new().name("frames-ahead".to_owned()).spawn_scoped(scope, split).map_err(no_thread)?;
        std::thread::Builder::new().name("vision".to_owned()).spawn_scoped(scope, encode).map_err(no_thread)?;
        Ok(ahead)
    }

    /// Has a frame encoded, no more than once; those that a person waits for before the others. False when there are too
    /// many.
    pub fn order(&self, stream: &Arc<str>, frame: &Arc<Frame>, urgent: bool) -> bool {
        let mut state = self.0.lock();
        let name = (Arc::clone(stream), frame.seq);
        if state.wanted.contains(&name) {
            return true;
        }
        if state.wanted.len() >= MOST {
            return false;
        }
        state.wanted.insert(name.clone());
        let place = match urgent {
            true => state.orders.iter().take_while(|(.., urgent)| *urgent).count(),
            false => state.orders.len(),
        };
        state.orders.insert(place, (name, Arc::clone(frame), urgent));
        self.0.bell.notify_all();
        true
    }

    /// Nobody wants this frame any more.
    pub fn forget(&self, stream: &Arc<str>, seq: u64) {
        let mut state = self.0.lock();
        let name = (Arc::clone(stream), seq);
        state.wanted.remove(&name);
        state.ready.remove(&name);
        state.orders.retain(|(ordered, ..)| *ordered != name);
    }

    /// True when [`fetch`](Self::fetch) would not wait.
    pub fn is_ready(&self, stream: &Arc<str>, seq: u64) -> bool {
        let state = self.0.lock();
        state.ended || state.ready.contains_key(&(Arc::clone(stream), seq))
    }

    /// Waits a while for any frame to be ready.
    pub fn wait(&self) {
        let state = self.0.lock();
        if state.ready.is_empty() && !state.ended {
            let _looked_at_anew = self.0.bell.wait_timeout(state, LOOK_AROUND);
        }
    }

    /// A frame that was ordered; waits until it is encoded.
    ///
    /// # Errors
    /// When it can't be encoded, was not ordered, or the threads have ended.
    pub fn fetch(&self, stream: &Arc<str>, seq: u64) -> Result<Vec<Part>> {
        let mut state = self.0.lock();
        let name = (Arc::clone(stream), seq);
        loop {
            if let Some(parts) = state.ready.remove(&name) {
                state.wanted.remove(&name);
                return parts;
            }
            if state.ended || !state.wanted.contains(&name) {
                return Err(Error::internal("frame_thread", "the thread that encodes frames has ended"));
            }
            let waited = self.0.bell.wait_timeout(state, LOOK_AROUND);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.orders.clear();
        drop(state);
        self.bell.notify_all();
    }

    /// Waits for the next order; `None` at the end.
    fn next(&self) -> Option<(Name, Arc<Frame>)> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some((name, frame, _)) = state.orders.pop_front() {
                return Some((name, frame));
            }
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn put(&self, name: Name, parts: Result<Vec<Part>>) {
        let mut state = self.lock();
        if state.wanted.contains(&name) {
            state.ready.insert(name, parts);
        }
        drop(state);
        self.bell.notify_all();
    }
}

/// Tells the other side when a thread has ended, however it did.
struct Ends<'a>(&'a Shared);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn split(shared: &Shared, splitter: &Splitter<'_>, give: &SyncSender<(Name, Result<Chunks>)>) {
    let _ends = Ends(shared);
    while let Some((name, frame)) = shared.next() {
        let chunks = preprocess::prepare(&frame.rgb, frame.width, frame.height)
            .and_then(|picture| splitter.split(&picture.rgb, picture.width, picture.height));
        if give.send((name, chunks)).is_err() {
            return;
        }
    }
}

fn encode(shared: &Shared, mut vision: Vision<'_>, take: &Receiver<(Name, Result<Chunks>)>) {
    let _ends = Ends(shared);
    for (name, chunks) in take {
        let parts = chunks.and_then(|chunks| vision.encode_chunks(&chunks, true));
        shared.put(name, parts);
    }
}
