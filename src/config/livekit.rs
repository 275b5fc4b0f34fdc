//! The options of LiveKit, and which keys are none. Not here: what is done with them (`livekit`).

use super::{Options, bad, expand, seconds};
use crate::config::Environment;
use crate::error::{Error, Result};
use crate::secret::Secret;
use std::time::Duration;
use url::Url;

/// Shortest secret that is taken; `livekit-server` itself complains of shorter ones.
const MIN_SECRET: usize = 32;
/// Least number of different characters in a secret. 32 hexadecimal digits have fewer once in ten million.
const MIN_VARIETY: usize = 8;
/// Longest prefix of a room's name.
const MAX_PREFIX: usize = 64;
const KEYS: &str = "`make livekit-keys` writes a pair into .env; give the same pair to the LiveKit server";

/// Values of the LiveKit room.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveKitOptions {
    /// `ws` or `wss`, as this program reaches the server.
    pub url: Url,
    /// The same as browsers reach it.
    pub public_url: Url,
    pub api_key: String,
    pub api_secret: Secret<String>,
    /// What every room's name begins with; `None` derives it from the secret.
    pub room_prefix: Option<String>,
    /// How long the program stays in a room without people.
    pub empty_grace: Duration,
}

/// `None` while LiveKit is off; then nothing about it can be wrong.
pub(super) fn livekit(o: &Options, environment: &dyn Environment) -> Result<Option<LiveKitOptions>> {
    if !o.livekit_enabled.unwrap_or(false) {
        return Ok(None);
    }
    let given = |name: &str, value: &Option<String>| match value.as_deref().map(str::trim) {
        None | Some("") => Err(Error::invalid("livekit_incomplete", format!("LIVEKIT_ENABLED needs {name}"))
            .hint("set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET, or LIVEKIT_ENABLED=false")),
        Some(text) => expand(text, environment),
    };
    let url = address("LIVEKIT_URL", &given("LIVEKIT_URL", &o.livekit_url)?)?;
    let public_url = match &o.livekit_public_url {
        Some(text) => address("LIVEKIT_PUBLIC_URL", &expand(text, environment)?)?,
        None => url.clone(),
    };
    let api_key = given("LIVEKIT_API_KEY", &o.livekit_api_key)?;
    let api_secret = given("LIVEKIT_API_SECRET", &o.livekit_api_secret)?;
    check_key(&api_key)?;
    check_secret(&api_secret)?;
    let room_prefix = o.livekit_room_prefix.clone().filter(|prefix| !prefix.is_empty());
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if room_prefix.as_ref().is_some_and(|p| p.len() > MAX_PREFIX || !p.chars().all(fits)) {
        return Err(bad("LIVEKIT_ROOM_PREFIX", "may have up to 64 letters, digits, dots, - and _"));
    }
    Ok(Some(LiveKitOptions {
        url,
        public_url,
        api_key,
        api_secret: Secret::new(api_secret),
        room_prefix,
        empty_grace: seconds("LIVEKIT_EMPTY_GRACE", o.livekit_empty_grace.unwrap_or(600.0), 1.0, 86_400.0)?,
    }))
}

fn address(name: &str, text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|e| bad(name, &format!("can't be read: {e}; write ws://host:7880")))?;
    if !matches!(url.scheme(), "ws" | "wss") || url.host_str().is_none_or(str::is_empty) {
        return Err(bad(name, "must be a ws:// or wss:// address such as ws://127.0.0.1:7880"));
    }
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if !plain || url.fragment().is_some() {
        return Err(bad(name, "must have no user name, password, query or fragment in it"));
    }
    Ok(url)
}

fn check_key(key: &str) -> Result<()> {
    let placeholder = is_placeholder(key) || key.chars().any(|c| c.is_control() || c.is_whitespace());
    if placeholder || key.len() < 4 {
        return Err(weak("LIVEKIT_API_KEY is a placeholder"));
    }
    Ok(())
}

/// Nothing of the secret is in the message.
fn check_secret(secret: &str) -> Result<()> {
    if is_placeholder(secret) || repeats(secret) {
        return Err(weak("LIVEKIT_API_SECRET is a placeholder that everybody knows"));
    }
    if secret.chars().count() < MIN_SECRET {
        return Err(weak(&format!("LIVEKIT_API_SECRET is shorter than {MIN_SECRET} characters")));
    }
    let different: std::collections::BTreeSet<_> = secret.chars().collect();
    if different.len() < MIN_VARIETY {
        return Err(weak("LIVEKIT_API_SECRET is made of too few different characters"));
    }
    Ok(())
}

