//! From options to LiveKit rooms: one for each stream, and who gives out tickets to them. Not here: the rooms (`livekit`).

#[cfg(feature = "livekit")]
pub(super) use with::{Rooms, open};
#[cfg(not(feature = "livekit"))]
pub(super) use without::{Rooms, open};

#[cfg(feature = "livekit")]
mod with {
    use crate::commentary::RoomParts;
    use crate::config::Config;
    use crate::error::Result;
    use crate::livekit::{LiveKit, LiveKitConfig};
    use crate::shutdown::Shutdown;
    use crate::webcam::{Camera, Tickets, camera};
    use std::sync::Arc;
    use tokio::sync::watch;

    /// All streams' rooms.
    #[derive(Clone)]
    pub(in crate::wiring) struct Rooms(Arc<LiveKit>);

    /// `None` while LiveKit is off.
    pub(in crate::wiring) fn open(config: &Config) -> Result<Option<Rooms>> {
        let Some(options) = &config.livekit else { return Ok(None) };
        let config = LiveKitConfig {
            url: options.url.clone(),
            public_url: options.public_url.clone(),
            api_key: options.api_key.clone(),
            api_secret: options.api_secret.clone(),
            room_prefix: options.room_prefix.clone(),
            empty_grace: options.empty_grace,
            reconnect_delay: config.video.reconnect_delay,
            max_reconnect_delay: config.video.max_reconnect_delay,
        };
        tracing::info!(url = %config.url, "LiveKit is on: the source `webcam` takes a browser's camera");
        Ok(Some(Rooms(Arc::new(LiveKit::new(config)))))
    }

    impl Rooms {
        pub(in crate::wiring) fn tickets(&self) -> Arc<dyn Tickets> {
            Arc::clone(&self.0) as Arc<dyn Tickets>
        }

        /// The room of a new stream: its camera for the decoder, and what the stream needs of it.
        pub(in crate::wiring) fn join(&self, stream: &str, shutdown: &Shutdown) -> Option<(Camera, RoomParts)> {
            let (feed, camera) = camera();
            let (sound, voice) = watch::channel(None);
            if let Err(error) = self.0.open(stream, feed, voice, shutdown.clone()) {
                tracing::error!(stream, "the stream has no LiveKit room: {error}");
                return None;
            }
            let hear = Box::new(move |speaker: &crate::speech::Speaker| {
                sound.send_replace(Some(Arc::clone(speaker.hub())));
            });
            let status = camera.status.clone();
            Some((camera, RoomParts { status, hear }))
        }
    }
}

#[cfg(not(feature = "livekit"))]
mod without {
    use crate::config::Config;
    use crate::error::{Error, Result};
    use crate::webcam::Tickets;
    use std::sync::Arc;

    /// There are none in this build.
    #[derive(Clone)]
    pub(in crate::wiring) enum Rooms {}

    /// `None` while LiveKit is off.
    pub(in crate::wiring) fn open(config: &Config) -> Result<Option<Rooms>> {
        match &config.livekit {
            None => Ok(None),
            Some(_) => {
                Err(Error::invalid("livekit_not_built", "this build has no LiveKit, but LIVEKIT_ENABLED is set")
                    .hint("build with the feature `livekit`, or set LIVEKIT_ENABLED=false"))
            }
        }
    }

    impl Rooms {
        pub(in crate::wiring) fn tickets(&self) -> Arc<dyn Tickets> {
            match *self {}
        }

        #[cfg(feature = "ingest")]
        pub(in crate::wiring) fn join(
            &self,
            _: &str,
            _: &crate::shutdown::Shutdown,
        ) -> Option<(crate::webcam::Camera, crate::commentary::RoomParts)> {
            match *self {}
        }
    }
}
