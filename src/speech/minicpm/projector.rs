//! Conditions of the speech model: the hidden state of each text token, projected and brought to length one, plus the
//! token's own row. Source: `MiniCPMTTS` of MiniCPM-o 4.5's own Python (`hidden_text_merge`, normalised).
//! Not here: the rows (`language`).

use super::device::{Device, Tensors};
use super::ffi::Graph;
use super::files::{Role, SpeechFiles, TensorFile, Wants};
use super::layers::linear;
use crate::error::{Error, Result};

/// The projector's weights.
pub struct Projector {
    weights: Tensors,
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
        Ok(Self { weights: file.wants().load(&file.file, device)?, input: file.input, width: file.width })
    }

    /// Condition rows `[width, tokens]` from hidden states `[input, tokens]` and rows of the text table.
    ///
    /// # Errors
    /// `speech_input` when the two do not fit together or a state holds no number, or `speech_compute`.
    pub fn conditions(&self, device: &Device, hidden: &[f32], text: &[f32]) -> Result<Vec<f32>> {
        let tokens = text.len() / self.width;
        if hidden.len() != tokens * self.input || text.len() != tokens * self.width || tokens == 0 {
            let what = format!("{} numbers of hidden states for {tokens} tokens", hidden.len());
            return Err(Error::internal("speech_input", what));
        }
        if hidden.iter().any(|x| !x.is_finite()) {
            return Err(Error::internal("speech_input", "a hidden state holds no number somewhere"));
        }
        let mut g = Graph::new(device)?;
        let x = g.input(hidden, &[self.input, tokens]);
        let text = g.input(text, &[self.width, tokens]);
        let x = linear(&mut g, &self.weights, "linear1", x);
        let x = g.leaky(x, 0.0);
        let x = linear(&mut g, &self.weights, "linear2", x);
        let x = g.unit(x, 1e-12);
        let x = g.add(x, text);
        Ok(g.run(&[x])?.pop().unwrap_or_default())
    }
}
