//! Any bytes as a model file: the header's reader and both inspections answer with a result, never with a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vidette::models::gguf::Header;
use vidette::models::inspect::{read_language_model, read_projector};

fuzz_target!(|bytes: &[u8]| {
    // A header may promise more than it holds; claim a larger file too, so that later checks are reached.
    for file_len in [bytes.len() as u64, 1 << 40] {
        if let Ok(header) = Header::read(bytes, file_len) {
            let _either_is_fine = read_language_model(&header);
            let _either_is_fine = read_projector(&header);
        }
    }
});
