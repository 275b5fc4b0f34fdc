//! mu to mel: flow matching. Noise is carried to a mel spectrogram in a few Euler steps, each an evaluation of a
//! diffusion transformer with and without condition (classifier-free guidance), chunk by chunk.
//!
//! Source: `CausalConditionalCFM` and `DiT` of minicpmo-utils 1.0.7 (`stepaudio2/cosyvoice2/flow`). Keys and values of
//! every step and block are cached separately. Attention has no positions, so the order of a cache does not matter: it
//! lives in fixed slots on the device and is never moved. [`Slots`] knows which slots hold what the reference would hold.
//! Not here: the noise (`noise`), packing of the prompt's caches (`voice`).

use super::device::{Device, Tensors};
use super::encoder::KEPT_FRAMES;
use super::ffi::{Graph, Node, Unary};
use super::files::{TensorFile, Wants};
use super::layers::{conv, gelu, layer_norm, linear, mish};
use super::plan::{Plans, Value};
use crate::error::{Error, Result};

/// Weight of the guidance: `(1 + G) · conditional − G · unconditional`.
pub const GUIDANCE: f32 = 0.7;
/// Frames that a causal convolution of three taps looks back.
const BACK: usize = 2;
/// With condition and without.
pub const HALVES: usize = 2;

/// Sizes, from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowSizes {
    pub width: usize,
    pub heads: usize,
    pub dim: usize,
    pub blocks: usize,
    pub mel: usize,
    forward: usize,
    frequencies: usize,
}

impl FlowSizes {
    /// Reads the sizes off `flow_matching.gguf` and checks every tensor of it.
    ///
    /// # Errors
    /// `model_tensor_shape`, `model_tensor_type` or `speech_file_shape`.
    pub fn read(file: &TensorFile) -> Result<Self> {
        let [input, width, ..] = file.dims("estimator.in_proj.weight")?;
        let [dim, ..] = file.dims("estimator.blocks.0.attn.q_norm.weight")?;
        let [_, inner, ..] = file.dims("estimator.blocks.0.attn.to_q.weight")?;
        let [_, forward, ..] = file.dims("estimator.blocks.0.mlp.fc1.weight")?;
        let [frequencies, ..] = file.dims("estimator.t_embedder.mlp.0.weight")?;
        let [mel, ..] = file.dims("estimator.final_layer.linear.bias")?;
        if inner != width || !inner.is_multiple_of(dim) || input != 4 * mel || !frequencies.is_multiple_of(2) {
            let what = format!(
                "an input of {input}, a mel of {mel}, a width of {width}, heads of {dim} in {inner} and {frequencies} \
                 frequencies do not belong together"
            );
            return Err(file.refuse("speech_file_shape", what));
        }
        let blocks = file.count("estimator.blocks.")?;
        let sizes = Self { width, heads: inner / dim, dim, blocks, mel, forward, frequencies };
        sizes.wants().check(file)?;
        sizes.time_wants().check(file)?;
        Ok(sizes)
    }

    /// What every step needs.
    fn wants(&self) -> Wants {
        let mut w = Wants::default();
        w.linear("estimator.in_proj", 4 * self.mel, self.width);
        for i in 0..self.blocks {
            let p = format!("estimator.blocks.{i}.");
            for name in ["to_q", "to_k", "to_v", "proj"] {
                w.linear(&format!("{p}attn.{name}"), self.width, self.width);
            }
            w.norm(&format!("{p}attn.q_norm"), self.dim);
            w.norm(&format!("{p}attn.k_norm"), self.dim);
            w.linear(&format!("{p}mlp.fc1"), self.width, self.forward);
            w.linear(&format!("{p}mlp.fc2"), self.forward, self.width);
            w.conv(&format!("{p}conv.block.1"), self.width, self.width, BACK + 1);
            w.norm(&format!("{p}conv.block.3"), self.width);
            w.conv(&format!("{p}conv.block.6"), self.width, self.width, BACK + 1);
        }
        w.linear("estimator.final_layer.linear", self.width, self.mel);
        w
    }

