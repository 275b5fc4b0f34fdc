//! Audio codes to mu: an upsampling conformer, 25 codes a second in, 50 frames of the mel's width out, chunk by chunk.
//!
//! Source: `UpsampleConformerEncoderV2` of minicpmo-utils 1.0.7 (`stepaudio2/cosyvoice2/transformer`), whose attention
//! is ESPnet's relative-position one, without mask and without the conformer's convolution. Keys are cached without
//! positions, so that a cache can be trimmed anywhere. Not here: which codes make a chunk (`token2wav`).

use super::device::{Device, Tensors};
use super::ffi::{Graph, Node, Unary};
use super::files::{Form, TensorFile, Wants};
use super::layers::{conv, layer_norm, linear};
use super::plan::{Plans, Value};
use crate::error::Result;

/// Frames of mu for each code.
pub const UP_RATE: usize = 2;
/// Codes that are looked at ahead of a chunk that is not the last.
pub const LOOK_AHEAD: usize = 3;
/// Mel frames kept besides the prompt's when a cache is trimmed: two chunks.
pub const KEPT_FRAMES: usize = 100;
const LOOK_CACHE: usize = 2;
const UP_CACHE: usize = 4;

/// Sizes, from the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderSizes {
    pub width: usize,
    pub heads: usize,
    pub layers: usize,
    pub up_layers: usize,
    forward: usize,
    /// Rows of the code table.
    pub codes: usize,
    pub mel: usize,
}

impl EncoderSizes {
    /// Reads the sizes off `encoder.gguf` and `flow_extra.gguf` and checks every tensor of them.
    ///
    /// # Errors
    /// `model_tensor_shape`, `model_tensor_type` or `speech_file_shape`.
    pub fn read(file: &TensorFile, extra: &TensorFile) -> Result<Self> {
        let [width, ..] = file.dims("after_norm.weight")?;
        let [dim, heads, ..] = file.dims("encoders.0.self_attn.pos_bias_u")?;
        if dim * heads != width || !width.is_multiple_of(2) {
            let what = format!("{heads} heads of {dim} do not make an even width of {width}");
            return Err(file.refuse("speech_file_shape", what));
        }
        let [_, forward, ..] = file.dims("encoders.0.feed_forward.w_1.weight")?;
        let [_, codes, ..] = extra.dims("input_embedding.weight")?;
        let [mel, ..] = extra.dims("encoder_proj.bias")?;
        let (layers, up_layers) = (file.count("encoders.")?, file.count("up_encoders.")?);
        let sizes = Self { width, heads, layers, up_layers, forward, codes, mel };
        sizes.wants().check(file)?;
        sizes.position_wants().check(file)?;
        sizes.extra_wants().check(extra)?;
        Ok(sizes)
    }

    fn wants(&self) -> Wants {
        let mut w = Wants::default();
        for name in ["embed", "up_embed"] {
            w.linear(&format!("{name}.out.0"), self.width, self.width);
            w.norm(&format!("{name}.out.1"), self.width);
        }
        w.conv("pre_lookahead_layer.conv1", self.width, self.width, LOOK_AHEAD + 1);
        w.conv("pre_lookahead_layer.conv2", self.width, self.width, LOOK_CACHE + 1);
        w.conv("up_layer.conv", self.width, self.width, UP_CACHE + 1);
        w.norm("after_norm", self.width);
        for p in self.layer_names() {
            for name in ["q", "k", "v", "out"] {
                w.linear(&format!("{p}self_attn.linear_{name}"), self.width, self.width);
            }
            for name in ["u", "v"] {
                let dims = [self.width / self.heads, self.heads];
                w.one(format!("{p}self_attn.pos_bias_{name}"), &dims, Form::Plain);
            }
            w.linear(&format!("{p}feed_forward.w_1"), self.width, self.forward);
            w.linear(&format!("{p}feed_forward.w_2"), self.forward, self.width);
            w.norm(&format!("{p}norm_mha"), self.width);
            w.norm(&format!("{p}norm_ff"), self.width);
        }
        w
    }

    /// What only the positions need; its results are computed once.
    fn position_wants(&self) -> Wants {
        let mut w = Wants::default();
        for p in self.layer_names() {
            w.one(format!("{p}{POSITIONS}"), &[self.width, self.width], Form::Plain);
        }
        w
    }

