//! The API token: comparing it, and the cookie that carries it for `<img>` and `EventSource`, which can't send
//! an `Authorization` header. Not here: which routes ask for it (`routes`, `guard`).

use crate::secret::Secret;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use warp::http::header::{AUTHORIZATION, COOKIE};
use warp::http::{HeaderMap, HeaderValue};

const COOKIE_NAME: &str = "vidette_session";

/// The token as digests only: of itself, and of the cookie made from it.
pub(super) struct Token {
    digest: [u8; 32],
    cookie: Secret<String>,
    cookie_digest: [u8; 32],
}

/// What a request says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential {
    Good,
    Missing,
    Wrong,
}

impl Token {
    pub(super) fn new(token: &Secret<String>) -> Self {
        let mut cookie = String::with_capacity(64);
        for byte in Sha256::new().chain_update(b"vidette session 1\0").chain_update(token.expose()).finalize() {
            // Writing into a String can't fail.
            let _infallible = write!(cookie, "{byte:02x}");
        }
        Self { digest: digest(token.expose()), cookie_digest: digest(&cookie), cookie: Secret::new(cookie) }
    }

    /// True when this is the token.
    pub(super) fn matches(&self, candidate: &str) -> bool {
        same(&self.digest, &digest(candidate))
    }

    /// What the request's headers prove.
    pub(super) fn judge(&self, headers: &HeaderMap) -> Credential {
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
        if ours.any(|c| same(&self.cookie_digest, &digest(c))) { Credential::Good } else { Credential::Wrong }
    }

    /// The `Set-Cookie` value of a session of 30 days.
    pub(super) fn set_cookie(&self) -> Option<HeaderValue> {
        let text =
            format!("{COOKIE_NAME}={}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict", self.cookie.expose());
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Compares digests without stopping at the first difference.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b))) == 0
}