    /// What only the time needs; its results are computed once.
    fn time_wants(&self) -> Wants {
        let mut w = Wants::default();
        w.linear("estimator.t_embedder.mlp.0", self.frequencies, self.width);
        w.linear("estimator.t_embedder.mlp.2", self.width, self.width);
        for i in 0..self.blocks {
            w.linear(&format!("estimator.blocks.{i}.adaLN_modulation.1"), self.width, 9 * self.width);
        }
        w.linear("estimator.final_layer.adaLN_modulation.1", self.width, 2 * self.width);
        w
    }
}

/// Where a cache's frames lie: a list of slots in the reference's order, newest chunk first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    prompt: usize,
    capacity: usize,
    /// Slot of each frame held.
    order: Vec<usize>,
}

impl Slots {
    /// Slots for a prompt, whose frames take the first ones, and `capacity` frames in all.
    pub fn new(prompt: usize, capacity: usize) -> Self {
        Self { prompt, capacity, order: (0..prompt).collect() }
    }

    /// Frames held.
    pub fn held(&self) -> usize {
        self.order.len()
    }

    /// The slots of the frames held, in the reference's order.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The lowest free slots for `frames` new frames.
    fn free(&self, frames: usize) -> Option<Vec<usize>> {
        let mut taken = vec![false; self.capacity];
        self.order.iter().for_each(|slot| taken[*slot] = true);
        let free: Vec<_> = (0..self.capacity).filter(|slot| !taken[*slot]).take(frames).collect();
        (free.len() == frames).then_some(free)
    }

    /// Adds new frames in front; beyond the prompt's length and [`KEPT_FRAMES`] only the newest frames, as many as the
    /// prompt had, and the last [`KEPT_FRAMES`] stay.
    fn push(&mut self, new: &[usize]) {
        self.order.splice(0..0, new.iter().copied());
        if self.order.len() > self.prompt + KEPT_FRAMES {
            self.order.drain(self.prompt..self.order.len() - KEPT_FRAMES);
        }
    }
}

/// Caches of all steps and blocks as a prompt leaves them, each in the order of its tensor on the device.
pub struct FlowPrompt {
    pub frames: usize,
    pub steps: usize,
    /// Keys, then values, of each step and block: `[dim, frames, heads, halves]`.
    pub attention: Vec<[Vec<f32>; 2]>,
    /// Inputs of the two convolutions of each step and block: `[width, 2, halves]`.
    pub convolution: Vec<[Vec<f32>; 2]>,
}

/// The network, its weights and its caches.
pub struct Flow {
    sizes: FlowSizes,
    weights: Tensors,
    /// `scale + 1`, shift and gate of every step, `[width, 9 · blocks + 2]`.
    modulation: Tensors,
    caches: Tensors,
    slots: Slots,
    prompt: FlowPrompt,
    /// What the caches hold beyond the prompt's.
    wear: Wear,
    /// Length of whole windows in frames: their computations are kept.
    window: usize,
    plans: Plans,
}

/// How much of the prompt's caches is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wear {
    None,
    /// The convolutions' caches; frames lie beside the prompt's, and the mask hides them.
    Little,
    /// Frames have taken the place of the prompt's, or something has failed.
    All,
}

const CACHES: [&str; 4] = ["keys", "values", "conv1", "conv2"];

fn cache_name(step: usize, block: usize, what: &str) -> String {
    format!("{step}.{block}.{what}")
}

