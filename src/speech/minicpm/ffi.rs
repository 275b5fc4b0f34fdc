//! ggml's graphs behind a safe builder.
//! Every operation checks the shapes that ggml would assert on, because ggml aborts the process: the first mistake is
//! remembered, later operations do nothing, and [`Graph::run`] gives the error.
//! Not here: running them (`plan`), devices and tensors that stay (`device`), what the networks look like (`encoder`, `flow`, `vocoder`).
//!
//! Dimensions are ggml's: `ne[0]` is the fastest. Values are 32-bit floats, ids are 32-bit integers.

use super::device::{Descriptions, Device, NODES, Shape, Stored, Tensors, elements, failed, shape};
use super::plan::Plan;
use crate::error::{Error, Result};
use llama_cpp_sys_2 as sys;
use std::borrow::Cow;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A value in a graph: which one, and its dimensions.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    at: usize,
    graph: u32,
    /// Dimensions, fastest first.
    pub ne: Shape,
}

/// Functions of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    Abs,
    Elu,
    Sigmoid,
    Silu,
    Sin,
    Softplus,
    Sqr,
    Tanh,
}

pub(super) enum Given<'a> {
    Floats(Cow<'a, [f32]>),
    /// Given with each run; how many numbers.
    LaterFloats(usize),
    /// The same for ids, and the number below which they are.
    LaterIds(usize, usize),
}

/// A computation: inputs, operations, results.
pub struct Graph<'a> {
    device: Device,
    descriptions: Descriptions,
    id: u32,
    nodes: Vec<NonNull<sys::ggml_tensor>>,
    inputs: Vec<(NonNull<sys::ggml_tensor>, Given<'a>)>,
    /// Which nodes are ids, and below what they are.
    ids: Vec<(usize, usize)>,
    /// Writes into tensors that stay, in order.
    stores: Vec<NonNull<sys::ggml_tensor>>,
    /// Keeps the memory of the tensors that the graph uses.
    uses: Vec<Arc<Stored>>,
    error: Option<Error>,
}

impl<'a> Graph<'a> {
    /// An empty graph.
    ///
    /// # Errors
    /// `speech_compute` when there is no memory.
    pub fn new(device: &Device) -> Result<Self> {
        static IDS: AtomicU32 = AtomicU32::new(0);
        // SAFETY: only reads constants (ggml.h).
        let bytes = unsafe { NODES * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead_custom(NODES, false) };
        Ok(Self {
            device: device.clone(),
            descriptions: Descriptions::new(bytes)?,
            id: IDS.fetch_add(1, Ordering::Relaxed),
            nodes: Vec::new(),
            inputs: Vec::new(),
            ids: Vec::new(),
            stores: Vec::new(),
            uses: Vec::new(),
            error: None,
        })
    }

    fn fail(&mut self, what: String) -> Node {
        self.error.get_or_insert_with(|| failed(what));
        Node { at: usize::MAX, graph: self.id, ne: [1; 4] }
    }

    /// The tensor behind a node of this graph.
    fn raw(&mut self, node: Node) -> Option<*mut sys::ggml_tensor> {
        if self.error.is_some() {
            return None;
        }
        if node.graph != self.id || node.at >= self.nodes.len() || self.nodes.len() + 2 >= NODES {
            self.fail(format!("a value of another graph, or more than {NODES} operations"));
            return None;
        }
        Some(self.nodes[node.at].as_ptr())
    }

    fn push(&mut self, raw: NonNull<sys::ggml_tensor>) -> Node {
        self.nodes.push(raw);
        // SAFETY: `raw` is a live tensor of this graph's context; its dimensions are positive.
        let ne = unsafe { raw.as_ref() }.ne.map(|n| usize::try_from(n).unwrap_or(0));
        Node { at: self.nodes.len() - 1, graph: self.id, ne }
    }

    /// Appends the result of an operation whose arguments were checked.
    fn op(&mut self, make: impl FnOnce(*mut sys::ggml_context) -> *mut sys::ggml_tensor) -> Node {
        match NonNull::new(make(self.descriptions.0.as_ptr())) {
            Some(raw) => self.push(raw),
            None => self.fail("ggml made no tensor".to_owned()),
        }
    }

