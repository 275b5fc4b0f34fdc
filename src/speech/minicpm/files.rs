//! The voice's files: which there are, looked into before anything is computed from them, and read tensor by tensor.
//! Not here: what a network needs of its file (each network's module lists its tensors), GGUF itself (`models::gguf`).

use super::device::{Device, Shape, Tensors, shape};
use crate::error::{Error, Result};
use crate::models::ModelFiles;
use crate::models::fields::{want_f32, wrong_tensor, wrong_type};
use crate::models::ggml::GgmlType;
use crate::models::gguf::{Header, Tensor, shown};
use crate::models::inspect::read_header;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const ANEW: &str = "fetch the voice's files again with `vidette pull --voice`, all from one place";

/// Where the seven files lie.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SpeechFiles {
    /// Language model that writes audio codes.
    pub tts: PathBuf,
    /// From the big model's hidden state to its width.
    pub projector: PathBuf,
    pub encoder: PathBuf,
    pub flow_matching: PathBuf,
    pub flow_extra: PathBuf,
    pub hifigan2: PathBuf,
    /// The default voice.
    pub prompt_cache: PathBuf,
}

impl SpeechFiles {
    /// The files of a model, when it has all of them.
    pub fn of(model: &ModelFiles) -> Option<Self> {
        let t = model.token2wav.as_ref()?;
        Some(Self {
            tts: model.tts.clone()?,
            projector: model.tts_projector.clone()?,
            encoder: t.encoder.clone(),
            flow_matching: t.flow_matching.clone(),
            flow_extra: t.flow_extra.clone(),
            hifigan2: t.hifigan2.clone(),
            prompt_cache: t.prompt_cache.clone(),
        })
    }

    /// The files under a folder in the published layout, by their published names.
    pub fn published(folder: &Path) -> Self {
        let sound = |name: &str| folder.join("token2wav-gguf").join(name);
        Self {
            tts: folder.join("tts/MiniCPM-o-4_5-tts-F16.gguf"),
            projector: folder.join("tts/MiniCPM-o-4_5-projector-F16.gguf"),
            encoder: sound("encoder.gguf"),
            flow_matching: sound("flow_matching.gguf"),
            flow_extra: sound("flow_extra.gguf"),
            hifigan2: sound("hifigan2.gguf"),
            prompt_cache: sound("prompt_cache.gguf"),
        }
    }
}

/// Checks that a file that somebody chose may be a voice file (`prompt_cache.gguf`), and not a recording.
///
/// # Errors
/// `speech_voice_recording` when it is sound, else of a file that can't be read.
pub fn check_voice_file(path: &Path) -> Result<()> {
    let absent = |why: &dyn std::fmt::Display| {
        let what = format!("REF_AUDIO_PATH: {}: {why}", path.display());
        Error::not_found("model_file_not_found", what).hint("name a prompt_cache.gguf, or leave the option out")
    };
    // Before it is opened: opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(|e| absent(&e))?.is_file() {
        return Err(absent(&"this is no file"));
    }
    let mut file = File::open(path).map_err(|e| absent(&e))?;
    let mut start = [0; 12];
    let read = io::Read::read(&mut file, &mut start).map_err(|e| unreadable(path, &e))?;
    let start = &start[..read];
    let marks: [&[u8]; 5] = [b"RIFF", b"fLaC", b"OggS", b"ID3", &[0xff, 0xfb]];
    let sound = marks.iter().any(|mark| start.starts_with(mark)) || start.get(4..8) == Some(b"ftyp");
    if !sound {
        return Ok(());
    }
    let what = format!("REF_AUDIO_PATH: {} is a recording, which is not used as it is", path.display());
    Err(Error::invalid("speech_voice_recording", what)
        .hint("make a voice file of it once with `python scripts/tts/make_voice.py` (docs/VOICE.md) and name that"))
}

/// Which of the files one is; tells swapped files apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Tts,
    Projector,
    Encoder,
    FlowMatching,
    FlowExtra,
    Vocoder,
    PromptCache,
}

impl Role {
    const ALL: [Role; 7] = [
        Role::Tts,
        Role::Projector,
        Role::Encoder,
        Role::FlowMatching,
        Role::FlowExtra,
        Role::Vocoder,
        Role::PromptCache,
    ];

