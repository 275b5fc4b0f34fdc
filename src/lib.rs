//! Vidette watches live video and says what it sees. This is the crate's front page; `run` wires everything.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod backoff;
pub mod bus;
pub mod commentary;
pub mod config;
pub mod engine;
pub mod error;
pub mod frame;
#[cfg(feature = "ingest")]
pub mod ingest;
pub mod metrics;
pub mod models;
pub mod secret;
pub mod shutdown;
pub mod source;
pub mod web;
pub mod window;