    fn new_input(&mut self, kind: sys::ggml_type, ne: Shape, len: usize, given: Given<'a>) -> Node {
        if self.error.is_some() || self.nodes.len() + 2 >= NODES || len == 0 || len != elements(&ne) {
            return self.fail(format!("{len} numbers for an input of {ne:?}"));
        }
        let raw = self.descriptions.tensor(kind, &ne);
        // SAFETY: a live tensor of this graph; sets a flag so that its memory is not reused before the run.
        unsafe { sys::ggml_set_input(raw.as_ptr()) };
        self.inputs.push((raw, given));
        self.push(raw)
    }

    /// Numbers from outside.
    pub fn input(&mut self, values: impl Into<Cow<'a, [f32]>>, dims: &[usize]) -> Node {
        let values = values.into();
        self.new_input(sys::GGML_TYPE_F32, shape(dims), values.len(), Given::Floats(values))
    }

    /// Numbers that each run of a [`Plan`] gives.
    pub fn later(&mut self, dims: &[usize]) -> Node {
        let (ne, len) = (shape(dims), dims.iter().product());
        self.new_input(sys::GGML_TYPE_F32, ne, len, Given::LaterFloats(len))
    }

    /// Numbers of rows, all below `below`, that each run of a [`Plan`] gives.
    pub fn later_ids(&mut self, len: usize, below: usize) -> Node {
        let node = self.new_input(sys::GGML_TYPE_I32, shape(&[len]), len, Given::LaterIds(len, below));
        self.ids.push((node.at, below));
        node
    }

    /// Whether these are numbers of rows, of which there are so many.
    fn row_numbers(&self, ids: Node, rows: usize) -> bool {
        self.ids.iter().any(|(at, below)| *at == ids.at && *below <= rows)
    }

    /// A tensor that stays.
    pub fn stored(&mut self, tensors: &Tensors, name: &str) -> Node {
        if self.error.is_some() {
            return self.fail(String::new());
        }
        if !Arc::ptr_eq(&tensors.0.device.0, &self.device.0) {
            return self.fail(format!("the tensor {name} is on another device"));
        }
        match tensors.find(name) {
            Ok((raw, _)) => {
                if !self.uses.iter().any(|u| Arc::ptr_eq(u, &tensors.0)) {
                    self.uses.push(tensors.0.clone());
                }
                self.push(raw)
            }
            Err(e) => self.fail(e.message),
        }
    }

    fn contiguous(&mut self, x: Node) -> bool {
        // SAFETY: `raw` is a live tensor of this graph.
        self.raw(x).is_none_or(|raw| unsafe { sys::ggml_is_contiguous(raw) })
    }

    /// The same values without gaps, in order.
    pub fn flat(&mut self, x: Node) -> Node {
        if self.contiguous(x) {
            return x;
        }
        let Some(raw) = self.raw(x) else { return x };
        // SAFETY: a live f32 tensor of this graph; ggml_cont takes any strides.
        self.op(|ctx| unsafe { sys::ggml_cont(ctx, raw) })
    }

    /// Matrix product over `ne[0]` of both: `[k, m, …]` and `[k, n, …]` give `[m, n, …]`; `a` is repeated over the
    /// higher dimensions of `b`.
    pub fn mul_mat(&mut self, a: Node, b: Node) -> Node {
        if a.ne[0] != b.ne[0] || !b.ne[2].is_multiple_of(a.ne[2]) || !b.ne[3].is_multiple_of(a.ne[3]) {
            return self.fail(format!("a product of {:?} and {:?}", a.ne, b.ne));
        }
        let [k, m, x, y] = [a.ne[0], a.ne[1], b.ne[2], b.ne[3]];
        if a.ne[2] * a.ne[3] == 1 && x * y > 1 {
            // One product instead of one for each of the higher dimensions.
            let rows = b.ne[1] * x * y;
            let flat = self.reshape(b, &[k, rows]);
            let product = self.mul_mat(a, flat);
            return self.reshape(product, &[m, b.ne[1], x, y]);
        }
        let (a, b) = (self.flat(a), self.flat(b));
        let (Some(a), Some(b)) = (self.raw(a), self.raw(b)) else { return b };
        // SAFETY: live contiguous tensors, `b` of f32, `a` of f32 or f16; shapes as ggml_can_mul_mat wants them (checked
        // above). 16 bits are how `a` is stored; sums are of 32 bits.
        self.op(|ctx| unsafe {
            let product = sys::ggml_mul_mat(ctx, a, b);
            if (*a).type_ == sys::GGML_TYPE_F16 {
                sys::ggml_mul_mat_set_prec(product, sys::GGML_PREC_F32);
            }
            product
        })
    }

