//! mel to sound: the HiFT vocoder (a neural source filter with an inverse short Fourier transform), and what keeps its
//! chunks together: eight mel frames, the last source samples, and a cross-fade.
//!
//! Source: `HiFTGenerator` (minicpmo-utils 1.0.7, `stepaudio2/flashcosyvoice/modules/hifigan.py`; HiFTNet, arXiv
//! 2309.09493) and `Token2wav.stream` for the caches. Its convolutions are not causal; the caches hide that.
//! Not here: sines and transforms (`source`).

use super::device::{Device, Tensors};
use super::ffi::{Graph, Node, Unary};
use super::files::{Form, TensorFile, Wants};
use super::layers::{conv_same, conv_transposed, linear};
use super::plan::{Plans, Value};
use super::source::{BINS, HARMONICS, cross_fade, istft, sines, stft};
use crate::error::{Error, Result};

/// Mel frames that are put before the next chunk's.
const MEL_CACHE: usize = 8;
/// Samples of these frames: held back, and faded over.
pub const HELD_BACK: usize = MEL_CACHE * super::source::HOP;

/// One upsampling stage; none of this is in the file.
struct Stage {
    rate: usize,
    taps: usize,
    source_stride: usize,
    source_pad: usize,
    source_taps: usize,
    /// Taps of the source's residual block.
    source_block: usize,
}

const STAGES: [Stage; 3] = [
    Stage { rate: 8, taps: 16, source_stride: 15, source_pad: 7, source_taps: 30, source_block: 7 },
    Stage { rate: 5, taps: 11, source_stride: 3, source_pad: 1, source_taps: 6, source_block: 7 },
    Stage { rate: 3, taps: 7, source_stride: 1, source_pad: 0, source_taps: 1, source_block: 11 },
];
/// Taps of the three residual blocks of a stage.
const BLOCKS: [usize; 3] = [3, 7, 11];
const DILATIONS: [usize; 3] = [1, 3, 5];
/// What makes one signal of the harmonics; so small that the host does it.
const MIX: &str = "m_source.l_linear";
const PITCH_LAYERS: [usize; 5] = [0, 2, 4, 6, 8];

/// Sizes, from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VocoderSizes {
    pub mel: usize,
    /// Channels before the first stage; each stage halves them.
    base: usize,
    pitch: usize,
}

impl VocoderSizes {
    /// Reads the sizes off `hifigan2.gguf` and checks every tensor of it.
    ///
    /// # Errors
    /// `model_tensor_shape`, `model_tensor_type` or `speech_file_shape`.
    pub fn read(file: &TensorFile) -> Result<Self> {
        let [_, mel, base, _] = file.dims("conv_pre.weight")?;
        let [pitch, ..] = file.dims("f0_predictor.classifier.weight")?;
        if !base.is_multiple_of(8) {
            return Err(file.refuse("speech_file_shape", format!("{base} channels can't be halved three times")));
        }
        let sizes = Self { mel, base, pitch };
        sizes.wants().check(file)?;
        let mut mix = Wants::default();
        mix.linear(MIX, HARMONICS, 1);
        mix.check(file)?;
        Ok(sizes)
    }

    fn wants(&self) -> Wants {
        let mut w = Wants::default();
        for (i, n) in PITCH_LAYERS.into_iter().enumerate() {
            let into = if i == 0 { self.mel } else { self.pitch };
            w.conv_same(&format!("f0_predictor.condnet.{n}"), into, self.pitch, 3);
        }
        w.linear("f0_predictor.classifier", self.pitch, 1);
        w.conv_same("conv_pre", self.mel, self.base, 7);
        for (i, stage) in STAGES.iter().enumerate() {
            let (into, out) = (self.base >> i, self.base >> (i + 1));
            w.one(format!("ups.{i}.weight"), &[stage.taps, out, into], Form::Phases { stride: stage.rate });
            w.one(format!("ups.{i}.bias"), &[out], Form::Plain);
            w.one(format!("source_downs.{i}.weight"), &[stage.source_taps, 2 * BINS, out], Form::Plain);
            w.one(format!("source_downs.{i}.bias"), &[out], Form::Plain);
            let mut block = |name: String, taps: usize| {
                for j in 0..DILATIONS.len() {
                    for half in ["1", "2"] {
                        w.conv_same(&format!("{name}.convs{half}.{j}"), out, out, taps);
                        for form in [Form::Plain, Form::Inverse] {
                            w.one(format!("{name}.activations{half}.{j}.alpha"), &[out], form);
                        }
                    }
                }
            };
            block(format!("source_resblocks.{i}"), stage.source_block);
            for (j, taps) in BLOCKS.into_iter().enumerate() {
                block(format!("resblocks.{}", BLOCKS.len() * i + j), taps);
            }
        }
        w.conv_same("conv_post", self.base >> STAGES.len(), 2 * BINS, 7);
        w
    }
}

