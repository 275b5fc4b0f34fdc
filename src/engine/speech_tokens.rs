//! What the vocabulary says about speaking: which token ends a spoken answer, and which tokens have text that can't be
//! pronounced. Not here: where a spoken answer's opening goes (`template`), speaking (`speech`).

use super::ffi::{Model, Token};

/// Ends a spoken answer of MiniCPM-o.
const END: &str = "<|tts_eos|>";

/// What a voice can't say, beside control characters, line breaks among them. MiniCPM-o's own Python has a list of some
/// thousand token ids to the same end, which is not in the model's files; its documented part is tokens of these.
const UNSPEAKABLE: &str = ":：#\"“”@*()（）[]{}<>&+/\\|$^~`_=";

/// The tokens with a role in speaking.
pub struct SpeechTokens {
    /// Ends a spoken answer.
    pub end: Option<Token>,
    /// By token id; empty until it is asked for the first time.
    unspeakable: Vec<bool>,
}

impl SpeechTokens {
    /// Of a model's vocabulary.
    pub fn of(model: &Model) -> Self {
        Self { end: model.special(END), unspeakable: Vec::new() }
    }

    /// Which tokens are not to be chosen in an answer that is spoken, by id.
    pub fn unspeakable(&mut self, model: &Model) -> &[bool] {
        if self.unspeakable.is_empty() {
            let tokens = 0..Token::try_from(model.n_vocab()).unwrap_or(0);
            self.unspeakable = tokens.map(|token| is_unspeakable(&model.piece(token))).collect();
        }
        &self.unspeakable
    }
}

/// Bytes that are no whole characters may be parts of one, and stay.
fn is_unspeakable(piece: &[u8]) -> bool {
    let whole = piece.utf8_chunks().flat_map(|chunk| chunk.valid().chars());
    whole.into_iter().any(|c| c.is_control() || UNSPEAKABLE.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_pauses_can_be_spoken_and_markup_can_not() {
        for piece in ["", " the", "...", ", ", "3", "-", "%", "é", "狗", "。", "?!", "'s"] {
            assert!(!is_unspeakable(piece.as_bytes()), "{piece:?}");
        }
        for piece in ["\n", ".\n\n", ":", "：", " (", "**", "#", "http://", "]", " “", "\u{7f}", "\t"] {
            assert!(is_unspeakable(piece.as_bytes()), "{piece:?}");
        }
        assert!(!is_unspeakable(&"🐕".as_bytes()[..2]), "half a character");
    }
}
