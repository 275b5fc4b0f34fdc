//! Audio codes to sound, window by window: encoder, flow and vocoder with their state, reset to the voice for every
//! utterance.
//!
//! A window is 28 codes of which the last three are looked at only; 25 go on. Three codes of silence lead in, so N codes
//! become (3 + N) · 960 samples. Source: `Token2wav.stream` of minicpmo-utils 1.0.7.
//! Not here: where codes come from (`language`, `sampler`).

use super::device::{Device, Tensors};
use super::encoder::{Encoder, EncoderSizes, EncoderState, LOOK_AHEAD, UP_RATE};
use super::ffi::Graph;
use super::files::{Role, SpeechFiles, TensorFile, Wants};
use super::flow::{Flow, FlowSizes};
use super::layers::linear;
use super::noise::Random;
use super::source::HOP;
use super::vocoder::{Vocoder, VocoderSizes, VocoderState, Voiced};
use super::voice::VoiceSizes;
use crate::error::{Error, Result};
use std::time::{Duration, Instant};

/// Samples for each code.
pub const SAMPLES_PER_CODE: usize = UP_RATE * HOP;
/// The reference draws the flow's noise once for all chunks and utterances; so do we, from this seed.
const FLOW_NOISE: u64 = 0x0f10;
const VOCODER_NOISE: u64 = 2;

/// All sizes of the files, which belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoundSizes {
    pub encoder: EncoderSizes,
    pub flow: FlowSizes,
    pub vocoder: VocoderSizes,
    pub voice: VoiceSizes,
}

/// The open files.
pub struct SoundFiles {
    encoder: TensorFile,
    extra: TensorFile,
    flow: TensorFile,
    vocoder: TensorFile,
    voice: TensorFile,
    pub sizes: SoundSizes,
}

impl SoundFiles {
    /// Opens the five files and checks each of them and that they belong together; computes nothing.
    ///
    /// # Errors
    /// Of [`TensorFile::open`], of each network's sizes, or `speech_files_mixed`.
    pub fn open(files: &SpeechFiles, steps: Option<usize>) -> Result<Self> {
        let encoder = TensorFile::open(&files.encoder, Role::Encoder)?;
        let extra = TensorFile::open(&files.flow_extra, Role::FlowExtra)?;
        let flow = TensorFile::open(&files.flow_matching, Role::FlowMatching)?;
        let vocoder = TensorFile::open(&files.hifigan2, Role::Vocoder)?;
        let voice = TensorFile::open(&files.prompt_cache, Role::PromptCache)?;
        let encoder_sizes = EncoderSizes::read(&encoder, &extra)?;
        let flow_sizes = FlowSizes::read(&flow)?;
        let vocoder_sizes = VocoderSizes::read(&vocoder)?;
        for (file, mel) in [(&flow, flow_sizes.mel), (&vocoder, vocoder_sizes.mel)] {
            if mel != encoder_sizes.mel {
                let own = extra.path.display();
                let what = format!("its mel is {mel} wide, that of {own} is {}", encoder_sizes.mel);
                return Err(file.refuse("speech_files_mixed", what));
            }
        }
        let voice_sizes = VoiceSizes::read(&voice, &encoder_sizes, &flow_sizes, steps)?;
        speaker_wants(&voice_sizes, flow_sizes.mel).check(&extra)?;
        let sizes = SoundSizes { encoder: encoder_sizes, flow: flow_sizes, vocoder: vocoder_sizes, voice: voice_sizes };
        Ok(Self { encoder, extra, flow, vocoder, voice, sizes })
    }
}

fn speaker_wants(voice: &VoiceSizes, mel: usize) -> Wants {
    let mut w = Wants::default();
    w.linear("spk_embed_affine_layer", voice.speaker, mel);
    w
}

/// Where the time of one utterance went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SoundTimes {
    pub encoder: Duration,
    pub flow: Duration,
    pub vocoder: Duration,
}

/// What one window computed on the way, for tests and inspection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// `[mel, frames]`.
    pub mu: Vec<f32>,
    pub mel: Vec<f32>,
    /// Velocities of each step, `[mel, frames, halves]`.
    pub velocities: Vec<Vec<f32>>,
    pub voiced: Voiced,
}