/// What the vocoder remembers from chunk to chunk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VocoderState {
    /// The last mel frames, `[mel, 8]`.
    mel: Vec<f32>,
    /// The last source samples.
    source: Vec<f32>,
    /// The last samples of the faded sound, which were held back.
    tail: Vec<f32>,
}

/// What one call computed on the way, for tests and inspection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Voiced {
    /// Hz, one for each frame.
    pub f0: Vec<f32>,
    pub source: Vec<f32>,
    /// Before the cross-fade.
    pub raw: Vec<f32>,
}

/// The network and its weights.
pub struct Vocoder {
    sizes: VocoderSizes,
    weights: Tensors,
    /// What makes one signal of the harmonics: their weights, and the bias.
    mix: ([f32; HARMONICS], f32),
    plans: Plans,
}

impl Vocoder {
    /// Puts the weights onto a device.
    ///
    /// # Errors
    /// Of reading, and `speech_memory`.
    pub fn load(sizes: VocoderSizes, file: &TensorFile, device: &Device) -> Result<Self> {
        let mix = file.floats(&format!("{MIX}.weight"), None)?;
        let mix = mix.try_into().map_err(|_| file.refuse("speech_file_shape", "another number of harmonics"))?;
        let bias = file.floats(&format!("{MIX}.bias"), None)?.first().copied().unwrap_or(0.0);
        Ok(Self { sizes, weights: sizes.wants().load(file, device)?, mix: (mix, bias), plans: Plans::default() })
    }

    /// How many computations are kept.
    pub fn kept(&self) -> usize {
        self.plans.kept()
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Samples of the next mel frames `[mel, frames]`, and what was computed on the way; all but the last chunk hold
    /// the last [`HELD_BACK`] samples back. Changes `state` only when all went well.
    ///
    /// # Errors
    /// `speech_compute`, also for an empty chunk or one that is not the last and too short to hold anything back.
    pub fn run(
        &mut self,
        device: &Device,
        mel: &[f32],
        last: bool,
        state: &mut VocoderState,
        noise: &mut dyn FnMut() -> f32,
    ) -> Result<(Vec<f32>, Voiced)> {
        let mel = [state.mel.as_slice(), mel].concat();
        let voiced = self.voice(device, &mel, &state.source, !last, noise)?;
        let mut wave = voiced.raw.clone();
        if wave.len() < 2 * HELD_BACK && !last {
            return Err(Error::internal("speech_compute", format!("a chunk of {} samples is too short", wave.len())));
        }
        cross_fade(&mut wave, &state.tail);
        let end = |values: &[f32], n: usize| values[values.len().saturating_sub(n)..].to_vec();
        *state = VocoderState {
            mel: end(&mel, MEL_CACHE * self.sizes.mel),
            source: end(&voiced.source, HELD_BACK),
            tail: end(&wave, HELD_BACK),
        };
        if !last {
            wave.truncate(wave.len() - HELD_BACK);
        }
        Ok((wave, voiced))
    }

    /// Pitch, source and sound before the cross-fade of the next mel frames, each from what the reference gave to it, without
    /// noise.
    #[cfg(test)]
    pub fn stages(
        &mut self,
        device: &Device,
        mel: &[f32],
        given: &Voiced,
        last: bool,
        state: &mut VocoderState,
    ) -> Result<Voiced> {
        let mel = [state.mel.as_slice(), mel].concat();
        let f0 = self.pitch(device, &mel, !last)?;
        let mut source = mixed(&sines(&given.f0, || 0.0), &self.mix);
        source[..state.source.len()].copy_from_slice(&state.source);
        let raw = istft(&self.filter(device, &mel, &given.source, !last)?);
        let end = |values: &[f32], n: usize| values[values.len().saturating_sub(n)..].to_vec();
        state.mel = end(&mel, MEL_CACHE * self.sizes.mel);
        state.source = end(&given.source, HELD_BACK);
        Ok(Voiced { f0, source, raw })
    }

    /// Sound of a whole mel `[mel, frames]` whose source starts with `cached`; there will be more of this length if `keep`.
    fn voice(
        &mut self,
        device: &Device,
        mel: &[f32],
        cached: &[f32],
        keep: bool,
        noise: &mut dyn FnMut() -> f32,
    ) -> Result<Voiced> {
        let f0 = self.pitch(device, mel, keep)?;
        let mut source = mixed(&sines(&f0, noise), &self.mix);
        if cached.len() > source.len() {
            return Err(Error::internal("speech_compute", "a chunk shorter than the source kept from the last one"));
        }
        source[..cached.len()].copy_from_slice(cached);
        let raw = istft(&self.filter(device, mel, &source, keep)?);
        Ok(Voiced { f0, source, raw })
    }

    fn pitch(&mut self, device: &Device, mel: &[f32], keep: bool) -> Result<Vec<f32>> {
        let (w, width) = (&self.weights, self.sizes.mel);
        let frames = mel.len() / width;
        let build = |g: &mut Graph<'static>| {
            let mut x = g.later(&[width, frames]);
            for n in PITCH_LAYERS {
                x = conv_same(g, w, &format!("f0_predictor.condnet.{n}"), x, 1);
                x = g.unary(x, Unary::Elu);
            }
            let x = linear(g, w, "f0_predictor.classifier", x);
            vec![g.unary(x, Unary::Abs)]
        };
        let done = self.plans.run(device, keep.then_some([frames, 0]), &[Value::Floats(mel)], build);
        Ok(done?.pop().unwrap_or_default())
    }

