//! Vidette watches live video and says what it sees. This is the crate's front page; [`run`] is the only place
//! that knows all rooms and wires them.
//!
//! Layers, lowest first; each uses only those before it (a test greps for violations):
//! words (`error`, `secret`, `cancel`, `backoff`, `shutdown`, `frame`, `process`) · pure state (`window`, `bus`, `metrics`,
//! `source`, `webcam`, `thumbnail`, `audio`) · edges (`ingest`, `livekit`, `engine`, `speech`, `models`), which never see each other (but
//! `speech` reads files with `models` and starts llama.cpp with `engine`) · `wall` · `commentary` · `ask`, `bench` · faces (`web`, `config`,
//! `telemetry`, `cli`).

#![deny(unsafe_op_in_unsafe_fn)]

pub mod ask;
pub mod audio;
pub mod backoff;
#[cfg(feature = "llama")]
pub mod bench;
pub mod bus;
pub mod cancel;
pub mod cli;
pub mod commentary;
pub mod config;
pub mod engine;
pub mod error;
pub mod frame;
#[cfg(feature = "ingest")]
pub mod ingest;
#[cfg(feature = "livekit")]
pub mod livekit;
pub mod metrics;
pub mod models;
pub mod process;
pub mod secret;
pub mod shutdown;
pub mod source;
pub mod speech;
pub mod telemetry;
pub mod thumbnail;
pub mod wall;
pub mod web;
pub mod webcam;
pub mod window;

mod wiring;

pub use wiring::run;
