//! ggml's devices, and tensors that stay on them (weights, caches), behind safe types.
//! Not here: graphs (`ffi` beside this folder), which file a weight comes from (`files`).
//!
//! Dimensions are ggml's: `ne[0]` is the fastest. Numbers are 32-bit floats; some tensors hold them in 16 bits.

use crate::error::{Error, Result};
use llama_cpp_sys_2 as sys;
use std::collections::HashMap;
use std::ptr::{NonNull, null, null_mut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Dimensions, fastest first.
pub type Shape = [usize; 4];

/// Most nodes of one graph; a DiT step of 16 blocks has about 1300, the vocoder 1700.
pub(super) const NODES: usize = 4096;

/// Fills missing dimensions with ones.
pub fn shape(dims: &[usize]) -> Shape {
    let mut out = [1; 4];
    for (to, from) in out.iter_mut().zip(dims) {
        *to = *from;
    }
    out
}

pub(super) fn elements(shape: &Shape) -> usize {
    shape.iter().product()
}

pub(super) fn failed(what: impl Into<String>) -> Error {
    Error::internal("speech_compute", what)
}

/// Where tensors live and graphs run: the first GPU with the CPU for what it can't do, or the CPU alone.
#[derive(Clone)]
pub struct Device(pub(super) Arc<Machine>);

pub(super) struct Machine {
    /// The preferred backend first, the CPU last.
    pub(super) backends: Vec<NonNull<sys::ggml_backend>>,
    pool: Option<NonNull<sys::ggml_threadpool>>,
    /// Shares out what the preferred backend can't do alone.
    pub(super) sched: NonNull<sys::ggml_backend_sched>,
    /// The memory of the preferred backend that computations take turns in.
    pub(super) alloc: NonNull<sys::ggml_gallocr>,
    /// Held during every call that touches backends or buffers.
    turn: Mutex<Layout>,
    uses: Uses,
    /// Name of the preferred backend's device.
    name: String,
}

/// How a device is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uses {
    /// Computations are kept for their next run.
    pub keep: bool,
    /// Whether large matrices and caches are held in 16-bit floats.
    pub half: Half,
}

/// Where large matrices and caches are held in 16-bit floats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Half {
    #[default]
    Nowhere,
    /// A GPU's products round both sides to as many digits (TF32) anyway.
    OnGpu,
    #[cfg(test)]
    Everywhere,
}

/// How the memory for computing lies; another generation is another place.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) generation: u64,
    pub(super) bytes: usize,
}

// SAFETY: backends, scheduler, allocator and pool have no tie to a thread (ggml-backend.h); `turn` lets one thread use them at a time.
unsafe impl Send for Machine {}
// SAFETY: as above; every use takes `turn`.
unsafe impl Sync for Machine {}

impl Device {
    /// Takes the first GPU if `gpu` is set and there is one, else the CPU with `threads` threads.
    ///
    /// # Errors
    /// `speech_device` when ggml has no CPU backend or no memory for it.
    pub fn open(gpu: bool, threads: usize, uses: Uses) -> Result<Self> {
        crate::engine::start_native()?;
        let threads = i32::try_from(threads.max(1)).unwrap_or(1);
        let no_memory = || Error::internal("speech_device", "ggml could not make a backend to compute on");
        // SAFETY: null parameters mean defaults; null is the documented failure (ggml-backend.h:
        // ggml_backend_init_by_type). What was made is kept in `Machine`, whose Drop frees it.
        unsafe {
            let init = |kind| NonNull::new(sys::ggml_backend_init_by_type(kind, null()));
            let cpu = init(sys::GGML_BACKEND_DEVICE_TYPE_CPU).ok_or_else(no_memory)?;
            sys::ggml_backend_cpu_set_n_threads(cpu.as_ptr(), threads);
            // Threads that sleep when idle, as the engine's.
            let mut params = sys::ggml_threadpool_params_default(threads);
            params.poll = 0;
            let pool = NonNull::new(sys::ggml_threadpool_new(&mut params));
            if let Some(pool) = pool {
                sys::ggml_backend_cpu_set_threadpool(cpu.as_ptr(), pool.as_ptr());
            }
            let card = if gpu { init(sys::GGML_BACKEND_DEVICE_TYPE_GPU) } else { None };
            let backends: Vec<_> = card.into_iter().chain([cpu]).collect();
            let mut raw: Vec<_> = backends.iter().map(|b| b.as_ptr()).collect();
            let count = i32::try_from(raw.len()).unwrap_or(1);
            let sched = sys::ggml_backend_sched_new(raw.as_mut_ptr(), null_mut(), count, 2 * NODES, false, true);
            let alloc = sys::ggml_gallocr_new(sys::ggml_backend_get_default_buffer_type(raw[0]));
            let (Some(sched), Some(alloc)) = (NonNull::new(sched), NonNull::new(alloc)) else {
                backends.iter().for_each(|b| sys::ggml_backend_free(b.as_ptr()));
                return Err(no_memory());
            };
            let name = std::ffi::CStr::from_ptr(sys::ggml_backend_name(raw[0])).to_string_lossy().into_owned();
            let turn = Mutex::new(Layout::default());
            Ok(Self(Arc::new(Machine { backends, pool, sched, alloc, turn, uses, name })))
        }
    }