impl Flow {
    /// Puts weights and caches onto a device; `window` is the length of a whole window in frames, `longest` of the longest.
    ///
    /// # Errors
    /// Of reading, `speech_compute` and `speech_memory`.
    pub fn load(
        sizes: FlowSizes,
        file: &TensorFile,
        prompt: FlowPrompt,
        [window, longest]: [usize; 2],
        device: &Device,
    ) -> Result<Self> {
        let weights = sizes.wants().load(file, device)?;
        let modulation = modulation(&sizes, file, prompt.steps, device)?;
        let capacity = prompt.frames + KEPT_FRAMES + longest;
        let mut wanted = Vec::new();
        for step in 0..prompt.steps {
            for block in 0..sizes.blocks {
                for what in CACHES {
                    let conv = what.starts_with("conv");
                    let keys = [sizes.dim, capacity, sizes.heads, HALVES];
                    let ne = if conv { [sizes.width, BACK, HALVES, 1] } else { keys };
                    wanted.push((cache_name(step, block, what), ne, device.halves() && !conv));
                }
            }
        }
        let caches = Tensors::of(device, &wanted)?;
        let slots = Slots::new(prompt.frames, capacity);
        let mut flow = Self {
            sizes,
            weights,
            modulation,
            caches,
            slots,
            prompt,
            wear: Wear::All,
            window,
            plans: Plans::default(),
        };
        flow.begin()?;
        Ok(flow)
    }

    /// How many computations are kept.
    pub fn kept(&self) -> usize {
        self.plans.kept()
    }

    /// Bytes on the device: weights, caches.
    pub fn bytes(&self) -> [usize; 2] {
        [self.weights.bytes() + self.modulation.bytes(), self.caches.bytes()]
    }

    /// Steps of the caches.
    #[cfg(test)]
    pub fn steps(&self) -> usize {
        self.prompt.steps
    }

    /// Frames held, which is also where the noise of the next chunk starts.
    pub fn held(&self) -> usize {
        self.slots.held()
    }

    /// Most frames that are ever held with a chunk being computed.
    pub fn capacity(&self) -> usize {
        self.slots.capacity
    }

    /// Back to the prompt's caches; nothing of what was computed counts any more. Only what has been lost is written again:
    /// all of it is some 300 MB.
    ///
    /// # Errors
    /// `speech_compute` when the device fails.
    pub fn begin(&mut self) -> Result<()> {
        self.slots = Slots::new(self.prompt.frames, self.slots.capacity);
        if self.wear == Wear::None {
            return Ok(());
        }
        let s = &self.sizes;
        let (from, to) = (s.dim * self.prompt.frames, s.dim * self.slots.capacity);
        let mut whole = vec![0.0; to * s.heads * HALVES];
        for (i, (attention, convolution)) in self.prompt.attention.iter().zip(&self.prompt.convolution).enumerate() {
            let (step, block) = (i / s.blocks, i % s.blocks);
            for (values, what) in attention.iter().zip(&CACHES[..2]).filter(|_| self.wear == Wear::All) {
                for (to, from) in whole.chunks_exact_mut(to).zip(values.chunks_exact(from)) {
                    to[..from.len()].copy_from_slice(from);
                }
                self.caches.set(&cache_name(step, block, what), &whole)?;
            }
            for (values, what) in convolution.iter().zip(&CACHES[2..]) {
                self.caches.set(&cache_name(step, block, what), values)?;
            }
        }
        self.wear = Wear::None;
        Ok(())
    }

    /// Whole caches of one step and block: keys and values in the reference's order
    /// (`[dim, held, heads, halves]`) and the two convolutions'.
    ///
    /// # Errors
    /// `speech_compute`.
    #[cfg(test)]
    pub fn cache(&self, step: usize, block: usize) -> Result<[Vec<f32>; 4]> {
        let s = &self.sizes;
        let get = |what: &str| self.caches.get(&cache_name(step, block, what));
        let ordered = |whole: Vec<f32>| -> Vec<f32> {
            let heads = whole.chunks_exact(s.dim * self.slots.capacity);
            heads
                .flat_map(|h| self.slots.order().iter().flat_map(move |f| &h[f * s.dim..(f + 1) * s.dim]))
                .copied()
                .collect()
        };
        Ok([ordered(get("keys")?), ordered(get("values")?), get("conv1")?, get("conv2")?])
    }

