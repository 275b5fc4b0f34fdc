//! libmtmd behind safe types: the vision tower, its projector and what they make of a picture.
//! Not here: the language model and its context (`ffi`), which pictures (`vision`).

use super::backend::last_words;
use super::ffi::{Model, Token, c_path};
use crate::error::{Error, Result};
use llama_cpp_sys_2 as sys;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::path::Path;
use std::ptr::{NonNull, null};
use std::sync::Arc;

/// The vision tower and its projector.
pub struct Vision<'m> {
    tower: Arc<Tower>,
    model: &'m Model,
}

/// libmtmd's context.
struct Tower(NonNull<sys::mtmd_context>);

// SAFETY: mtmd_tokenize is thread-safe on a shared context (mtmd.h), and nothing else is called through a shared one:
// encoding needs `&mut Vision`.
unsafe impl Send for Tower {}
// SAFETY: as above.
unsafe impl Sync for Tower {}

impl Drop for Tower {
    fn drop(&mut self) {
        // SAFETY: made by mtmd_init_from_file, freed once, before the model: who holds it borrows that.
        unsafe { sys::mtmd_free(self.0.as_ptr()) }
    }
}

/// What makes pictures ready for the tower, on any thread: resizing and normalising, on the processor.
pub struct Splitter<'m> {
    tower: Arc<Tower>,
    _model: PhantomData<&'m Model>,
}

impl Splitter<'_> {
    /// A tightly packed RGB picture as chunks.
    ///
    /// # Errors
    /// When the sizes disagree or libmtmd fails.
    pub fn split(&self, rgb: &[u8], width: u32, height: u32) -> Result<Chunks> {
        let expected = u64::from(width) * u64::from(height) * 3;
        if expected == 0 || expected != rgb.len() as u64 {
            return Err(Error::internal(
                "frame_size",
                format!("a frame of {width}x{height} should have {expected} bytes but has {}", rgb.len()),
            ));
        }
        // SAFETY: the pixel buffer has width*height*3 bytes (checked by the caller) and is copied by
        // mtmd_bitmap_init; marker and text are NUL-terminated and outlive the call; bitmap and list are
        // freed on all paths (mtmd.h: mtmd_tokenize returns 0 on success).
        unsafe {
            let bitmap = sys::mtmd_bitmap_init(width, height, rgb.as_ptr());
            let chunks = NonNull::new(sys::mtmd_input_chunks_init()).map(Chunks);
            let (false, Some(chunks)) = (bitmap.is_null(), chunks) else {
                sys::mtmd_bitmap_free(bitmap);
                return Err(Error::internal("frame_memory", "libmtmd could not allocate for a frame"));
            };
            let marker = sys::mtmd_default_marker();
            let text = sys::mtmd_input_text {
                text: marker,
                text_len: CStr::from_ptr(marker).count_bytes(),
                add_special: false,
                parse_special: true,
            };
            let bitmaps = [bitmap.cast_const()];
            let code = sys::mtmd_tokenize(self.tower.0.as_ptr(), chunks.0.as_ptr(), &text, bitmaps.as_ptr(), 1);
            sys::mtmd_bitmap_free(bitmap);
            if code == 0 {
                Ok(chunks)
            } else {
                Err(Error::internal("frame_preprocess", format!("libmtmd refused a frame ({code}): {}", last_words())))
            }
        }
    }
}

/// One piece of an encoded picture.
pub enum Part {
    /// Text tokens around the picture (`<image>` and the like).
    Tokens(Vec<Token>),
    /// Embeddings, one row of the model's width for each token.
    Image(ImagePart),
}

/// Embeddings of one slice, and the chunk that knows their positions.
pub struct ImagePart {
    pub(super) chunk: Chunk,
    /// Row-major, `tokens` × model width.
    pub rows: Vec<f32>,
    /// Cells taken in the KV cache.
    pub tokens: usize,
}

/// An owned copy of a libmtmd chunk without its pixels; it knows the positions (M-RoPE).
pub(super) struct Chunk(pub(super) NonNull<sys::mtmd_input_chunk>);

// SAFETY: a placeholder chunk is plain data (shape and positions) without ties to a thread (mtmd.h:
// mtmd_input_chunk_get_placeholder).
unsafe impl Send for Chunk {}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: made by mtmd_input_chunk_get_placeholder, freed once.
        unsafe { sys::mtmd_input_chunk_free(self.0.as_ptr()) }
    }
}

/// Pictures made ready. Frees the list on all paths.
pub struct Chunks(NonNull<sys::mtmd_input_chunks>);

// SAFETY: texts and pixels in memory of its own, without ties to a thread (mtmd.cpp: mtmd_input_chunks).
unsafe impl Send for Chunks {}

impl Drop for Chunks {
    fn drop(&mut self) {
        // SAFETY: made by mtmd_input_chunks_init, freed once.
        unsafe { sys::mtmd_input_chunks_free(self.0.as_ptr()) }
    }
}