fn weak(message: &str) -> Error {
    Error::invalid("livekit_keys_weak", message).hint(KEYS)
}

/// Words that stand in examples for a key or a secret.
fn is_placeholder(text: &str) -> bool {
    const WORDS: [&str; 10] = [
        "secret",
        "devkey",
        "devsecret",
        "apikey",
        "apisecret",
        "changeme",
        "password",
        "yourkey",
        "yoursecret",
        "yourapisecret",
    ];
    let bare: String = text.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_ascii_lowercase();
    WORDS
        .iter()
        .any(|word| bare == *word || (bare.len() > word.len() && !bare.is_empty() && bare.replace(word, "").is_empty()))
}

/// True when it is one piece written again and again.
fn repeats(text: &str) -> bool {
    let letters: Vec<char> = text.chars().collect();
    (1..=letters.len() / 2).any(|period| letters.iter().enumerate().all(|(i, c)| *c == letters[i % period]))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Environment for Nothing {
        fn get(&self, _: &str) -> Option<String> {
            None
        }
    }

    const SECRET: &str = "q8Zt3LwXv0nRk5JbYc7PdH2sMfA9uGeT";

    fn options(key: &str, secret: &str, url: &str) -> Options {
        Options {
            livekit_enabled: Some(true),
            livekit_url: Some(url.to_owned()),
            livekit_api_key: Some(key.to_owned()),
            livekit_api_secret: Some(secret.to_owned()),
            ..Options::default()
        }
    }

    #[test]
    fn it_is_off_unless_asked_for_and_complete_when_on() {
        assert_eq!(livekit(&Options::default(), &Nothing).unwrap(), None);
        let off = Options { livekit_enabled: Some(false), ..options("devkey", "secret", "x") };
        assert_eq!(livekit(&off, &Nothing).unwrap(), None);
        let on = livekit(&options("APIabc123", SECRET, "ws://127.0.0.1:7880"), &Nothing).unwrap().unwrap();
        assert_eq!((on.url.as_str(), on.url == on.public_url), ("ws://127.0.0.1:7880/", true));
        assert!(!format!("{on:?}").contains(SECRET));
        let lacking = Options { livekit_api_secret: None, ..options("APIabc123", SECRET, "ws://h:1") };
        let error = livekit(&lacking, &Nothing).unwrap_err();
        assert!(error.code == "livekit_incomplete" && error.message.contains("LIVEKIT_API_SECRET"), "{error}");
    }

    #[test]
    fn placeholders_short_and_repeated_secrets_are_refused_without_being_shown() {
        let six = "secret".repeat(6);
        let long_patterns = ["a".repeat(40), "abc123".repeat(7), "secret-".repeat(6), "changeme_".repeat(5)];
        let weak =
            ["secret", "devkey", &six, "q8Zt3LwXv0nRk5JbYc7PdH2sMfA9uGe", "abababababababababababababababababababab"];
        for secret in weak.into_iter().chain(long_patterns.iter().map(String::as_str)) {
            let error = livekit(&options("APIabc123", secret, "ws://h:1"), &Nothing).unwrap_err();
            assert_eq!(error.code, "livekit_keys_weak", "{secret}");
            assert!(error.hint.as_ref().unwrap().contains("make livekit-keys"));
            assert!(secret == "secret" || !error.to_string().contains(secret), "{error}");
        }
        for key in ["devkey", "x", "API KEY"] {
            assert_eq!(livekit(&options(key, SECRET, "ws://h:1"), &Nothing).unwrap_err().code, "livekit_keys_weak");
        }
    }

    #[test]
    fn addresses_are_web_sockets_and_carry_nothing_else() {
        for url in ["http://h:7880", "ws://", "h:7880", "ws://u:p@h:1", "wss://h/?access_token=x", "ws://h/#x"] {
            let error = livekit(&options("APIabc123", SECRET, url), &Nothing).unwrap_err();
            assert!(error.message.contains("LIVEKIT_URL"), "{url}: {error}");
        }
        let bad = Options { livekit_room_prefix: Some("a b".into()), ..options("APIabc123", SECRET, "ws://h:1") };
        assert!(livekit(&bad, &Nothing).unwrap_err().message.contains("LIVEKIT_ROOM_PREFIX"));
        let bad = Options { livekit_empty_grace: Some(f64::NAN), ..options("APIabc123", SECRET, "ws://h:1") };
        assert!(livekit(&bad, &Nothing).unwrap_err().message.contains("LIVEKIT_EMPTY_GRACE"));
    }
}