    /// mel `[mel, frames]` of a chunk of mu, from noise of the same shape; `stop` is asked before every step, and `see`
    /// gets the velocities `[mel, frames, halves]` of each.
    ///
    /// # Errors
    /// `speech_compute`, or what `stop` says. After an error the caches are of no use until [`begin`](Self::begin).
    pub fn run(
        &mut self,
        device: &Device,
        mu: &[f32],
        speaker: &[f32],
        noise: &[f32],
        stop: &dyn Fn() -> Result<()>,
        see: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<Vec<f32>> {
        let mel = self.sizes.mel;
        let frames = mu.len() / mel;
        let slots = self.slots.free(frames).filter(|_| noise.len() == mu.len() && speaker.len() == mel && frames > 0);
        let Some(slots) = slots else {
            return Err(Error::internal(
                "speech_compute",
                format!("a chunk of {frames} frames does not fit the caches"),
            ));
        };
        // Until it has gone well: what a failure leaves in a cache might be no number, which a mask does not hide.
        let wear = self.wear;
        self.wear = Wear::All;
        let mut mask = vec![f32::NEG_INFINITY; self.slots.capacity];
        for slot in slots.iter().chain(self.slots.order()) {
            mask[*slot] = 0.0;
        }
        let mask = mask.repeat(frames);
        let ids: Vec<i32> = slots.iter().map(|s| i32::try_from(*s).unwrap_or(-1)).collect();
        let times = times(self.prompt.steps);
        let mut x = noise.to_vec();
        for step in 0..self.prompt.steps {
            stop()?;
            let velocity = self.step(device, step, &x, mu, speaker, &ids, &mask)?;
            see(step, &velocity);
            // A few thousand numbers between two graphs: not worth a third.
            let dt = (times[step + 1] - times[step]) as f32;
            let (with, without) = velocity.split_at(x.len());
            for (x, (with, without)) in x.iter_mut().zip(with.iter().zip(without)) {
                *x += dt * ((1.0 + GUIDANCE) * with - GUIDANCE * without);
            }
        }
        self.slots.push(&slots);
        if x.iter().any(|x| !x.is_finite()) {
            return Err(Error::internal("speech_not_finite", "the flow's mel holds no number somewhere"));
        }
        let lost = slots.iter().any(|slot| *slot < self.prompt.frames);
        self.wear = wear.max(if lost { Wear::All } else { Wear::Little });
        Ok(x)
    }

    #[expect(clippy::too_many_arguments, reason = "all of one chunk")]
    fn step(
        &mut self,
        device: &Device,
        step: usize,
        x: &[f32],
        mu: &[f32],
        speaker: &[f32],
        ids: &[i32],
        mask: &[f32],
    ) -> Result<Vec<f32>> {
        let s = &self.sizes;
        let frames = ids.len();
        // x | mu | speaker | prompt mel (zero after the prompt), then the same without condition.
        let mut input = vec![0.0; 4 * s.mel * frames * HALVES];
        for (i, row) in input.chunks_exact_mut(4 * s.mel).enumerate() {
            let at = i % frames * s.mel;
            row[..s.mel].copy_from_slice(&x[at..at + s.mel]);
            if i < frames {
                row[s.mel..2 * s.mel].copy_from_slice(&mu[at..at + s.mel]);
                row[2 * s.mel..3 * s.mel].copy_from_slice(speaker);
            }
        }
        let net = Net { sizes: &self.sizes, weights: &self.weights, caches: &self.caches };
        let (modulation, capacity) = (&self.modulation, self.slots.capacity);
        let build = |g: &mut Graph<'static>| {
            let x = g.later(&[4 * s.mel, frames, HALVES]);
            let mask = g.later(&[capacity, frames]);
            let ids = g.later_ids(frames, capacity);
            let m = g.stored(modulation, &step.to_string());
            let mut x = linear(g, net.weights, "estimator.in_proj", x);
            for block in 0..s.blocks {
                x = net.block(g, step, block, x, m, ids, mask);
            }
            let h = modulated(g, x, m, 9 * s.blocks);
            vec![linear(g, net.weights, "estimator.final_layer.linear", h)]
        };
        let key = (frames == self.window).then_some([step, frames]);
        let values = [Value::Floats(&input), Value::Floats(mask), Value::Ids(ids)];
        Ok(self.plans.run(device, key, &values, build)?.pop().unwrap_or_default())
    }
}

/// What one step is computed with.
#[derive(Clone, Copy)]
struct Net<'a> {
    sizes: &'a FlowSizes,
    weights: &'a Tensors,
    caches: &'a Tensors,
}

