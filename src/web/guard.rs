//! The one guard before all routes: the host that was asked for, the token, and where a change comes from.
//! Not here: sizes and types of bodies (`body`), limits on connections (`server`).

use super::answer::Refusal;
use super::routes::{self, Access, Route};
use super::token::{Credential, Token};
use std::net::IpAddr;
use std::time::SystemTime;
use warp::http::header::{HOST, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use warp::http::request::Parts;
use warp::http::{HeaderMap, Method, StatusCode};

/// Longest path with query, bytes.
const MAX_URI: usize = 2048;
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the guard knows of the server.
pub(super) struct Guard {
    /// Lower case, without ports.
    hosts: Vec<String>,
    token: Option<Token>,
}

/// A request that may come in.
pub(super) struct Admitted {
    pub(super) route: &'static Route,
    /// Its session ends before long; the answer should bring a new cookie.
    pub(super) renew: bool,
}

impl Guard {
    pub(super) fn new(further_hosts: &[String], token: Option<Token>) -> Self {
        let mut hosts: Vec<_> = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).into();
        hosts.extend(further_hosts.iter().map(|h| host_of(h).to_ascii_lowercase()));
        Self { hosts, token }
    }

    /// The token, when one is set.
    pub(super) fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// What is known of a request that may come in. `reached` is the address on which its connection came.
    ///
    /// # Errors
    /// The refusal, and `true` when a wrong token was presented (which is to be answered slowly).
    pub(super) fn admit(&self, request: &Parts, reached: IpAddr) -> Result<Admitted, (Refusal, bool)> {
        let plain = |refusal| (refusal, false);
        if request.uri.path_and_query().is_some_and(|p| p.as_str().len() > MAX_URI) {
            return Err(plain(Refusal::new(
                StatusCode::URI_TOO_LONG,
                "uri_too_long",
                "the path with its query is longer than 2048 bytes",
                "shorten it",
            )));
        }
        let host = self.host(request, reached).map_err(plain)?;
        let route = routes::find(&request.method, request.uri.path()).map_err(plain)?;
        let mut renew = false;
        if let (Access::Token, Some(token)) = (route.access, &self.token) {
            match token.judge(&request.headers, SystemTime::now()) {
                Credential::Good => {}
                Credential::Aging => renew = true,
                Credential::Missing => return Err((unauthorized("this needs the API token"), false)),
                Credential::Wrong => return Err((unauthorized("the API token is wrong"), true)),
            }
        }
        if !matches!(request.method, Method::GET | Method::HEAD) && !from_here(&request.headers, host) {
            return Err(plain(Refusal::new(
                StatusCode::FORBIDDEN,
                "cross_origin",
                "a page of another origin may not change anything here",
                "use the program's own page, or a client that is no browser",
            )));
        }
        Ok(Admitted { route, renew })
    }

    /// The `Host` that was asked for, when it is one of ours: a name that anyone can point at this machine
    /// (DNS rebinding) must not open the API to pages of that name.
    fn host<'a>(&self, request: &'a Parts, reached: IpAddr) -> Result<&'a str, Refusal> {
        let mut given = request.headers.get_all(HOST).iter();
        let (Some(host), None) = (given.next().and_then(|h| h.to_str().ok()), given.next()) else {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "host_missing",
                "the request must have one Host header",
                "send the host by which the server is reached",
            ));
        };
        let absolute = request.uri.authority().map(|a| a.as_str());
        if [Some(host), absolute].into_iter().flatten().all(|h| self.is_ours(h, reached)) {
            return Ok(host);
        }
        Err(Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            "host_unknown",
            "this server does not answer under that host name",
            "use localhost or the address that the program printed, or add the name to ALLOWED_HOSTS",
        ))
    }

    fn is_ours(&self, host: &str, reached: IpAddr) -> bool {
        let host = host_of(host);
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        self.hosts.iter().any(|ours| ours == "*" || ours.eq_ignore_ascii_case(host))
            || literal.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == reached.to_canonical())
    }
}

fn unauthorized(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message, "send \"Authorization: Bearer <token>\"")
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// `host` without its port and the dot at its end; an IPv6 address keeps its brackets.
fn host_of(host: &str) -> &str {
    let end = if host.starts_with('[') { host.find(']').map(|i| i + 1) } else { host.find(':') };
    let host = &host[..end.unwrap_or(host.len())];
    host.strip_suffix('.').unwrap_or(host)
}

/// False when a browser says that the request comes from a page of another origin. Clients that are no
/// browsers say nothing.
fn from_here(headers: &HeaderMap, host: &str) -> bool {
    let site = headers.get_all(SEC_FETCH_SITE).iter().all(|site| site == "same-origin" || site == "none");
    let origin = headers.get_all(ORIGIN).iter().all(|origin| {
        let Some((scheme, origin)) = origin.to_str().ok().and_then(|o| o.split_once("://")) else { return false };
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        let bare = |h: &str| h.strip_suffix(default_port).unwrap_or(h).to_ascii_lowercase();
        bare(origin) == bare(host)
    });
    site && origin
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use warp::http::Request;

    fn guard() -> Guard {
        Guard::new(&["cam.example:8199".to_owned()], None)
    }

    fn admits(host: &str) -> bool {
        let (parts, ()) = Request::get("/live").header("host", host).body(()).unwrap().into_parts();
        guard().admit(&parts, "192.168.1.9".parse().unwrap()).is_ok()
    }

    #[test]
    fn only_our_own_names_are_answered() {
        for host in
            ["localhost", "LOCALHOST:8199", "localhost.", "127.0.0.1:1", "[::1]:8199", "192.168.1.9", "Cam.Example"]
        {
            assert!(admits(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.2", "192.168.1.10", "", "[::1", "::1", "*"] {
            assert!(!admits(host), "{host}");
        }
    }

    #[test]
    fn an_absolute_target_counts_too() {
        let (parts, ()) =
            Request::get("http://evil.example/live").header("host", "localhost").body(()).unwrap().into_parts();
        assert!(guard().admit(&parts, "127.0.0.1".parse().unwrap()).is_err());
    }

    #[test]
    fn origins_are_compared_with_the_host() {
        let case = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            from_here(&headers, "localhost:8199")
        };
        assert!(from_here(&HeaderMap::new(), "localhost:8199"));
        assert!(case("origin", "http://LOCALHOST:8199"));
        assert!(case("sec-fetch-site", "same-origin") && case("sec-fetch-site", "none"));
        for origin in ["null", "http://localhost:3000", "http://localhost", "http://evil.example", "localhost:8199"] {
            assert!(!case("origin", origin), "{origin}");
        }
        assert!(!case("sec-fetch-site", "cross-site") && !case("sec-fetch-site", "same-site"));
        let mut headers = HeaderMap::new();
        headers.insert("origin", "https://cam.example".parse().unwrap());
        assert!(from_here(&headers, "cam.example:443") && from_here(&headers, "cam.example"));
    }

    proptest! {
        #[test]
        fn no_host_makes_it_panic(host in "\\PC*", origin in "\\PC*") {
            let built = Request::post("/api/stop").header("host", &host).header("origin", &origin).body(());
            if let Ok(request) = built {
                let (parts, ()) = request.into_parts();
                let _either_way = guard().admit(&parts, "127.0.0.1".parse().unwrap());
            }
        }
    }
}
