//! MiniCPM-o 4.5's own voice: text tokens and hidden states of the language model in, sound at 24 kHz out.
//!
//! `projector` makes conditions of them, ten at a time (`chunks`); `language` and `sampler` write audio codes, 25 for a
//! second; `token2wav` makes sound of these, a second at a time (`encoder`, `flow`, `vocoder`, with the caches of a
//! `voice`). All networks run on the ggml that llama.cpp uses. docs/VOICE-MODEL.md has files, stages and figures.
//! `synthesizer` is all of that for one utterance, `speaking` the thread that serves the streams with it.
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
#[path = "plan/ffi.rs"]
mod plan;
mod projector;
mod sampler;
mod source;
mod speaking;
mod synthesizer;
#[cfg(test)]
mod tests;
mod token2wav;
mod vocoder;
mod voice;

pub use files::{SpeechFiles, check_voice_file};
pub use sampler::SpeechSampling;
pub use source::RATE;
pub use speaking::{MiniCpmConfig, MiniCpmVoice, to_samples};
pub use synthesizer::{Inspected, Options, Synthesizer, Times, inspect, inspect_for};
pub use token2wav::SAMPLES_PER_CODE;
