//! Video in: one source string becomes numbered RGB frames for the model and JPEGs for viewers, kept alive by itself;
//! and the source's own sound for those who listen.
//! Not here: how many frames are kept (`window`), who watches (`bus`), what the pictures mean (`commentary`).
//!
//! GStreamer enters the program through this door only. [`spec`] says what a source string may be, `pipeline` builds
//! one connection, `session` runs it on a thread of its own, `states` decides what follows a failure, [`spawn`] ties
//! them to the commands of [`crate::source`].

mod config;
mod elements;
mod fault;
mod ffi;
mod gate;
mod outlet;
mod pattern;
mod pipeline;
mod policy;
mod pulse;
mod redact;
mod session;
mod setup;
mod sound;
pub mod spec;
mod states;
mod supervisor;
pub mod timecode;

pub use config::{DecoderChoice, IngestConfig, RtspTransport};
pub use elements::{Missing, missing_elements};
pub use gate::guard_connections;
pub use pattern::{PATTERNS, TestPattern};
pub use policy::{Files, Policy};
pub use setup::init;
pub use spec::{NetSource, SourceSpec};
pub use supervisor::{spawn, spawn_with_sound};