    fn broadcast(&mut self, a: Node, b: Node, what: &str) -> Option<(*mut sys::ggml_tensor, *mut sys::ggml_tensor)> {
        if (0..4).any(|i| !a.ne[i].is_multiple_of(b.ne[i])) {
            self.fail(format!("{what} of {:?} and {:?}", a.ne, b.ne));
        }
        let (a, b) = (self.flat(a), self.flat(b));
        self.raw(a).zip(self.raw(b))
    }

    /// Sum; `b` is repeated to the shape of `a`.
    pub fn add(&mut self, a: Node, b: Node) -> Node {
        let Some((x, y)) = self.broadcast(a, b, "a sum") else { return a };
        // SAFETY: live contiguous f32 tensors, and `b` can be repeated to `a` (checked above).
        self.op(|ctx| unsafe { sys::ggml_add(ctx, x, y) })
    }

    /// The sum of the taps of a convolution from their products `[out · taps, time, …]` with every frame: tap `i` counts
    /// `i · dilation` frames later. Gives `[out, time − (taps − 1) · dilation, …]`.
    pub fn sum_taps(&mut self, x: Node, taps: usize, dilation: usize) -> Node {
        let (out, time) = (x.ne[0] / taps.max(1), x.ne[1].saturating_sub((taps.max(1) - 1) * dilation));
        if out * taps != x.ne[0] || x.ne[3] != 1 || time == 0 {
            return self.fail(format!("{taps} taps of {:?}", x.ne));
        }
        let x = self.flat(x);
        let row = 4 * x.ne[0];
        let nb = [4, row, row * x.ne[1], row * x.ne[1] * x.ne[2]];
        let mut sum = None;
        for tap in 0..taps {
            let part = self.view(x, [out, time, x.ne[2], 1], nb, 4 * tap * out + tap * dilation * row);
            sum = Some(match sum {
                None => part,
                Some(sum) => {
                    let (Some(a), Some(b)) = (self.raw(sum), self.raw(part)) else { return part };
                    // SAFETY: live f32 tensors of one shape whose rows have no gaps, which is all that ggml_add wants.
                    self.op(|ctx| unsafe { sys::ggml_add(ctx, a, b) })
                }
            });
        }
        sum.unwrap_or(x)
    }

    /// Product, number by number; `b` is repeated to the shape of `a`.
    pub fn mul(&mut self, a: Node, b: Node) -> Node {
        let Some((x, y)) = self.broadcast(a, b, "a product") else { return a };
        // SAFETY: as in `add`.
        self.op(|ctx| unsafe { sys::ggml_mul(ctx, x, y) })
    }

    /// `x · scale + bias`.
    pub fn affine(&mut self, x: Node, scale: f32, bias: f32) -> Node {
        let x = self.flat(x);
        let Some(raw) = self.raw(x) else { return x };
        // SAFETY: a live contiguous f32 tensor.
        self.op(|ctx| unsafe { sys::ggml_scale_bias(ctx, raw, scale, bias) })
    }

    /// Each row of `ne[0]` less its mean, over its standard deviation.
    pub fn norm(&mut self, x: Node, eps: f32) -> Node {
        let x = self.flat(x);
        let Some(raw) = self.raw(x) else { return x };
        // SAFETY: a live contiguous f32 tensor; eps is not negative.
        self.op(|ctx| unsafe { sys::ggml_norm(ctx, raw, eps.max(0.0)) })
    }

    /// Each row of `ne[0]` over its Euclidean length, which counts as `eps` at least.
    pub fn unit(&mut self, x: Node, eps: f32) -> Node {
        let x = self.flat(x);
        let Some(raw) = self.raw(x) else { return x };
        // SAFETY: as in `norm`.
        self.op(|ctx| unsafe { sys::ggml_l2_norm(ctx, raw, eps.max(0.0)) })
    }

    /// A function of each number.
    pub fn unary(&mut self, x: Node, function: Unary) -> Node {
        let x = self.flat(x);
        let Some(raw) = self.raw(x) else { return x };
        // SAFETY: a live contiguous f32 tensor; all these take any such tensor (ggml.c: ggml_unary_impl).
        self.op(|ctx| unsafe {
            match function {
                Unary::Abs => sys::ggml_abs(ctx, raw),
                Unary::Elu => sys::ggml_elu(ctx, raw),
                Unary::Sigmoid => sys::ggml_sigmoid(ctx, raw),
                Unary::Silu => sys::ggml_silu(ctx, raw),
                Unary::Sin => sys::ggml_sin(ctx, raw),
                Unary::Softplus => sys::ggml_softplus(ctx, raw),
                Unary::Sqr => sys::ggml_sqr(ctx, raw),
                Unary::Tanh => sys::ggml_tanh(ctx, raw),
            }
        })
    }

