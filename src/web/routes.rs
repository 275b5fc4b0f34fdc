//! All routes, as a table and as warp filters. The table decides what exists, which methods it has and who may
//! come in, before a filter is asked; so a route that is not in the table can't be reached, and `/openapi.json`
//! is tested against the table. Not here: what the handlers do.

use super::answer::{Answer, Refusal, Response};
use super::server::Face;
use super::{api, audio, mjpeg, ops, page, sse};
use bytes::Bytes;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, Method, StatusCode};
use warp::{Filter, Rejection};

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone who reaches the server by an allowed host name.
    Public,
    /// Those with the API token, when one is set.
    Token,
}

/// Whether a request has a body (JSON, always).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It is not read.
    None,
    Optional,
    Required,
}

/// One method of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// GET (which stands for HEAD too), POST, PUT or DELETE.
    pub method: &'static str,
    /// A segment in braces stands for any.
    pub path: &'static str,
    pub access: Access,
    pub body: Body,
}

const fn get(path: &'static str) -> Route {
    Route { method: "GET", path, access: Access::Token, body: Body::None }
}

const fn open(path: &'static str) -> Route {
    Route { method: "GET", path, access: Access::Public, body: Body::None }
}

const fn with_body(method: &'static str, path: &'static str, body: Body) -> Route {
    Route { method, path, access: Access::Token, body }
}

/// Every route there is.
pub const ROUTES: &[Route] = &[
    open("/"),
    open("/app.js"),
    open("/style.css"),
    open("/page/{file}"),
    open("/vendor/livekit-client.js"),
    open("/licences"),
    open("/live"),
    open("/ready"),
    Route { method: "POST", path: "/api/session", access: Access::Public, body: Body::Required },
    get("/metrics"),
    get("/openapi.json"),
    with_body("POST", "/api/start", Body::Required),
    with_body("POST", "/api/stop", Body::Optional),
    with_body("POST", "/api/resume", Body::Optional),
    with_body("POST", "/api/instruction", Body::Required),
    with_body("POST", "/api/livekit/token", Body::Optional),
    get("/api/profiles"),
    get("/api/stream"),
    get("/api/frame"),
    get("/api/mjpeg"),
    get("/api/audio-stream"),
    get("/api/source-audio"),
    get("/api/status"),
    get("/api/utterances/{id}/frame"),
    get("/api/streams"),
    with_body("PUT", "/api/streams/{name}", Body::Optional),
    with_body("DELETE", "/api/streams/{name}", Body::Optional),
    with_body("POST", "/api/streams/{name}/start", Body::Required),
    with_body("POST", "/api/streams/{name}/stop", Body::Optional),
    with_body("POST", "/api/streams/{name}/resume", Body::Optional),
    with_body("POST", "/api/streams/{name}/instruction", Body::Required),
    with_body("POST", "/api/streams/{name}/livekit/token", Body::Optional),
    get("/api/streams/{name}/profiles"),
    get("/api/streams/{name}/stream"),
    get("/api/streams/{name}/frame"),
    get("/api/streams/{name}/mjpeg"),
    get("/api/streams/{name}/audio-stream"),
    get("/api/streams/{name}/source-audio"),
    get("/api/streams/{name}/status"),
    get("/api/streams/{name}/utterances/{id}/frame"),
];

/// The route that a request means.
///
/// # Errors
/// 404, or 405 with the methods that the path has.
pub(super) fn find(method: &Method, path: &str) -> Result<&'static Route, Refusal> {
    let mut methods = String::new();
    for route in ROUTES.iter().filter(|route| fits(route.path, path)) {
        if route.method == method.as_str() || (route.method == "GET" && method == Method::HEAD) {
            return Ok(route);
        }
        methods = if methods.is_empty() { route.method.to_owned() } else { format!("{methods}, {}", route.method) };
    }
    if methods.is_empty() {
        return Err(not_found());
    }
    let hint = format!("use {methods}");
    let refusal = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path does not have that method",
        &hint,
    );
    Err(match methods.parse() {
        Ok(allow) => refusal.with_header(warp::http::header::ALLOW, allow),
        Err(_) => refusal,
    })
}

