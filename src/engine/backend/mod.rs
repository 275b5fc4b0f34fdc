//! llama.cpp's start, its log, and the devices that it may compute on.
//! Not here: models and contexts (`ffi` beside this folder).

mod ffi;
mod plugins;

pub use ffi::{gpu_name, last_words, start};
pub use plugins::look_in;