    /// `x`, or `slope · x` where negative; a slope of 0 gives ReLU.
    pub fn leaky(&mut self, x: Node, slope: f32) -> Node {
        let x = self.flat(x);
        let Some(raw) = self.raw(x) else { return x };
        // SAFETY: a live contiguous f32 tensor, not in place.
        self.op(|ctx| unsafe { sys::ggml_leaky_relu(ctx, raw, slope, false) })
    }

    /// Softmax of `scale · x + mask` over `ne[0]`; the mask is `[ne0, ne1]` and the same for all higher dimensions.
    pub fn softmax(&mut self, x: Node, mask: Option<Node>, scale: f32) -> Node {
        let x = self.flat(x);
        if mask.is_some_and(|m| m.ne != [x.ne[0], x.ne[1], 1, 1]) || mask.is_some_and(|m| !self.contiguous(m)) {
            return self.fail(format!("a softmax of {:?} with the mask {:?}", x.ne, mask.map(|m| m.ne)));
        }
        let mask = mask.map(|m| self.raw(m));
        let (Some(raw), false) = (self.raw(x), mask == Some(None)) else { return x };
        let mask = mask.flatten().unwrap_or(null_mut());
        // SAFETY: live contiguous f32 tensors; the mask is null or has the shape that ggml wants (checked above).
        self.op(|ctx| unsafe { sys::ggml_soft_max_ext(ctx, raw, mask, scale, 0.0) })
    }

    /// The same numbers in order under other dimensions.
    pub fn reshape(&mut self, x: Node, dims: &[usize]) -> Node {
        let ne = shape(dims);
        if self.error.is_none() && elements(&ne) != elements(&x.ne) {
            return self.fail(format!("{:?} as {ne:?}", x.ne));
        }
        let x = self.flat(x);
        let Some(raw) = self.raw(x) else { return x };
        let [a, b, c, d] = ne.map(|n| n as i64);
        // SAFETY: a live contiguous tensor with as many elements (checked above).
        self.op(|ctx| unsafe { sys::ggml_reshape_4d(ctx, raw, a, b, c, d) })
    }

    /// Dimension `i` becomes dimension `axes[i]`; nothing is copied.
    pub fn permute(&mut self, x: Node, axes: [usize; 4]) -> Node {
        if (0..4).any(|i| !axes.contains(&i)) {
            return self.fail(format!("the axes {axes:?}"));
        }
        let Some(raw) = self.raw(x) else { return x };
        let [a, b, c, d] = axes.map(|n| n as i32);
        // SAFETY: a live tensor; the axes are a permutation of 0 to 3 (checked above).
        self.op(|ctx| unsafe { sys::ggml_permute(ctx, raw, a, b, c, d) })
    }

    /// A view with strides in bytes into an f32 tensor.
    fn view(&mut self, x: Node, ne: Shape, nb: [usize; 4], offset: usize) -> Node {
        let Some(raw) = self.raw(x) else { return x };
        // SAFETY: `raw` is live; a view's bytes must lie inside its source (ggml.c: ggml_new_tensor_impl asserts it),
        // which is checked here for contiguous sources.
        let inside = unsafe {
            let last: usize = (0..4).map(|i| (ne[i].max(1) - 1) * nb[i]).sum::<usize>() + 4 + offset;
            (*raw).type_ == sys::GGML_TYPE_F32 && sys::ggml_is_contiguous(raw) && last <= sys::ggml_nbytes(raw)
        };
        if !inside || elements(&ne) == 0 {
            return self.fail(format!("a view of {ne:?} into {:?}", x.ne));
        }
        let [a, b, c, d] = ne.map(|n| n as i64);
        // SAFETY: as checked.
        self.op(|ctx| unsafe { sys::ggml_view_4d(ctx, raw, a, b, c, d, nb[1], nb[2], nb[3], offset) })
    }

