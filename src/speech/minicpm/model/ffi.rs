//! The speech language model in llama.cpp, behind safe types. The published file can't be loaded as it is (tables that
//! llama.cpp does not know, a transposed output head, an unused token table), so the model is made from metadata in
//! memory, and its tensors are filled from what the caller reads.
//! Not here: which tensor of the file goes where (`language`), sampling (`sampler`).

use crate::engine::{native_last_words, start_native};
use crate::error::{Error, Result};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, CString, c_void};
use std::ptr::{NonNull, null_mut};

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    U32(u32),
    F32(f32),
    Text(String),
}

/// A tensor of the model: its name for llama.cpp, ggml's number of its type, dimensions (fastest first).
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub name: String,
    pub kind: u32,
    pub dims: Vec<u64>,
}

/// Sizes of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextSizes {
    /// Positions that one reply may take.
    pub positions: u32,
    pub threads: i32,
    /// Layers on the GPU; negative for all.
    pub gpu_layers: i32,
    /// Keys and values in 32-bit floats instead of 16-bit ones.
    pub exact: bool,
}

/// Model and context in one: a speech model serves one voice.
pub struct Model {
    // Freed in Drop, the context before the model, the pool last.
    model: NonNull<sys::llama_model>,
    context: NonNull<sys::llama_context>,
    batch: NonNull<sys::llama_batch_ext>,
    pool: Option<NonNull<sys::ggml_threadpool>>,
    width: usize,
    vocabulary: usize,
    batch_size: usize,
}

// SAFETY: llama.cpp's model and context have no tie to a thread; `&mut self` lets one thread use them at a time.
unsafe impl Send for Model {}

type Fill<'a> = &'a mut dyn FnMut(&str, &mut Vec<u8>) -> Result<bool>;

/// What the callback gets.
struct Filling<'a> {
    fill: Fill<'a>,
    error: Option<Error>,
}

/// What llama.cpp is asked to put in, one after the other.
pub enum Input<'a> {
    /// An audio code.
    Code(i32),
    /// Rows of the model's width.
    Rows(&'a [f32]),
}

unsafe extern "C" fn fill_tensor(tensor: *mut sys::ggml_tensor, data: *mut c_void) {
    // A panic must not unwind into C.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // SAFETY: `data` is the `Filling` of the call below, which outlives it; the tensor is live and named
        // (llama.h: llama_model_set_tensor_data_t).
        let (filling, name, bytes) = unsafe {
            let name = CStr::from_ptr(sys::ggml_get_name(tensor)).to_string_lossy().into_owned();
            (&mut *data.cast::<Filling<'_>>(), name, sys::ggml_nbytes(tensor))
        };
        if filling.error.is_some() {
            return;
        }
        let mut buffer = Vec::new();
        match (filling.fill)(&name, &mut buffer) {
            Ok(true) if buffer.len() == bytes => {}
            Ok(true) => {
                filling.error = Some(Error::internal(
                    "speech_model_load",
                    format!("{name}: {} bytes where llama.cpp wants {bytes}", buffer.len()),
                ));
                return;
            }
            // A tensor that llama.cpp would take but the file does not have: one that changes nothing.
            Ok(false) => {
                let neutral: f32 = if name.ends_with("bias") { 0.0 } else { 1.0 };
                buffer = neutral.to_le_bytes().repeat(bytes / 4);
                // SAFETY: the tensor is live.
                if unsafe { (*tensor).type_ } != sys::GGML_TYPE_F32 {
                    let what = format!("llama.cpp asks for the tensor {name}, which the file does not have");
                    filling.error = Some(Error::internal("speech_model_load", what));
                    return;
                }
            }
            Err(error) => {
                filling.error = Some(error);
                return;
            }
        }
        // SAFETY: as many bytes as the tensor has; copied before the call returns (ggml-backend.h).
        unsafe { sys::ggml_backend_tensor_set(tensor, buffer.as_ptr().cast(), 0, bytes) };
    }));
    if done.is_err() {
        tracing::error!("a tensor of the speech model could not be filled");
    }
}

/// Metadata in memory and the descriptions of tensors that it names; freed on all paths.
struct Metadata {
    gguf: NonNull<sys::gguf_context>,
    tensors: NonNull<sys::ggml_context>,
}

