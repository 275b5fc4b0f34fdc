//! The prompt's layout: the model's chat template around our words, as token runs.
//! Not here: what the words say (`commentary`), decoding (`session`).

use super::Prompt;
use super::chat::apply_chat_template;
use super::ffi::{Model, Token};
use std::ffi::CString;

/// Stand-ins for contents while the template is laid out; no template contains them.
const SYSTEM_HERE: &str = "@@vidette-system@@";
const USER_HERE: &str = "@@vidette-user@@";
/// Opens an answer that is to be spoken (`use_tts_template` of MiniCPM-o's chat template).
const SPEAK: &str = "<|tts_bos|>";

/// The template's own text, cut at the places where ours goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    before_system: String,
    before_user: String,
    after_user: String,
    /// After that, where the answer is to be spoken by the model itself; empty when the model can't.
    speak: &'static str,
}

/// A prompt as tokens, with the place of the frames between `prefix` and `suffix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptTokens {
    /// System turn and instruction: the same from look to look.
    pub prefix: Vec<Token>,
    /// What changes, and the opening of the answer.
    pub suffix: Vec<Token>,
}

impl Layout {
    /// The model's own template, or ChatML when it has none that llama.cpp knows.
    pub fn of(model: &Model) -> Self {
        let own = model.chat_template().and_then(|template| {
            let content = |text: &str| CString::new(text).ok();
            let (system, user) = (content(SYSTEM_HERE)?, content(USER_HERE)?);
            let laid = apply_chat_template(&template, &[(c"system", &system), (c"user", &user)])?;
            Self::cut(&laid)
        });
        let mut layout = own.unwrap_or_else(Self::chatml);
        // Qwen3 (and so MiniCPM-o 4.5) thinks aloud unless its answer opens with an empty thought; the template's
        // `enable_thinking=false` writes exactly this.
        let thinks = model.special("<think>").is_some() && model.special("</think>").is_some();
        if thinks && !layout.after_user.contains("<think>") {
            layout.after_user.push_str("<think>\n\n</think>\n\n");
        }
        if model.special(SPEAK).is_some() && !layout.after_user.contains(SPEAK) {
            layout.speak = SPEAK;
        }
        layout
    }

    fn chatml() -> Self {
        Self {
            before_system: "<|im_start|>system\n".to_owned(),
            before_user: "<|im_end|>\n<|im_start|>user\n".to_owned(),
            after_user: "<|im_end|>\n<|im_start|>assistant\n".to_owned(),
            speak: "",
        }
    }

    fn cut(laid: &str) -> Option<Self> {
        let (before_system, rest) = laid.split_once(SYSTEM_HERE)?;
        let (before_user, after_user) = rest.split_once(USER_HERE)?;
        Some(Self {
            before_system: before_system.to_owned(),
            before_user: before_user.to_owned(),
            after_user: after_user.to_owned(),
            speak: "",
        })
    }

    /// The prompt's tokens. Only the template's own text may hold special tokens; ours stays plain text.
    /// `for_voice` has the answer open as MiniCPM-o's own template does when it is to speak.
    pub fn tokens(&self, model: &Model, prompt: &Prompt, for_voice: bool) -> PromptTokens {
        let mut prefix = model.tokenize(&self.before_system, true);
        prefix.extend(model.tokenize(&prompt.system, false));
        prefix.extend(model.tokenize(&self.before_user, true));
        prefix.extend(model.tokenize(&format!("{}\n", prompt.instruction), false));
        let mut suffix = Vec::new();
        if !prompt.context.is_empty() {
            suffix.extend(model.tokenize(&format!("\n{}", prompt.context), false));
        }
        suffix.extend(model.tokenize(&self.after_user, true));
        if for_voice {
            suffix.extend(model.tokenize(self.speak, true));
        }
        PromptTokens { prefix, suffix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_laid_out_template_is_cut_at_our_marks() {
        let laid = format!("<s>{SYSTEM_HERE}</s><u>{USER_HERE}</u><a>");
        let layout = Layout::cut(&laid).unwrap();
        assert_eq!((layout.before_system.as_str(), layout.before_user.as_str()), ("<s>", "</s><u>"));
        assert_eq!(layout.after_user, "</u><a>");
        assert_eq!(Layout::cut("a template without our content"), None);
    }
}
