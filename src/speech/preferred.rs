//! Two voices as one: the first speaks if it can, the second from when it can't, and the status says why.
//! Not here: the voices, which ones (`wiring`).

use super::{Clause, ClauseHandle, Voice, VoiceState, VoiceStatus};
use crate::error::Result;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// The voice of choice, and what stands in for it.
pub struct PreferredVoice {
    first: Arc<dyn Voice>,
    /// Made when the first can't speak, and from then on the one that does.
    second: Arc<OnceLock<Arc<dyn Voice>>>,
    status: watch::Receiver<VoiceStatus>,
}

impl PreferredVoice {
    /// The first voice, with `make` for another once it is unavailable. Must be called on the runtime.
    pub fn spawn(first: Arc<dyn Voice>, make: impl FnOnce() -> Result<Arc<dyn Voice>> + Send + 'static) -> Self {
        let second = Arc::new(OnceLock::new());
        let mut watched = first.status();
        let (tell, status) = watch::channel(watched.borrow_and_update().clone());
        let (mut make, slot) = (Some(make), Arc::clone(&second));
        let _task = tokio::spawn(async move {
            let mut note = None;
            loop {
                let now = watched.borrow_and_update().clone();
                if let Some(make) = make.take_if(|_| now.state == VoiceState::Unavailable) {
                    match make() {
                        Ok(voice) => {
                            note = now.reason;
                            watched = voice.status();
                            let _first_and_only = slot.set(voice);
                            continue;
                        }
                        Err(error) => tracing::warn!("no other voice: {error}"),
                    }
                }
                tell.send_replace(VoiceStatus { note: note.clone().or(now.note), ..now });
                if watched.changed().await.is_err() {
                    return;
                }
            }
        });
        Self { first, second, status }
    }

    fn speaks(&self) -> &Arc<dyn Voice> {
        self.second.get().unwrap_or(&self.first)
    }
}

impl Voice for PreferredVoice {
    fn submit(&self, clause: Clause) -> ClauseHandle {
        self.speaks().submit(clause)
    }

    fn forget(&self, stream: &str, utterance: u64) {
        self.speaks().forget(stream, utterance);
    }

    fn status(&self) -> watch::Receiver<VoiceStatus> {
        self.status.clone()
    }

    fn stop(&self) {
        self.first.stop();
        if let Some(second) = self.second.get() {
            second.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::AbsentVoice;
    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn the_second_speaks_once_the_first_can_not_and_says_why() {
        let first = AbsentVoice::new("first", Error::unavailable("gone", "the first is gone"));
        let ready = VoiceStatus { state: VoiceState::Ready, name: Some("second"), ..VoiceStatus::default() };
        struct Second(watch::Sender<VoiceStatus>);
        impl Voice for Second {
            fn submit(&self, _: Clause) -> ClauseHandle {
                ClauseHandle::pair().0
            }
            fn status(&self) -> watch::Receiver<VoiceStatus> {
                self.0.subscribe()
            }
        }
        let second = Arc::new(Second(watch::Sender::new(ready)));
        let voice = PreferredVoice::spawn(Arc::new(first), move || Ok(second));
        let mut status = voice.status();
        let status = status.wait_for(|s| s.state == VoiceState::Ready).await.unwrap().clone();
        assert_eq!((status.name, status.note.as_deref()), (Some("second"), Some("the first is gone")));
    }

    #[tokio::test]
    async fn when_there_is_no_second_the_first_says_what_is_wrong() {
        let first = AbsentVoice::new("first", Error::unavailable("gone", "the first is gone"));
        let voice = PreferredVoice::spawn(Arc::new(first), || Err(Error::internal("voice_thread", "no thread")));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let status = voice.status().borrow().clone();
        assert_eq!((status.state, status.reason.as_deref()), (VoiceState::Unavailable, Some("the first is gone")));
        let mut handle = voice.submit(Clause::default());
        assert!(handle.events.recv().await.is_some());
    }
}