    /// A tensor that no other file has.
    fn mark(self) -> &'static str {
        match self {
            Role::Tts => "emb_code.0.weight",
            Role::Projector => "linear1.weight",
            Role::Encoder => "up_layer.conv.weight",
            Role::FlowMatching => "estimator.in_proj.weight",
            Role::FlowExtra => "input_embedding.weight",
            Role::Vocoder => "m_source.l_linear.weight",
            Role::PromptCache => "prompt_cache.estimator_att_cache",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Role::Tts => "the speech language model (tts)",
            Role::Projector => "the speech projector",
            Role::Encoder => "encoder.gguf",
            Role::FlowMatching => "flow_matching.gguf",
            Role::FlowExtra => "flow_extra.gguf",
            Role::Vocoder => "hifigan2.gguf",
            Role::PromptCache => "prompt_cache.gguf",
        }
    }
}

/// An open file whose header has been read.
pub struct TensorFile {
    pub path: PathBuf,
    pub header: Header,
    file: File,
}

impl TensorFile {
    /// Opens a file and checks that it is what its place says.
    ///
    /// # Errors
    /// The `model_…` codes of a header that can't be read, or `speech_file_swapped`.
    pub fn open(path: &Path, role: Role) -> Result<Self> {
        let header = read_header(path)?;
        let file = File::open(path).map_err(|e| unreadable(path, &e))?;
        let own = Self { path: path.to_owned(), header, file };
        if own.header.tensor(role.mark()).is_some() {
            return Ok(own);
        }
        let found = Role::ALL.into_iter().find(|r| own.header.tensor(r.mark()).is_some());
        let found = found.map_or("something else", Role::words);
        Err(own.refuse("speech_file_swapped", format!("this is {found} where {} is expected", role.words())))
    }

    /// An error about this file.
    pub fn refuse(&self, code: &'static str, what: impl std::fmt::Display) -> Error {
        Error::invalid(code, format!("{}: {what}", self.path.display())).hint(ANEW)
    }

    /// The same error with the file named first.
    pub fn named(&self, error: Error) -> Error {
        Error { message: format!("{}: {}", self.path.display(), error.message), ..error }
    }

    /// A tensor's dimensions, fastest first, filled with ones; each from 1 to 2^20.
    ///
    /// # Errors
    /// `model_tensor_shape` when it is missing or absurd.
    pub fn dims(&self, name: &str) -> Result<Shape> {
        let tensor = self.header.tensor(name).ok_or_else(|| wrong_tensor(format!("the tensor {name} is missing")));
        let tensor = tensor.map_err(|e| self.named(e))?;
        let sane = |d: &u64| usize::try_from(*d).ok().filter(|d| (1..=1 << 20).contains(d));
        let dims: Option<Vec<usize>> = tensor.dims.iter().map(sane).collect();
        dims.map(|d| shape(&d))
            .ok_or_else(|| self.named(wrong_tensor(format!("the tensor {name} has the shape {:?}", tensor.dims))))
    }

    /// How many numbered parts `PREFIX0.`, `PREFIX1.`, … there are, from 1 to 256.
    ///
    /// # Errors
    /// `model_tensor_shape` when there is none.
    pub fn count(&self, prefix: &str) -> Result<usize> {
        let numbers = self
            .header
            .tensors
            .iter()
            .filter_map(|t| t.name.strip_prefix(prefix)?.split_once('.')?.0.parse::<usize>().ok());
        match numbers.max() {
            Some(last) if last < 256 => Ok(last + 1),
            _ => Err(self.named(wrong_tensor(format!("there are no tensors {prefix}0.… to {prefix}255.…")))),
        }
    }

    /// A tensor that must be there with these dimensions.
    ///
    /// # Errors
    /// `model_tensor_shape`.
    pub fn need(&self, name: &str, dims: &[usize]) -> Result<&Tensor> {
        let dims: Vec<u64> = dims.iter().map(|d| *d as u64).collect();
        self.header.need_tensor(name, &dims).map_err(|e| self.named(e))
    }

    /// A tensor's bytes as they are in the file.
    ///
    /// # Errors
    /// `model_file_unreadable`; the header's check has made sure that they lie inside the file.
    pub fn bytes(&self, tensor: &Tensor, from: u64, len: u64, out: &mut Vec<u8>) -> Result<()> {
        let inside = from.checked_add(len).is_some_and(|end| end <= tensor.bytes);
        let len = usize::try_from(len).ok().filter(|_| inside);
        let len = len.ok_or_else(|| Error::internal("speech_file_read", format!("{} is shorter", tensor.name)))?;
        out.resize(len, 0);
        let at = self.header.data_start + tensor.offset + from;
        self.file.read_exact_at(out, at).map_err(|e| unreadable(&self.path, &e))
    }

