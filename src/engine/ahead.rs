//! Pictures made ready for the vision tower on a thread of their own, while the GPU works: about 14 ms of a processor for
//! each frame, in which the language model would wait.
//! Not here: what is made of them (`vision`), whose turn it is (`desk`), how they are resized (`preprocess`).

use super::preprocess;
use super::tower::{Chunks, Splitter};
use crate::error::{Error, Result};
use crate::frame::Frame;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::Duration;

/// Most frames that are ordered and not fetched. One more has the oldest forgotten: it is made ready when it is wanted.
const MOST: usize = 64;

/// So often it is seen whether the thread is still there.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// What a frame is known by.
type Name = (Arc<str>, u64);

/// The engine's side. Dropped, it ends the thread.
pub struct Ahead {
    orders: SyncSender<(Name, Arc<Frame>)>,
    shelf: Arc<Shelf>,
    /// Ordered and not fetched, oldest first.
    open: VecDeque<Name>,
}

#[derive(Default)]
struct Shelf {
    ready: Mutex<VecDeque<(Name, Result<Chunks>)>>,
    bell: Condvar,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Name, Result<Chunks>)>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ahead {
    /// Starts the thread within `scope`.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start<'scope, 'env, 'm: 'scope>(scope: &'scope Scope<'scope, 'env>, splitter: Splitter<'m>) -> Result<Self> {
        let (orders, taken) = sync_channel(MOST);
        let shelf = Arc::new(Shelf::default());
        let theirs = Arc::clone(&shelf);
        std::thread::Builder::new()
            .name("frames-ahead".to_owned())
            .spawn_scoped(scope, move || work(&splitter, &taken, &theirs))
            .map_err(|e| Error::unavailable("engine_thread", format!("there can be no thread for frames: {e}")))?;
        Ok(Self { orders, shelf, open: VecDeque::new() })
    }

    /// Has a frame made ready; no more than once.
    pub fn order(&mut self, stream: &Arc<str>, frame: &Arc<Frame>) {
        if self.is_open(stream, frame.seq) {
            return;
        }
        if self.open.len() >= MOST
            && let Some(oldest) = self.open.pop_front()
        {
            self.shelf.lock().retain(|(name, _)| *name != oldest);
        }
        let name = (Arc::clone(stream), frame.seq);
        // A full row, or a thread that is gone: it is made ready when it is wanted.
        if self.orders.try_send((name.clone(), Arc::clone(frame))).is_ok() {
            self.open.push_back(name);
        }
    }

    /// True while it is ordered and not ready.
    pub fn is_awaited(&self, stream: &Arc<str>, seq: u64) -> bool {
        self.is_open(stream, seq) && !self.shelf.lock().iter().any(|(name, _)| is(name, stream, seq))
    }

    /// The frame, if it was ordered; waits until it is ready.
    pub fn fetch(&mut self, stream: &Arc<str>, seq: u64) -> Option<Result<Chunks>> {
        let at = self.open.iter().position(|name| is(name, stream, seq))?;
        self.open.remove(at);
        let mut ready = self.shelf.lock();
        loop {
            if let Some(at) = ready.iter().position(|(name, _)| is(name, stream, seq)) {
                return ready.remove(at).map(|(_, chunks)| chunks);
            }
            // The thread has a reference of its own while it works.
            if Arc::strong_count(&self.shelf) < 2 {
                return None;
            }
            let waited = self.shelf.bell.wait_timeout(ready, LOOK_AROUND);
            ready = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn is_open(&self, stream: &Arc<str>, seq: u64) -> bool {
        self.open.iter().any(|name| is(name, stream, seq))
    }
}

fn is(name: &Name, stream: &Arc<str>, seq: u64) -> bool {
    name.1 == seq && name.0.as_ref() == stream.as_ref()
}

fn work(splitter: &Splitter<'_>, orders: &Receiver<(Name, Arc<Frame>)>, shelf: &Arc<Shelf>) {
    for (name, frame) in orders {
        let chunks = preprocess::prepare(&frame.rgb, frame.width, frame.height)
            .and_then(|picture| splitter.split(&picture.rgb, picture.width, picture.height));
        let mut ready = shelf.lock();
        // What was forgotten meanwhile has nobody who fetches it.
        if ready.len() >= MOST {
            ready.pop_front();
        }
        ready.push_back((name, chunks));
        drop(ready);
        shelf.bell.notify_all();
    }
}
