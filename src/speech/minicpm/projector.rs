//! Conditions of the speech model: the hidden state of each text token, projected and brought to length one, plus the
//! token's own row. Source: `MiniCPMTTS` of MiniCPM-o 4.5's own Python (`hidden_text_merge`, normalised).
//! Not here: the rows (`language`).

use super::chunks::CHUNK;
use super::device::{Device, Tensors};
use super::ffi::Graph;
use super::files::{Role, SpeechFiles, TensorFile, Wants};
use super::layers::linear;
use super::plan::{Plans, Value};
use crate::error::{Error, Result};

/// The projector's weights.
pub struct Projector {
    weights: Tensors,
    plans: Plans,
    /// Width of the big model's hidden state.
    pub input: usize,
    /// Width of the speech model.
    pub width: usize,
}

/// The open file.
pub struct ProjectorFile {
    pub file: TensorFile,
    pub input: usize,
    /// Width of the speech model.
    pub width: usize,
}

impl ProjectorFile {
    /// Opens the file and checks it; computes nothing.
    ///
    /// # Errors
    /// Of [`TensorFile::open`] and `model_tensor_…`.
    pub fn open(files: &SpeechFiles) -> Result<Self> {
        let file = TensorFile::open(&files.projector, Role::Projector)?;
        let [input, width, ..] = file.dims("linear1.weight")?;
        let own = Self { file, input, width };
        own.wants().check(&own.file)?;
        Ok(own)
    }

    fn wants(&self) -> Wants {
        let mut w = Wants::default();
        w.linear("linear1", self.input, self.width);
        w.linear("linear2", self.width, self.width);
        w
    }
}

impl Projector {
    /// Puts the weights onto a device.
    ///
    /// # Errors
    /// Of reading, and `speech_memory`.
    pub fn load(file: &ProjectorFile, device: &Device) -> Result<Self> {
        let weights = file.wants().load_exact(&file.file, device)?;
        Ok(Self { weights, plans: Plans::default(), input: file.input, width: file.width })
    }

    /// How many computations are kept.
    pub fn kept(&self) -> usize {
        self.plans.kept()
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Condition rows `[width, tokens]` from hidden states `[input, tokens]` and rows of the text table.
    ///
    /// # Errors
    /// `speech_input` when the two do not fit together or a state holds no number, or `speech_compute`.
    pub fn conditions(&mut self, device: &Device, hidden: &[f32], text: &[f32]) -> Result<Vec<f32>> {
        let tokens = text.len() / self.width;
        if hidden.len() != tokens * self.input || text.len() != tokens * self.width || tokens == 0 {
            let what = format!("{} numbers of hidden states for {tokens} tokens", hidden.len());
            return Err(Error::internal("speech_input", what));
        }
        if hidden.iter().any(|x| !x.is_finite()) {
            return Err(Error::internal("speech_input", "a hidden state holds no number somewhere"));
        }
        let (w, input, width) = (&self.weights, self.input, self.width);
        let build = |g: &mut Graph<'static>| {
            let x = g.later(&[input, tokens]);
            let text = g.later(&[width, tokens]);
            let x = linear(g, w, "linear1", x);
            let x = g.leaky(x, 0.0);
            let x = linear(g, w, "linear2", x);
            let x = g.unit(x, 1e-12);
            vec![g.add(x, text)]
        };
        let key = (tokens == CHUNK).then_some([tokens, 0]);
        let values = [Value::Floats(hidden), Value::Floats(text)];
        Ok(self.plans.run(device, key, &values, build)?.pop().unwrap_or_default())
    }
}
