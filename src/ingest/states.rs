//! What a source is doing and what follows from each event, as a value: no clock, no task, no GStreamer.
//! Not here: carrying it out (`supervisor`).

use super::config::{DecoderChoice, IngestConfig, RtspTransport};
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::source::{SourceFault, SourceState};
use std::time::Duration;

/// Part of a wait by which it may be shortened, so that many streams don't all come back at one moment.
const JITTER: f64 = 0.1;

/// The course of one source, from its start to its stop.
#[derive(Debug)]
pub(super) struct Course {
    state: SourceState,
    backoff: Backoff,
    transport: RtspTransport,
    decoder: DecoderChoice,
    udp: bool,
    hardware_failed: bool,
    attempts: u32,
    /// Connections that delivered frames.
    connections: u64,
    /// The present connection delivered frames.
    flowing: bool,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) fault: SourceFault,
    /// A hardware decoder was at work.
    pub(super) hardware: bool,
    /// The source is an RTSP one.
    pub(super) rtsp: bool,
}

/// What to do after a loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// Connect again at once: another way is left to try.
    AtOnce,
    /// Connect again after this wait.
    After(Duration),
}

impl Course {
    /// The course of a source that was not opened yet.
    ///
    /// # Errors
    /// When a value of `config` is out of its range.
    pub(super) fn new(config: &IngestConfig) -> Result<Self> {
        config.check()?;
        let backoff = Backoff::try_new(config.reconnect_delay, config.max_reconnect_delay, JITTER)
            .map_err(|error| Error::invalid("ingest_config_out_of_range", error.to_string()))?;
        Ok(Self {
            state: SourceState::Stopped,
            backoff,
            transport: config.rtsp_transport,
            decoder: config.decoder,
            udp: config.rtsp_transport == RtspTransport::Udp,
            hardware_failed: false,
            attempts: 0,
            connections: 0,
            flowing: false,
        })
    }

