//! The least that each step must cost: the bytes it has to read and the operations it has to do, computed from the
//! model's files; with the machine's bandwidth and speed also the least time. Not here: what was measured.
//!
//! Counted are the matrix products (two operations a weight and row) and attention's; what is small beside them (norms,
//! activations, RoPE, sampling) is left out, as a floor may.

use super::Plan;
use super::looks::Looks;
use super::pictures::{HEIGHT, WIDTH};
use crate::error::Result;
use crate::frame::reference_size;
use crate::models::gguf::Header;
use crate::models::inspect::read_header;
use crate::models::{LanguageModel, Projector};
use serde::Serialize;

/// Bytes of one number in the KV cache (f16).
const KV_BYTES: f64 = 2.0;

/// What the machine can do at best; a floor in milliseconds needs both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Limits {
    /// Gigabytes that memory delivers in a second.
    pub bandwidth_gb_s: Option<f64>,
    /// Tera-operations a second, in the precision that the products are done in.
    pub tflop_s: Option<f64>,
}

/// The least work of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Work {
    pub bytes: f64,
    pub flop: f64,
    /// The longer of the two at the machine's limits.
    pub floor_ms: Option<f64>,
}

impl Work {
    fn new(bytes: f64, flop: f64, limits: &Limits) -> Self {
        let reading = limits.bandwidth_gb_s.map(|gb| bytes / gb / 1e6);
        let computing = limits.tflop_s.map(|tera| flop / tera / 1e9);
        Self { bytes, flop, floor_ms: reading.zip(computing).map(|(a, b)| a.max(b)) }
    }

    fn and(self, other: Self, limits: &Limits) -> Self {
        // One after the other: their times add up, so the sum's must not be computed from sums.
        let floor_ms = self.floor_ms.zip(other.floor_ms).map(|(a, b)| a + b);
        Self { floor_ms, ..Self::new(self.bytes + other.bytes, self.flop + other.flop, limits) }
    }
}

/// The floors of a look's steps.
#[derive(Debug, Clone, Serialize)]
pub struct Floors {
    pub limits: Limits,
    /// The vision tower and the projector on one frame.
    pub encode_frame: Work,
    /// The whole prompt of a look decoded at once, and the logits after it.
    pub whole_prompt: Work,
    /// The same without what the engine keeps from look to look.
    pub kept_prompt: Work,
    /// One token of an answer.
    pub token: Work,
    /// From a new frame to the first token, with everything kept that can be: encode one frame, decode the rest.
    pub first_token: Work,
    #[serde(skip)]
    sizes: Sizes,
}

/// What follows from the files.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sizes {
    /// Bytes and elements of the layers' matrices.
    layer_bytes: f64,
    layer_elements: f64,
    output_bytes: f64,
    output_elements: f64,
    /// Width of all query heads together, times layers.
    attention: f64,
    kv_bytes_a_token: f64,
}

impl Floors {
    /// Of a model, without the prompt, whose length is only known by its tokens.
    ///
    /// # Errors
    /// When a file can't be read.
    pub(super) fn of(language: &LanguageModel, projector: &Projector, plan: &Plan) -> Result<Self> {
        let vision = read_header(&projector.path)?;
        let (width, height) = reference_size(WIDTH, HEIGHT);
        let patches = f64::from(width / projector.patch_size) * f64::from(height / projector.patch_size);
        let flop = encode_flop(&vision, projector, patches);
        let bytes = vision.tensors.iter().map(|t| t.bytes as f64).sum();
        Ok(Self {
            limits: plan.limits,
            encode_frame: Work::new(bytes, flop, &plan.limits),
            whole_prompt: Work::default(),
            kept_prompt: Work::default(),
            token: Work::default(),
            first_token: Work::default(),
            sizes: Sizes::of(&read_header(&language.path)?, language),
        })
    }

    /// With the prompt's length, as the looks found it.
    pub(super) fn with_prompt(mut self, looks: &Looks, plan: &Plan) -> Self {
        let (whole, kept) = (looks.prompt_tokens as f64, looks.prefix_tokens as f64);
        let (sizes, limits) = (self.sizes, self.limits);
        self.whole_prompt = sizes.decode(0.0, whole, &limits);
        self.kept_prompt = sizes.decode(kept, whole - kept, &limits);
        self.token = sizes.decode(whole + f64::from(plan.tokens) / 2.0, 1.0, &limits);
        self.first_token = self.encode_frame.and(self.kept_prompt, &limits);
        self
    }
}

