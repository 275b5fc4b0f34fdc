//! Requests to the Hugging Face hub or a mirror of it: redirects, the token, sizes and checksums that
//! the hub tells. The token goes to the endpoint and to no other host. Not here: files on disk, retrying.

use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{HeaderMap, StatusCode, header};
use ureq::{Agent, Body, Proxy};
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::secret::{SafeUrl, Secret};

const MAX_REDIRECTS: usize = 8;
/// The largest list of a repository's files that is read.
const MAX_LISTING: u64 = 16 << 20;
const USER_AGENT: &str = concat!("vidette/", env!("CARGO_PKG_VERSION"));

/// Size and checksum of a file, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    pub bytes: Option<u64>,
    /// Lower-case hexadecimal.
    pub sha256: Option<String>,
}

/// Why a request brought nothing.
#[derive(Debug)]
pub enum Failure {
    /// It may go better later; the server may have said when.
    Retry { why: String, after: Option<Duration> },
    /// It will not.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

/// The beginning of an answer with a body.
pub struct Answer {
    pub status: StatusCode,
    /// Bytes of the body, if the server says.
    pub length: Option<u64>,
    /// First byte and size of the whole, of an answer with a part.
    pub range: Option<(u64, Option<u64>)>,
    /// A strong entity tag.
    pub etag: Option<String>,
    /// What the hub itself says about the file.
    pub linked: Expected,
    pub body: Box<dyn Read + Send>,
}

/// How requests are made.
#[derive(Debug, Clone)]
pub struct Network {
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest silence within an answer.
    pub idle: Duration,
    /// Such as `http://proxy.lan:3128`.
    pub proxy: Option<String>,
}

/// The hub at an endpoint.
pub struct Hub {
    agent: Agent,
    endpoint: Url,
    token: Option<Secret<String>>,
}

impl Hub {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// `pull_endpoint`, `pull_token` or `pull_proxy`.
    pub fn new(endpoint: &str, token: Option<Secret<String>>, network: &Network) -> Result<Self> {
        let bad = |why: &str| {
            Error::invalid("pull_endpoint", format!("the address of the hub {why}"))
                .hint("set HF_ENDPOINT to something like https://huggingface.co, or unset it")
        };
        let mut endpoint = Url::parse(endpoint.trim()).map_err(|e| bad(&format!("is no URL: {e}")))?;
        if !matches!(endpoint.scheme(), "https" | "http") || endpoint.host().is_none() {
            return Err(bad("must start with https:// or http://"));
        }
        if !endpoint.username().is_empty() || endpoint.password().is_some() {
            return Err(bad("must not hold a password; the token has its own setting, HF_TOKEN"));
        }
        endpoint.set_query(None);
        endpoint.set_fragment(None);
        let token = token.filter(|t| !t.expose().trim().is_empty());
        if token.as_ref().is_some_and(|t| !t.expose().trim().bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::invalid("pull_token", "HF_TOKEN has characters that a token can't have")
                .hint("copy the token again, without spaces and quotes"));
        }
        let proxy = network.proxy.as_deref().map(Proxy::new).transpose();
        let proxy = proxy.map_err(|_| Error::invalid("pull_proxy", "the address of the proxy is not understood"))?;
        let agent = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(network.connect))
            .timeout_resolve(Some(network.connect))
            .timeout_per_read(Some(network.idle))
            .timeout_per_write(Some(network.idle))
            .user_agent(USER_AGENT)
            .accept_encoding("identity")
            .proxy(proxy)
            .build()
            .new_agent();
        Ok(Self { agent, endpoint, token })
    }

    /// A handle that ends requests in flight from another thread.
    pub fn agent(&self) -> Agent {
        self.agent.clone()
    }

    /// The address of a file.
    ///
    /// # Errors
    /// `pull_endpoint` when the endpoint can't have paths.
    pub fn file_url(&self, repo: &str, revision: &str, path: &str) -> Result<Url> {
        self.url(repo.split('/').chain(["resolve", revision]).chain(path.split('/')))
    }

    fn url<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Result<Url> {
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| Error::invalid("pull_endpoint", "the address of the hub can't have paths"))?
            .pop_if_empty()
            .extend(parts);
        Ok(url)
    }

    /// Asks for a file, from byte `from` on if that is not 0. With `etag` the server sends the whole
    /// file instead when it has changed.
    ///
    /// # Errors
    /// [`Failure`]. Answers with status 200, 206 and 416 are no failures.
    pub fn get(&self, url: &Url, from: u64, etag: Option<&str>) -> Result<Answer, Failure> {
        let mut url = url.clone();
        let mut linked = Expected::default();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(url.as_str());
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
                if let Some(etag) = etag {
                    request = request.header(header::IF_RANGE, etag);
                }
            }
            let ours = url.origin() == self.endpoint.origin();
            if let Some(token) = self.token.as_ref().filter(|_| ours) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose().trim()));
            }
            let response = request.call().map_err(|e| failed(&e, &url))?;
            let (parts, body) = response.into_parts();
            if ours {
                linked = Expected {
                    bytes: text(&parts.headers, "x-linked-size").and_then(|v| v.parse().ok()).or(linked.bytes),
                    sha256: text(&parts.headers, "x-linked-etag").and_then(sha256_of).or(linked.sha256),
                };
            }
            if parts.status.is_redirection() {
                url = self.follow(&url, &parts.headers)?;
                continue;
            }
            return answer(parts.status, &parts.headers, body, linked, &url);
        }
        Err(Error::unavailable("pull_redirect", "the hub sends us from one address to another without end")
            .hint("try again later, or set HF_ENDPOINT to a mirror")
            .into())
    }

    fn follow(&self, from: &Url, headers: &HeaderMap) -> Result<Url, Failure> {
        let refuse =
            |message: String| {
                Failure::from(Error::unavailable("pull_redirect", message).hint(
                    "the network may answer in the hub's place (a login page); try again later or from elsewhere",
                ))
            };
        let location = text(headers, "location").and_then(|l| from.join(l).ok());
        let Some(location) = location else {
            return Err(refuse(format!("{} redirects to nowhere", shown(from))));
        };
        let safe = location.scheme() == "https" || (location.scheme() == "http" && self.endpoint.scheme() == "http");
        if !safe {
            return Err(refuse(format!("{} redirects to an address without encryption", shown(from))));
        }
        Ok(location)
    }

    /// Size and SHA-256 of every large file of a repository, by path.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn listing(&self, repo: &str, revision: &str) -> Result<HashMap<String, Expected>, Failure> {
        let mut url = self.url(["api", "models"].into_iter().chain(repo.split('/')).chain(["tree", revision]))?;
        url.set_query(Some("recursive=true"));
        let answer = self.get(&url, 0, None)?;
        let mut json = Vec::new();
        let unreadable =
            |why: String| Failure::Retry { why: format!("the hub's list of files is unreadable: {why}"), after: None };
        answer.body.take(MAX_LISTING).read_to_end(&mut json).map_err(|e| unreadable(e.to_string()))?;
        let rows: Vec<Row> = serde_json::from_slice(&json).map_err(|e| unreadable(e.to_string()))?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let lfs = row.lfs?;
                Some((
                    row.path,
                    Expected { bytes: lfs.size.or(row.size), sha256: lfs.oid.as_deref().and_then(sha256_of) },
                ))
            })
            .collect())
    }
}