    fn extra_wants(&self) -> Wants {
        let mut w = Wants::default();
        w.one("input_embedding.weight".to_owned(), &[self.width, self.codes], Form::Plain);
        w.linear("encoder_proj", self.width, self.mel);
        w
    }

    fn layer_names(&self) -> Vec<String> {
        let slow = (0..self.layers).map(|i| format!("encoders.{i}."));
        slow.chain((0..self.up_layers).map(|i| format!("up_encoders.{i}."))).collect()
    }
}

/// Keys and values of one layer, `[width, frames]` each, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeysValues {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

/// What the encoder remembers from chunk to chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderState {
    /// Frames before the look-ahead's second convolution, `[width, 2]`.
    pub look: Vec<f32>,
    /// Frames before the upsampling convolution, `[width, 4]`.
    pub up: Vec<f32>,
    /// One for each layer; those before the upsampling hold half as many frames as those after it.
    pub layers: Vec<KeysValues>,
}

/// The network and its weights.
pub struct Encoder {
    sizes: EncoderSizes,
    weights: Tensors,
    extra: Tensors,
    positions: Positions,
    plans: Plans,
}

impl Encoder {
    /// Puts the weights onto a device. The voice's prompt has so many mel frames, the longest chunk makes `longest`.
    ///
    /// # Errors
    /// Of reading, `speech_compute` and `speech_memory`.
    pub fn load(
        sizes: EncoderSizes,
        file: &TensorFile,
        extra: &TensorFile,
        [prompt, longest]: [usize; 2],
        device: &Device,
    ) -> Result<Self> {
        let positions = Positions::load(&sizes, file, [prompt + KEPT_FRAMES, longest], device)?;
        let weights = sizes.wants().load(file, device)?;
        let extra = sizes.extra_wants().load(extra, device)?;
        Ok(Self { sizes, weights, extra, positions, plans: Plans::default() })
    }

    /// How many computations are kept.
    pub fn kept(&self) -> usize {
        self.plans.kept()
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.extra.bytes() + self.positions.rows.bytes()
    }

    /// mu `[mel, 2 · frames]` of a chunk of codes; changes `state` only when all went well. The last [`LOOK_AHEAD`] codes
    /// of a chunk that is not `last` are only looked at.
    ///
    /// # Errors
    /// `speech_compute`, also for codes that the table does not have and chunks that are too short.
    pub fn run(&mut self, device: &Device, codes: &[i32], last: bool, state: &mut EncoderState) -> Result<Vec<f32>> {
        let width = self.sizes.width;
        let held = state.layers.iter().map(|l| l.keys.len() / width);
        let mut values = vec![Value::Ids(codes), Value::Floats(&state.look), Value::Floats(&state.up)];
        for layer in state.layers.iter().filter(|l| !l.keys.is_empty()) {
            values.extend([Value::Floats(&layer.keys), Value::Floats(&layer.values)]);
        }
        let net = Net { sizes: &self.sizes, weights: &self.weights, extra: &self.extra, positions: &self.positions };
        let (held, count): (Vec<usize>, _) = (held.collect(), codes.len());
        // What a last window makes is of any length, and not needed again soon.
        let key = (!last).then_some([held.last().copied().unwrap_or(0), count]);
        let done = self.plans.run(device, key, &values, |g| net.results(g, count, last, &held))?;
        Ok(self.remember(done, state))
    }

    /// Takes the results apart: look, keys and values of the slow layers, up, those of the fast layers, mu.
    fn remember(&self, done: Vec<Vec<f32>>, state: &mut EncoderState) -> Vec<f32> {
        let mut done = done.into_iter();
        let mut next = || done.next().unwrap_or_default();
        state.look = next();
        for i in 0..self.sizes.layers + self.sizes.up_layers {
            if i == self.sizes.layers {
                state.up = next();
            }
            state.layers[i].keys.extend(next());
            state.layers[i].values.extend(next());
        }
        next()
    }

    /// Cuts the caches to the prompt's frames and the last [`KEPT_FRAMES`], layers before the upsampling to half of that,
    /// once they are longer (the rule of minicpmo-utils 1.0.7).
    pub fn trim(&self, state: &mut EncoderState, prompt: usize) {
        let width = self.sizes.width;
        let held = state.layers.last().map_or(0, |l| l.keys.len() / width);
        if held <= prompt + KEPT_FRAMES {
            return;
        }
        for (i, layer) in state.layers.iter_mut().enumerate() {
            let rate = if i < self.sizes.layers { UP_RATE } else { 1 };
            let (first, kept) = (prompt / rate * width, KEPT_FRAMES / rate * width);
            for values in [&mut layer.keys, &mut layer.values] {
                values.drain(first..values.len() - kept);
            }
        }
    }
}

