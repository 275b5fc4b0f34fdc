//! The HTTP face: the routes of the API, the live streams (SSE, MJPEG, PCM), the page, and the server under them.
//! Not here: what is told (`bus`, `commentary`), JPEG encoding (`ingest`), the voice (`speech`), options and their names (`config`).
//!
//! warp finds the handler of a request; everything that has to hold for *every* request stands outside of
//! warp's filters, in one place each: the accept loop with its limits (`server`), the deadline of writes
//! (`deadline`), the list of routes (`routes`), who may ask (`guard`), the headers of every answer (`answer`).

mod answer;
mod api;
mod audio;
mod body;
mod config;
mod deadline;
mod guard;
mod mjpeg;
mod ops;
mod page;
mod probe;
mod routes;
mod server;
mod sse;
mod tls;
mod token;

pub use config::WebConfig;
pub use probe::probe;
pub use routes::{Access, Body, ROUTES, Route};
pub use server::{bind, serve};
pub use tls::{Certificate, Tls};

/// Whether a body of these bytes has fields that `POST /api/start` could take. For the fuzz targets.
#[doc(hidden)]
pub fn takes_body(bytes: &[u8]) -> bool {
    body::fields(bytes, ["source", "instruction", "profile"]).is_ok()
}