    /// A connection is being made.
    pub(super) fn connect(&mut self) {
        self.state = SourceState::Connecting;
        self.flowing = false;
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Its first frame came. True when the source had delivered before, so that this is a reconnect.
    pub(super) fn first_frame(&mut self) -> bool {
        self.state = SourceState::Streaming;
        if self.flowing {
            return false;
        }
        self.flowing = true;
        self.connections += 1;
        self.connections > 1
    }

    /// Frames have come for long enough to call it well again.
    pub(super) fn stable(&mut self) {
        self.backoff.reset();
        self.attempts = 0;
    }

    /// The connection is lost, or never came to be. `random` is uniform in `[0, 1)`.
    pub(super) fn lost(&mut self, loss: Loss, random: f64) -> Next {
        self.state = if loss.fault == SourceFault::Stalled { SourceState::Stalled } else { SourceState::Retrying };
        let flowed = std::mem::take(&mut self.flowing);
        if self.other_decoder(loss) {
            return Next::AtOnce;
        }
        if let Some(next) = self.other_transport(loss, flowed) {
            return next;
        }
        let wait = self.backoff.next(random);
        Next::After(if is_lasting(loss.fault) { self.backoff.max() } else { wait })
    }

    /// Connected still, but no pictures come for a while.
    pub(super) fn quiet(&mut self) {
        self.state = SourceState::Stalled;
    }

    /// The source played to its end and is not to start again.
    pub(super) fn ended(&mut self) {
        self.state = SourceState::Ended;
        self.flowing = false;
    }

    pub(super) fn state(&self) -> SourceState {
        self.state
    }

    /// RTP is to come over UDP.
    pub(super) fn udp(&self) -> bool {
        self.udp
    }

    /// Hardware decoders may be tried.
    pub(super) fn hardware(&self) -> bool {
        self.decoder != DecoderChoice::Software && !self.hardware_failed
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(super) fn reconnects(&self) -> u64 {
        self.connections.saturating_sub(1)
    }

    /// A failure that a hardware decoder may have caused is tried once more without any, for as long as this source is on.
    fn other_decoder(&mut self, loss: Loss) -> bool {
        let suspect = matches!(
            loss.fault,
            SourceFault::BadStream | SourceFault::MissingCodec | SourceFault::ConnectTimeout | SourceFault::Other
        );
        // A missing codec is suspect without a decoder at work: the hardware one may have been the only one tried.
        let at_work = loss.hardware || loss.fault == SourceFault::MissingCodec;
        let falls_back = suspect && at_work && self.decoder == DecoderChoice::Auto && !self.hardware_failed;
        self.hardware_failed |= falls_back;
        falls_back
    }

    /// A server that refuses TCP is asked for UDP at once; where UDP brings nothing, TCP has its turn after the wait.
    fn other_transport(&mut self, loss: Loss, flowed: bool) -> Option<Next> {
        if !loss.rtsp || self.transport != RtspTransport::Auto || flowed {
            return None;
        }
        match (self.udp, loss.fault) {
            (false, SourceFault::Transport) => {
                self.udp = true;
                Some(Next::AtOnce)
            }
            (true, SourceFault::Transport | SourceFault::ConnectTimeout) => {
                self.udp = false;
                None
            }
            _ => None,
        }
    }
}

/// Failures that waiting rarely mends.
fn is_lasting(fault: SourceFault) -> bool {
    matches!(fault, SourceFault::Auth | SourceFault::MissingCodec | SourceFault::Forbidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn loss(fault: SourceFault) -> Loss {
        Loss { fault, hardware: false, rtsp: true }
    }

    fn course(config: IngestConfig) -> Course {
        Course::new(&config).unwrap()
    }

    fn seconds(next: Next) -> f64 {
        match next {
            Next::AtOnce => 0.0,
            Next::After(wait) => wait.as_secs_f64(),
        }
    }

    #[test]
    fn waits_double_and_only_stable_frames_reset_them() {
        let mut course = course(IngestConfig::default());
        let mut waits = Vec::new();
        for round in 0..8 {
            course.connect();
            // Frames that come and go at once don't count as stable.
            assert_eq!(course.first_frame(), round > 0);
            waits.push(seconds(course.lost(loss(SourceFault::Network), 0.0)));
        }
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        assert_eq!((course.attempts(), course.reconnects()), (8, 7));
        course.connect();
        course.first_frame();
        course.stable();
        assert_eq!(course.attempts(), 0);
        assert_eq!(course.lost(loss(SourceFault::Ended), 0.0), Next::After(Duration::from_secs(1)));
    }

    #[test]
    fn a_wrong_password_waits_longest_at_once() {
        for fault in [SourceFault::Auth, SourceFault::Forbidden] {
            let mut course = course(IngestConfig::default());
            course.connect();
            assert_eq!(course.lost(loss(fault), 0.9), Next::After(Duration::from_secs(30)));
        }
    }

    #[test]
    fn udp_follows_a_refused_tcp_at_once_and_back_after_a_wait() {
        let mut auto = course(IngestConfig::default());
        auto.connect();
        assert!(!auto.udp());
        assert_eq!(auto.lost(loss(SourceFault::Transport), 0.0), Next::AtOnce);
        assert!(auto.udp());
        auto.connect();
        auto.first_frame();
        // It worked, so it stays.
        assert_ne!(auto.lost(loss(SourceFault::Network), 0.0), Next::AtOnce);
        assert!(auto.udp());
        auto.connect();
        assert_ne!(auto.lost(loss(SourceFault::ConnectTimeout), 0.0), Next::AtOnce);
        assert!(!auto.udp());
        let mut fixed = course(IngestConfig { rtsp_transport: RtspTransport::Tcp, ..IngestConfig::default() });
        fixed.connect();
        assert_ne!(fixed.lost(loss(SourceFault::Transport), 0.0), Next::AtOnce);
        assert!(!fixed.udp());
    }

    #[test]
    fn a_hardware_decoder_that_fails_is_left_out_once_and_for_all() {
        let mut auto = course(IngestConfig::default());
        auto.connect();
        let bad = Loss { fault: SourceFault::BadStream, hardware: true, rtsp: false };
        assert_eq!(auto.lost(bad, 0.0), Next::AtOnce);
        assert!(!auto.hardware());
        auto.connect();
        assert_ne!(auto.lost(bad, 0.0), Next::AtOnce);
        let mut network = course(IngestConfig::default());
        network.connect();
        assert_ne!(network.lost(Loss { fault: SourceFault::Network, ..bad }, 0.0), Next::AtOnce);
        assert!(network.hardware());
    }

    fn any_fault() -> impl Strategy<Value = SourceFault> {
        use SourceFault::*;
        prop::sample::select(vec![
            Network,
            Auth,
            NotFound,
            Transport,
            MissingCodec,
            BadStream,
            Device,
            Stalled,
            ConnectTimeout,
            Ended,
            Forbidden,
            Other,
        ])
    }

    proptest! {
        #[test]
        fn no_order_of_events_makes_a_tight_loop(events in proptest::collection::vec((any_fault(), any::<(bool, bool, bool, bool)>(),
                                                                                     0.0f64..1.0), 1..60)) {
            let mut course = course(IngestConfig::default());
            let mut at_once = 0;
            for (fault, (frames, stable, hardware, rtsp), random) in events {
                course.connect();
                prop_assert_eq!(course.state(), SourceState::Connecting);
                if frames {
                    course.first_frame();
                    prop_assert_eq!(course.state(), SourceState::Streaming);
                }
                if frames && stable {
                    course.stable();
                }
                match course.lost(Loss { fault, hardware, rtsp }, random) {
                    Next::AtOnce => at_once += 1,
                    Next::After(wait) => {
                        at_once = 0;
                        prop_assert!(wait >= Duration::from_millis(900) && wait <= Duration::from_secs(30), "{wait:?}");
                    }
                }
                // One other transport and one other decoder are all that can be tried without a wait.
                prop_assert!(at_once <= 2);
                let stalled = fault == SourceFault::Stalled;
                prop_assert_eq!(course.state(), if stalled { SourceState::Stalled } else { SourceState::Retrying });
            }
        }
    }
}