/// What a chunk is computed with.
struct Net<'a> {
    sizes: &'a EncoderSizes,
    weights: &'a Tensors,
    extra: &'a Tensors,
    positions: &'a Positions,
}

impl Net<'_> {
    /// All results of a chunk of so many codes, with so many frames held by each layer, in the order that
    /// [`Encoder::remember`] takes them apart in.
    fn results(&self, g: &mut Graph<'static>, codes: usize, last: bool, held: &[usize]) -> Vec<Node> {
        let (s, w) = (self.sizes, self.weights);
        let ids = g.later_ids(codes, s.codes);
        let (look_before, up_before) = (g.later(&[s.width, LOOK_CACHE]), g.later(&[s.width, UP_CACHE]));
        let before: Vec<_> = held
            .iter()
            .map(|held| {
                let dims = [s.width, *held];
                (*held > 0).then(|| (g.later(&dims), g.later(&dims)))
            })
            .collect();
        let table = g.stored(self.extra, "input_embedding.weight");
        let x = g.rows(table, ids);
        let mut x = self.embed(g, "embed", x);
        if last {
            x = g.pad(x, 0, LOOK_AHEAD);
        }
        let frames = x.ne[1].saturating_sub(LOOK_AHEAD);
        let y = conv(g, w, "pre_lookahead_layer.conv1", x, 1);
        let y = g.leaky(y, 0.01);
        let y = g.concat(look_before, y, 1);
        let look = g.slice(y, 1, y.ne[1].saturating_sub(LOOK_CACHE), LOOK_CACHE.min(y.ne[1]));
        let y = conv(g, w, "pre_lookahead_layer.conv2", y, 1);
        let own = g.slice(x, 1, 0, frames);
        let mut x = g.add(own, y);
        let mut results = vec![look];
        let names = s.layer_names();
        let (slow, fast) = names.split_at(s.layers);
        for (name, cache) in slow.iter().zip(&before) {
            x = self.layer(g, name, x, *cache, &mut results);
        }
        // Every frame twice.
        let x = g.reshape(x, &[s.width, 1, frames]);
        let x = g.repeat(x, &[s.width, UP_RATE, frames]);
        let x = g.reshape(x, &[s.width, UP_RATE * frames]);
        let x = g.concat(up_before, x, 1);
        let up = g.slice(x, 1, x.ne[1].saturating_sub(UP_CACHE), UP_CACHE.min(x.ne[1]));
        results.push(up);
        let x = conv(g, w, "up_layer.conv", x, 1);
        let mut x = self.embed(g, "up_embed", x);
        for (name, cache) in fast.iter().zip(before.iter().skip(s.layers)) {
            x = self.layer(g, name, x, *cache, &mut results);
        }
        let x = layer_norm(g, w, "after_norm", x, 1e-5);
        results.push(linear(g, self.extra, "encoder_proj", x));
        results
    }

    fn embed(&self, g: &mut Graph<'_>, name: &str, x: Node) -> Node {
        let x = linear(g, self.weights, &format!("{name}.out.0"), x);
        let x = layer_norm(g, self.weights, &format!("{name}.out.1"), x, 1e-5);
        g.affine(x, (self.sizes.width as f32).sqrt(), 0.0)
    }

    /// One pre-norm layer on `[width, time]`; adds its new keys and values to `results`.
    fn layer(&self, g: &mut Graph<'_>, p: &str, x: Node, cache: Option<(Node, Node)>, results: &mut Vec<Node>) -> Node {
        let (w, width, heads) = (self.weights, self.sizes.width, self.sizes.heads);
        let (dim, time, cached) = (width / heads, x.ne[1], cache.map_or(0, |(keys, _)| keys.ne[1]));
        let keys = cached + time;
        let h = layer_norm(g, w, &format!("{p}norm_mha"), x, 1e-12);
        let project = |g: &mut Graph<'_>, name: &str| linear(g, w, &format!("{p}self_attn.linear_{name}"), h);
        let (q, k, v) = (project(g, "q"), project(g, "k"), project(g, "v"));
        results.extend([k, v]);
        let (k, v) = match cache {
            None => (k, v),
            Some((keys, values)) => (g.concat(keys, k, 1), g.concat(values, v, 1)),
        };
        // [width, n] to [dim, n, heads].
        let split = |g: &mut Graph<'_>, x: Node| {
            let y = g.reshape(x, &[dim, heads, x.ne[1]]);
            g.permute(y, [0, 2, 1, 3])
        };
        let q = g.reshape(q, &[dim, heads, time]);
        let biased = |g: &mut Graph<'_>, name: &str| {
            let bias = g.stored(w, &format!("{p}self_attn.pos_bias_{name}"));
            let y = g.add(q, bias);
            g.permute(y, [0, 2, 1, 3])
        };
        let (by_content, by_position) = (biased(g, "u"), biased(g, "v"));
        let k = split(g, k);
        let content = g.mul_mat(k, by_content);
        let positions = self.positions.of(g, p, keys, time);
        let positions = split(g, positions);
        let position = g.mul_mat(positions, by_position);
        let position = g.rel_shift(position, keys);
        let score = g.add(content, position);
        let weights = g.softmax(score, None, 1.0 / (dim as f32).sqrt());
        // [width, keys] to [keys, dim, heads].
        let v = g.reshape(v, &[dim, heads, keys]);
        let v = g.permute(v, [1, 2, 0, 3]);
        let y = g.mul_mat(v, weights);
        let y = g.permute(y, [0, 2, 1, 3]);
        let y = g.reshape(y, &[width, time]);
        let y = linear(g, w, &format!("{p}self_attn.linear_out"), y);
        let x = g.add(x, y);
        let h = layer_norm(g, w, &format!("{p}norm_ff"), x, 1e-12);
        let h = linear(g, w, &format!("{p}feed_forward.w_1"), h);
        let h = g.unary(h, Unary::Silu);
        let h = linear(g, w, &format!("{p}feed_forward.w_2"), h);
        g.add(x, h)
    }
}

