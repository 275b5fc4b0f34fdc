//! Model files: the catalogue, the download, the inspection before llama.cpp sees a file, and where
//! the files of one model lie.
//!
//! Files come from the internet, and llama.cpp aborts the process on many kinds of damage. So nothing
//! is handed to it that did not pass [`inspect`]. Not here: loading a model (`engine`), the environment
//! (`config` passes values in), what a command prints (`cli`).

#![forbid(unsafe_code)]

pub mod catalog;
pub mod fields;
pub mod ggml;
pub mod gguf;
mod hub;
pub mod inspect;
pub mod layout;
mod partial;
pub mod progress;
pub mod pull;
pub mod random;
pub mod writer;

pub use catalog::{Catalog, Entry, Role};
pub use inspect::{
    LanguageModel, Projector, Report, SamplingAdvice, check_pair, inspect_file, inspect_language_model,
    inspect_projector,
};
pub use layout::{ModelFiles, find, find_default};
pub use progress::{Event, Progress};
pub use pull::{PullOptions, Pulled, pull};