impl Net<'_> {
    /// One block on `[width, frames, halves]`: attention, convolution, feed-forward, each modulated and gated.
    #[expect(clippy::too_many_arguments, reason = "all of one step")]
    fn block(&self, g: &mut Graph<'_>, step: usize, block: usize, x: Node, m: Node, ids: Node, mask: Node) -> Node {
        let (w, p) = (self.weights, format!("estimator.blocks.{block}."));
        let at = 9 * block;
        let cache = |g: &mut Graph<'_>, what: &str| g.stored(self.caches, &cache_name(step, block, what));
        let caches = CACHES.map(|what| cache(g, what));
        let h = modulated(g, x, m, at);
        let y = self.attention(g, &p, h, [caches[0], caches[1]], ids, mask);
        let x = gated(g, x, y, m, at + 2);
        let h = modulated(g, x, m, at + 6);
        let y = causal(g, w, &format!("{p}conv.block.1"), h, caches[2]);
        let y = layer_norm(g, w, &format!("{p}conv.block.3"), y, 1e-5);
        let y = mish(g, y);
        let y = causal(g, w, &format!("{p}conv.block.6"), y, caches[3]);
        let x = gated(g, x, y, m, at + 8);
        let h = modulated(g, x, m, at + 3);
        let h = linear(g, w, &format!("{p}mlp.fc1"), h);
        let h = gelu(g, h);
        let y = linear(g, w, &format!("{p}mlp.fc2"), h);
        gated(g, x, y, m, at + 5)
    }

    fn attention(&self, g: &mut Graph<'_>, p: &str, h: Node, cache: [Node; 2], ids: Node, mask: Node) -> Node {
        let (s, w) = (self.sizes, self.weights);
        let frames = ids.ne[0];
        // [width, frames, halves] to [dim, frames, heads, halves].
        let project = |g: &mut Graph<'_>, name: &str, norm: Option<&str>| {
            let y = linear(g, w, &format!("{p}attn.{name}"), h);
            let y = g.reshape(y, &[s.dim, s.heads, frames, HALVES]);
            let y = match norm {
                Some(norm) => layer_norm(g, w, &format!("{p}attn.{norm}"), y, 1e-5),
                None => y,
            };
            g.permute(y, [0, 2, 1, 3])
        };
        let q = project(g, "to_q", Some("q_norm"));
        let k = project(g, "to_k", Some("k_norm"));
        let v = project(g, "to_v", None);
        let k = g.store_rows(k, ids, cache[0]);
        let v = g.store_rows(v, ids, cache[1]);
        let score = g.mul_mat(k, q);
        let weights = g.softmax(score, Some(mask), 1.0 / (s.dim as f32).sqrt());
        let v = g.permute(v, [1, 0, 2, 3]);
        let y = g.mul_mat(v, weights);
        let y = g.permute(y, [0, 2, 1, 3]);
        let y = g.reshape(y, &[s.width, frames, HALVES]);
        linear(g, w, &format!("{p}attn.proj"), y)
    }
}

/// Column `at` of a modulation, `[width]`.
fn column(g: &mut Graph<'_>, m: Node, at: usize) -> Node {
    g.slice(m, 1, at, 1)
}

/// `norm(x) · (1 + scale) + shift`, with the shift in column `at` and `1 + scale` after it.
fn modulated(g: &mut Graph<'_>, x: Node, m: Node, at: usize) -> Node {
    let (shift, scale) = (column(g, m, at), column(g, m, at + 1));
    let y = g.norm(x, 1e-6);
    let y = g.mul(y, scale);
    g.add(y, shift)
}

/// `x + gate · y`.
fn gated(g: &mut Graph<'_>, x: Node, y: Node, m: Node, gate: usize) -> Node {
    let gate = column(g, m, gate);
    let y = g.mul(y, gate);
    g.add(x, y)
}