fn fits(template: &str, path: &str) -> bool {
    let (mut template, mut path) = (template.split('/'), path.split('/'));
    loop {
        match (template.next(), path.next()) {
            (None, None) => return true,
            (Some(any), Some(segment)) if any.starts_with('{') && !segment.is_empty() => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

pub(super) fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "route_unknown", "there is nothing at this path", "GET /openapi.json lists all")
}

/// The whole router.
pub(super) type Router = BoxedFilter<(Response,)>;

/// The filters of all routes.
pub(super) fn router(face: Arc<Face>) -> Router {
    // The default stream has no name in its path.
    let named = warp::path!("api" / "streams" / String / ..).map(Some);
    let unnamed = warp::path("api").map(|| None);
    let one = named.or(unnamed).unify().boxed();
    let on = |word: &'static str| one.clone().and(warp::path(word)).and(warp::path::end()).boxed();
    let with = warp::any().map(move || Arc::clone(&face)).boxed();
    let body = warp::body::bytes().boxed();
    let headers = warp::header::headers_cloned().boxed();
    let query = warp::query::raw().or(warp::any().map(String::new)).unify().boxed();

    let start =
        on("start").and(warp::post()).and(with.clone()).and(body.clone()).then(|s, f, b| tell(api::start(s, f, b)));
    let stop =
        on("stop").and(warp::post()).and(with.clone()).and(body.clone()).then(|s, f, b| tell(api::stop(s, f, b)));
    let resume =
        on("resume").and(warp::post()).and(with.clone()).and(body.clone()).then(|s, f, b| tell(api::resume(s, f, b)));
    let instruction = on("instruction")
        .and(warp::post())
        .and(with.clone())
        .and(body.clone())
        .then(|s, f, b| tell(api::instruction(s, f, b)));
    let profiles = on("profiles").and(warp::get()).and(with.clone()).then(|s, f| tell(api::profiles(s, f)));
    let status = on("status").and(warp::get()).and(with.clone()).then(|s, f| tell(api::status(s, f)));
    let stream = on("stream")
        .and(warp::get())
        .and(with.clone())
        .and(headers)
        .and(query.clone())
        .then(|s, f, h: HeaderMap, q: String| tell(sse::stream(s, f, h, q)));
    let frame = on("frame").and(warp::get()).and(with.clone()).then(|s, f| tell(mjpeg::frame(s, f)));
    let video = on("mjpeg").and(warp::get()).and(with.clone()).then(|s, f| tell(mjpeg::video(s, f)));
    let sound = on("audio-stream")
        .and(warp::get())
        .and(with.clone())
        .and(query.clone())
        .then(|s, f, q: String| tell(audio::stream(s, f, q)));
    let source_sound = on("source-audio")
        .and(warp::get())
        .and(with.clone())
        .and(query)
        .then(|s, f, q: String| tell(audio::source(s, f, q)));

    let ticket = one
        .clone()
        .and(warp::path!("livekit" / "token"))
        .and(warp::post())
        .and(with.clone())
        .and(body.clone())
        .then(|s, f, b| tell(api::ticket(s, f, b)));

    let thumbnail = one
        .clone()
        .and(warp::path!("utterances" / String / "frame"))
        .and(warp::get())
        .and(with.clone())
        .then(|s, id: String, f| tell(mjpeg::thumbnail(s, id, f)));

    let list = path("api/streams").and(warp::get()).and(with.clone()).then(|f| tell(api::list(f)));
    let named = warp::path!("api" / "streams" / String);
    let put =
        named.and(warp::put()).and(with.clone()).and(body.clone()).then(|n: String, f, b| tell(api::put(n, f, b)));
    let delete = named
        .and(warp::delete())
        .and(with.clone())
        .and(body.clone())
        .then(|n: String, f, b: Bytes| tell(api::delete(n, f, b)));
    let session =
        path("api/session").and(warp::post()).and(with.clone()).and(body).then(|f, b| tell(api::session(f, b)));

    let live = path("live").and(warp::get()).and(with.clone()).then(|f| tell(ops::live(f)));
    let ready = path("ready").and(warp::get()).and(with.clone()).then(|f| tell(ops::ready(f)));
    let metrics = path("metrics").and(warp::get()).and(with).then(|f| tell(ops::metrics(f)));
    let openapi = path("openapi.json").and(warp::get()).map(ops::openapi);
    let index = warp::path::end().and(warp::get()).map(page::index);
    let script = path("app.js").and(warp::get()).map(page::script);
    let style = path("style.css").and(warp::get()).map(page::style);
    let client = path("vendor/livekit-client.js").and(warp::get()).then(|| tell(page::livekit_client()));
    let licences = path("licences").and(warp::get()).map(page::licences);
    let module = warp::path!("page" / String).and(warp::get()).then(|file: String| tell(page::module(file)));

    either([
        status.boxed(),
        frame.boxed(),
        video.boxed(),
        sound.boxed(),
        source_sound.boxed(),
        thumbnail.boxed(),
        ticket.boxed(),
        stream.boxed(),
        start.boxed(),
        stop.boxed(),
        resume.boxed(),
        instruction.boxed(),
        profiles.boxed(),
        list.boxed(),
        put.boxed(),
        delete.boxed(),
        session.boxed(),
        live.boxed(),
        ready.boxed(),
        metrics.boxed(),
        openapi.boxed(),
        index.boxed(),
        script.boxed(),
        style.boxed(),
        module.boxed(),
        client.boxed(),
        licences.boxed(),
    ])
}

/// An exact path of one or two segments.
fn path(path: &'static str) -> BoxedFilter<()> {
    let whole = path.split('/').fold(warp::any().boxed(), |before, segment| before.and(warp::path(segment)).boxed());
    whole.and(warp::path::end()).boxed()
}

/// The first that takes the request. Boxed one by one: a chain of types would take minutes to compile.
fn either<const N: usize>(routes: [Router; N]) -> Router {
    let none = warp::any().then(|| tell(async { Err(not_found()) })).boxed();
    let all = routes.into_iter().rev().fold(none, |rest, route| route.or(rest).unify().boxed());
    // Only a defect in the table or here can lead to a rejection; it shall have our shape still.
    all.recover(|rejection: Rejection| async move {
        tracing::error!(?rejection, "a request fell through the routes");
        Ok::<_, Infallible>(not_found().into_response())
    })
    .unify()
    .boxed()
}

async fn tell(answer: impl Future<Output = Answer>) -> Response {
    answer.await.unwrap_or_else(Refusal::into_response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_finds_routes_and_methods() {
        assert_eq!(find(&Method::GET, "/api/streams/a-b/frame").unwrap().path, "/api/streams/{name}/frame");
        assert_eq!(find(&Method::HEAD, "/").unwrap().path, "/");
        for path in ["", "/api", "/api/streams/", "/api/streams//frame", "/api/streams/a/b/c", "//", "/api/frame/"] {
            assert_eq!(find(&Method::GET, path).unwrap_err().status, StatusCode::NOT_FOUND, "{path}");
        }
        let refusal = find(&Method::GET, "/api/streams/a").unwrap_err().into_response();
        assert_eq!(refusal.headers()["allow"], "PUT, DELETE");
    }
}
