//! The page's files, part of the program: the document, its style, its script, the script's modules under `/page/`,
//! and the third-party code that the build brought along (`vendor/VENDOR.md`) with its licences.
//! Not here: the API that they use.

use super::answer::{Answer, Response, typed};
use super::routes;
use crate::error::Error;
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
    "listening.js",
    "player.js",
    "server.js",
    "source-sound.js",
    "state.js",
    "streams.js",
    "strings.js",
    "theme.js",
    "thumbnails.js",
    "video.js",
    "voice.js",
    "webcam.js",
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

/// LiveKit's client, empty in a build without it.
const LIVEKIT_CLIENT: &str = include_str!(concat!(env!("OUT_DIR"), "/livekit-client.js"));
const VENDOR_LICENCES: &str = include_str!(concat!(env!("OUT_DIR"), "/licences.txt"));
const OWN_LICENCE: &str = include_str!("../../LICENSE");

/// LiveKit's client.
pub(super) async fn livekit_client() -> Answer {
    if LIVEKIT_CLIENT.is_empty() {
        let missing = Error::not_found("livekit_client_missing", "this build has no LiveKit client for browsers");
        return Err(missing.hint("build with `make build`, on a machine that npm can fetch it on").into());
    }
    let mut response = file(SCRIPT, LIVEKIT_CLIENT);
    // It is large, and seldom another one.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    Ok(response)
}

/// The licences of Vidette and of all that its page contains.
pub(super) fn licences() -> Response {
    let text = format!("Vidette\n\n{OWN_LICENCE}\n{VENDOR_LICENCES}");
    typed(StatusCode::OK, "text/plain; charset=utf-8", text.into())
}

/// A module by its file name.
pub(super) async fn module(name: String) -> Answer {
    let (_, text) = MODULES.iter().find(|(known, _)| *known == name).ok_or_else(routes::not_found)?;
    Ok(file(SCRIPT, text))
}