#[derive(Deserialize)]
struct Row {
    path: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: Option<String>,
    size: Option<u64>,
}

/// An address without what a signed one keeps in its query.
fn shown(url: &Url) -> String {
    SafeUrl::split(url.clone()).0.to_string()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim)
}

/// The checksum in an entity tag or object id, if it is one.
fn sha256_of(tag: &str) -> Option<String> {
    let hex = tag.trim_start_matches("W/").trim_matches('"').trim_start_matches("sha256:").to_ascii_lowercase();
    (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then_some(hex)
}

/// First byte and whole size of `bytes 5-9/10`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, whole) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, whole.trim().parse().ok()))
}

fn answer(status: StatusCode, headers: &HeaderMap, body: Body, linked: Expected, url: &Url) -> Result<Answer, Failure> {
    let after = text(headers, "retry-after").and_then(|v| v.parse().ok()).map(Duration::from_secs);
    let address = shown(url);
    let refuse = |kind, code, message: String, hint: &str| Err(Error::new(kind, code, message).hint(hint).into());
    match status.as_u16() {
        200 | 206 | 416 => {}
        401 | 403 => {
            return refuse(
                Kind::Denied,
                "pull_denied",
                format!("{address}: the hub refuses access ({status})"),
                "set HF_TOKEN to a token that may read this repository; some also want their terms accepted on the web page",
            );
        }
        404 | 410 => {
            return refuse(
                Kind::NotFound,
                "pull_not_found",
                format!("{address}: the hub does not have this file ({status})"),
                "a mirror may lack it: unset HF_ENDPOINT; otherwise the catalogue is out of date, get a newer Vidette",
            );
        }
        408 | 429 | 500..=599 => {
            return Err(Failure::Retry { why: format!("{address}: the server answers {status}"), after });
        }
        _ => {
            return refuse(
                Kind::Unavailable,
                "pull_status",
                format!("{address}: the server answers {status}"),
                "try again later, or set HF_ENDPOINT to a mirror",
            );
        }
    }
    Ok(Answer {
        status,
        length: text(headers, "content-length").and_then(|v| v.parse().ok()),
        range: text(headers, "content-range").and_then(content_range),
        etag: text(headers, "etag").filter(|t| t.starts_with('"')).map(str::to_owned),
        linked,
        body: Box::new(body.into_reader()),
    })
}

