//! The engine when there is no model: video still works, and everyone is told how to get one.
//! Not here: looking for models (`models`).

use super::{Engine, EngineState, EngineStatus, Job, JobEvent, JobHandle};
use crate::error::Error;
use tokio::sync::watch;

/// Takes no jobs and says why.
pub struct AbsentEngine {
    status: watch::Sender<EngineStatus>,
}

impl AbsentEngine {
    /// `failed` tells a model that can't be used from none at all.
    pub fn new(why: &Error, failed: bool) -> Self {
        let state = if failed { EngineState::Failed } else { EngineState::Absent };
        let status = EngineStatus { state, message: Some(why.to_string()), ..EngineStatus::default() };
        Self { status: watch::Sender::new(status) }
    }
}

impl Engine for AbsentEngine {
    fn submit(&self, _job: Job) -> JobHandle {
        let (handle, events, _) = JobHandle::pair();
        let why = self.status.borrow().message.clone().unwrap_or_default();
        // The channel is new, so there is room for this.
        let _told = events.try_send(JobEvent::Failed(Error::unavailable("engine_absent", why)));
        handle
    }

    fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.subscribe()
    }
}