    /// A tensor's numbers, or one row of it, from 32-bit or 16-bit floats.
    ///
    /// # Errors
    /// `model_tensor_type`, `model_file_unreadable`, or `speech_weights_not_finite`.
    pub fn floats(&self, name: &str, row: Option<usize>) -> Result<Vec<f32>> {
        let tensor = self.header.tensor(name);
        let tensor = tensor.ok_or_else(|| self.named(wrong_tensor(format!("the tensor {name} is missing"))))?;
        let row_bytes = tensor.dims.first().copied().unwrap_or(1) * tensor.ggml.bytes;
        let (from, len) = row.map_or((0, tensor.bytes), |r| (r as u64 * row_bytes, row_bytes));
        let mut bytes = Vec::new();
        let out: Vec<f32> = if tensor.ggml == GgmlType::F32 {
            self.bytes(tensor, from, len, &mut bytes)?;
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        } else if tensor.ggml == GgmlType::F16 {
            self.bytes(tensor, from, len, &mut bytes)?;
            bytes.as_chunks::<2>().0.iter().map(|b| half(u16::from_le_bytes(*b))).collect()
        } else {
            return Err(self.named(wrong_type(tensor, "F32 or F16")));
        };
        if out.iter().all(|x| x.is_finite()) {
            return Ok(out);
        }
        Err(self.refuse("speech_weights_not_finite", format!("the tensor {} holds no number somewhere", shown(name))))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::unavailable("model_file_unreadable", format!("{}: {error}", path.display()))
        .hint("check the disk, and that nothing writes the file at the moment")
}

/// A 16-bit float as a 32-bit one.
fn half(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    match exponent {
        0 => f32::from_bits(sign | 0x3f80_0000) * fraction as f32 * 2.0f32.powi(-24),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        e => f32::from_bits(sign | (e + 112) << 23 | fraction << 13),
    }
}

/// How a tensor of the file is laid out on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As in the file.
    Plain,
    /// A convolution kernel `[taps, in, out]` as one matrix for each tap, `[in, out, taps]`.
    Taps,
    /// A transposed convolution's kernel `[taps, out, in]` as one matrix for each block of `stride` taps,
    /// `[in, out · stride, blocks]`, missing taps being zero.
    Phases { stride: usize },
    /// `1 / (x + 1e-9)`, under the name with `.inverse`.
    Inverse,
}

/// A tensor that a network needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    pub name: String,
    /// Dimensions in the file, fastest first.
    pub dims: Vec<usize>,
    pub form: Form,
    /// A matrix that only products use: may be held in 16 bits.
    pub matrix: bool,
}

impl Want {
    fn target(&self) -> (String, Shape) {
        match (self.form, self.dims.as_slice()) {
            (Form::Taps, [taps, into, out]) => (self.name.clone(), shape(&[*into, *out, *taps])),
            (Form::Phases { stride }, [taps, out, into]) => {
                (self.name.clone(), shape(&[*into, out * stride, taps.div_ceil(stride)]))
            }
            (Form::Inverse, dims) => (format!("{}.inverse", self.name), shape(dims)),
            (_, dims) => (self.name.clone(), shape(dims)),
        }
    }

    fn arrange(&self, values: Vec<f32>) -> Vec<f32> {
        match (self.form, self.dims.as_slice()) {
            (Form::Taps, &[taps, into, out]) => {
                let mut to = vec![0.0; values.len()];
                for (i, value) in values.into_iter().enumerate() {
                    let (tap, channel, output) = (i % taps, i / taps % into, i / taps / into);
                    to[(tap * out + output) * into + channel] = value;
                }
                to
            }
            (Form::Phases { stride }, &[taps, out, into]) => {
                let mut to = vec![0.0; into * out * stride * taps.div_ceil(stride)];
                for (i, value) in values.into_iter().enumerate() {
                    let (tap, output, channel) = (i % taps, i / taps % out, i / taps / out);
                    to[(tap * out + output) * into + channel] = value;
                }
                to
            }
            (Form::Inverse, _) => values.into_iter().map(|x| 1.0 / (x + 1e-9)).collect(),
            _ => values,
        }
    }
}