const POSITIONS: &str = "self_attn.linear_pos.weight";

/// The projected relative positions of every layer, from the farthest that can occur on, `[width, most keys + most time − 1]`:
/// they depend on nothing else.
struct Positions {
    rows: Tensors,
    /// Most keys of a layer after the upsampling, and most new frames.
    most: [usize; 2],
}

impl Positions {
    /// For layers after the upsampling that hold `held` frames at most and get `longest` new ones.
    fn load(sizes: &EncoderSizes, file: &TensorFile, [held, longest]: [usize; 2], device: &Device) -> Result<Self> {
        let (w, most) = (sizes.position_wants().load_exact(file, device)?, [held + longest, longest]);
        let count = most[0] + most[1] - 1;
        let wanted: Vec<_> = sizes.layer_names().into_iter().map(|name| (name, [sizes.width, count, 1, 1])).collect();
        let rows = Tensors::new(device, &wanted)?;
        let angles = sinusoids(most[0], most[1], sizes.width);
        for (name, _) in &wanted {
            let mut g = Graph::new(device)?;
            let x = g.input(&angles, &[sizes.width, count]);
            let matrix = g.stored(&w, &format!("{name}{POSITIONS}"));
            let x = g.mul_mat(matrix, x);
            rows.set(name, &g.run(&[x])?.pop().unwrap_or_default())?;
        }
        Ok(Self { rows, most })
    }

    /// Those of `keys − 1` down to `1 − time`, `[width, keys + time − 1]`.
    fn of(&self, g: &mut Graph<'_>, layer: &str, keys: usize, time: usize) -> Node {
        let rows = g.stored(&self.rows, layer);
        g.slice(rows, 1, self.most[0].saturating_sub(keys), keys + time.max(1) - 1)
    }
}

/// Sinusoids of the relative positions `keys − 1` down to `1 − time`, sine and cosine in turn, `[width, keys + time − 1]`.
fn sinusoids(keys: usize, time: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(width * (keys + time - 1));
    for at in 0..keys + time - 1 {
        let relative = keys as f64 - 1.0 - at as f64;
        for pair in 0..width / 2 {
            let angle = relative * (-(2.0 * pair as f64) * 10_000f64.ln() / width as f64).exp();
            out.extend([angle.sin() as f32, angle.cos() as f32]);
        }
    }
    out
}
