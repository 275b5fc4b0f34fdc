//! Speech: turns what the model says into sound.

#[cfg(feature = "llama")]
pub mod minicpm;
