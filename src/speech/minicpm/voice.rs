//! The voice: what a speaker's prompt has left in the caches of encoder and flow, from `prompt_cache.gguf`.
//! Not here: making such a file (scripts/tts/reference.py shows how), the caches' use.

use super::encoder::{EncoderSizes, EncoderState, KeysValues, LOOK_AHEAD, UP_RATE};
use super::files::TensorFile;
use super::flow::{FlowPrompt, FlowSizes, HALVES};
use crate::error::Result;
use crate::models::fields::wrong_value;

const KEYS: &str = "mtmd.prompt_cache.";
const FRAMES_BACK: usize = 2;
/// Most steps that a voice may be made for.
const MOST_STEPS: i32 = 64;

/// Sizes of a voice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoiceSizes {
    /// Euler steps that it was made for; it can't be used with another number.
    pub steps: usize,
    /// Mel frames of the prompt, an even number.
    pub frames: usize,
    /// Width of the speaker vector.
    pub speaker: usize,
    /// Codes by which a chunk goes on.
    pub advance: usize,
}

/// A voice as the networks want it.
pub struct Voice {
    pub speaker: Vec<f32>,
    pub encoder: EncoderState,
    pub flow: FlowPrompt,
}

impl VoiceSizes {
    /// Reads and checks the sizes, against those of the networks and the number of steps that was asked for.
    ///
    /// # Errors
    /// `model_metadata_…`, `model_tensor_shape`, `speech_voice_steps` or `speech_voice_networks`.
    pub fn read(file: &TensorFile, e: &EncoderSizes, f: &FlowSizes, steps: Option<usize>) -> Result<Self> {
        let number = |key: &str, least: i32, most: i32| {
            let key = format!("{KEYS}{key}");
            let value = file.header.i32(&key).map_err(|e| file.named(e))?.unwrap_or(-1);
            if (least..=most).contains(&value) {
                return Ok(usize::try_from(value).unwrap_or(0));
            }
            Err(file.named(wrong_value(format!("{key} is missing or not from {least} to {most} ({value})"))))
        };
        file.header.need_u32(&format!("{KEYS}version"), 2..=2).map_err(|e| file.named(e))?;
        let made_for = number("n_timesteps", 1, MOST_STEPS)?;
        let ahead = i32::try_from(LOOK_AHEAD).unwrap_or(0);
        number("pre_lookahead", ahead, ahead)?;
        number("up_rate", 2, 2)?;
        let advance = number("chunk_main", 8, 50)?;
        let total = i32::try_from(advance + LOOK_AHEAD).unwrap_or(0);
        number("chunk_total", total, total)?;
        let [_, frames, ..] = file.dims("prompt_cache.conformer_att_cache")?;
        let [speaker, ..] = file.dims("prompt_cache.spk_cb")?;
        let [_, _, slots, _] = file.dims("prompt_cache.estimator_cnn_cache")?;
        if slots != f.blocks * made_for {
            let what = format!(
                "its metadata says {made_for} steps, but it holds the caches of {slots} blocks where {} blocks in each \
                 step make {}",
                f.blocks,
                f.blocks * made_for
            );
            return Err(file.refuse("speech_voice_steps", what));
        }
        if let Some(steps) = steps.filter(|s| *s != made_for) {
            let what = format!("this voice was made for {made_for} steps and can't be used with {steps}");
            return Err(file.refuse("speech_voice_steps", what));
        }
        if !frames.is_multiple_of(UP_RATE) {
            return Err(file.refuse("speech_file_shape", format!("a prompt of {frames} frames, which is odd")));
        }
        let sizes = Self { steps: made_for, frames, speaker, advance };
        let (dim, layers) = (e.width / e.heads, e.layers + e.up_layers);
        let checks: [(&str, Vec<usize>); 5] = [
            ("spk_cb", vec![speaker]),
            ("conformer_cnn_cache", vec![e.width, 6]),
            ("conformer_att_cache", vec![2 * dim, frames, e.heads, layers]),
            ("estimator_cnn_cache", vec![2 * f.width, FRAMES_BACK, slots, HALVES]),
            ("estimator_att_cache", vec![2 * f.dim, frames, f.heads * slots, HALVES]),
        ];
        for (name, dims) in checks {
            file.need(&format!("prompt_cache.{name}"), &dims)?;
        }
        Ok(sizes)
    }

    /// Reads the caches and unpacks them.
    ///
    /// # Errors
    /// Of reading.
    pub fn load(&self, file: &TensorFile, e: &EncoderSizes, f: &FlowSizes) -> Result<Voice> {
        let get = |name: &str| file.floats(&format!("prompt_cache.{name}"), None);
        let encoder = self.encoder(e, &get("conformer_cnn_cache")?, &get("conformer_att_cache")?);
        let flow = self.flow(f, &get("estimator_cnn_cache")?, &get("estimator_att_cache")?);
        Ok(Voice { speaker: get("spk_cb")?, encoder, flow })
    }

    /// Layers hold K and V side by side, `[2 · dim, frames, heads, layers]`; of those before the upsampling the first
    /// half of the frames counts, the second repeats it.
    fn encoder(&self, e: &EncoderSizes, cnn: &[f32], att: &[f32]) -> EncoderState {
        let (look, up) = cnn.split_at(2 * e.width);
        let dim = e.width / e.heads;
        let layers = att.chunks_exact(2 * dim * self.frames * e.heads).enumerate().map(|(i, layer)| {
            let frames = if i < e.layers { self.frames / UP_RATE } else { self.frames };
            let mut out = KeysValues::default();
            for frame in 0..frames {
                for head in layer.chunks_exact(2 * dim * self.frames) {
                    let (k, v) = head[2 * dim * frame..2 * dim * (frame + 1)].split_at(dim);
                    out.keys.extend(k);
                    out.values.extend(v);
                }
            }
            out
        });
        EncoderState { look: look.to_vec(), up: up.to_vec(), layers: layers.collect() }
    }

    /// Slots are `step · blocks + block`, for attention with the heads inside.
    fn flow(&self, f: &FlowSizes, cnn: &[f32], att: &[f32]) -> FlowPrompt {
        let slots = self.steps * f.blocks;
        let (row, rows) = (2 * f.dim, self.frames * f.heads);
        let attention = (0..slots).map(|slot| {
            let mut out = [Vec::new(), Vec::new()];
            for half in 0..HALVES {
                let from = (half * slots + slot) * rows * row;
                for pair in att[from..from + rows * row].chunks_exact(row) {
                    let (k, v) = pair.split_at(f.dim);
                    out[0].extend(k);
                    out[1].extend(v);
                }
            }
            out
        });
        let convolution = (0..slots).map(|slot| {
            let mut out = [Vec::new(), Vec::new()];
            for half in 0..HALVES {
                let from = (half * slots + slot) * FRAMES_BACK * 2 * f.width;
                for pair in cnn[from..from + FRAMES_BACK * 2 * f.width].chunks_exact(2 * f.width) {
                    let (first, second) = pair.split_at(f.width);
                    out[0].extend(first);
                    out[1].extend(second);
                }
            }
            out
        });
        let (attention, convolution) = (attention.collect(), convolution.collect());
        FlowPrompt { frames: self.frames, steps: self.steps, attention, convolution }
    }
}