impl Sizes {
    fn of(header: &Header, language: &LanguageModel) -> Self {
        let mut sizes = Self::default();
        let tied = header.tensor("output.weight").is_none();
        for tensor in &header.tensors {
            let (bytes, elements) = (tensor.bytes as f64, tensor.elements() as f64);
            if tensor.name == "output.weight" || (tied && tensor.name == "token_embd.weight") {
                (sizes.output_bytes, sizes.output_elements) = (bytes, elements);
            } else if tensor.name.starts_with("blk.") && tensor.dims.len() > 1 {
                sizes.layer_bytes += bytes;
                sizes.layer_elements += elements;
            }
        }
        let per_layer = |heads: u32| f64::from(heads) * f64::from(language.head_dim) * f64::from(language.n_layer);
        sizes.attention = per_layer(language.n_head);
        sizes.kv_bytes_a_token = 2.0 * per_layer(language.n_head_kv) * KV_BYTES;
        sizes
    }

    /// `tokens` in one batch behind `depth` that are in the cache, with the logits of the last.
    fn decode(&self, depth: f64, tokens: f64, limits: &Limits) -> Work {
        let bytes = self.layer_bytes + self.output_bytes + depth * self.kv_bytes_a_token;
        // Each token attends to those before it: queries with keys, and weights with values.
        let pairs = tokens * depth + tokens * (tokens + 1.0) / 2.0;
        let flop = 2.0 * self.layer_elements * tokens + 2.0 * self.output_elements + 4.0 * pairs * self.attention;
        Work::new(bytes, flop, limits)
    }
}

/// A tower on `patches` patches and what follows it; the resampler's queries are few.
fn encode_flop(vision: &Header, projector: &Projector, patches: f64) -> f64 {
    let queries = projector.queries.map_or(patches, f64::from);
    let rows = |name: &str| match name {
        _ if name.contains("position") || name.contains("pos_embed") => 0.0,
        "resampler.attn.q.weight" | "resampler.attn.out.weight" | "resampler.proj.weight" => queries,
        _ => patches,
    };
    let matrices = vision.tensors.iter().filter(|t| t.dims.len() > 1 && t.name.ends_with(".weight"));
    let products: f64 = matrices.map(|t| 2.0 * t.elements() as f64 * rows(&t.name)).sum();
    let tower = 4.0 * patches * patches * f64::from(projector.n_embd) * f64::from(projector.n_layer);
    let resampler =
        projector.queries.map_or(0.0, |q| 4.0 * f64::from(q) * patches * f64::from(projector.width.unwrap_or(0)));
    products + tower + resampler
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::random::{Preset, Quantisation, RandomModel};
    use crate::models::{inspect_language_model, inspect_projector};

    #[test]
    fn the_full_size_has_the_known_floors() {
        let dir = tempfile::tempdir().unwrap();
        let files = RandomModel::new(Preset::MiniCpmO45, Quantisation::Q4KM, 1).write_hollow(dir.path()).unwrap();
        let language = inspect_language_model(&files.language).unwrap();
        let projector = inspect_projector(&files.projector).unwrap();
        let sizes = Sizes::of(&read_header(&files.language).unwrap(), &language);
        assert_eq!(sizes.kv_bytes_a_token, 144.0 * 1024.0, "docs/MODELS.md");
        // 8.19 billion weights, less the two tables of 151,748 x 4096.
        assert!((sizes.layer_elements - 6.946e9).abs() < 1e7, "{}", sizes.layer_elements);
        let limits = Limits { bandwidth_gb_s: Some(3350.0), tflop_s: Some(800.0) };
        let token = sizes.decode(400.0, 1.0, &limits);
        assert!((token.bytes - 4.73e9).abs() < 5e7, "{}", token.bytes);
        assert!((token.floor_ms.unwrap() - 1.41).abs() < 0.02, "{token:?}");
        let prompt = sizes.decode(0.0, 351.0, &limits);
        assert!((prompt.flop - 4.91e12).abs() < 5e10, "{}", prompt.flop);
        let encode = encode_flop(&read_header(&files.projector).unwrap(), &projector, 1024.0);
        assert!((encode - 1.06e12).abs() < 5e10, "{encode}");
        assert_eq!(Work::new(1.0, 1.0, &Limits::default()).floor_ms, None);
    }
}
