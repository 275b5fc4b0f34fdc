//! What voices on a thread of their own have in common: a clause with the way back to its owner, and how such a thread
//! is told and ended. Not here: the voices (`espeak`, `minicpm`).

use super::{Clause, ClauseEvent, ClauseHandle};
use crate::cancel::CancelFlag;
use crate::error::Error;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// A clause on its way to a voice's thread.
pub(super) struct Ticket {
    pub(super) clause: Clause,
    pub(super) events: mpsc::Sender<ClauseEvent>,
    pub(super) cancel: CancelFlag,
}

/// Hands a clause to the thread; one that it has no room for has failed.
pub(super) fn hand_in(clause: Clause, send: impl FnOnce(Ticket) -> bool) -> ClauseHandle {
    let (handle, events, cancel) = ClauseHandle::pair();
    if !send(Ticket { clause, events: events.clone(), cancel }) {
        let error = Error::unavailable("voice_busy", "the voice takes no more clauses");
        // The channel is fresh and has room.
        let _nobody_listens = events.try_send(failed(&error));
    }
    handle
}

/// The last event of a clause that could not be spoken.
pub(super) fn failed(error: &Error) -> ClauseEvent {
    ClauseEvent::Failed { code: error.code.to_owned(), message: error.to_string() }
}

/// Waits for the thread, which was told to end; a second call finds nothing to do.
pub(super) fn join(thread: &Mutex<Option<JoinHandle<()>>>) {
    let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("the voice's thread panicked");
    }
}