    /// The network proper: log magnitudes and phase arguments, `[2 · BINS, frames]`.
    fn filter(&mut self, device: &Device, mel: &[f32], source: &[f32], keep: bool) -> Result<Vec<f32>> {
        let (w, width) = (&self.weights, self.sizes.mel);
        let (spectrum, count) = (stft(source), mel.len() / width);
        let frames = spectrum.len() / (2 * BINS);
        let build = |g: &mut Graph<'static>| {
            let spectrum = g.later(&[frames, 2 * BINS]);
            let x = g.later(&[width, count]);
            let mut x = conv_same(g, w, "conv_pre", x, 1);
            for (i, stage) in STAGES.iter().enumerate() {
                x = g.leaky(x, 0.1);
                x = conv_transposed(g, w, &format!("ups.{i}"), x, stage.rate, stage.taps);
                if i + 1 == STAGES.len() {
                    // One frame more, as the transform has: the second, mirrored at the first.
                    let second = g.slice(x, 1, 1, 1);
                    x = g.concat(second, x, 1);
                }
                let kernel = g.stored(w, &format!("source_downs.{i}.weight"));
                let windows = g.windows(kernel, spectrum, stage.source_stride, stage.source_pad, 1);
                let kernel = g.reshape(kernel, &[stage.source_taps * 2 * BINS, kernel.ne[2]]);
                let down = g.mul_mat(kernel, windows);
                let bias = g.stored(w, &format!("source_downs.{i}.bias"));
                let down = g.add(down, bias);
                let down = block(g, w, &format!("source_resblocks.{i}"), down);
                x = g.add(x, down);
                let mut sum = None;
                for j in 0..BLOCKS.len() {
                    let y = block(g, w, &format!("resblocks.{}", BLOCKS.len() * i + j), x);
                    sum = Some(match sum {
                        None => y,
                        Some(sum) => g.add(sum, y),
                    });
                }
                let sum = sum.unwrap_or(x);
                x = g.affine(sum, 1.0 / BLOCKS.len() as f32, 0.0);
            }
            let x = g.leaky(x, 0.01);
            vec![conv_same(g, w, "conv_post", x, 1)]
        };
        let values = [Value::Floats(&spectrum), Value::Floats(mel)];
        Ok(self.plans.run(device, keep.then_some([count, 1]), &values, build)?.pop().unwrap_or_default())
    }
}

/// One signal of the harmonics `[HARMONICS, samples]`.
fn mixed(sines: &[f32], (weights, bias): &([f32; HARMONICS], f32)) -> Vec<f32> {
    let rows = sines.as_chunks::<HARMONICS>().0.iter();
    rows.map(|row| (row.iter().zip(weights).map(|(x, w)| x * w).sum::<f32>() + bias).tanh()).collect()
}

/// A residual block of three dilations.
fn block(g: &mut Graph<'_>, w: &Tensors, name: &str, x: Node) -> Node {
    let mut x = x;
    for (j, dilation) in DILATIONS.into_iter().enumerate() {
        let h = snake(g, w, &format!("{name}.activations1.{j}.alpha"), x);
        let h = conv_same(g, w, &format!("{name}.convs1.{j}"), h, dilation);
        let h = snake(g, w, &format!("{name}.activations2.{j}.alpha"), h);
        let h = conv_same(g, w, &format!("{name}.convs2.{j}"), h, 1);
        x = g.add(x, h);
    }
    x
}

/// `x + sin²(αx) / α`, α for each channel.
fn snake(g: &mut Graph<'_>, w: &Tensors, alpha: &str, x: Node) -> Node {
    let (a, inverse) = (g.stored(w, alpha), g.stored(w, &format!("{alpha}.inverse")));
    let y = g.mul(x, a);
    let y = g.unary(y, Unary::Sin);
    let y = g.unary(y, Unary::Sqr);
    let y = g.mul(y, inverse);
    g.add(x, y)
}
