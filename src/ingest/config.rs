//! What an operator may choose about video sources, with its defaults and ranges.
//! Not here: flags, environment and files (`crate::config`).

use super::policy::{Files, Policy};
use crate::error::{Error, Result};
use crate::source::AskedBy;
use std::time::Duration;

/// How RTP packets travel from an RTSP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RtspTransport {
    /// TCP, and UDP at once when the server refuses TCP.
    #[default]
    Auto,
    /// TCP only.
    Tcp,
    /// UDP only, unicast or multicast.
    Udp,
}

/// Which decoders may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecoderChoice {
    /// A hardware decoder where there is one; software when it fails.
    #[default]
    Auto,
    /// Never a hardware decoder.
    Software,
    /// Only hardware decoders.
    Hardware,
}

/// How sources are opened, watched and reopened.
#[derive(Debug, Clone, PartialEq)]
pub struct IngestConfig {
    /// Which sources may be opened that the operator names.
    pub policy: Policy,
    /// Which sources may be opened that a client of the API names.
    pub client_policy: Policy,
    /// Frames for the model, per second.
    pub capture_fps: f64,
    /// Most JPEGs for viewers, per second; a slower source gives its own rate.
    pub jpeg_fps: f64,
    /// Widest JPEG, pixels; 0 keeps the source's width.
    pub jpeg_width: u32,
    /// Quality of JPEGs, 1 to 100.
    pub jpeg_quality: u8,
    /// Wait before the first new attempt; it doubles from there.
    pub reconnect_delay: Duration,
    /// Longest wait between attempts.
    pub max_reconnect_delay: Duration,
    /// Longest wait for the first frame.
    pub connect_timeout: Duration,
    /// Longest time without a frame. HLS, which comes in lumps, gets at least 20 s and files at least 30 s.
    pub stall_timeout: Duration,
    /// Frames must have come for so long before waits start again from `reconnect_delay`.
    pub stable_after: Duration,
    /// Longest wait for a pipeline to close before it is left behind and counted.
    pub close_timeout: Duration,
    /// Files start again when they end.
    pub looping: bool,
    /// How RTP packets travel.
    pub rtsp_transport: RtspTransport,
    /// Depth of the RTSP jitter buffer.
    pub rtsp_latency: Duration,
    /// Which decoders may be used.
    pub decoder: DecoderChoice,
    /// Threads of a software decoder; 0 lets it choose. More than one adds frames of delay.
    pub decoder_threads: u32,
    /// The source's own sound is taken as well, and decoded while somebody listens.
    pub sound: bool,
    /// Largest picture that is decoded, in pixels (width × height).
    pub max_pixels: u64,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            client_policy: Policy { files: Files::Nowhere, ..Policy::default() },
            capture_fps: 2.0,
            jpeg_fps: 25.0,
            jpeg_width: 1280,
            jpeg_quality: 80,
            reconnect_delay: Duration::from_secs(1),
            max_reconnect_delay: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(5),
            stable_after: Duration::from_secs(10),
            close_timeout: Duration::from_secs(2),
            looping: true,
            rtsp_transport: RtspTransport::Auto,
            rtsp_latency: Duration::from_millis(200),
            decoder: DecoderChoice::Auto,
            decoder_threads: 1,
            sound: true,
            max_pixels: 8192 * 8192,
        }
    }
}

impl IngestConfig {
    /// What those who ask may name.
    pub(super) fn policy_for(&self, asked_by: AskedBy) -> &Policy {
        match asked_by {
            AskedBy::Operator => &self.policy,
            AskedBy::Client => &self.client_policy,
        }
    }

    /// Tells whether every value is within its range. [`super::spawn`] itself bends what is out of range.
    ///
    /// # Errors
    /// Names the value that is out of range, and the range.
    pub fn check(&self) -> Result<()> {
        let rate = |name: &str, fps: f64| {
            let good = fps.is_finite() && (0.01..=240.0).contains(&fps);
            good.then_some(()).ok_or_else(|| range(format!("{name} is {fps}; it must be from 0.01 to 240 per second")))
        };
        rate("the capture rate", self.capture_fps)?;
        rate("the JPEG rate", self.jpeg_fps)?;
        if !(1..=100).contains(&self.jpeg_quality) {
            return Err(range(format!("the JPEG quality is {}; it must be from 1 to 100", self.jpeg_quality)));
        }
        if self.reconnect_delay.is_zero() || self.max_reconnect_delay < self.reconnect_delay {
            return Err(range("the reconnect delay must be above zero and not above the longest one".to_owned()));
        }
        for (name, time) in [("connect", self.connect_timeout), ("stall", self.stall_timeout)] {
            if time < Duration::from_millis(100) {
                return Err(range(format!("the {name} timeout is {time:?}; it must be at least 100 ms")));
            }
        }
        if self.max_pixels == 0 {
            return Err(range("the largest picture must have at least one pixel".to_owned()));
        }
        Ok(())
    }
}

fn range(message: String) -> Error {
    Error::invalid("ingest_config_out_of_range", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_ranges_and_nonsense_is_not() {
        let good = IngestConfig::default();
        good.check().unwrap();
        for bad in [
            IngestConfig { capture_fps: 0.0, ..good.clone() },
            IngestConfig { jpeg_fps: f64::NAN, ..good.clone() },
            IngestConfig { jpeg_quality: 0, ..good.clone() },
            IngestConfig { max_reconnect_delay: Duration::ZERO, ..good.clone() },
            IngestConfig { stall_timeout: Duration::ZERO, ..good.clone() },
            IngestConfig { max_pixels: 0, ..good.clone() },
        ] {
            assert_eq!(bad.check().unwrap_err().code, "ingest_config_out_of_range");
        }
    }
}
