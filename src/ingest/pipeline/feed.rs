//! The head of a webcam's pipeline: encoded pictures that somebody else received go in here, and never wait.
//! Not here: receiving them (`livekit`), who hands them on (`supervisor`).

use crate::error::Result;
use crate::ingest::elements::{failed, make};
use crate::webcam::{Codec, Encoded};
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;

/// Pictures that wait for the decoder here: what comes at once when lost packets were sent again. When it is full the new
/// one is refused, since the decoder would go on from whatever is there without a word.
const WAITING: u64 = 32;

/// The entrance of one pipeline, for pictures of one codec.
#[derive(Debug, Clone)]
pub(crate) struct Feed(gst_app::AppSrc);

impl Feed {
    /// An entrance that is in no pipeline yet.
    ///
    /// # Errors
    /// When GStreamer has no `appsrc`.
    pub(crate) fn new(codec: Codec) -> Result<Self> {
        let source = make("appsrc")?.downcast::<gst_app::AppSrc>().map_err(|_| failed("appsrc is none"))?;
        let caps = match codec {
            Codec::Vp8 => gst::Caps::new_empty_simple("video/x-vp8"),
            Codec::Vp9 => gst::Caps::new_empty_simple("video/x-vp9"),
            Codec::H264 => gst::Caps::builder("video/x-h264")
                .field("stream-format", "byte-stream")
                .field("alignment", "au")
                .build(),
        };
        source.set_caps(Some(&caps));
        source.set_format(gst::Format::Time);
        source.set_is_live(true);
        source.set_block(false);
        source.set_max_buffers(WAITING);
        source.set_max_bytes(0);
        Ok(Self(source))
    }

    /// Hands a picture to the decoder. False when too many wait or the pipeline takes no more: then those that depend on
    /// it are of no use either.
    pub(crate) fn push(&self, picture: Encoded) -> bool {
        if self.0.current_level_buffers() >= WAITING {
            return false;
        }
        let pts = u64::try_from(picture.pts.as_nanos()).unwrap_or(u64::MAX - 1);
        let mut buffer = gst::Buffer::from_slice(picture.data);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::from_nseconds(pts));
            if !picture.keyframe {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        self.0.push_buffer(buffer).is_ok()
    }

    pub(super) fn element(&self) -> gst::Element {
        self.0.clone().upcast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::time::Duration;

    #[test]
    fn what_finds_no_room_is_refused_and_nothing_that_waits_goes() {
        crate::ingest::init().unwrap();
        let feed = Feed::new(Codec::Vp8).unwrap();
        let picture = |n: u64| Encoded {
            track: 1,
            codec: Codec::Vp8,
            keyframe: n == 0,
            pts: Duration::from_millis(n),
            data: Bytes::from_static(b"x"),
        };
        for n in 0..WAITING + 3 {
            assert_eq!(feed.push(picture(n)), n < WAITING, "{n}");
        }
        assert_eq!(feed.0.current_level_buffers(), WAITING);
    }
}