impl<'m> Vision<'m> {
    /// Loads a projector file that `models::inspect` has passed and paired with `model`.
    ///
    /// # Errors
    /// When libmtmd refuses the file or it can't see.
    pub fn load(path: &Path, model: &'m Model, use_gpu: bool, threads: i32) -> Result<Self> {
        let c = c_path(path)?;
        last_words();
        // SAFETY: the path outlives the call; `model` outlives the result by the lifetime 'm; null is the
        // documented failure (mtmd.h: mtmd_init_from_file).
        let raw = unsafe {
            let mut params = sys::mtmd_context_params_default();
            params.use_gpu = use_gpu;
            params.n_threads = threads;
            params.print_timings = false;
            params.warmup = true;
            sys::mtmd_init_from_file(c.as_ptr(), model.raw.as_ptr(), params)
        };
        let raw = NonNull::new(raw).ok_or_else(|| {
            Error::invalid("projector_load", format!("{} could not be loaded: {}", path.display(), last_words()))
                .hint("check it with `vidette inspect`, or fetch it again with `vidette pull`")
        })?;
        let vision = Self { tower: Arc::new(Tower(raw)), model };
        // SAFETY: `raw` is live.
        if unsafe { sys::mtmd_support_vision(vision.ptr()) } {
            Ok(vision)
        } else {
            Err(Error::invalid("projector_blind", format!("{} has no vision tower", path.display()))
                .hint("give the vision file (mmproj) that belongs to the language model"))
        }
    }

    /// The context as libmtmd wants it.
    pub(super) fn ptr(&self) -> *mut sys::mtmd_context {
        self.tower.0.as_ptr()
    }

    /// What makes pictures ready for this tower.
    pub fn splitter(&self) -> Splitter<'m> {
        Splitter { tower: Arc::clone(&self.tower), _model: PhantomData }
    }

    /// True when embeddings and text can't share one causal batch with plain positions.
    pub fn needs_helper(&self) -> bool {
        // SAFETY: `raw` is live; a null chunk means the default case, an image (mtmd.h).
        unsafe { sys::mtmd_decode_use_mrope(self.ptr()) || sys::mtmd_decode_use_non_causal(self.ptr(), null()) }
    }

    /// Encodes one tightly packed RGB picture. With `first_slice_only` just the overview is kept (the
    /// reference's `max_slice_nums = 1`), without the text around it.
    ///
    /// # Errors
    /// When the sizes disagree or libmtmd fails.
    pub fn encode(&mut self, rgb: &[u8], width: u32, height: u32, first_slice_only: bool) -> Result<Vec<Part>> {
        let chunks = self.splitter().split(rgb, width, height)?;
        self.encode_chunks(&chunks, first_slice_only)
    }

    /// Encodes what a [`Splitter`] of this tower made ready.
    ///
    /// # Errors
    /// When libmtmd fails.
    pub fn encode_chunks(&mut self, chunks: &Chunks, first_slice_only: bool) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        // SAFETY: `chunks` is live; indices stay below its size; the chunks belong to the list (mtmd.h).
        let count = unsafe { sys::mtmd_input_chunks_size(chunks.0.as_ptr()) };
        for i in 0..count {
            // SAFETY: as above.
            let chunk = unsafe { sys::mtmd_input_chunks_get(chunks.0.as_ptr(), i) };
            // SAFETY: `chunk` is a live element of the list.
            match unsafe { sys::mtmd_input_chunk_get_type(chunk) } {
                sys::MTMD_INPUT_CHUNK_TYPE_IMAGE => parts.push(Part::Image(self.encode_chunk(chunk)?)),
                sys::MTMD_INPUT_CHUNK_TYPE_TEXT if !first_slice_only => parts.push(Part::Tokens(text_tokens(chunk))),
                _ => {}
            }
            if first_slice_only && !parts.is_empty() {
                break;
            }
        }
        if parts.iter().any(|p| matches!(p, Part::Image(_))) {
            Ok(parts)
        } else {
            Err(Error::internal("frame_chunks", "libmtmd made no image chunk of a frame"))
        }
    }

    fn encode_chunk(&mut self, chunk: *const sys::mtmd_input_chunk) -> Result<ImagePart> {
        // SAFETY: `chunk` is a live image chunk of this context; the output is read at once, and its size is
        // n_tokens × n_embd_inp floats (mtmd.h: mtmd_get_output_embd).
        unsafe {
            let code = sys::mtmd_encode_chunk(self.ptr(), chunk);
            if code != 0 {
                return Err(Error::internal(
                    "frame_encode",
                    format!("a frame could not be encoded ({code}): {}", last_words()),
                ));
            }
            let tokens = sys::mtmd_input_chunk_get_n_tokens(chunk);
            let rows = sys::mtmd_get_output_embd(self.ptr());
            let placeholder = NonNull::new(sys::mtmd_input_chunk_get_placeholder(chunk));
            match (rows.is_null(), placeholder) {
                (false, Some(placeholder)) => Ok(ImagePart {
                    chunk: Chunk(placeholder),
                    rows: std::slice::from_raw_parts(rows, tokens * self.model.n_embd()).to_vec(),
                    tokens,
                }),
                _ => Err(Error::internal("frame_encode", "libmtmd gave no embeddings for a frame")),
            }
        }
    }
}

fn text_tokens(chunk: *const sys::mtmd_input_chunk) -> Vec<Token> {
    let mut n = 0usize;
    // SAFETY: `chunk` is a live text chunk; the tokens belong to it and are copied at once (mtmd.h).
    unsafe {
        let tokens = sys::mtmd_input_chunk_get_tokens_text(chunk, &mut n);
        if tokens.is_null() { Vec::new() } else { std::slice::from_raw_parts(tokens, n).to_vec() }
    }
}
