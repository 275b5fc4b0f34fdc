//! The voice's Opus encoder: frames of 20 ms in, packets of 20 ms out, by GStreamer's `opusenc`.
//! Not here: whose voice it is and when it is due (`voice`), RTP (`session`).

use crate::audio::SAMPLE_RATE;
use crate::error::{Error, Result};
use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use std::time::Duration;
use tokio::sync::mpsc;

/// Frames that wait for the encoder, and packets that wait to be sent (1 s). The newest goes: who listens hears a gap,
/// and the time stamps go on.
const WAITING: usize = 50;
/// Bits a second: speech is clear from about half of it.
const BITRATE: i32 = 48_000;

/// An encoder at work; it ends when dropped.
#[derive(Debug)]
pub(super) struct Opus {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    frames: u64,
}

impl Opus {
    /// Starts one. Packets come out of the receiver.
    ///
    /// # Errors
    /// When GStreamer lacks an element.
    pub(super) fn new() -> Result<(Self, mpsc::Receiver<Bytes>)> {
        let make = |name: &str| gst::ElementFactory::make(name).build().map_err(|_| missing(name));
        let pipeline = gst::Pipeline::new();
        // Nothing here waits for the clock.
        pipeline.use_clock(Some(&gst::SystemClock::obtain()));
        let source = make("appsrc")?.downcast::<gst_app::AppSrc>().map_err(|_| missing("appsrc"))?;
        let caps = gst::Caps::builder("audio/x-raw")
            .field("format", "S16LE")
            .field("layout", "interleaved")
            .field("rate", i32::try_from(SAMPLE_RATE).unwrap_or(48_000))
            .field("channels", 1i32)
            .build();
        source.set_caps(Some(&caps));
        source.set_format(gst::Format::Time);
        source.set_is_live(true);
        source.set_block(false);
        source.set_max_bytes(0);
        source.set_max_buffers(WAITING as u64);
        source.set_leaky_type(gst_app::AppLeakyType::Upstream);
        let encoder = make("opusenc")?;
        encoder.set_property("bitrate", BITRATE);
        encoder.set_property_from_str("frame-size", "20");
        let sink = make("appsink")?.downcast::<gst_app::AppSink>().map_err(|_| missing("appsink"))?;
        for (property, value) in [("sync", false), ("async", false)] {
            sink.set_property(property, value);
        }
        let (packets_in, packets) = mpsc::channel(WAITING);
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            if let Some(Ok(data)) = sample.buffer().map(gst::BufferRef::map_readable) {
                let _a_gap_when_full = packets_in.try_send(Bytes::copy_from_slice(&data));
            }
            Ok(gst::FlowSuccess::Ok)
        });
        sink.set_callbacks(callbacks.build());
        let elements = [source.upcast_ref(), &encoder, sink.upcast_ref()];
        pipeline.add_many(elements).map_err(|e| failed(&e.to_string()))?;
        gst::Element::link_many(elements).map_err(|e| failed(&e.to_string()))?;
        pipeline.set_state(gst::State::Playing).map_err(|e| failed(&e.to_string()))?;
        Ok((Self { pipeline, source, frames: 0 }, packets))
    }

    /// Encodes a frame of 20 ms, s16le. False when the encoder takes no more.
    pub(super) fn push(&mut self, pcm: Bytes) -> bool {
        let time = |frames: u64| gst::ClockTime::from_mseconds(frames * 20);
        let mut buffer = gst::Buffer::from_slice(pcm);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(time(self.frames));
            buffer.set_duration(time(1));
        }
        self.frames += 1;
        self.source.push_buffer(buffer).is_ok()
    }
}

impl Drop for Opus {
    fn drop(&mut self) {
        // An encoder has nothing to wait for, so this is quick.
        if let Err(error) = self.pipeline.set_state(gst::State::Null) {
            tracing::debug!(%error, "the Opus encoder did not close cleanly");
        }
    }
}

/// Whether a decoder of this kind is there.
pub(super) fn decodes(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

fn missing(element: &str) -> Error {
    Error::unavailable("gstreamer_element_missing", format!("GStreamer has no element {element}"))
        .hint("install gstreamer1.0-plugins-base (apt-get install gstreamer1.0-plugins-base)")
}

fn failed(message: &str) -> Error {
    Error::internal("gstreamer_failed", format!("the voice's encoder can't be built: {message}"))
}

/// How long one packet lasts.
pub(super) const PACKET_TIME: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::FRAME_BYTES;

    #[tokio::test]
    async fn every_frame_gives_a_packet_of_twenty_milliseconds() {
        gst::init().unwrap();
        let (mut opus, mut packets) = Opus::new().unwrap();
        for _ in 0..40 {
            assert!(opus.push(Bytes::from(vec![0u8; FRAME_BYTES])));
        }
        for _ in 0..30 {
            let packet = tokio::time::timeout(Duration::from_secs(20), packets.recv()).await.unwrap().unwrap();
            // RFC 6716, 3.1: configurations whose frames last 20 ms, one frame in the packet.
            let (configuration, frames) = (packet[0] >> 3, packet[0] & 3);
            assert!([1, 5, 9, 13, 15, 19, 23, 27, 31].contains(&configuration) && frames == 0, "{:#x}", packet[0]);
        }
    }
}
