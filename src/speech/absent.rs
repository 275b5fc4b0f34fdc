//! The voice that can't speak: it only says why. Not here: voices that can.

use super::{Clause, ClauseEvent, ClauseHandle, Voice, VoiceState, VoiceStatus};
use crate::error::Error;
use tokio::sync::watch;

/// Stands where a voice was asked for that can't be had.
pub struct AbsentVoice {
    why: Error,
    status: watch::Sender<VoiceStatus>,
}

impl AbsentVoice {
    /// The voice `name`, absent for that reason.
    pub fn new(name: &'static str, why: Error) -> Self {
        let status = VoiceStatus {
            state: VoiceState::Unavailable,
            name: Some(name),
            reason: Some(why.to_string()),
            ..VoiceStatus::default()
        };
        Self { why, status: watch::Sender::new(status) }
    }
}

impl Voice for AbsentVoice {
    fn submit(&self, _: Clause) -> ClauseHandle {
        let (handle, events, _) = ClauseHandle::pair();
        let failed = ClauseEvent::Failed { code: self.why.code.to_owned(), message: self.why.to_string() };
        // The channel is fresh and has room.
        let _nobody_listens = events.try_send(failed);
        handle
    }

    fn status(&self) -> watch::Receiver<VoiceStatus> {
        self.status.subscribe()
    }
}
