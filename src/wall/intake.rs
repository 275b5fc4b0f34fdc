//! The row of jobs that wait to be handed through the wall, which they do only while pixels of another are on their way, or
//! there is no child. Not here: the order of a row (`engine::row`), whose turn it is in the engine (its own mailbox).

use crate::engine::{CancelFlag, Job, JobEvent, JobHandle, Row, Ticket};
use crate::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Events of a job besides its pieces of text.
const OTHER_EVENTS: usize = 8;
/// Most room for one job's events.
const MOST_EVENTS: usize = 1 << 16;

/// Where owners put jobs and the keeper takes them.
#[derive(Default)]
pub(super) struct Intake {
    state: Mutex<State>,
    /// Rings when a job comes or is cancelled.
    pub bell: Arc<Notify>,
}

#[derive(Default)]
struct State {
    waiting: Row,
    /// Why no job is taken.
    closed: Option<Error>,
}

impl Intake {
    /// Takes a job, in place of one of the same stream that still waits. While closed it fails at once.
    pub(super) fn submit(&self, job: Job) -> JobHandle {
        // Room for everything that the job can bring, so that its owner's slowness never holds the wall up.
        let room = usize::try_from(job.max_tokens).unwrap_or(MOST_EVENTS).saturating_add(OTHER_EVENTS);
        let flag = CancelFlag::ringing(Arc::clone(&self.bell));
        let (handle, events, cancel) = JobHandle::pair_of(room.min(MOST_EVENTS), flag);
        let ticket = Ticket { job, events, cancel };
        let mut state = self.lock();
        if let Some(why) = &state.closed {
            // The channel is new, so there is room for this.
            let _told = ticket.events.try_send(JobEvent::Failed(why.clone()));
            return handle;
        }
        state.waiting.put(ticket);
        drop(state);
        self.bell.notify_one();
        handle
    }

    /// The next job whose owner still wants it.
    pub(super) fn next(&self) -> Option<Ticket> {
        self.lock().waiting.next()
    }

    /// Fails what waits and what comes, for that reason.
    pub(super) fn close(&self, why: &Error) {
        let mut state = self.lock();
        state.closed = Some(why.clone());
        for ticket in state.waiting.take_all() {
            let _nobody_listens = ticket.events.try_send(JobEvent::Failed(why.clone()));
        }
    }

    /// Takes jobs again.
    pub(super) fn open(&self) {
        self.lock().closed = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Prompt, Sampling};

    fn job(stream: &str, max_tokens: u32) -> Job {
        Job {
            stream: stream.into(),
            prompt: Prompt::default(),
            frames: Vec::new(),
            max_tokens,
            sampling: Sampling::default(),
            for_voice: false,
            urgent: false,
            novelty: 0.0,
        }
    }

    #[test]
    fn the_newest_of_a_stream_waits_and_the_cancelled_go() {
        let intake = Intake::default();
        let mut old = intake.submit(job("a", 1));
        let unwanted = intake.submit(job("b", 2));
        let _new = intake.submit(job("a", 3));
        assert!(matches!(old.events.try_recv(), Ok(JobEvent::Replaced)));
        drop(unwanted);
        let _urgent = intake.submit(Job { urgent: true, ..job("c", 4) });
        assert_eq!(intake.next().map(|t| t.job.max_tokens), Some(4));
        assert_eq!(intake.next().map(|t| t.job.max_tokens), Some(3));
        assert!(intake.next().is_none());
    }

    #[test]
    fn while_closed_everything_fails_with_the_reason() {
        let intake = Intake::default();
        let mut waiting = intake.submit(job("a", 1));
        intake.close(&Error::unavailable("gone", "it is gone"));
        let mut late = intake.submit(job("a", u32::MAX));
        for handle in [&mut waiting, &mut late] {
            assert!(matches!(handle.events.try_recv(), Ok(JobEvent::Failed(e)) if e.code == "gone"));
        }
        intake.open();
        let mut again = intake.submit(job("a", 1));
        assert!(again.events.try_recv().is_err() && intake.next().is_some());
    }
}