/// The networks on a device, and the state of one utterance.
pub struct Token2Wav {
    device: Device,
    pub(super) sizes: SoundSizes,
    encoder: Encoder,
    pub(super) flow: Flow,
    vocoder: Vocoder,
    /// The voice's speaker for the flow, `[mel]`.
    pub(super) speaker: Vec<f32>,
    start: EncoderState,
    /// The flow's noise, `[mel, capacity]`.
    noise: Vec<f32>,
    silence: i32,
    /// Off in tests against a reference without noise.
    vocoder_noise: bool,
    // What follows belongs to the utterance.
    pub(super) state: EncoderState,
    sound: VocoderState,
    random: Random,
    codes: Vec<i32>,
    times: SoundTimes,
}

impl Token2Wav {
    /// Puts everything onto a device. `silence` is the code that leads in.
    ///
    /// # Errors
    /// Of reading, `speech_files_mixed`, `speech_compute` and `speech_memory`.
    pub fn load(files: &SoundFiles, silence: i32, device: &Device) -> Result<Self> {
        let sizes = files.sizes;
        if !usize::try_from(silence).is_ok_and(|s| s < sizes.encoder.codes) {
            let what = format!("it has {} codes and none with the number {silence} for silence", sizes.encoder.codes);
            return Err(files.extra.refuse("speech_files_mixed", what));
        }
        let voice = sizes.voice.load(&files.voice, &sizes.encoder, &sizes.flow)?;
        let longest = UP_RATE * (sizes.voice.advance + LOOK_AHEAD - 1);
        let frames = [sizes.voice.frames, longest];
        let encoder = Encoder::load(sizes.encoder, &files.encoder, &files.extra, frames, device)?;
        let window = UP_RATE * sizes.voice.advance;
        let flow = Flow::load(sizes.flow, &files.flow, voice.flow, [window, longest], device)?;
        let vocoder = Vocoder::load(sizes.vocoder, &files.vocoder, device)?;
        let speaker_weights = speaker_wants(&sizes.voice, sizes.flow.mel).load_exact(&files.extra, device)?;
        let speaker = speaker(device, &speaker_weights, &voice.speaker)?;
        let mut random = Random::new(FLOW_NOISE, 0);
        let noise = (0..flow.capacity() * sizes.flow.mel).map(|_| random.normal()).collect();
        Ok(Self {
            device: device.clone(),
            sizes,
            encoder,
            flow,
            vocoder,
            speaker,
            start: voice.encoder.clone(),
            noise,
            silence,
            vocoder_noise: true,
            state: voice.encoder,
            sound: VocoderState::default(),
            random: Random::new(0, VOCODER_NOISE),
            codes: Vec::new(),
            times: SoundTimes::default(),
        })
    }

    /// The flow's noise from elsewhere, `[mel, at least capacity]`, and none in the vocoder: for tests against a reference.
    #[cfg(test)]
    pub(super) fn fix_noise(&mut self, noise: Vec<f32>) {
        assert!(noise.len() >= self.flow.capacity() * self.sizes.flow.mel, "enough noise");
        (self.noise, self.vocoder_noise) = (noise, false);
    }

    /// Forgets the last utterance and starts one with the voice as it was loaded.
    ///
    /// # Errors
    /// `speech_compute` when the device fails.
    pub fn begin(&mut self, seed: u64) -> Result<()> {
        self.flow.begin()?;
        self.state = self.start.clone();
        self.sound = VocoderState::default();
        self.random = Random::new(seed, VOCODER_NOISE);
        self.codes = vec![self.silence; LOOK_AHEAD];
        self.times = SoundTimes::default();
        Ok(())
    }

    /// Takes a code; gives the sound of a window when one is full. `stop` is asked between the parts.
    ///
    /// # Errors
    /// `speech_compute`, or what `stop` says; then only [`begin`](Self::begin) helps.
    pub fn push(&mut self, code: i32, stop: &dyn Fn() -> Result<()>) -> Result<Option<Vec<f32>>> {
        self.codes.push(code);
        let advance = self.sizes.voice.advance;
        if self.codes.len() < advance + LOOK_AHEAD {
            return Ok(None);
        }
        let window = self.codes.clone();
        let wave = self.window(&window, false, stop)?.0;
        self.codes.drain(..advance);
        Ok(Some(wave))
    }