/// A causal convolution of three taps on `[width, frames, halves]` that goes on from its cache.
fn causal(g: &mut Graph<'_>, w: &Tensors, name: &str, x: Node, cache: Node) -> Node {
    let x = g.concat(cache, x, 1);
    let last = g.slice(x, 1, x.ne[1].saturating_sub(BACK), BACK.min(x.ne[1]));
    g.store(last, cache);
    conv(g, w, name, x, 1)
}

/// `1 − cos(iπ / 2n)` for i from 0 to n.
fn times(steps: usize) -> Vec<f64> {
    (0..=steps).map(|i| 1.0 - (i as f64 * std::f64::consts::FRAC_PI_2 / steps as f64).cos()).collect()
}

/// Everything that depends on the time alone: for each step a tensor with shift, 1 + scale and gate of attention,
/// feed-forward and convolution of every block, then shift and 1 + scale of the last layer.
fn modulation(sizes: &FlowSizes, file: &TensorFile, steps: usize, device: &Device) -> Result<Tensors> {
    let w = sizes.time_wants().load_exact(file, device)?;
    let columns = 9 * sizes.blocks + 2;
    let wanted: Vec<_> = (0..steps).map(|i| (i.to_string(), [sizes.width, columns, 1, 1])).collect();
    let out = Tensors::new(device, &wanted)?;
    for (step, time) in times(steps).into_iter().take(steps).enumerate() {
        let mut g = Graph::new(device)?;
        let half = sizes.frequencies / 2;
        let angles = (0..half).map(|k| 1000.0 * time * (-(10_000f64.ln()) * k as f64 / half as f64).exp());
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        let x = g.input([cos, sin].concat(), &[sizes.frequencies]);
        let x = linear(&mut g, &w, "estimator.t_embedder.mlp.0", x);
        let x = g.unary(x, Unary::Silu);
        let x = linear(&mut g, &w, "estimator.t_embedder.mlp.2", x);
        let x = g.unary(x, Unary::Silu);
        let name = |i: usize| format!("estimator.blocks.{i}.adaLN_modulation.1");
        let mut results: Vec<_> = (0..sizes.blocks).map(|i| linear(&mut g, &w, &name(i), x)).collect();
        results.push(linear(&mut g, &w, "estimator.final_layer.adaLN_modulation.1", x));
        let mut values = g.run(&results)?.concat();
        for (i, column) in values.chunks_exact_mut(sizes.width).enumerate() {
            // Scales are the second of three in a block, and the last column of all.
            if (i < 9 * sizes.blocks && i % 3 == 1) || i + 1 == columns {
                column.iter_mut().for_each(|x| *x += 1.0);
            }
        }
        out.set(&step.to_string(), &values)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_hold_what_the_reference_holds() {
        // The reference's lists of frames: new ones in front, then the first P and the last 100 stay.
        let (prompt, chunk) = (302, 50);
        let mut slots = Slots::new(prompt, prompt + KEPT_FRAMES + 54);
        let mut names: Vec<i64> = (0..prompt as i64).collect();
        let mut content = vec![None; slots.capacity];
        content[..prompt].copy_from_slice(&names.iter().map(|n| Some(*n)).collect::<Vec<_>>());
        for round in 1..=12i64 {
            let new: Vec<i64> = (0..chunk).map(|i| 1000 * round + i).collect();
            let free = slots.free(chunk as usize).unwrap();
            for (slot, name) in free.iter().zip(&new) {
                content[*slot] = Some(*name);
            }
            slots.push(&free);
            names.splice(0..0, new);
            if names.len() > prompt + 100 {
                names = [&names[..prompt], &names[names.len() - 100..]].concat();
            }
            let held: Vec<_> = slots.order().iter().filter_map(|s| content[*s]).collect();
            assert_eq!(held, names, "chunk {round}");
            assert!(slots.free(54).is_some(), "a last chunk fits");
        }
        assert_eq!(slots.held(), 402);
        assert_eq!(names[prompt..], (202..302).collect::<Vec<_>>(), "the prompt's end is pinned");
    }

    #[test]
    fn times_follow_the_cosine() {
        let five = [0.0, 0.048943, 0.190983, 0.412215, 0.690983, 1.0];
        assert!(times(5).iter().zip(five).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