    /// Name of what computes, such as `CPU` or `CUDA0`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// It is not the CPU alone.
    pub fn is_card(&self) -> bool {
        self.0.backends.len() > 1
    }

    /// Bytes that computations take turns in.
    pub fn computing(&self) -> usize {
        self.turn().bytes
    }

    pub(super) fn keeps(&self) -> bool {
        self.0.uses.keep
    }

    /// Large matrices and caches are held in 16-bit floats.
    pub fn halves(&self) -> bool {
        match self.0.uses.half {
            Half::Nowhere => false,
            Half::OnGpu => self.is_card(),
            #[cfg(test)]
            Half::Everywhere => true,
        }
    }

    pub(super) fn turn(&self) -> MutexGuard<'_, Layout> {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: nothing else holds them (tensors and graphs keep the `Arc`); scheduler and allocator go before the
        // backends, the pool after the backend that uses it.
        unsafe {
            sys::ggml_gallocr_free(self.alloc.as_ptr());
            sys::ggml_backend_sched_free(self.sched.as_ptr());
            self.backends.iter().for_each(|b| sys::ggml_backend_free(b.as_ptr()));
            if let Some(pool) = self.pool {
                sys::ggml_threadpool_free(pool.as_ptr());
            }
        }
    }
}

/// A ggml context that holds descriptions of tensors, not their data.
pub(super) struct Descriptions(pub(super) NonNull<sys::ggml_context>);

impl Descriptions {
    pub(super) fn new(bytes: usize) -> Result<Self> {
        let params = sys::ggml_init_params { mem_size: bytes, mem_buffer: null_mut(), no_alloc: true };
        // SAFETY: a null buffer makes ggml allocate; null is the failure (ggml.h: ggml_init).
        NonNull::new(unsafe { sys::ggml_init(params) })
            .map(Self)
            .ok_or_else(|| failed("ggml could not allocate a context"))
    }

    /// A new tensor. The caller has counted it against the context's size.
    pub(super) fn tensor(&self, kind: sys::ggml_type, ne: &Shape) -> NonNull<sys::ggml_tensor> {
        let [a, b, c, d] = ne.map(|n| n as i64);
        // SAFETY: the context is live and has room; it never gives null (it asserts instead), so the fallback is
        // unreachable and dangling only in name.
        unsafe {
            NonNull::new(sys::ggml_new_tensor_4d(self.0.as_ptr(), kind, a, b, c, d)).unwrap_or(NonNull::dangling())
        }
    }
}

impl Drop for Descriptions {
    fn drop(&mut self) {
        // SAFETY: made by ggml_init, freed once, after the buffers and graphs that use it.
        unsafe { sys::ggml_free(self.0.as_ptr()) }
    }
}

/// Named tensors with memory on the device: weights, or a network's state.
pub struct Tensors(pub(super) Arc<Stored>);

pub(super) struct Stored {
    names: HashMap<String, (NonNull<sys::ggml_tensor>, Shape)>,
    buffer: NonNull<sys::ggml_backend_buffer>,
    pub(super) device: Device,
    _descriptions: Descriptions,
}

// SAFETY: the tensors are plain memory; every access takes the device's turn.
unsafe impl Send for Stored {}
// SAFETY: as above.
unsafe impl Sync for Stored {}

impl Drop for Stored {
    fn drop(&mut self) {
        let _turn = self.device.turn();
        // SAFETY: graphs that use it hold the `Arc`, so none is left; freed once, before the device.
        unsafe { sys::ggml_backend_buffer_free(self.buffer.as_ptr()) }
    }
}

impl Tensors {
    /// Allocates tensors of these names and shapes, filled with zeros.
    ///
    /// # Errors
    /// `speech_memory` when the device has no room; `speech_compute` for an empty or doubled tensor.
    pub fn new(device: &Device, wanted: &[(String, Shape)]) -> Result<Self> {
        let wanted: Vec<_> = wanted.iter().map(|(name, ne)| (name.clone(), *ne, false)).collect();
        Self::of(device, &wanted)
    }