/// A list of wanted tensors, with the usual groups in short.
#[derive(Debug, Default)]
pub struct Wants(pub Vec<Want>);

impl Wants {
    pub fn one(&mut self, name: String, dims: &[usize], form: Form) {
        self.0.push(Want { name, dims: dims.to_vec(), form, matrix: false });
    }

    fn matrix(&mut self, name: &str, dims: &[usize], form: Form) {
        self.0.push(Want { name: format!("{name}.weight"), dims: dims.to_vec(), form, matrix: true });
    }

    /// A matrix and its bias.
    pub fn linear(&mut self, name: &str, into: usize, out: usize) {
        self.matrix(name, &[into, out], Form::Plain);
        self.one(format!("{name}.bias"), &[out], Form::Plain);
    }

    /// Weight and bias of a layer norm.
    pub fn norm(&mut self, name: &str, width: usize) {
        self.one(format!("{name}.weight"), &[width], Form::Plain);
        self.one(format!("{name}.bias"), &[width], Form::Plain);
    }

    /// Kernel and bias of a convolution over a few wide frames (`layers::conv`).
    pub fn conv(&mut self, name: &str, into: usize, out: usize, taps: usize) {
        self.matrix(name, &[taps, into, out], Form::Taps);
        self.one(format!("{name}.bias"), &[out], Form::Plain);
    }

    /// Kernel and bias of a convolution over a long signal (`layers::conv_same`).
    pub fn conv_same(&mut self, name: &str, into: usize, out: usize, taps: usize) {
        self.matrix(name, &[taps, into, out], Form::Plain);
        self.one(format!("{name}.bias"), &[out], Form::Plain);
    }

    /// Checks that the file has all of them, in shape and type.
    ///
    /// # Errors
    /// `model_tensor_shape` or `model_tensor_type`.
    pub fn check(&self, file: &TensorFile) -> Result<()> {
        for want in &self.0 {
            let tensor = file.need(&want.name, &want.dims)?;
            if tensor.ggml != GgmlType::F16 {
                want_f32(tensor).map_err(|e| file.named(e))?;
            }
        }
        Ok(())
    }

    /// Checks them and puts them onto a device; matrices in 16 bits, if that is how it is used.
    ///
    /// # Errors
    /// As [`check`](Self::check), of reading, and `speech_memory`.
    pub fn load(&self, file: &TensorFile, device: &Device) -> Result<Tensors> {
        self.load_as(file, device, device.halves())
    }

    /// [`load`](Self::load) with all digits: for what is computed once.
    ///
    /// # Errors
    /// As there.
    pub fn load_exact(&self, file: &TensorFile, device: &Device) -> Result<Tensors> {
        self.load_as(file, device, false)
    }

    fn load_as(&self, file: &TensorFile, device: &Device, half: bool) -> Result<Tensors> {
        self.check(file)?;
        let targets = self.0.iter().map(|want| {
            let (name, ne) = want.target();
            (name, ne, half && want.matrix)
        });
        let targets: Vec<_> = targets.collect();
        let tensors = Tensors::of(device, &targets)?;
        for (want, (target, _, _)) in self.0.iter().zip(&targets) {
            tensors.set(target, &want.arrange(file.floats(&want.name, None)?))?;
        }
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_read_exactly() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x83ff, -6.097_555e-5),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(half(bits), value, "{bits:04x}");
        }
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
    }

    #[test]
    fn kernels_are_rearranged_tap_by_tap() {
        // [taps 2, in 2, out 1]
        let want = Want { name: "w".into(), dims: vec![2, 2, 1], form: Form::Taps, matrix: false };
        assert_eq!(want.arrange(vec![1.0, 2.0, 3.0, 4.0]), [1.0, 3.0, 2.0, 4.0]);
        // [taps 3, out 1, in 2], stride 2: blocks of taps 0 1 and 2 –.
        let want = Want { name: "w".into(), dims: vec![3, 1, 2], form: Form::Phases { stride: 2 }, matrix: false };
        assert_eq!(want.target().1, [2, 2, 2, 1]);
        assert_eq!(want.arrange(vec![1., 2., 3., 4., 5., 6.]), [1., 4., 2., 5., 3., 6., 0., 0.]);
    }
}
