//! The stream's voice on its way into the room: everything that the hub gives, silence too, encoded as it comes.
//! It is one of the stream's listeners like every other, and only while somebody is in the room.
//! Not here: the encoder (`opus`), the track (`session`).

use super::opus::Opus;
use crate::audio::{AudioHub, Heard, Wants};
use crate::error::Result;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A voice that is being encoded; it falls silent when dropped.
#[derive(Debug)]
pub(super) struct Voice {
    packets: mpsc::Receiver<Bytes>,
    task: JoinHandle<()>,
}

impl Voice {
    /// Listens and encodes from now on.
    ///
    /// # Errors
    /// When GStreamer lacks the encoder.
    pub(super) fn start(hub: &Arc<AudioHub>) -> Result<Self> {
        let (mut opus, packets) = Opus::new()?;
        let mut listener = hub.listen(Wants::Everything);
        let task = tokio::spawn(async move {
            while let Some(heard) = listener.next().await {
                match heard {
                    Heard::Frame(frame) if !opus.push(frame.pcm.clone()) => break,
                    // The time stamps follow the clock, so that a loss is a gap.
                    Heard::Frame(_) | Heard::Lagged(_) => {}
                }
            }
        });
        Ok(Self { packets, task })
    }

    /// The next 20 ms as an Opus packet; `None` when the encoder or the stream has ended.
    pub(super) async fn packet(&mut self) -> Option<Bytes> {
        self.packets.recv().await
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.task.abort();
    }
}