    /// `len` entries of dimension `dim` from `start` on; nothing is copied.
    pub fn slice(&mut self, x: Node, dim: usize, start: usize, len: usize) -> Node {
        if dim > 3 || start + len > x.ne[dim.min(3)] {
            return self.fail(format!("entries {start} to {} of dimension {dim} of {:?}", start + len, x.ne));
        }
        let x = self.flat(x);
        let nb = [4, 4 * x.ne[0], 4 * x.ne[0] * x.ne[1], 4 * x.ne[0] * x.ne[1] * x.ne[2]];
        let mut ne = x.ne;
        ne[dim] = len;
        self.view(x, ne, nb, start * nb[dim])
    }

    /// `[r, t, h]` with `r = keys + t − 1` relative positions in falling order becomes `[keys, t, h]`: row `i` starts at
    /// `t − 1 − i`.
    pub fn rel_shift(&mut self, x: Node, keys: usize) -> Node {
        let [r, t, h, _] = x.ne;
        if r + 1 != keys + t || x.ne[3] != 1 {
            return self.fail(format!("a shift of {:?} for {keys} keys", x.ne));
        }
        let x = self.flat(x);
        // With one relative position a row's stride would be 0; then there is one key and one row.
        self.view(x, [keys, t, h, 1], [4, 4 * (r - 1).max(1), 4 * r * t, 4 * r * t * h], 4 * (t - 1))
    }

    /// `a` and then `b` along dimension `dim`.
    pub fn concat(&mut self, a: Node, b: Node, dim: usize) -> Node {
        if dim > 3 || (0..4).any(|i| i != dim && a.ne[i] != b.ne[i]) {
            return self.fail(format!("{:?} and {:?} along dimension {dim}", a.ne, b.ne));
        }
        let (a, b) = (self.flat(a), self.flat(b));
        let (Some(x), Some(y)) = (self.raw(a), self.raw(b)) else { return a };
        // SAFETY: live contiguous f32 tensors that agree in the other dimensions (checked above).
        self.op(|ctx| unsafe { sys::ggml_concat(ctx, x, y, dim as i32) })
    }

    /// Zeros before and after, along dimension 1.
    pub fn pad(&mut self, x: Node, before: usize, after: usize) -> Node {
        if before + after == 0 {
            return x;
        }
        let x = self.flat(x);
        let Some(raw) = self.raw(x) else { return x };
        let (before, after) = (before as i32, after as i32);
        // SAFETY: a live contiguous f32 tensor; the amounts are not negative.
        self.op(|ctx| unsafe { sys::ggml_pad_ext(ctx, raw, 0, 0, before, after, 0, 0, 0, 0) })
    }

    /// `x` repeated to these dimensions.
    pub fn repeat(&mut self, x: Node, dims: &[usize]) -> Node {
        let ne = shape(dims);
        if (0..4).any(|i| !ne[i].is_multiple_of(x.ne[i])) {
            return self.fail(format!("{:?} repeated to {ne:?}", x.ne));
        }
        let x = self.flat(x);
        let Some(raw) = self.raw(x) else { return x };
        let [a, b, c, d] = ne.map(|n| n as i64);
        // SAFETY: a live contiguous f32 tensor that can be repeated to these dimensions (checked above).
        self.op(|ctx| unsafe { sys::ggml_repeat_4d(ctx, raw, a, b, c, d) })
    }

    /// Rows of a table `[width, rows]` by their numbers.
    pub fn rows(&mut self, table: Node, ids: Node) -> Node {
        if !self.row_numbers(ids, table.ne[1]) || table.ne[2] * table.ne[3] != 1 {
            return self.fail(format!("rows of a table of {:?} that it does not have", table.ne));
        }
        let table = self.flat(table);
        let (Some(table), Some(raw)) = (self.raw(table), self.raw(ids)) else { return ids };
        // SAFETY: a live f32 matrix and i32 ids below its number of rows (checked above, and with every run).
        self.op(|ctx| unsafe { sys::ggml_get_rows(ctx, table, raw) })
    }

