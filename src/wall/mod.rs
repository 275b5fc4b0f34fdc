//! The wall around native code: engine and voice in a child process of this same program, so that a crash or a hang
//! in them takes nothing else down. The parent's side (`keeper`) starts it, watches it, and starts it again; the
//! child's side (`child`) has the engine inside; between them runs one Unix socket (`wire`).
//! Not here: what engine and voice do (`engine`, `speech`), which of them are wanted (`wiring`).

#[cfg(feature = "llama")]
pub mod child;
#[cfg(any(test, feature = "llama"))]
mod ending;
#[cfg(feature = "llama")]
mod intake;
#[cfg(feature = "llama")]
mod keeper;
#[cfg(feature = "llama")]
mod launch;
#[cfg(any(test, feature = "llama"))]
mod shelf;
#[cfg(any(test, feature = "llama"))]
mod vigil;
#[cfg(feature = "llama")]
mod voice;
#[cfg(feature = "llama")]
mod wire;

#[cfg(feature = "llama")]
pub use keeper::ProcessEngine;
#[cfg(feature = "llama")]
pub use launch::Launch;
#[cfg(feature = "llama")]
pub use voice::ProcessVoice;
