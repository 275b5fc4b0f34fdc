//! One stream's participant: away until somebody comes, then in the room until it has been empty for long enough,
//! joining again after every loss, for ever.
//! Not here: one connection (`session`).

use super::LiveKitConfig;
use super::intake::Intake;
use super::session::{self, Ended, Present};
use crate::audio::AudioHub;
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::shutdown::Shutdown;
use crate::webcam::{CameraFeed, RoomState};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Part of a wait by which it may be shortened, so that many streams don't all come back at one moment.
const JITTER: f64 = 0.1;
/// A connection that held for so long was well, and waits start again from the shortest.
const STABLE: Duration = Duration::from_secs(10);

/// The participant and all that it keeps from one connection to the next.
pub(super) struct Room {
    stream: String,
    backoff: Backoff,
    knock: Arc<Notify>,
    present: Present,
    joins: u64,
}

impl Room {
    /// A participant that is away.
    ///
    /// # Errors
    /// When the reconnect delays are out of order.
    pub(super) fn new(
        stream: &str,
        room: String,
        config: Arc<LiveKitConfig>,
        knock: Arc<Notify>,
        feed: CameraFeed,
    ) -> Result<Self> {
        let backoff = Backoff::try_new(config.reconnect_delay, config.max_reconnect_delay, JITTER)
            .map_err(|error| Error::invalid("livekit_config_out_of_range", error.to_string()))?;
        // The same for ever, so that the server itself puts a stay that it still believes in to an end.
        let identity = format!("vidette-{stream}");
        let present =
            Present { stream: stream.to_owned(), room, identity, config, feed, intake: Intake::default(), met: false };
        Ok(Self { stream: stream.to_owned(), backoff, knock, present, joins: 0 })
    }

    /// Runs until `shutdown`, or until the stream is gone.
    pub(super) async fn run(mut self, mut voice: watch::Receiver<Option<Arc<AudioHub>>>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                wanted = wake(&self.knock, &mut self.present.feed.wanted) => if !wanted {
                    break;
                },
            }
            if !self.stay(&mut voice, &shutdown).await {
                break;
            }
            let joins = self.joins;
            self.present.feed.tell(|status| {
                *status = Default::default();
                status.reconnects = joins.saturating_sub(1);
            });
            tracing::info!(stream = self.stream, "the LiveKit room has been empty for long; left");
        }
        self.present.feed.tell(|status| *status = Default::default());
    }

    /// In the room, through all reconnects. False when everything ends, true when nobody is left.
    async fn stay(&mut self, voice: &mut watch::Receiver<Option<Arc<AudioHub>>>, shutdown: &Shutdown) -> bool {
        self.backoff.reset();
        let mut attempt = 0u32;
        loop {
            attempt = attempt.saturating_add(1);
            self.present.feed.tell(|status| {
                (status.state, status.attempt, status.retry_in_s) = (RoomState::Connecting, attempt, None);
            });
            let began = Instant::now();
            self.present.met = false;
            let ended = session::run(&mut self.present, voice, &self.knock, shutdown, self.joins).await;
            self.joins += u64::from(self.present.met);
            let loss = match ended {
                Ended::Over => return false,
                Ended::Empty => return true,
                Ended::Lost(loss) => loss,
            };
            if self.present.met {
                attempt = 0;
                if began.elapsed() >= STABLE {
                    self.backoff.reset();
                }
            }
            let next = self.backoff.next(random());
            let wait = if loss.lasting { self.backoff.max() } else { next };
            tracing::info!(stream = self.stream, attempt, retry_in_s = wait.as_secs_f64(), "{}", loss.message);
            self.present.feed.tell(|status| {
                status.state = RoomState::Retrying;
                (status.connected, status.voice, status.muted) = (false, false, false);
                (status.people, status.camera) = (0, None);
                status.message = Some(loss.message);
                (status.attempt, status.retry_in_s) = (attempt, Some(wait.as_secs_f64()));
            });
            tokio::select! {
                biased;
                () = shutdown.wait() => return false,
                () = gone(&mut self.present.feed.wanted) => return false,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// Returns true when somebody asks for a token or the camera is wanted anew, false when the stream is gone.
async fn wake(knock: &Notify, wanted: &mut watch::Receiver<bool>) -> bool {
    loop {
        tokio::select! {
            () = knock.notified() => return true,
            changed = wanted.changed() => match changed {
                Err(_) => return false,
                Ok(()) if *wanted.borrow_and_update() => return true,
                Ok(()) => {}
            },
        }
    }
}

/// Returns when the stream is gone.
async fn gone(wanted: &mut watch::Receiver<bool>) {
    // Only an error ends it; the value itself is looked at once the connection stands.
    while wanted.changed().await.is_ok() {}
}

/// A number in `[0, 1)` that differs from time to time; it only spreads waits.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
