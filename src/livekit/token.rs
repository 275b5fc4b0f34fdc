//! What a token says, whole: a visitor's and the participant's own. Both name one room and allow as little as works.
//! Not here: who gets one (`super::LiveKit`).
//!
//! `jsonwebtoken` signs; the claims are LiveKit's (docs.livekit.io, "Tokens & grants"), written here as two small types,
//! so that what a token allows can be read in one place.

use super::{LiveKitConfig, TOKEN_LIFE};
use crate::error::{Error, Result};
use crate::secret::Secret;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Clocks of two machines differ.
const CLOCK_SLACK: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    name: &'a str,
    nbf: u64,
    exp: u64,
    video: Grants<'a>,
}

/// LiveKit's `VideoGrant`. What is not named is not allowed: to create, list, record or administer rooms.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Grants<'a> {
    room_join: bool,
    room: &'a str,
    can_subscribe: bool,
    can_publish: bool,
    can_publish_sources: &'a [&'a str],
    can_publish_data: bool,
    can_update_own_metadata: bool,
}

/// For a browser: its camera, its microphone, and to hear.
///
/// # Errors
/// When the token can't be signed.
pub(super) fn visitor(config: &LiveKitConfig, room: &str, identity: &str, now: SystemTime) -> Result<String> {
    sign(config, room, identity, "Viewer", &["camera", "microphone"], now)
}

/// For the program itself: to see, and to speak.
///
/// # Errors
/// As [`visitor`].
pub(super) fn own(config: &LiveKitConfig, room: &str, identity: &str, now: SystemTime) -> Result<Secret<String>> {
    sign(config, room, identity, "Vidette", &["microphone"], now).map(Secret::new)
}

fn sign(
    config: &LiveKitConfig,
    room: &str,
    identity: &str,
    name: &str,
    sources: &[&str],
    now: SystemTime,
) -> Result<String> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = Claims {
        iss: &config.api_key,
        sub: identity,
        name,
        nbf: now.saturating_sub(CLOCK_SLACK).as_secs(),
        exp: (now + TOKEN_LIFE).as_secs(),
        video: Grants {
            room_join: true,
            room,
            can_subscribe: true,
            can_publish: true,
            can_publish_sources: sources,
            can_publish_data: false,
            can_update_own_metadata: false,
        },
    };
    let key = EncodingKey::from_secret(config.api_secret.expose().as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|_| Error::internal("livekit_token", "a LiveKit token could not be signed"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation, decode};
    use serde_json::json;

    #[test]
    fn a_visitors_token_allows_a_camera_a_microphone_and_hearing_and_nothing_else() {
        let config = config();
        let now = SystemTime::now();
        let token = visitor(&config, "r-main", "viewer-1", now).unwrap();
        let key = DecodingKey::from_secret(config.api_secret.expose().as_bytes());
        let claims = decode::<serde_json::Value>(&token, &key, &Validation::new(Algorithm::HS256)).unwrap().claims;
        let seconds = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(
            claims,
            json!({
                "iss": "APIabc", "sub": "viewer-1", "name": "Viewer", "nbf": seconds - 10, "exp": seconds + 600,
                "video": {
                    "roomJoin": true, "room": "r-main", "canSubscribe": true, "canPublish": true,
                    "canPublishSources": ["camera", "microphone"], "canPublishData": false,
                    "canUpdateOwnMetadata": false,
                },
            })
        );
        assert!(!format!("{:?}", own(&config, "r", "i", now).unwrap()).contains("ey"));
    }
}