impl Metadata {
    fn new(entries: &[(&str, Entry)], parts: &[Part]) -> Result<Self> {
        let bad = |name: &str| Error::internal("speech_model_load", format!("the name {name} holds a NUL byte"));
        // SAFETY: null is the failure of both; the context holds descriptions only, with room for all parts.
        let (gguf, tensors) = unsafe {
            let size = (parts.len() + 1) * sys::ggml_tensor_overhead();
            let params = sys::ggml_init_params { mem_size: size, mem_buffer: null_mut(), no_alloc: true };
            (NonNull::new(sys::gguf_init_empty()), NonNull::new(sys::ggml_init(params)))
        };
        let (Some(gguf), Some(tensors)) = (gguf, tensors) else {
            return Err(Error::internal("speech_model_load", "ggml could not allocate a model's metadata"));
        };
        let made = Self { gguf, tensors };
        for (key, value) in entries {
            let key = CString::new(*key).map_err(|_| bad(key))?;
            // SAFETY: keys and texts are NUL-terminated and copied (gguf.h: gguf_set_val_*).
            unsafe {
                match value {
                    Entry::U32(n) => sys::gguf_set_val_u32(gguf.as_ptr(), key.as_ptr(), *n),
                    Entry::F32(x) => sys::gguf_set_val_f32(gguf.as_ptr(), key.as_ptr(), *x),
                    Entry::Text(text) => {
                        let text = CString::new(text.as_str()).map_err(|_| bad(text))?;
                        sys::gguf_set_val_str(gguf.as_ptr(), key.as_ptr(), text.as_ptr());
                    }
                }
            }
        }
        for part in parts {
            let name = CString::new(part.name.as_str()).map_err(|_| bad(&part.name))?;
            let mut ne = [1i64; 4];
            for (to, from) in ne.iter_mut().zip(&part.dims) {
                *to = i64::try_from(*from).unwrap_or(i64::MAX);
            }
            let dims = i32::try_from(part.dims.len().clamp(1, 4)).unwrap_or(1);
            // SAFETY: the context has room for this description; type and dimensions were inspected with the file;
            // gguf copies name, type and shape (gguf.h: gguf_add_tensor).
            unsafe {
                let tensor = sys::ggml_new_tensor(tensors.as_ptr(), part.kind, dims, ne.as_ptr());
                sys::ggml_set_name(tensor, name.as_ptr());
                sys::gguf_add_tensor(gguf.as_ptr(), tensor);
            }
        }
        Ok(made)
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once.
        unsafe {
            sys::gguf_free(self.gguf.as_ptr());
            sys::ggml_free(self.tensors.as_ptr());
        }
    }
}

/// Most rows that are decoded in one call; a chunk of conditions has twelve.
const BATCH: u32 = 64;

impl Model {
    /// Makes a model from metadata and its tensors, which `fill` gives by name (false for one that the file does not
    /// have). What comes in must have been inspected: llama.cpp aborts on some contradictions.
    ///
    /// # Errors
    /// What `fill` says, or `speech_model_load` with llama.cpp's reason, or `speech_memory`.
    pub fn load(entries: &[(&str, Entry)], parts: &[Part], sizes: ContextSizes, fill: Fill<'_>) -> Result<Self> {
        start_native()?;
        let metadata = Metadata::new(entries, parts)?;
        let mut filling = Filling { fill, error: None };
        native_last_words();
        // SAFETY: metadata and `filling` outlive the call; null is the failure (llama.h: llama_model_init_from_user).
        let model = unsafe {
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = sizes.gpu_layers;
            let data: *mut Filling<'_> = &mut filling;
            sys::llama_model_init_from_user(metadata.gguf.as_ptr(), Some(fill_tensor), data.cast(), params)
        };
        let model = NonNull::new(model);
        if let Some(error) = filling.error {
            // SAFETY: made above, not used again.
            model.inspect(|m| unsafe { sys::llama_model_free(m.as_ptr()) });
            return Err(error);
        }
        let model = model.ok_or_else(|| {
            Error::invalid("speech_model_load", format!("llama.cpp refused the model: {}", native_last_words()))
        })?;
        Self::with_context(model, sizes)
    }