    /// The sound of what is left.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&mut self, stop: &dyn Fn() -> Result<()>) -> Result<Vec<f32>> {
        let window = std::mem::take(&mut self.codes);
        Ok(self.window(&window, true, stop)?.0)
    }

    /// Runs all that whole windows need until it is ready to be replayed, and a longest last window, so that memory for
    /// computing has its size: the first utterance takes no longer then than those after it.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn warm(&mut self) -> Result<()> {
        let whole = self.sizes.voice.advance + LOOK_AHEAD;
        let codes = vec![self.silence; whole];
        for round in 0..3 {
            self.begin(0)?;
            if round == 0 {
                self.window(&codes[1..], true, &|| Ok(()))?;
                self.begin(0)?;
            }
            // The caches are as long as they get after the third.
            for _ in 0..4 {
                self.window(&codes, false, &|| Ok(()))?;
            }
        }
        self.begin(0)
    }

    /// How many computations are kept.
    pub fn kept(&self) -> usize {
        self.encoder.kept() + self.flow.kept() + self.vocoder.kept()
    }

    /// Bytes on the device by what takes them.
    pub fn bytes(&self) -> Vec<(&'static str, usize)> {
        let [weights, caches] = self.flow.bytes();
        vec![
            ("encoder", self.encoder.bytes()),
            ("flow", weights),
            ("flow's caches", caches),
            ("vocoder", self.vocoder.bytes()),
        ]
    }

    /// Where the time of this utterance has gone so far.
    pub fn times(&self) -> SoundTimes {
        self.times
    }

    /// One window through all three networks, each of which gets what the reference gave to it.
    #[cfg(test)]
    pub(super) fn stages(&mut self, codes: &[i32], last: bool, given: &Seen) -> Result<Seen> {
        let mut seen = Seen { mu: self.encoder.run(&self.device, codes, last, &mut self.state)?, ..Default::default() };
        self.encoder.trim(&mut self.state, self.sizes.voice.frames);
        let from = self.flow.held() * self.sizes.flow.mel;
        let noise = &self.noise[from..from + given.mu.len()];
        let mut see = |_: usize, v: &[f32]| seen.velocities.push(v.to_vec());
        seen.mel = self.flow.run(&self.device, &given.mu, &self.speaker, noise, &|| Ok(()), &mut see)?;
        seen.voiced = self.vocoder.stages(&self.device, &given.mel, &given.voiced, last, &mut self.sound)?;
        Ok(seen)
    }

    /// One window through all three networks.
    pub(super) fn window(
        &mut self,
        codes: &[i32],
        last: bool,
        stop: &dyn Fn() -> Result<()>,
    ) -> Result<(Vec<f32>, Seen)> {
        let mut seen = Seen::default();
        stop()?;
        let start = Instant::now();
        seen.mu = self.encoder.run(&self.device, codes, last, &mut self.state)?;
        self.encoder.trim(&mut self.state, self.sizes.voice.frames);
        let encoded = Instant::now();
        let from = self.flow.held() * self.sizes.flow.mel;
        let noise = self.noise.get(from..from + seen.mu.len());
        let noise = noise.ok_or_else(|| Error::internal("speech_compute", "a window longer than the noise"))?;
        let mut see = |_: usize, v: &[f32]| {
            if cfg!(test) {
                seen.velocities.push(v.to_vec())
            }
        };
        seen.mel = self.flow.run(&self.device, &seen.mu, &self.speaker, noise, stop, &mut see)?;
        let flowed = Instant::now();
        stop()?;
        let (random, noisy) = (&mut self.random, self.vocoder_noise);
        let mut noise = || if noisy { random.normal() } else { 0.0 };
        let (wave, voiced) = self.vocoder.run(&self.device, &seen.mel, last, &mut self.sound, &mut noise)?;
        seen.voiced = voiced;
        self.times.encoder += encoded - start;
        self.times.flow += flowed - encoded;
        self.times.vocoder += flowed.elapsed();
        Ok((wave, seen))
    }
}

/// The speaker vector at length one, made fit for the flow.
fn speaker(device: &Device, weights: &Tensors, raw: &[f32]) -> Result<Vec<f32>> {
    let mut g = Graph::new(device)?;
    let x = g.input(raw, &[raw.len()]);
    let x = g.unit(x, 1e-12);
    let x = linear(&mut g, weights, "spk_embed_affine_layer", x);
    Ok(g.run(&[x])?.pop().unwrap_or_default())
}
