//! The page's files, part of the program: the document, its style, its script, and the script's modules under
//! `/page/`. Not here: the API that they use.

use super::answer::{Answer, Response, typed};
use super::routes;
use bytes::Bytes;
use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, HeaderValue};

macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each module.
        const MODULES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../static/page/", $name)))),*];
    };
}

modules!(
    "commentary.js",
    "controls.js",
    "dom.js",
    "export.js",
    "figures.js",
    "language.js",
    "server.js",
    "state.js",
    "streams.js",
    "strings.js",
    "theme.js",
    "thumbnails.js",
    "video.js",
    "voice.js",
);

const SCRIPT: &str = "text/javascript; charset=utf-8";

fn file(media_type: &'static str, text: &'static str) -> Response {
    let mut response = typed(StatusCode::OK, media_type, Bytes::from_static(text.as_bytes()));
    // They change with the program, and the program is near: always ask.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

pub(super) fn index() -> Response {
    file("text/html; charset=utf-8", include_str!("../../static/index.html"))
}

pub(super) fn script() -> Response {
    file(SCRIPT, include_str!("../../static/app.js"))
}

pub(super) fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../../static/style.css"))
}

/// A module by its file name.
pub(super) async fn module(name: String) -> Answer {
    let (_, text) = MODULES.iter().find(|(known, _)| *known == name).ok_or_else(routes::not_found)?;
    Ok(file(SCRIPT, text))
}
