//! The watch loop: window -> prompt -> engine -> bus, for every stream; instruction, profiles, history, pacing.
//! Not here: llama.cpp (`engine` behind its trait), GStreamer (`ingest` behind `source`), HTTP (`web`).
//!
//! The public words of this module are what faces (`web`, later LiveKit) use: [`Streams`], [`Stream`],
//! [`StreamStatus`], [`Profile`].

mod change;
mod cycle;
mod profiles;
mod registry;
mod stream;

pub use change::ChangeGate;
pub use profiles::{PROFILES, Profile};
pub use registry::{StreamParts, Streams};
pub use stream::{CommentaryState, CommentaryStatus, Settings, Stream, StreamStatus};
