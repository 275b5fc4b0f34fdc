//! llama.cpp's start, its log lines and its last words, and the GPU it would use.
//! Not here: models and contexts (`ffi` beside this folder).

use crate::error::{Error, Result};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_sys_2 as sys;
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Error lines kept, so that a failed load can say why; the oldest goes.
const KEPT_ERRORS: usize = 4;
static ERRORS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Starts llama.cpp once for the process and routes its logs into tracing.
///
/// # Errors
/// When llama.cpp can't be initialised.
pub fn start() -> Result<()> {
    static BACKEND: OnceLock<std::result::Result<LlamaBackend, String>> = OnceLock::new();
    let started = BACKEND.get_or_init(|| {
        // SAFETY: the callback is a plain function that never unwinds; it needs no user data
        // (ggml.h: ggml_log_set, llama.h: llama_log_set, mtmd.h: mtmd_log_set; all "for all future events").
        unsafe {
            sys::ggml_log_set(Some(on_log), null_mut());
            sys::llama_log_set(Some(on_log), null_mut());
            sys::mtmd_log_set(Some(on_log), null_mut());
            sys::mtmd_helper_log_set(Some(on_log), null_mut());
            // Without it ggml's last act on a failed assertion is to start a debugger.
            sys::ggml_set_abort_callback(Some(on_abort));
        }
        let started = LlamaBackend::init().map_err(|e| e.to_string());
        for plugin in super::plugins::found() {
            load(&plugin);
        }
        started
    });
    match started {
        Ok(_) => Ok(()),
        Err(why) => Err(Error::internal("engine_backend", format!("llama.cpp could not start: {why}"))),
    }
}

/// Loads a backend. One that can't be used here (no driver, another ggml) is told in the log, and the processor serves.
fn load(plugin: &Path) {
    let Ok(path) = CString::new(plugin.as_os_str().as_encoded_bytes()) else { return };
    last_words();
    // SAFETY: the path is NUL-terminated and outlives the call; null is the documented failure (ggml-backend.h:
    // ggml_backend_load). The file is code that belongs to this program, as its other libraries do.
    let loaded = unsafe { sys::ggml_backend_load(path.as_ptr()) };
    if loaded.is_null() {
        tracing::warn!("the GPU backend {} can't be used: {}", plugin.display(), last_words());
    } else {
        tracing::debug!("the GPU backend {} is loaded", plugin.display());
    }
}

unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    // A panic must not unwind into C.
    let _logged = std::panic::catch_unwind(|| {
        if text.is_null() {
            return;
        }
        // SAFETY: ggml.h gives a NUL-terminated string that lives during the call.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        let text = text.trim_end();
        if text.is_empty() || text == "." {
            return;
        }
        match level {
            sys::GGML_LOG_LEVEL_ERROR => {
                let mut kept = ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == KEPT_ERRORS {
                    kept.pop_front();
                }
                kept.push_back(text.to_owned());
                tracing::warn!(target: "vidette::llama", "{text}");
            }
            sys::GGML_LOG_LEVEL_WARN => tracing::debug!(target: "vidette::llama", "{text}"),
            _ => tracing::trace!(target: "vidette::llama", "{text}"),
        }
    });
}

/// Where llama.cpp's last words before an abort go, besides the log.
static ABORT_HOOK: OnceLock<fn(&str)> = OnceLock::new();

/// Has `hook` called with llama.cpp's words when it is about to abort the process. Only the first hook counts.
pub fn on_native_abort(hook: fn(&str)) {
    let _only_the_first = ABORT_HOOK.set(hook);
}

unsafe extern "C" fn on_abort(message: *const c_char) {
    // A panic must not unwind into C; the process ends right after this.
    let _logged = std::panic::catch_unwind(|| {
        if !message.is_null() {
            // SAFETY: ggml.h gives a NUL-terminated string that lives during the call.
            let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
            if let Some(hook) = ABORT_HOOK.get() {
                hook(&message);
            }
            tracing::error!(target: "vidette::llama", "llama.cpp aborts the process: {message}");
        }
    });
}

/// What llama.cpp last complained about; empties the memory of it.
pub fn last_words() -> String {
    let mut kept = ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
    let words: Vec<String> = kept.drain(..).collect();
    if words.is_empty() { "llama.cpp gave no reason".to_owned() } else { words.join("; ") }
}

/// Name of the first GPU that llama.cpp can use.
pub fn gpu_name() -> Option<String> {
    // SAFETY: indices stay below the count; the description is a static string of the device
    // (ggml-backend.h: ggml_backend_dev_get, _type, _description).
    unsafe {
        (0..sys::ggml_backend_dev_count()).map(|i| sys::ggml_backend_dev_get(i)).find_map(|device| {
            let kind = sys::ggml_backend_dev_type(device);
            let gpu = kind == sys::GGML_BACKEND_DEVICE_TYPE_GPU || kind == sys::GGML_BACKEND_DEVICE_TYPE_IGPU;
            gpu.then(|| CStr::from_ptr(sys::ggml_backend_dev_description(device)).to_string_lossy().into_owned())
        })
    }
}

/// Bytes free and in all of the memory of the first GPU, as its driver tells.
pub fn gpu_memory() -> Option<(u64, u64)> {
    // SAFETY: indices stay below the count; both sizes are written before they are read (ggml-backend.h:
    // ggml_backend_dev_memory).
    unsafe {
        (0..sys::ggml_backend_dev_count()).map(|i| sys::ggml_backend_dev_get(i)).find_map(|device| {
            let gpu = sys::ggml_backend_dev_type(device) == sys::GGML_BACKEND_DEVICE_TYPE_GPU;
            let (mut free, mut total) = (0, 0);
            sys::ggml_backend_dev_memory(device, &mut free, &mut total);
            gpu.then_some((free as u64, total as u64))
        })
    }
}
