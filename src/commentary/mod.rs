//! The watch loop: window -> prompt -> engine -> bus, for every stream; instruction, profiles, history, pacing.
//! Not here: llama.cpp (`engine` behind its trait), sound (`speech`, to whose speaker the text is handed), GStreamer (`ingest` behind `source`), HTTP (`web`).
//!
//! The public words of this module are what faces (`web`, later LiveKit) use: [`Streams`], [`Stream`],
//! [`StreamStatus`], [`Profile`]; and what a single look (`ask`) shares with the loop: [`prompt()`], [`History`],
//! [`Answer`]; and [`REFRESH`], by which `bench` does as the loop does.

mod answer;
mod capacity;
mod change;
mod clocks;
mod cycle;
mod profiles;
mod prompt;
mod registry;
mod stream;

pub use answer::{Answer, says_nothing};
pub use capacity::{Capacity, Load};
pub use change::{Change, ChangeGate};
pub use cycle::REFRESH;
pub use profiles::{PROFILES, Profile};
pub use prompt::{History, prompt};
pub use registry::{RoomParts, StreamParts, Streams, check_name};
pub use stream::{CommentaryState, CommentaryStatus, Settings, Stream, StreamStatus, check_instruction, find_profile};
