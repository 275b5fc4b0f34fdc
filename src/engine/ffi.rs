//! llama.cpp behind safe types: model, vocabulary, context, embeddings. By the sys crate, since the safe one lacks embeddings
//! out and batches with embeddings.
//! Not here: the vision tower (`tower`), start-up and logs (`backend`), what to decode and when (`session`, `desk`), checks of model files
//! (`models::inspect`, which must come first: llama.cpp aborts on some bad files).

use super::backend::{last_words, start};
use super::tower::{ImagePart, Vision};
use super::{CancelFlag, KvType, Pulse};
use crate::error::{Error, Result};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::ptr::{NonNull, null, null_mut};
use std::sync::{Arc, Mutex, PoisonError};

/// A token id of the language model's vocabulary.
pub type Token = sys::llama_token;

pub(super) fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| Error::invalid("model_path", format!("the path {} holds a NUL byte", path.display())))
}

/// A loaded language model.
pub struct Model {
    pub(super) raw: NonNull<sys::llama_model>,
    vocab: NonNull<sys::llama_vocab>,
}

// SAFETY: after loading, llama.cpp reads a model without changing it; the safe crate states the same
// for its own wrapper (LlamaModel is Send + Sync).
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    /// As [`load_telling`](Self::load_telling), when nobody watches.
    ///
    /// # Errors
    /// As there.
    pub fn load(path: &Path, gpu_layers: i32) -> Result<Self> {
        Self::load_telling(path, gpu_layers, &Pulse::default())
    }

    /// Loads a GGUF file that `models::inspect` has passed, with a beat of `pulse` for each part of it. `gpu_layers` < 0
    /// puts all layers on the GPU.
    ///
    /// # Errors
    /// When llama.cpp refuses the file; the sentence holds its reason.
    pub fn load_telling(path: &Path, gpu_layers: i32, pulse: &Pulse) -> Result<Self> {
        start()?;
        let c = c_path(path)?;
        last_words();
        // SAFETY: the path is NUL-terminated and outlives the call, as the pulse does, which the callback gets and only
        // while loading; null is the documented failure (llama.h: llama_model_load_from_file, progress_callback).
        let raw = unsafe {
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = gpu_layers;
            params.progress_callback = Some(on_progress);
            params.progress_callback_user_data = std::ptr::from_ref(pulse).cast_mut().cast();
            sys::llama_model_load_from_file(c.as_ptr(), params)
        };
        let raw = NonNull::new(raw).ok_or_else(|| {
            Error::invalid("model_load", format!("{} could not be loaded: {}", path.display(), last_words()))
                .hint("check it with `vidette inspect`, or fetch it again with `vidette pull`")
        })?;
        // SAFETY: `raw` is a live model; the vocabulary belongs to it (llama.h: llama_model_get_vocab).
        let vocab = unsafe { sys::llama_model_get_vocab(raw.as_ptr()) };
        match NonNull::new(vocab.cast_mut()) {
            Some(vocab) => Ok(Self { raw, vocab }),
            None => {
                // SAFETY: `raw` came from llama_model_load_from_file and is not used again.
                unsafe { sys::llama_model_free(raw.as_ptr()) };
                Err(Error::invalid("model_vocab", format!("{} has no vocabulary", path.display())))
            }
        }
    }

    /// Width of an input embedding.
    pub fn n_embd(&self) -> usize {
        // SAFETY: `raw` is live for as long as `self`.
        usize::try_from(unsafe { sys::llama_model_n_embd_inp(self.raw.as_ptr()) }).unwrap_or(0)
    }

    /// Tokens in the vocabulary.
    pub fn n_vocab(&self) -> usize {
        // SAFETY: `vocab` lives as long as the model.
        usize::try_from(unsafe { sys::llama_vocab_n_tokens(self.vocab.as_ptr()) }).unwrap_or(0)
    }

    /// Context length that the model was trained for.
    pub fn n_ctx_train(&self) -> u32 {
        // SAFETY: `raw` is live.
        u32::try_from(unsafe { sys::llama_model_n_ctx_train(self.raw.as_ptr()) }).unwrap_or(0)
    }

    /// The file's own chat template.
    pub fn chat_template(&self) -> Option<CString> {
        // SAFETY: `raw` is live; a null name means the default; the result belongs to the model.
        let text = unsafe { sys::llama_model_chat_template(self.raw.as_ptr(), null()) };
        // SAFETY: not null, NUL-terminated, owned by the live model; copied at once.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned())
    }

    /// Tokens of `text`. With `special` false, text such as `<|im_end|>` stays text: always so for text
    /// that a person or a model wrote. No BOS is added.
    pub fn tokenize(&self, text: &str, special: bool) -> Vec<Token> {
        let Ok(len) = i32::try_from(text.len()) else { return Vec::new() };
        let mut tokens = vec![0; text.len() + 8];
        let call = |tokens: &mut Vec<Token>| {
            // SAFETY: pointer and length of both buffers are given together; nothing is kept
            // (llama.h: llama_tokenize: returns the count, or minus the count that would be needed).
            unsafe {
                sys::llama_tokenize(
                    self.vocab.as_ptr(),
                    text.as_ptr().cast(),
                    len,
                    tokens.as_mut_ptr(),
                    i32::try_from(tokens.len()).unwrap_or(i32::MAX),
                    false,
                    special,
                )
            }
        };
        let mut n = call(&mut tokens);
        if n < 0 {
            tokens = vec![0; usize::try_from(-i64::from(n)).unwrap_or(0)];
            n = call(&mut tokens);
        }
        tokens.truncate(usize::try_from(n).unwrap_or(0));
        tokens
    }

    /// The bytes that a token stands for; nothing for control tokens.
    pub fn piece(&self, token: Token) -> Vec<u8> {
        let mut buffer = vec![0u8; 64];
        let call = |buffer: &mut Vec<u8>| {
            let len = i32::try_from(buffer.len()).unwrap_or(i32::MAX);
            // SAFETY: at most `len` bytes are written, no NUL is added (llama.h: llama_token_to_piece).
            unsafe { sys::llama_token_to_piece(self.vocab.as_ptr(), token, buffer.as_mut_ptr().cast(), len, 0, false) }
        };
        let mut n = call(&mut buffer);
        if n < 0 {
            buffer = vec![0; usize::try_from(-i64::from(n)).unwrap_or(0)];
            n = call(&mut buffer);
        }
        buffer.truncate(usize::try_from(n).unwrap_or(0));
        buffer
    }

    /// True for tokens that end the model's turn.
    pub fn ends_turn(&self, token: Token) -> bool {
        // SAFETY: `vocab` lives as long as the model; the token is range-checked by llama.cpp.
        unsafe { sys::llama_vocab_is_eog(self.vocab.as_ptr(), token) }
    }

    /// The single token of this special text, if the vocabulary has one.
    pub fn special(&self, text: &str) -> Option<Token> {
        match self.tokenize(text, true).as_slice() {
            [token] => Some(*token),
            _ => None,
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: contexts and vision towers borrow the model, so none is left (llama.h: llama_model_free).
        unsafe { sys::llama_model_free(self.raw.as_ptr()) }
    }
}

