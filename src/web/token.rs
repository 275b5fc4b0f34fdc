//! The API token: comparing it, and the short-lived cookie that stands for it with `<img>`, `<audio>` and `EventSource`,
//! which can't send an `Authorization` header. Not here: which routes ask for it (`routes`, `guard`).
//!
//! The cookie is the second at which it ends and a keyed digest (HMAC-SHA-256) of that, so that nothing has to be kept: it
//! holds over a restart, and no longer than the token that it was made from.

use crate::secret::Secret;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};
use warp::http::header::{AUTHORIZATION, COOKIE};
use warp::http::{HeaderMap, HeaderValue};

const COOKIE_NAME: &str = "vidette_session";
/// Seconds that a cookie holds; a page that is in use gets a new one at half of it.
const LIFE: u64 = 24 * 3600;

/// The token as a digest only, and the key of its cookies.
pub(super) struct Token {
    digest: [u8; 32],
    key: Secret<[u8; 32]>,
}

/// What a request says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential {
    Good,
    /// A good cookie that should be replaced by a younger one.
    Aging,
    /// None, or a cookie whose time is over.
    Missing,
    Wrong,
}

impl Token {
    pub(super) fn new(token: &Secret<String>) -> Self {
        let key = Sha256::new().chain_update(b"vidette session 2\0").chain_update(token.expose()).finalize();
        Self { digest: digest(token.expose()), key: Secret::new(key.into()) }
    }

    /// True when this is the token.
    pub(super) fn matches(&self, candidate: &str) -> bool {
        same(&self.digest, &digest(candidate))
    }

    /// What the request's headers prove at `now`.
    pub(super) fn judge(&self, headers: &HeaderMap, now: SystemTime) -> Credential {
        if let Some(header) = headers.get(AUTHORIZATION) {
            let token = header.to_str().ok().and_then(|text| {
                let (scheme, token) = text.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
            });
            return if token.is_some_and(|t| self.matches(t)) { Credential::Good } else { Credential::Wrong };
        }
        let cookies = headers.get_all(COOKIE).iter().filter_map(|c| c.to_str().ok()).flat_map(|c| c.split(';'));
        let mut ours = cookies.filter_map(|c| c.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('=')).peekable();
        if ours.peek().is_none() {
            return Credential::Missing;
        }
        let Some(ends) = ours.find_map(|cookie| self.genuine(cookie)) else { return Credential::Wrong };
        // One that ends later than any can was made by another clock.
        match ends.saturating_sub(seconds(now)) {
            0 => Credential::Missing,
            left if left > LIFE / 2 => Credential::Good,
            _ => Credential::Aging,
        }
    }

    /// The second at which a cookie of ours ends.
    fn genuine(&self, cookie: &str) -> Option<u64> {
        let (ends, _) = cookie.split_once('.')?;
        let ends: u64 = ends.parse().ok()?;
        same(&digest(&self.cookie(ends)), &digest(cookie)).then_some(ends)
    }

    fn cookie(&self, ends: u64) -> String {
        let ends = ends.to_string();
        let mut cookie = format!("{ends}.");
        for byte in keyed(self.key.expose(), ends.as_bytes()) {
            // Writing into a String can't fail.
            let _infallible = write!(cookie, "{byte:02x}");
        }
        cookie
    }

    /// The `Set-Cookie` value of a session that begins at `now`. A `secure` one is never sent over plain HTTP.
    pub(super) fn set_cookie(&self, now: SystemTime, secure: bool) -> Option<HeaderValue> {
        let cookie = self.cookie(seconds(now) + LIFE);
        let secure = if secure { "; Secure" } else { "" };
        let text = format!("{COOKIE_NAME}={cookie}; Path=/; Max-Age={LIFE}; HttpOnly; SameSite=Strict{secure}");
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// HMAC-SHA-256 (RFC 2104) with a key of the digest's own length.
fn keyed(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Compares digests without stopping at the first difference.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn cookie_at(token: &Token, now: SystemTime, secure: bool) -> (HeaderMap, String) {
        let set = token.set_cookie(now, secure).unwrap().to_str().unwrap().to_owned();
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, set.split(';').next().unwrap().parse().unwrap());
        (headers, set)
    }

    #[test]
    fn the_keyed_digest_is_the_standards() {
        // RFC 4231, test case 1, whose key is twenty bytes and zeros behind.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let hex: String = keyed(&key, b"Hi There").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn a_cookie_ages_and_ends() {
        let token = Token::new(&Secret::new("0123456789abcdef".to_owned()));
        let born = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (headers, set) = cookie_at(&token, born, false);
        assert!(!set.contains("Secure") && !set.contains("0123456789abcdef"), "{set}");
        let after = |hours: u64| token.judge(&headers, born + Duration::from_secs(hours * 3600));
        assert_eq!(
            [after(0), after(11), after(13), after(23)].map(|c| c == Credential::Good),
            [true, true, false, false]
        );
        assert_eq!((after(13), after(24), after(1000)), (Credential::Aging, Credential::Missing, Credential::Missing));
        assert!(cookie_at(&token, born, true).1.ends_with("; Secure"));
    }

    #[test]
    fn a_cookie_of_another_token_or_with_another_end_is_wrong() {
        let token = Token::new(&Secret::new("0123456789abcdef".to_owned()));
        let other = Token::new(&Secret::new("0123456789abcdeg".to_owned()));
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(token.judge(&cookie_at(&other, now, false).0, now), Credential::Wrong);
        let own = cookie_at(&token, now, false).0[COOKIE].to_str().unwrap().to_owned();
        let (ends, mac) = own.strip_prefix("vidette_session=").unwrap().split_once('.').unwrap();
        let later = ends.parse::<u64>().unwrap() + 1;
        for forged in [
            format!("{later}.{mac}"),
            format!("+{ends}.{mac}"),
            format!("0{ends}.{mac}"),
            format!(".{mac}"),
            ends.to_owned(),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, format!("vidette_session={forged}").parse().unwrap());
            assert_eq!(token.judge(&headers, now), Credential::Wrong, "{forged}");
        }
    }
}