    /// [`new`](Self::new), with whether each is held in 16-bit floats.
    ///
    /// # Errors
    /// As there.
    pub fn of(device: &Device, wanted: &[(String, Shape, bool)]) -> Result<Self> {
        // SAFETY: only reads a constant (ggml.h).
        let each = unsafe { sys::ggml_tensor_overhead() };
        let descriptions = Descriptions::new((wanted.len() + 1) * each)?;
        let mut names = HashMap::new();
        for (name, ne, half) in wanted {
            let size = ne.iter().try_fold(4usize, |n, d| n.checked_mul(*d)).filter(|n| *n > 0);
            if size.is_none() || names.contains_key(name) {
                return Err(failed(format!("the tensor {name} is empty, too large or there twice ({ne:?})")));
            }
            let kind = if *half { sys::GGML_TYPE_F16 } else { sys::GGML_TYPE_F32 };
            names.insert(name.clone(), (descriptions.tensor(kind, ne), *ne));
        }
        let turn = device.turn();
        // SAFETY: context and backend are live; null means no memory (ggml-alloc.h: ggml_backend_alloc_ctx_tensors).
        let buffer = unsafe {
            let buffer = sys::ggml_backend_alloc_ctx_tensors(descriptions.0.as_ptr(), device.0.backends[0].as_ptr());
            NonNull::new(buffer).inspect(|b| sys::ggml_backend_buffer_clear(b.as_ptr(), 0))
        };
        drop(turn);
        let Some(buffer) = buffer else {
            let mib = wanted.iter().map(|(_, ne, half)| elements(ne) * if *half { 2 } else { 4 }).sum::<usize>() >> 20;
            return Err(Error::unavailable("speech_memory", format!("{} has no room for {mib} MiB", device.name()))
                .hint("free memory, or let speech run on the CPU"));
        };
        Ok(Self(Arc::new(Stored { names, buffer, device: device.clone(), _descriptions: descriptions })))
    }

    pub(super) fn find(&self, name: &str) -> Result<(NonNull<sys::ggml_tensor>, Shape)> {
        self.0.names.get(name).copied().ok_or_else(|| failed(format!("there is no tensor {name}")))
    }

    /// Bytes that they take on the device.
    pub fn bytes(&self) -> usize {
        // SAFETY: the buffer is live (ggml-backend.h: ggml_backend_buffer_get_size).
        unsafe { sys::ggml_backend_buffer_get_size(self.0.buffer.as_ptr()) }
    }

    /// Overwrites a whole tensor.
    ///
    /// # Errors
    /// `speech_compute` when the name is unknown or the size differs.
    pub fn set(&self, name: &str, values: &[f32]) -> Result<()> {
        let (raw, ne) = self.find(name)?;
        if values.len() != elements(&ne) {
            return Err(failed(format!("{} numbers for the tensor {name} of {ne:?}", values.len())));
        }
        let mut halves: Vec<sys::ggml_fp16_t> = Vec::new();
        // SAFETY: the tensor is live; the row has room for as many numbers (ggml.h: ggml_fp32_to_fp16_row).
        let (bytes, len) = unsafe {
            if (*raw.as_ptr()).type_ == sys::GGML_TYPE_F16 {
                halves.resize(values.len(), 0);
                sys::ggml_fp32_to_fp16_row(values.as_ptr(), halves.as_mut_ptr(), values.len() as i64);
                (halves.as_ptr().cast(), halves.len() * 2)
            } else {
                (values.as_ptr().cast(), values.len() * 4)
            }
        };
        let _turn = self.0.device.turn();
        // SAFETY: the tensor is allocated and has exactly this many bytes (checked above); the data is copied
        // before the call returns (ggml-backend.h: ggml_backend_tensor_set).
        unsafe { sys::ggml_backend_tensor_set(raw.as_ptr(), bytes, 0, len) };
        Ok(())
    }

    /// Reads a whole tensor.
    ///
    /// # Errors
    /// `speech_compute` when the name is unknown.
    #[cfg(test)]
    pub fn get(&self, name: &str) -> Result<Vec<f32>> {
        let (raw, ne) = self.find(name)?;
        let mut out = vec![0.0f32; elements(&ne)];
        let _turn = self.0.device.turn();
        // SAFETY: as in `set`, the other way (ggml-backend.h: ggml_backend_tensor_get).
        unsafe {
            if (*raw.as_ptr()).type_ == sys::GGML_TYPE_F16 {
                let mut halves: Vec<sys::ggml_fp16_t> = vec![0; out.len()];
                sys::ggml_backend_tensor_get(raw.as_ptr(), halves.as_mut_ptr().cast(), 0, out.len() * 2);
                sys::ggml_fp16_to_fp32_row(halves.as_ptr(), out.as_mut_ptr(), out.len() as i64);
            } else {
                sys::ggml_backend_tensor_get(raw.as_ptr(), out.as_mut_ptr().cast(), 0, out.len() * 4);
            }
        }
        Ok(out)
    }
}