/// Sizes of a context.
#[derive(Debug, Clone, Copy)]
pub struct ContextParams {
    /// Cells for each sequence.
    pub tokens_per_sequence: u32,
    pub sequences: u32,
    /// Most tokens decoded in one call.
    pub batch: u32,
    pub threads: i32,
    pub kv: KvType,
}

/// A llama.cpp context: KV cache and compute buffers. One thread uses it.
pub struct Context<'m> {
    raw: NonNull<sys::llama_context>,
    /// Reused for every decode; capacity is the context's batch size.
    batch: NonNull<sys::llama_batch_ext>,
    pool: Option<NonNull<sys::ggml_threadpool>>,
    model: &'m Model,
    n_batch: usize,
    sequences: i32,
    /// Looked at by llama.cpp's abort callback; boxed so that its address stays good.
    watched: Box<Watched>,
    _one_thread: PhantomData<*mut ()>,
}

/// What llama.cpp's abort callback gets.
#[derive(Default)]
struct Watched {
    cancel: Mutex<CancelFlag>,
    pulse: Mutex<Arc<Pulse>>,
}

/// What to put into the cache, in order.
pub enum Input<'a> {
    Tokens(&'a [Token]),
    /// Rows of the model's width.
    Rows(&'a [f32]),
}

/// One token or row of a batch.
pub struct Entry<'a> {
    pub sequence: i32,
    pub position: i32,
    /// One token, or one row.
    pub input: Input<'a>,
    pub logits: bool,
}

