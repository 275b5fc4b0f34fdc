//! The page's files, part of the program. Not here: the API that they use.

use super::answer::{Response, typed};
use bytes::Bytes;
use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, HeaderValue};

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
    file("text/javascript; charset=utf-8", include_str!("../../static/app.js"))
}

pub(super) fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../../static/style.css"))
}

/// The controls of the voice, which build themselves.
pub(super) fn voice_script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../../static/voice.js"))
}

pub(super) fn voice_style() -> Response {
    file("text/css; charset=utf-8", include_str!("../../static/voice.css"))
}
