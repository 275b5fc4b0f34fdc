//! Takes secrets out of text that GStreamer wrote: log lines and error messages.
//! Not here: our own texts, which never hold any (`secret`).

use super::spec::NetSource;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use url::form_urlencoded::byte_serialize;

/// Secret strings remembered; the oldest go first. A source has at most a handful.
const REMEMBERED: usize = 256;
/// Shorter strings are not looked for by themselves: they are part of half of all words.
const SHORTEST: usize = 4;
const MASK: &str = "***";

/// Strings to look for. Process-wide, as GStreamer's log is.
static SECRETS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Remembers what of `source` must not be shown, in every form in which it may travel.
pub(super) fn remember(source: &NetSource) {
    let mut forms = Vec::new();
    if let Some(credentials) = &source.credentials {
        let (user, password) = (credentials.user.expose(), credentials.password.expose());
        forms.push(base64(format!("{user}:{password}").as_bytes()));
        forms.push(base64(password.as_bytes()));
        forms.push(byte_serialize(password.as_bytes()).collect());
        // The URL standard's own escapes differ from those of forms: both may be met.
        forms.push(userinfo(password));
        forms.push(format!("{user}:{password}"));
        forms.push(password.clone());
    }
    for (_, value) in source.url.expose().query_pairs() {
        forms.push(value.into_owned());
    }
    let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    for form in forms {
        if form.len() >= SHORTEST && !secrets.contains(&form) {
            if secrets.len() == REMEMBERED {
                secrets.pop_front();
            }
            secrets.push_back(form);
        }
    }
}

/// The same text without secrets: those remembered, and whatever stands as user and password or as query in any URL.
pub(super) fn scrub(text: &str) -> String {
    let mut text = Cow::Borrowed(text);
    for secret in SECRETS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if text.contains(secret.as_str()) {
            text = Cow::Owned(text.replace(secret.as_str(), MASK));
        }
    }
    urls(&text)
}

/// Masks user, password and query of every URL in `text`.
fn urls(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("://") {
        let (before, after) = rest.split_at(found + 3);
        clean.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        let host_end = url.find(['/', '?', '#']).unwrap_or(url.len());
        let (authority, path) = url.split_at(host_end);
        match authority.rfind('@') {
            Some(at) => {
                clean.push_str(MASK);
                clean.push_str(&authority[at..]);
            }
            None => clean.push_str(authority),
        }
        match path.find('?') {
            Some(query) => {
                clean.push_str(&path[..=query]);
                clean.push_str(MASK);
            }
            None => clean.push_str(path),
        }
        rest = tail;
    }
    clean.push_str(rest);
    clean
}

/// `password` as the URL standard writes it before the `@`.
fn userinfo(password: &str) -> String {
    let mut url = match url::Url::parse("rtsp://h/") {
        Ok(url) => url,
        Err(_) => return String::new(),
    };
    let _an_rtsp_url_takes_one = url.set_password(Some(password));
    url.password().unwrap_or_default().to_owned()
}

/// Base64 as HTTP's and RTSP's Basic authentication write it.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Policy, SourceSpec};
    use proptest::prelude::*;

    #[test]
    fn base64_is_the_standards() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn every_form_of_a_remembered_secret_goes() {
        let text = "rtsp://admin:pl@nt%40ed:42@cam.lan/s?token=qwertz";
        let SourceSpec::Rtsp(net) = SourceSpec::parse(text, &Policy::default()).unwrap() else { panic!("not rtsp") };
        remember(&net);
        for line in [
            text.to_owned(),
            "password is pl@nt@ed:42 indeed".to_owned(),
            "user:pw admin:pl@nt@ed:42".to_owned(),
            format!("Authorization: Basic {}", base64(b"admin:pl@nt@ed:42")),
            "pl%40nt%40ed%3A42".to_owned(),
            "GET /s?token=qwertz HTTP/1.1".to_owned(),
        ] {
            let clean = scrub(&line);
            assert!(!clean.contains("nt@ed") && !clean.contains("nt%40ed") && !clean.contains("qwertz"), "{clean}");
            assert!(!clean.contains(&base64(b"admin:pl@nt@ed:42")), "{clean}");
        }
    }

    #[test]
    fn urls_lose_user_and_query_and_keep_the_rest() {
        assert_eq!(urls("open rtsp://u:p@h:1/a?b=c failed"), "open rtsp://***@h:1/a?*** failed");
        assert_eq!(urls("'http://h/a@b' and x://y"), "'http://h/a@b' and x://y");
        assert_eq!(urls("no url: // here"), "no url: // here");
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "\\PC{0,200}") {
            let _clean = scrub(&text);
        }
    }
}