impl<'m> Context<'m> {
    /// Makes a context and its thread pool.
    ///
    /// # Errors
    /// When there is not enough memory for it.
    pub fn new(model: &'m Model, params: ContextParams) -> Result<Self> {
        last_words();
        // SAFETY: `model` outlives the context by 'm; null is the documented failure (llama.h:
        // llama_init_from_model). The thread pool outlives the context (freed after it in Drop).
        unsafe {
            let mut p = sys::llama_context_default_params();
            p.n_ctx = params.tokens_per_sequence.saturating_mul(params.sequences);
            p.n_seq_max = params.sequences;
            p.n_batch = params.batch;
            p.n_ubatch = params.batch.min(512);
            // Logits are wanted of one token of each sequence. Room for those of a whole batch, the default, is 300 MiB with
            // a vocabulary of 150,000; it grows when it must.
            p.n_outputs_max = params.sequences;
            p.n_threads = params.threads;
            p.n_threads_batch = params.threads;
            p.no_perf = true;
            let kv = match params.kv {
                KvType::F16 => sys::GGML_TYPE_F16,
                KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
            };
            (p.type_k, p.type_v) = (kv, kv);
            // A row for each token, whatever the file says (`keep_hidden`).
            p.pooling_type = sys::LLAMA_POOLING_TYPE_NONE;
            let raw = NonNull::new(sys::llama_init_from_model(model.raw.as_ptr(), p)).ok_or_else(|| {
                Error::unavailable(
                    "engine_memory",
                    format!(
                        "no room for {} sequences of {} tokens: {}",
                        params.sequences,
                        params.tokens_per_sequence,
                        last_words()
                    ),
                )
                .hint("lower CONTEXT_TOKENS or ENGINE_SLOTS, or take a smaller quantization; KV_TYPE=f16 suits every model")
            })?;
            // Threads that sleep when idle: spinning ones starve the decoder on small machines.
            let mut pool_params = sys::ggml_threadpool_params_default(params.threads);
            pool_params.poll = 0;
            let pool = NonNull::new(sys::ggml_threadpool_new(&mut pool_params));
            if let Some(pool) = pool {
                sys::llama_attach_threadpool(raw.as_ptr(), pool.as_ptr(), pool.as_ptr());
            }
            let watched = Box::new(Watched::default());
            let address: *const Watched = &*watched;
            sys::llama_set_abort_callback(raw.as_ptr(), Some(should_abort), address.cast_mut().cast());
            let Some(batch) = NonNull::new(sys::llama_batch_ext_init(raw.as_ptr())) else {
                sys::llama_free(raw.as_ptr());
                if let Some(pool) = pool {
                    sys::ggml_threadpool_free(pool.as_ptr());
                }
                return Err(Error::internal("engine_memory", "llama.cpp could not allocate a batch"));
            };
            Ok(Self {
                raw,
                batch,
                pool,
                model,
                n_batch: params.batch.max(1) as usize,
                sequences: i32::try_from(params.sequences).unwrap_or(1),
                watched,
                _one_thread: PhantomData,
            })
        }
    }

    /// Cells that one sequence may hold.
    pub fn tokens_per_sequence(&self) -> usize {
        // SAFETY: `raw` is live.
        unsafe { sys::llama_n_ctx_seq(self.raw.as_ptr()) as usize }
    }

    /// From now on decoding stops at the next node of the graph once this flag is set (on the CPU).
    pub fn watch(&mut self, cancel: &CancelFlag) {
        *self.watched.cancel.lock().unwrap_or_else(PoisonError::into_inner) = cancel.clone();
    }

    /// From now on decoding beats this pulse: with every node of the graph on the CPU, else with every batch.
    pub fn tell(&mut self, pulse: &Arc<Pulse>) {
        *self.watched.pulse.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(pulse);
    }

    /// Forgets the cells of `sequence` from position `from` on. False when the model can't cut there;
    /// then the whole sequence is gone.
    pub fn truncate(&mut self, sequence: i32, from: i32) -> bool {
        // SAFETY: `raw` is live; the sequence id is one of ours (llama.h: llama_memory_seq_rm; removing a
        // whole sequence never fails).
        unsafe {
            let memory = sys::llama_get_memory(self.raw.as_ptr());
            let cut = sys::llama_memory_seq_rm(memory, sequence, from, -1);
            if !cut {
                sys::llama_memory_seq_rm(memory, sequence, -1, -1);
            }
            cut
        }
    }

