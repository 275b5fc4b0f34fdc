//! Values that must not reach logs, API or page, and URLs with their credentials split off.
//! Not here: where secrets come from (`config`), the masking log writer (`telemetry`).

use std::fmt;

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
        let user = percent_decode(url.username());
        let password = percent_decode(url.password().unwrap_or(""));
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
        assert!(!format!("{credentials:?}{safe:?}").contains("ss"));
    }

    #[test]
    fn a_url_without_credentials_has_none() {
        let (_, credentials) = SafeUrl::split(url::Url::parse("http://h/x").unwrap());
        assert!(credentials.is_none());
    }
}