    fn with_context(model: NonNull<sys::llama_model>, sizes: ContextSizes) -> Result<Self> {
        // SAFETY: `model` is live and outlives the context (Drop); null is the failure (llama.h:
        // llama_init_from_model, llama_batch_ext_init); everything is freed on all paths.
        unsafe {
            let mut p = sys::llama_context_default_params();
            (p.n_ctx, p.n_seq_max, p.n_batch, p.n_ubatch) = (sizes.positions, 1, BATCH, BATCH);
            p.n_outputs_max = 1;
            (p.n_threads, p.n_threads_batch, p.no_perf) = (sizes.threads, sizes.threads, true);
            if sizes.exact {
                (p.type_k, p.type_v) = (sys::GGML_TYPE_F32, sys::GGML_TYPE_F32);
                p.flash_attn_type = sys::LLAMA_FLASH_ATTN_TYPE_DISABLED;
            }
            let context = NonNull::new(sys::llama_init_from_model(model.as_ptr(), p));
            let batch = context.and_then(|c| NonNull::new(sys::llama_batch_ext_init(c.as_ptr())));
            let (Some(context), Some(batch)) = (context, batch) else {
                if let Some(context) = context {
                    sys::llama_free(context.as_ptr());
                }
                sys::llama_model_free(model.as_ptr());
                let what = format!("no room for {} positions of speech: {}", sizes.positions, native_last_words());
                return Err(Error::unavailable("speech_memory", what).hint("free memory, or switch speech off"));
            };
            // Threads that sleep when idle: the LM waits for token2wav after every second of sound.
            let mut params = sys::ggml_threadpool_params_default(sizes.threads);
            params.poll = 0;
            let pool = NonNull::new(sys::ggml_threadpool_new(&mut params));
            if let Some(pool) = pool {
                sys::llama_attach_threadpool(context.as_ptr(), pool.as_ptr(), pool.as_ptr());
            }
            let vocab = sys::llama_model_get_vocab(model.as_ptr());
            let count = |n: i32| usize::try_from(n).unwrap_or(0);
            Ok(Self {
                model,
                context,
                batch,
                pool,
                width: count(sys::llama_model_n_embd_inp(model.as_ptr())),
                vocabulary: count(sys::llama_vocab_n_tokens(vocab)),
                batch_size: BATCH as usize,
            })
        }
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Forgets all positions.
    pub fn clear(&mut self) {
        // SAFETY: the context is live (llama.h: llama_memory_clear; data false forgets without zeroing).
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context.as_ptr()), true) }
    }

    /// Decodes `input` at the positions from `position` on. Returns the next position and the logits of the last one,
    /// one for each code and the end.
    ///
    /// # Errors
    /// `speech_decode` when the input does not fit the model or llama.cpp fails.
    pub fn decode(&mut self, position: i32, input: &Input<'_>) -> Result<(i32, &[f32])> {
        let rows = match input {
            Input::Code(_) => 1,
            Input::Rows(rows) => rows.len() / self.width.max(1),
        };
        let fits = match input {
            Input::Code(code) => usize::try_from(*code).is_ok_and(|c| c < self.vocabulary),
            Input::Rows(values) => values.len() == rows * self.width && (1..=self.batch_size).contains(&rows),
        };
        if !fits {
            return Err(Error::internal("speech_decode", "an input that the speech model can't take"));
        }
        let mut next = position;
        // SAFETY: context and batch are live and belong together; the code is in range, rows have the model's width
        // and outlive the call, there are not more than the batch holds (checked above); logits are asked for the last
        // one and read before the next decode, which needs `&mut self` (llama.h: llama_batch_ext_*, llama_process,
        // llama_get_logits_ith).
        unsafe {
            let batch = self.batch.as_ptr();
            sys::llama_batch_ext_clear(batch);
            for i in 0..rows {
                let index = match input {
                    Input::Code(code) => sys::llama_batch_ext_add_token(batch, 0, *code),
                    Input::Rows(values) => {
                        let data = values[i * self.width..].as_ptr();
                        sys::llama_batch_ext_add_embd(batch, 0, sys::llama_embd { data, n_rows: 1, n_embd: self.width })
                    }
                };
                let ok = index >= 0
                    && sys::llama_batch_ext_set_pos(batch, index, &next)
                    && (i + 1 < rows || sys::llama_batch_ext_set_output_logits(batch, index, true));
                if !ok {
                    return Err(Error::internal("speech_decode", "llama.cpp refused an input of the speech model"));
                }
                next += 1;
            }
            let code = sys::llama_process(self.context.as_ptr(), sys::LLAMA_PROCESS_TYPE_DECODE, batch);
            let logits = if code == 0 { sys::llama_get_logits_ith(self.context.as_ptr(), -1) } else { null_mut() };
            if logits.is_null() {
                let what = format!("llama.cpp could not decode speech ({code}): {}", native_last_words());
                return Err(Error::internal("speech_decode", what));
            }
            Ok((next, std::slice::from_raw_parts(logits, self.vocabulary)))
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: all were made in `load` and are freed once, each after what uses it.
        unsafe {
            sys::llama_batch_ext_free(self.batch.as_ptr());
            sys::llama_free(self.context.as_ptr());
            sys::llama_model_free(self.model.as_ptr());
            if let Some(pool) = self.pool {
                sys::ggml_threadpool_free(pool.as_ptr());
            }
        }
    }
}