    /// The position after the last that the cells of `sequence` hold.
    pub fn next_position(&self, sequence: i32) -> i32 {
        // SAFETY: `raw` is live; -1 stands for an empty sequence (llama.h: llama_memory_seq_pos_max).
        unsafe { sys::llama_memory_seq_pos_max(sys::llama_get_memory(self.raw.as_ptr()), sequence) + 1 }
    }

    /// Decodes inputs at rising positions from `position`, in as few batches as the batch size allows, with
    /// logits for the last one when `logits` is set. Returns the position after them.
    ///
    /// # Errors
    /// When the cache is full (callers compute the budget first), the flag was set, or llama.cpp fails.
    pub fn decode(&mut self, sequence: i32, mut position: i32, inputs: &[Input<'_>], logits: bool) -> Result<i32> {
        let width = self.model.n_embd();
        let total: usize = inputs.iter().map(|i| i.len(width)).sum();
        let mut done = 0;
        self.clear_batch();
        let mut held = 0;
        for input in inputs {
            for i in 0..input.len(width) {
                let last = done + 1 == total;
                self.add(sequence, position, input, i, logits && last)?;
                (position, done, held) = (position + 1, done + 1, held + 1);
                if held == self.n_batch || last {
                    self.process()?;
                    held = 0;
                }
            }
        }
        Ok(position)
    }

    /// Decodes entries of any sequences in one batch, as many as [`batch_size`](Self::batch_size) allows. The logits and
    /// hidden states of entry `i` are then at `i`.
    ///
    /// # Errors
    /// As [`decode`](Self::decode); nothing of the batch can be relied on then.
    pub fn step(&mut self, entries: &[Entry<'_>]) -> Result<()> {
        if entries.is_empty() || entries.len() > self.n_batch {
            return Err(Error::internal("engine_batch", format!("{} entries for one batch", entries.len())));
        }
        self.clear_batch();
        for entry in entries {
            self.add(entry.sequence, entry.position, &entry.input, 0, entry.logits)?;
        }
        self.process()
    }

    /// Most entries of one [`step`](Self::step).
    pub fn batch_size(&self) -> usize {
        self.n_batch
    }

    fn clear_batch(&mut self) {
        // SAFETY: `batch` is live and ours.
        unsafe { sys::llama_batch_ext_clear(self.batch.as_ptr()) }
    }

    fn add(&mut self, sequence: i32, position: i32, input: &Input<'_>, i: usize, logits: bool) -> Result<()> {
        let width = self.model.n_embd();
        let n_vocab = self.model.n_vocab();
        if sequence < 0 || sequence >= self.sequences {
            return Err(Error::internal("engine_batch", format!("there is no sequence {sequence}")));
        }
        // SAFETY: `batch` is live; a token is in range; a row is `width` floats that outlive the next
        // `process` (the slice is borrowed by our caller until then); a position is one integer for plain
        // RoPE (llama.h: llama_batch_ext_*; negative results are errors).
        let ok = unsafe {
            let index = match input {
                Input::Tokens(tokens) if usize::try_from(tokens[i]).is_ok_and(|t| t < n_vocab) => {
                    sys::llama_batch_ext_add_token(self.batch.as_ptr(), sequence, tokens[i])
                }
                Input::Tokens(_) => -2,
                Input::Rows(rows) => {
                    let row = &rows[i * width..(i + 1) * width];
                    let embd = sys::llama_embd { data: row.as_ptr(), n_rows: 1, n_embd: width };
                    sys::llama_batch_ext_add_embd(self.batch.as_ptr(), sequence, embd)
                }
            };
            index >= 0
                && sys::llama_batch_ext_set_pos(self.batch.as_ptr(), index, &position)
                && (!logits || sys::llama_batch_ext_set_output_logits(self.batch.as_ptr(), index, true))
        };
        if ok { Ok(()) } else { Err(Error::internal("engine_batch", "llama.cpp refused a token or an embedding")) }
    }

    fn process(&mut self) -> Result<()> {
        // SAFETY: context and batch are live and belong together (llama.h: llama_process, codes as llama_decode).
        let code =
            unsafe { sys::llama_process(self.raw.as_ptr(), sys::LLAMA_PROCESS_TYPE_DECODE, self.batch.as_ptr()) };
        self.clear_batch();
        self.watched.pulse.lock().unwrap_or_else(PoisonError::into_inner).beat();
        decode_result(code)
    }

    /// Decodes one image part through libmtmd's helper, which knows M-RoPE and non-causal models. Returns
    /// the position after it.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_with_helper(
        &mut self,
        vision: &mut Vision<'_>,
        sequence: i32,
        position: i32,
        part: &ImagePart,
    ) -> Result<i32> {
        let mut after = position;
        // SAFETY: all pointers are live; the rows have n_tokens × width floats and are only read; no callback
        // (mtmd-helper.h: mtmd_helper_decode_image_chunk).
        let code = unsafe {
            sys::mtmd_helper_decode_image_chunk(
                vision.ptr(),
                self.raw.as_ptr(),
                part.chunk.0.as_ptr(),
                part.rows.as_ptr().cast_mut(),
                position,
                sequence,
                i32::try_from(self.n_batch).unwrap_or(i32::MAX),
                &mut after,
                None,
                null_mut(),
            )
        };
        decode_result(code)?;
        Ok(after)
    }

    /// From now on decoding keeps the last layer's output after the final norm, beside the logits, of every token that
    /// it decodes: only for single tokens, or each token of a prompt would ask for logits. Off at first.
    pub fn keep_hidden(&mut self, keep: bool) {
        // SAFETY: `raw` is live (llama.h: llama_set_embeddings).
        unsafe { sys::llama_set_embeddings(self.raw.as_ptr(), keep) }
    }

    /// Last layer's output after the final norm (`result_norm`) at an entry of the last batch (-1: the last that has
    /// one), of the model's width.
    ///
    /// # Errors
    /// When none was kept.
    pub fn hidden_at(&self, entry: i32) -> Result<&[f32]> {
        // SAFETY: null when that entry has none; without pooling it has the model's output width and stays until the
        // next decode, which needs `&mut self` (llama.h: llama_get_embeddings_ith).
        unsafe {
            let row = sys::llama_get_embeddings_ith(self.raw.as_ptr(), entry);
            let width = usize::try_from(sys::llama_model_n_embd_out(self.model.raw.as_ptr())).unwrap_or(0);
            if row.is_null() || width == 0 {
                return Err(Error::internal("engine_hidden", "llama.cpp has no hidden state for the voice"));
            }
            Ok(std::slice::from_raw_parts(row, width))
        }
    }

    /// Logits of an entry of the last batch that asked for them (-1: of the last that did): one for each token of the
    /// vocabulary.
    ///
    /// # Errors
    /// When it did not ask for logits.
    pub fn logits_at(&self, entry: i32) -> Result<&[f32]> {
        // SAFETY: null when that entry has none; n_vocab floats that stay until the next decode, which needs
        // `&mut self` (llama.h: llama_get_logits_ith).
        unsafe {
            let logits = sys::llama_get_logits_ith(self.raw.as_ptr(), entry);
            if logits.is_null() {
                return Err(Error::internal("engine_logits", "llama.cpp has no logits to sample from"));
            }
            Ok(std::slice::from_raw_parts(logits, self.model.n_vocab()))
        }
    }
}

impl Input<'_> {
    fn len(&self, width: usize) -> usize {
        match self {
            Input::Tokens(tokens) => tokens.len(),
            Input::Rows(rows) => rows.len() / width.max(1),
        }
    }
}

