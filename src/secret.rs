//! Values that must not reach logs, API or page, and URLs with their credentials split off.
//! Also the memory of secrets that [`mask`] removes from any text, because libraries print URLs for us.
//! Not here: where secrets come from (`config`), the log writer that masks (`telemetry`).

use std::borrow::Cow;
use std::fmt;
use std::sync::{PoisonError, RwLock};

/// Secrets that are masked wherever text leaves the program; the oldest goes beyond this many.
const REMEMBERED: usize = 256;
/// Shorter ones would mask ordinary words.
const SHORTEST: usize = 4;
static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Has `secret` masked by [`mask`] from now on, in the spellings in which libraries print it.
pub fn remember(secret: &str) {
    let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    for spelling in [secret.to_owned(), encoded.replace('+', "%20"), encoded] {
        if spelling.len() >= SHORTEST && !known.contains(&spelling) {
            if known.len() == REMEMBERED {
                known.remove(0);
            }
            known.push(spelling);
        }
    }
    // Longest first, so that no tail of a longer spelling is left.
    known.sort_by_key(|s| std::cmp::Reverse(s.len()));
}

/// How a JSON Web Token begins: `{"` in base64. LiveKit's tickets are such, and there is a new one for each connection.
const TOKEN_HEAD: &str = "eyJ";
/// Shorter words that begin so are none.
const SHORTEST_TOKEN: usize = 32;

/// `text` with every word of the shape of a JSON Web Token replaced by `***`.
fn mask_tokens(text: &str) -> Cow<'_, str> {
    let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let (mut masked, mut from) = (String::new(), 0);
    while let Some(at) = text[from..].find(TOKEN_HEAD).map(|at| from + at) {
        let end = text[at..].find(|c| !of_token(c)).map_or(text.len(), |length| at + length);
        masked.push_str(&text[from..at]);
        let word = &text[at..end];
        let is_token = word.len() >= SHORTEST_TOKEN && word.contains('.');
        masked.push_str(if is_token { "***" } else { word });
        from = end;
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(&text[from..]);
    Cow::Owned(masked)
}

/// `text` with every remembered secret, and whatever has the shape of a JSON Web Token, replaced by `***`.
pub fn mask(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut masked = mask_tokens(text);
    for secret in known.iter() {
        if masked.contains(secret.as_str()) {
            masked = Cow::Owned(masked.replace(secret.as_str(), "***"));
        }
    }
    masked
}

/// A value whose `Debug` and `Display` print `***`. Read it with [`Secret::expose`], at the last moment.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Call this only where it is handed to what needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// User name and password for a source, percent-decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub user: Secret<String>,
    pub password: Secret<String>,
}

/// A URL without credentials; what `Display` prints is safe to show (query values are masked,
/// because cameras take `?token=…` and `?pwd=…`).
#[derive(Clone, PartialEq, Eq)]
pub struct SafeUrl {
    url: url::Url,
}

impl SafeUrl {
    /// Takes the credentials out of `url`.
    pub fn split(mut url: url::Url) -> (Self, Option<Credentials>) {
        let written = url.password().unwrap_or("").to_owned();
        let user = percent_decode(url.username());
        let password = percent_decode(url.password().unwrap_or(""));
        remember(&written);
        remember(&password);
        let credentials = (!user.is_empty() || !password.is_empty())
            .then(|| Credentials { user: Secret::new(user), password: Secret::new(password) });
        // Both fail only for URLs that can't have credentials, which then have none to remove.
        let _cannot_have_any = url.set_username("");
        let _cannot_have_any = url.set_password(None);
        (Self { url }, credentials)
    }

    /// The whole URL, query included, for the one who opens it.
    pub fn expose(&self) -> &url::Url {
        &self.url
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        shown.set_query(None);
        shown.set_fragment(None);
        f.write_str(shown.as_str())?;
        for (i, (key, _)) in self.url.query_pairs().enumerate() {
            write!(f, "{}{key}=***", if i == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Decodes `%XX`; bytes that are no UTF-8 become U+FFFD.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let raw = text.as_bytes();
    let mut i = 0;
    while i < raw.len() {
        let hex = (raw[i] == b'%')
            .then(|| raw.get(i + 1..i + 3))
            .flatten()
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match hex {
            Some(byte) => {
                bytes.push(byte);
                i += 3;
            }
            None => {
                bytes.push(raw[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_the_url_and_never_print() {
        let url = url::Url::parse("rtsp://ad%40min:pa%3Ass%40w@cam.lan:554/s?token=abc&x=1").unwrap();
        let (safe, credentials) = SafeUrl::split(url);
        let credentials = credentials.unwrap();
        assert_eq!(credentials.user.expose(), "ad@min");
        assert_eq!(credentials.password.expose(), "pa:ss@w");
        assert_eq!(safe.to_string(), "rtsp://cam.lan:554/s?token=***&x=***");
        assert_eq!(safe.expose().as_str(), "rtsp://cam.lan:554/s?token=abc&x=1");
        assert!(!format!("{credentials:?}{safe:?}").contains("ss@w"));
    }

    #[test]
    fn what_looks_like_a_token_is_masked_and_words_are_not() {
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln-bmF0dXJl_";
        assert_eq!(mask(&format!("access_token={token}&x=1 {token}")), "access_token=***&x=1 ***");
        assert_eq!(
            mask("eyJ, eyJ.short, eyJ0without0any0dot0in0it0though0long"),
            "eyJ, eyJ.short, eyJ0without0any0dot0in0it0though0long"
        );
        assert_eq!(mask("ä eyJ"), "ä eyJ");
    }

    #[test]
    fn remembered_secrets_are_masked_in_every_spelling() {
        let url = url::Url::parse("rtsp://u:q%40r%2Fs%20t@h/").unwrap();
        let (_, credentials) = SafeUrl::split(url);
        assert_eq!(credentials.unwrap().password.expose(), "q@r/s t");
        let masked = mask("a q@r/s t b q%40r%2Fs%20t c q%40r%2Fs+t d").into_owned();
        assert_eq!(masked, "a *** b *** c *** d");
        assert!(matches!(mask("nothing to hide"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_url_without_credentials_has_none() {
        let (_, credentials) = SafeUrl::split(url::Url::parse("http://h/x").unwrap());
        assert!(credentials.is_none());
    }
}