    /// The windows of a convolution: `x` `[time, channels]` becomes `[taps · channels, windows]`, for a kernel
    /// `[taps, channels, out]`.
    pub fn windows(&mut self, kernel: Node, x: Node, stride: usize, pad: usize, dilation: usize) -> Node {
        let reach = (kernel.ne[0] - 1) * dilation + 1;
        let fits = x.ne[0] + 2 * pad >= reach && kernel.ne[1] == x.ne[1] && stride > 0 && dilation > 0;
        if !fits || x.ne[2] * x.ne[3] * kernel.ne[3] != 1 {
            return self.fail(format!("a convolution of {:?} with {:?}", x.ne, kernel.ne));
        }
        let x = self.flat(x);
        let (Some(kernel), Some(raw)) = (self.raw(kernel), self.raw(x)) else { return x };
        let (stride, pad, dilation) = (stride as i32, pad as i32, dilation as i32);
        let f32 = sys::GGML_TYPE_F32;
        // SAFETY: live f32 tensors; channels agree and there is at least one window (checked above).
        self.op(|ctx| unsafe { sys::ggml_im2col(ctx, kernel, raw, stride, 0, pad, 0, dilation, 0, false, f32) })
    }

    /// Writes `value` over a whole tensor that stays, after all that this graph has read from it so far.
    pub fn store(&mut self, value: Node, target: Node) {
        if value.ne != target.ne {
            self.fail(format!("{:?} into {:?}", value.ne, target.ne));
        }
        let value = self.flat(value);
        let (Some(value), Some(target)) = (self.raw(value), self.raw(target)) else { return };
        // SAFETY: live f32 tensors of one shape (checked above).
        let done = self.op(|ctx| unsafe { sys::ggml_cpy(ctx, value, target) });
        self.stores.extend(self.nodes.get(done.at).copied());
    }

    /// Writes rows `[n, ids, h, b]` over the rows `ids` of dimension 1 of a tensor `[n, rows, h, b]` that stays; what is
    /// returned is the tensor after it.
    pub fn store_rows(&mut self, rows: Node, ids: Node, target: Node) -> Node {
        let fits = [0, 2, 3].iter().all(|&i| rows.ne[i] == target.ne[i]) && rows.ne[1] == ids.ne[0];
        if !fits || !self.row_numbers(ids, target.ne[1]) {
            return self.fail(format!("rows {:?} into {:?}", rows.ne, target.ne));
        }
        let rows = self.flat(rows);
        let (Some(rows), Some(raw), Some(target)) = (self.raw(rows), self.raw(ids), self.raw(target)) else {
            return ids;
        };
        // SAFETY: live f32 tensors and i32 ids below the number of rows; shapes agree (checked above, ids
        // also with every run).
        let done = self.op(|ctx| unsafe { sys::ggml_set_rows(ctx, target, rows, raw) });
        self.stores.extend(self.nodes.get(done.at).copied());
        done
    }

    /// Runs the graph once and reads the results, each in memory order.
    ///
    /// # Errors
    /// `speech_compute` for the first mistake that was made while building, and when the device fails;
    /// `speech_memory` when it has no room.
    pub fn run(self, results: &[Node]) -> Result<Vec<Vec<f32>>> {
        self.plan(results)?.once(&[])
    }

    /// Makes a computation of it that can be run.
    ///
    /// # Errors
    /// `speech_compute` for the first mistake that was made while building.
    pub fn plan(mut self, results: &[Node]) -> Result<Plan<'a>> {
        let mut outputs = Vec::new();
        for node in results {
            let node = self.flat(*node);
            outputs.extend(self.raw(node).map(|raw| (raw, elements(&node.ne))));
        }
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let device = self.device.clone();
        // SAFETY: context and tensors are live; the graph has room for NODES nodes, and no more were made; outputs are
        // flagged before allocation so that their memory is not reused; nodes are read within their number
        // (ggml.h, ggml-backend.h: ggml_backend_supports_op).
        let (graph, direct) = unsafe {
            let graph = sys::ggml_new_graph_custom(self.descriptions.0.as_ptr(), NODES, false);
            for store in &self.stores {
                sys::ggml_build_forward_expand(graph, store.as_ptr());
            }
            for (raw, _) in &outputs {
                sys::ggml_set_output(*raw);
                sys::ggml_build_forward_expand(graph, *raw);
            }
            let _turn = device.turn();
            let first = device.0.backends[0].as_ptr();
            let direct = (0..sys::ggml_graph_n_nodes(graph))
                .all(|i| sys::ggml_backend_supports_op(first, sys::ggml_graph_node(graph, i)));
            (graph, direct)
        };
        let graph = NonNull::new(graph).ok_or_else(|| failed("ggml made no graph"))?;
        Ok(Plan {
            device,
            graph,
            direct,
            layout: None,
            inputs: self.inputs,
            outputs,
            _uses: self.uses,
            _descriptions: self.descriptions,
        })
    }
}