fn decode_result(code: i32) -> Result<()> {
    match code {
        0 => Ok(()),
        1 => Err(Error::internal("engine_cache_full", "the KV cache has no room for the prompt")),
        2 => Err(Error::new(crate::error::Kind::Unavailable, "engine_aborted", "decoding was cancelled")),
        code => Err(Error::internal("engine_decode", format!("llama.cpp could not decode ({code}): {}", last_words()))),
    }
}

unsafe extern "C" fn should_abort(data: *mut c_void) -> bool {
    // SAFETY: `data` is the context's own box, which it keeps until after llama_free.
    let watched = unsafe { &*data.cast::<Watched>() };
    watched.pulse.lock().unwrap_or_else(PoisonError::into_inner).beat();
    watched.cancel.lock().unwrap_or_else(PoisonError::into_inner).is_set()
}

unsafe extern "C" fn on_progress(_: f32, data: *mut c_void) -> bool {
    // SAFETY: `data` is the pulse that `load_telling` borrows for as long as the call that calls this.
    unsafe { &*data.cast::<Pulse>() }.beat();
    true
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        // SAFETY: batch, context and pool are freed once, the pool after the context that uses it.
        unsafe {
            sys::llama_batch_ext_free(self.batch.as_ptr());
            sys::llama_free(self.raw.as_ptr());
            if let Some(pool) = self.pool {
                sys::ggml_threadpool_free(pool.as_ptr());
            }
        }
    }
}
