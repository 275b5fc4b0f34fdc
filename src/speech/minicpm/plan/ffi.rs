//! Computations that are built once and run with other numbers each time: where their tensors lie, what goes in and comes
//! out. Not here: building them (`ffi` beside this folder).

use super::device::{Descriptions, Device, Layout, Stored, failed};
use super::ffi::{Given, Graph, Node};
use crate::error::{Error, Result};
use llama_cpp_sys_2 as sys;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;

/// What a run gives to a computation that was built before, in the order in which it was asked for.
#[derive(Debug, Clone, Copy)]
pub enum Value<'v> {
    Floats(&'v [f32]),
    Ids(&'v [i32]),
}

/// A computation that was built, and can be run again while the device's memory for computing is laid out as it was.
pub struct Plan<'a> {
    pub(super) device: Device,
    pub(super) graph: NonNull<sys::ggml_cgraph>,
    /// The preferred backend can do all of it; if not, the scheduler shares it out, which can be done once.
    pub(super) direct: bool,
    /// The layout that its tensors were placed in.
    pub(super) layout: Option<u64>,
    pub(super) inputs: Vec<(NonNull<sys::ggml_tensor>, Given<'a>)>,
    pub(super) outputs: Vec<(*mut sys::ggml_tensor, usize)>,
    pub(super) _uses: Vec<Arc<Stored>>,
    pub(super) _descriptions: Descriptions,
}

// SAFETY: graph and tensors are plain memory that only this plan refers to; every use takes the device's turn.
unsafe impl Send for Plan<'_> {}

impl Plan<'_> {
    /// Runs it, and gives the results, each in memory order; nothing when it must be built anew before it can run again.
    ///
    /// # Errors
    /// `speech_compute` for values that do not fit, and when the device fails; `speech_memory` when it has no room.
    fn run(&mut self, values: &[Value<'_>]) -> Result<Option<Vec<Vec<f32>>>> {
        let device = self.device.clone();
        let mut turn = device.turn();
        if !self.place(&mut turn)? {
            return Ok(None);
        }
        let given = self.given(values)?;
        let (first, sched) = (device.0.backends[0].as_ptr(), device.0.sched.as_ptr());
        // SAFETY: all tensors were placed in memory that is still there (`place`); inputs have their sizes (`given`);
        // reads are as large as the tensors (ggml-backend.h).
        unsafe {
            for ((raw, _), value) in self.inputs.iter().zip(given) {
                // An input that nothing uses got no memory.
                if (*raw.as_ptr()).buffer.is_null() && (*raw.as_ptr()).data.is_null() {
                    continue;
                }
                let (bytes, len) = match value {
                    Value::Floats(values) => (values.as_ptr().cast(), values.len() * 4),
                    Value::Ids(values) => (values.as_ptr().cast(), values.len() * 4),
                };
                sys::ggml_backend_tensor_set(raw.as_ptr(), bytes, 0, len);
            }
            let status = if self.direct {
                sys::ggml_backend_graph_compute(first, self.graph.as_ptr())
            } else {
                sys::ggml_backend_sched_graph_compute(sched, self.graph.as_ptr())
            };
            if status != sys::GGML_STATUS_SUCCESS {
                return Err(failed(format!("{} failed ({status})", device.name())));
            }
            let mut out = Vec::with_capacity(self.outputs.len());
            for (raw, len) in &self.outputs {
                let mut values = vec![0.0f32; *len];
                sys::ggml_backend_tensor_get(*raw, values.as_mut_ptr().cast(), 0, len * 4);
                out.push(values);
            }
            Ok(Some(out))
        }
    }

    pub(super) fn once(mut self, values: &[Value<'_>]) -> Result<Vec<Vec<f32>>> {
        self.run(values)?.ok_or_else(|| failed("a computation that was placed nowhere"))
    }

    /// What goes into each input, in order; checked against what was asked for.
    fn given<'v>(&'v self, values: &[Value<'v>]) -> Result<Vec<Value<'v>>> {
        let mut values = values.iter();
        let mut out = Vec::with_capacity(self.inputs.len());
        for (_, given) in &self.inputs {
            out.push(match given {
                Given::Floats(values) => Value::Floats(values),
                Given::LaterFloats(len) => match values.next() {
                    Some(Value::Floats(values)) if values.len() == *len => Value::Floats(values),
                    _ => return Err(failed(format!("a run without the {len} numbers of an input"))),
                },
                Given::LaterIds(len, below) => match values.next() {
                    Some(Value::Ids(ids))
                        if ids.len() == *len && ids.iter().all(|id| usize::try_from(*id).is_ok_and(|i| i < *below)) =>
                    {
                        Value::Ids(ids)
                    }
                    _ => return Err(failed(format!("a run without {len} numbers of rows below {below}"))),
                },
            });
        }
        Ok(out)
    }

    /// Gives memory to all tensors, once; false when they had some that has gone since.
    fn place(&mut self, layout: &mut Layout) -> Result<bool> {
        if self.layout.is_some() {
            return Ok(self.direct && self.layout == Some(layout.generation));
        }
        let no_room = || {
            Error::unavailable("speech_memory", format!("{} has no room to compute in", self.device.name()))
                .hint("free memory, or let speech run on the CPU")
        };
        let machine = &self.device.0;
        // SAFETY: graph, allocator and scheduler are live; the device's turn is held (`layout` is behind it). All plans
        // share the allocator's one buffer: it only grows, and then the generation tells that older plans have lost theirs
        // (ggml-alloc.h, ggml-backend.h).
        unsafe {
            if !self.direct {
                sys::ggml_backend_sched_reset(machine.sched.as_ptr());
                if !sys::ggml_backend_sched_alloc_graph(machine.sched.as_ptr(), self.graph.as_ptr()) {
                    return Err(no_room());
                }
                self.layout = Some(0);
                return Ok(true);
            }
            let alloc = machine.alloc.as_ptr();
            let done = sys::ggml_gallocr_reserve(alloc, self.graph.as_ptr());
            let bytes = sys::ggml_gallocr_get_buffer_size(alloc, 0);
            if !done || bytes != layout.bytes {
                (layout.generation, layout.bytes) = (layout.generation + 1, bytes);
            }
            if !done || !sys::ggml_gallocr_alloc_graph(alloc, self.graph.as_ptr()) {
                layout.bytes = 0;
                return Err(no_room());
            }
        }
        self.layout = Some(layout.generation);
        Ok(true)
    }
}

/// Most computations that are kept of one network.
const KEPT: usize = 32;

/// Computations that are kept for their next run, by what shapes them: building one takes longer than running it on a
/// GPU, and CUDA replays a graph that has not changed.
#[derive(Default)]
pub struct Plans(HashMap<[usize; 2], Plan<'static>>);

impl Plans {
    /// How many are kept.
    pub fn kept(&self) -> usize {
        self.0.len()
    }

    /// Runs the computation that was kept under the key, or builds it; without a key, or on a device that keeps none, it
    /// is built for this run alone.
    ///
    /// # Errors
    /// Of [`Graph::plan`], and as [`Graph::run`].
    pub fn run(
        &mut self,
        device: &Device,
        key: Option<[usize; 2]>,
        values: &[Value<'_>],
        build: impl FnOnce(&mut Graph<'static>) -> Vec<Node>,
    ) -> Result<Vec<Vec<f32>>> {
        let key = key.filter(|_| device.keeps());
        if let Some(plan) = key.and_then(|key| self.0.get_mut(&key))
            && let Some(out) = plan.run(values)?
        {
            return Ok(out);
        }
        let mut g = Graph::new(device)?;
        let results = build(&mut g);
        let mut plan = g.plan(&results)?;
        let Some(key) = key.filter(|_| plan.direct) else { return plan.once(values) };
        let out = plan.run(values)?.ok_or_else(|| failed("a computation that was placed nowhere"))?;
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        self.0.insert(key, plan);
        Ok(out)
    }
}
