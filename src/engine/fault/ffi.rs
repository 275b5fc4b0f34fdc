//! Faults in native code, to order, for the tests of supervision: debug builds only, and only the engine's own process
//! takes orders. Not here: who orders (`wall`), what must become of it (`tests/supervision.rs`).

use llama_cpp_sys_2 as sys;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

const NONE: u8 = 0;
const ABORT: u8 = 1;
const HANG: u8 = 2;
static ORDERED: AtomicU8 = AtomicU8::new(NONE);

/// At its next token the engine's thread fails one of ggml's own assertions, which aborts the process.
pub fn order_abort() {
    ORDERED.store(ABORT, Ordering::Relaxed);
}

/// At its next token the engine's thread hangs for ever.
pub fn order_hang() {
    ORDERED.store(HANG, Ordering::Relaxed);
}

/// Does what was ordered.
pub(super) fn strike() {
    match ORDERED.load(Ordering::Relaxed) {
        ABORT => {
            // SAFETY: a context of 4 KiB of its own memory; asking it for more is what ggml's assertion is there for,
            // and the process ends in it (ggml.h: ggml_init, ggml_new_tensor_1d).
            unsafe {
                let params = sys::ggml_init_params { mem_size: 4096, mem_buffer: null_mut(), no_alloc: false };
                let context = sys::ggml_init(params);
                sys::ggml_new_tensor_1d(context, sys::GGML_TYPE_F32, 1 << 20);
            }
        }
        HANG => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        _ => {}
    }
}