/// A failure below HTTP. The error's own text is used only where it can't hold an address.
fn failed(error: &ureq::Error, url: &Url) -> Failure {
    let address = shown(url);
    match error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
            Error::unavailable("pull_tls", format!("{address}: no trustworthy connection: {error}"))
                .hint("check the clock of this machine, and whether the network puts itself between")
                .into()
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            Error::invalid("pull_endpoint", format!("{address}: no request can be made of this address")).into()
        }
        ureq::Error::Timeout(_) => {
            Failure::Retry { why: format!("{address}: the server does not answer in time"), after: None }
        }
        ureq::Error::HostNotFound => Failure::Retry { why: format!("{address}: the host is not found"), after: None },
        other => Failure::Retry { why: format!("{address}: {other}"), after: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_the_hub_writes_them() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
        let hex = "Ab".repeat(32);
        assert_eq!(sha256_of(&format!("\"{hex}\"")), Some(hex.to_ascii_lowercase()));
        assert_eq!(sha256_of("\"short\""), None);
    }

    #[test]
    fn redirects_do_not_leave_encryption() {
        let network = Network { connect: Duration::from_secs(1), idle: Duration::from_secs(1), proxy: None };
        let follow = |endpoint: &str, to: &'static str| {
            let hub = Hub::new(endpoint, None, &network).unwrap();
            let headers = HeaderMap::from_iter([(header::LOCATION, to.parse().unwrap())]);
            hub.follow(&Url::parse("https://h/a").unwrap(), &headers).map(|u| u.to_string()).ok()
        };
        assert_eq!(follow("https://h", "http://cdn/x"), None);
        assert_eq!(follow("https://h", "ftp://cdn/x"), None);
        assert_eq!(follow("https://h", "https://cdn/x").as_deref(), Some("https://cdn/x"));
        assert_eq!(follow("https://h", "/b?c=d").as_deref(), Some("https://h/b?c=d"));
        assert_eq!(follow("http://h", "http://cdn/x").as_deref(), Some("http://cdn/x"));
    }

    #[test]
    fn endpoints_and_tokens_are_checked_before_anything_is_sent() {
        let network = Network { connect: Duration::from_secs(1), idle: Duration::from_secs(1), proxy: None };
        let code = |endpoint: &str, token: Option<&str>| {
            Hub::new(endpoint, token.map(|t| Secret::new(t.to_owned())), &network).err().map(|e| e.code)
        };
        assert_eq!(code("https://huggingface.co", Some("hf_x")), None);
        assert_eq!(code("ftp://h", None), Some("pull_endpoint"));
        assert_eq!(code("https://me:pw@h", None), Some("pull_endpoint"));
        assert_eq!(code("https://h", Some("a\nb")), Some("pull_token"));
        let hub = Hub::new("https://h/mirror/", None, &network).unwrap();
        assert_eq!(
            hub.file_url("a/b", "main", "x/y z.gguf").unwrap().as_str(),
            "https://h/mirror/a/b/resolve/main/x/y%20z.gguf"
        );
    }
}
