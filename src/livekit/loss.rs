//! Why a connection to a room ended, in plain words with what to do. Not here: what follows from it (`room`).

use livekit_protocol::{DisconnectReason, LeaveRequest};
use livekit_signaling::SignalError;

/// A connection that failed or was lost. The text is free of secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) message: String,
    /// Waiting rarely mends it.
    pub(super) lasting: bool,
}

impl Loss {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), lasting: false }
    }

    fn lasting(message: impl Into<String>) -> Self {
        Self { message: message.into(), lasting: true }
    }

    /// The signalling connection could not be made. `server` is the address without secrets.
    pub(super) fn signal(server: &str, error: &SignalError) -> Self {
        match error {
            SignalError::Client(status, _) | SignalError::Server(status, _) | SignalError::Handshake { status } => {
                Self::status(server, status.as_u16())
            }
            SignalError::Timeout(_) => Self::new(format!(
                "the LiveKit server at {server} does not answer; check that it runs and that LIVEKIT_URL is right"
            )),
            SignalError::UrlParse(_) => Self::lasting(format!("LIVEKIT_URL {server} can't be used; check it")),
            SignalError::ProtoParse(_) => Self::lasting(format!("{server} does not speak LiveKit's protocol")),
            _ => Self::new(format!(
                "the LiveKit server at {server} can't be reached; check that it runs and that LIVEKIT_URL is right"
            )),
        }
    }

    fn status(server: &str, status: u16) -> Self {
        match status {
            401 | 403 => Self::lasting(format!(
                "the LiveKit server at {server} refuses LIVEKIT_API_KEY and LIVEKIT_API_SECRET; give it the same pair, \
                 and check both machines' clocks"
            )),
            404 => Self::lasting(format!(
                "there is no LiveKit server at {server}, or it does not create rooms by itself (room.auto_create)"
            )),
            _ => Self::new(format!("the LiveKit server at {server} answers with status {status}; see its log")),
        }
    }

    /// The server told the participant to leave.
    pub(super) fn told_to_leave(leave: &LeaveRequest) -> Self {
        match leave.reason() {
            DisconnectReason::DuplicateIdentity => Self::lasting(
                "another program with the same keys and stream name has taken this one's place in the LiveKit room; \
                 stop one of them, or give them different LIVEKIT_ROOM_PREFIX",
            ),
            DisconnectReason::ServerShutdown => Self::new("the LiveKit server is shutting down"),
            DisconnectReason::ParticipantRemoved => Self::new("the program was removed from the LiveKit room"),
            DisconnectReason::RoomDeleted | DisconnectReason::RoomClosed => Self::new("the LiveKit room was closed"),
            reason => Self::new(format!("the LiveKit server ended the connection ({})", reason.as_str_name())),
        }
    }

    /// The signalling connection broke.
    pub(super) fn broke() -> Self {
        Self::new("the connection to the LiveKit server broke")
    }

    /// Nothing was heard for too long.
    pub(super) fn silent(seconds: u64) -> Self {
        Self::new(format!("the LiveKit server has not answered for {seconds} s"))
    }

    /// Signalling stands, but pictures and sound find no way.
    pub(super) fn no_media(seconds: u64) -> Self {
        Self::new(format!(
            "no media connection with the LiveKit server after {seconds} s; open its UDP ports, and check its node_ip"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_keys_and_a_server_that_is_not_there_are_told_apart() {
        let error = SignalError::Client(http_status(401), "secret body".into());
        let loss = Loss::signal("ws://h:1", &error);
        assert!(loss.lasting && loss.message.contains("LIVEKIT_API_SECRET"), "{loss:?}");
        assert!(!loss.message.contains("body"));
        let loss = Loss::signal("ws://h:1", &SignalError::Connection("refused".into()));
        assert!(!loss.lasting && loss.message.contains("LIVEKIT_URL"), "{loss:?}");
    }

    fn http_status(code: u16) -> warp::http::StatusCode {
        warp::http::StatusCode::from_u16(code).unwrap()
    }
}
