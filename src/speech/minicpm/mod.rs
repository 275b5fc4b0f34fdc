//! MiniCPM-o 4.5's own voice: text tokens and hidden states of the language model in, sound at 24 kHz out.
//!
//! `projector` makes conditions of them, ten at a time (`chunks`); `language` and `sampler` write audio codes, 25 for a
//! second; `token2wav` makes sound of these, a second at a time (`encoder`, `flow`, `vocoder`, with the caches of a
//! `voice`). All networks run on the ggml that llama.cpp uses. docs/VOICE-MODEL.md has files, stages and figures.
//! Not here: what is spoken and when, other voices, delivery of the sound (`audio`).

mod chunks;
#[path = "device/ffi.rs"]
mod device;
mod encoder;
mod ffi;
mod files;
mod flow;
mod language;
mod layers;
#[path = "model/ffi.rs"]
mod model;
mod noise;
mod projector;
mod sampler;
mod source;
mod synthesizer;
#[cfg(test)]
mod tests;
mod token2wav;
mod vocoder;
mod voice;

pub use files::SpeechFiles;
pub use sampler::SpeechSampling;
pub use source::RATE;
pub use synthesizer::{Options, Synthesizer, Times, inspect};
pub use token2wav::SAMPLES_PER_CODE;
