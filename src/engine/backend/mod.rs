//! llama.cpp's start, its log, and the devices that it may compute on.
//! Not here: models and contexts (`ffi` beside this folder).

mod ffi;
mod plugins;

pub use ffi::{gpu_memory, gpu_name, last_words, on_native_abort, start};
pub use plugins::look_in;
