//! The text of one answer as it comes: what of it may be shown, and whether it says anything at all.
//! The model's words are untrusted: they leave here as plain text without control characters, nothing more.
//! Not here: publishing (`cycle`), tokens and UTF-8 (`engine`).

use crate::speech::Piece;

const THINK: &str = "<think>";
const END_OF_THINK: &str = "</think>";

/// One answer. Feed it pieces; it says what to show.
#[derive(Debug, Default)]
pub struct Answer {
    thought: ThoughtFilter,
    text: String,
    /// Bytes of `text` that were handed out to be shown.
    shown: usize,
}

impl Answer {
    /// Takes a piece and returns what may be shown now: nothing while the whole could still turn out to be "...".
    pub fn push(&mut self, piece: &str) -> Option<String> {
        let kept = self.thought.push(piece);
        self.append(&kept)
    }

    /// The answer is over: returns what was held back and is to be shown after all.
    pub fn finish(&mut self) -> Option<String> {
        let kept = self.thought.finish();
        self.append(&kept)
    }

    /// True when there is nothing in it but dots, quotes and space: the model has nothing to say.
    pub fn says_nothing(&self) -> bool {
        says_nothing(&self.text)
    }

    /// True once something was handed out to be shown.
    pub fn is_shown(&self) -> bool {
        self.shown > 0
    }

    /// True while what comes belongs to a thought, or to the space after it.
    pub fn is_thinking(&self) -> bool {
        self.thought.inside || self.thought.after
    }

    /// All of it so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn append(&mut self, kept: &str) -> Option<String> {
        self.text.extend(kept.chars().filter(|c| *c == '\n' || !c.is_control()));
        if self.shown == self.text.len() || self.says_nothing() {
            return None;
        }
        let piece = self.text[self.shown..].to_owned();
        self.shown = self.text.len();
        Some(piece)
    }
}

/// The tokens of what is held back yet, with their hidden states, for a voice that goes by them. Those of thoughts are
/// dropped; where a thought and words share a token it stays.
#[derive(Debug, Default)]
pub(super) struct Unsaid {
    tokens: Vec<i32>,
    hidden: Vec<f32>,
}

impl Unsaid {
    /// Takes a piece's tokens; `thinking` when it has turned out to be no part of the answer.
    pub(super) fn take(&mut self, tokens: Vec<i32>, hidden: Vec<f32>, thinking: bool) {
        if thinking {
            (self.tokens, self.hidden) = (Vec::new(), Vec::new());
        } else if !hidden.is_empty() {
            self.tokens.extend(tokens);
            self.hidden.extend(hidden);
        }
    }

    /// All of them, with the text that is shown now.
    pub(super) fn with(&mut self, text: &str) -> Piece {
        Piece {
            text: text.to_owned(),
            tokens: std::mem::take(&mut self.tokens),
            hidden: std::mem::take(&mut self.hidden),
        }
    }
}

/// True of a text with nothing in it but dots, quotes and space. Every beginning of such a text is one as well, so
/// the same test tells what to hold back.
pub fn says_nothing(text: &str) -> bool {
    let quiet = |c: char| {
        let dot = matches!(c, '.' | '…' | '⋯' | '。' | '．');
        let quote = matches!(c, '"' | '\'' | '`' | '“' | '”' | '„' | '‘' | '’' | '«' | '»' | '「' | '」');
        dot || quote || c.is_whitespace()
    };
    text.chars().all(quiet)
}

/// Drops `<think>…</think>`, which a model may write though it was told not to think.
#[derive(Debug, Default)]
struct ThoughtFilter {
    /// What may be the beginning of a tag; shorter than the longest tag.
    pending: String,
    inside: bool,
    /// A thought has just ended; the space after it belongs to it.
    after: bool,
}

impl ThoughtFilter {
    fn push(&mut self, piece: &str) -> String {
        let mut rest = std::mem::take(&mut self.pending) + piece;
        let mut kept = String::new();
        while let Some((at, tag)) = first_tag(&rest) {
            self.keep(&rest[..at], &mut kept);
            rest.drain(..at + tag.len());
            self.inside = tag == THINK;
            self.after = !self.inside;
        }
        let whole = rest.len() - beginning_of_tag(&rest);
        self.keep(&rest[..whole], &mut kept);
        self.pending = rest.split_off(whole);
        kept
    }

    fn finish(&mut self) -> String {
        let pending = std::mem::take(&mut self.pending);
        let mut kept = String::new();
        self.keep(&pending, &mut kept);
        kept
    }

    fn keep(&mut self, text: &str, kept: &mut String) {
        if self.inside {
            return;
        }
        let text = if self.after { text.trim_start() } else { text };
        self.after &= text.is_empty();
        kept.push_str(text);
    }
}

fn first_tag(text: &str) -> Option<(usize, &'static str)> {
    [THINK, END_OF_THINK].into_iter().filter_map(|tag| text.find(tag).map(|at| (at, tag))).min()
}

/// Bytes at the end of `text` that a tag may begin with.
fn beginning_of_tag(text: &str) -> usize {
    let begins =
        |length: &usize| [THINK, END_OF_THINK].iter().any(|tag| tag.len() > *length && text.ends_with(&tag[..*length]));
    (1..END_OF_THINK.len()).rev().find(begins).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is shown of an answer that comes in these pieces, piece by piece; and whether it says nothing.
    fn shown(pieces: &[&str]) -> (Vec<String>, bool) {
        let mut answer = Answer::default();
        let mut out: Vec<String> = pieces.iter().filter_map(|p| answer.push(p)).collect();
        out.extend(answer.finish());
        (out, answer.says_nothing())
    }

    #[test]
    fn silence_is_recognised() {
        for text in [
            "...",
            "…",
            " ... \n",
            "\"...\"",
            "'…'",
            "“...”",
            "....",
            ".",
            "",
            "\n",
            ". . .",
            "`...`",
            "。。。",
            "......\"",
        ] {
            assert!(says_nothing(text), "{text:?}");
            assert_eq!(shown(&[text]), (vec![], true), "{text:?}");
        }
        for text in ["... and then?", "No.", "…ok", "-", "?", "...!", "0", "…\u{e9}"] {
            assert!(!says_nothing(text), "{text:?}");
        }
    }

    #[test]
    fn what_may_be_silence_is_held_back_and_no_longer() {
        assert_eq!(shown(&["..", "."]), (vec![], true));
        assert_eq!(shown(&["..", ". a", " man"]), (vec!["... a".into(), " man".into()], false));
        assert_eq!(shown(&["\"", "Hi", "...", "\""]), (vec!["\"Hi".into(), "...".into(), "\"".into()], false));
        assert_eq!(shown(&[" ", "A", " door", "..."]), (vec![" A".into(), " door".into(), "...".into()], false));
    }

    #[test]
    fn thoughts_are_dropped_however_they_are_cut() {
        for pieces in [
            &["<think>\n\n</think>\n\nA man."][..],
            &["<thi", "nk>so", " many</th", "ink>", "\n\n", "A man."],
            &["</think>\n\nA man."],
            &["<", "think", ">", "<", "/think>", "A man."],
            &["<think>a</think><think>b</think> A man."],
        ] {
            let (out, nothing) = shown(pieces);
            assert_eq!((out.concat().as_str(), nothing), ("A man.", false), "{pieces:?}");
        }
        assert_eq!(shown(&["<think>\n\n</think>\n\n", "..."]), (vec![], true));
        assert_eq!(shown(&["<think>never ends"]), (vec![], true));
    }

    #[test]
    fn tokens_of_thoughts_are_dropped_and_those_held_back_are_not() {
        // Each piece is one token, numbered from 0; whether its text is shown and which tokens go with that.
        let said = |pieces: &[&str]| {
            let (mut answer, mut unsaid, mut out) = (Answer::default(), Unsaid::default(), Vec::new());
            for (i, piece) in (0..).zip(pieces) {
                let shown = answer.push(piece);
                unsaid.take(vec![i], vec![i as f32], answer.is_thinking());
                out.extend(shown.map(|text| unsaid.with(&text)));
            }
            out.extend(answer.finish().map(|text| unsaid.with(&text)));
            out.into_iter().map(|p| (p.text, p.tokens, p.hidden.len())).collect::<Vec<_>>()
        };
        assert_eq!(
            said(&["<think>", "so", " many", "</think>", "\n\n", "A", " man"]),
            [("A".to_owned(), vec![5], 1), (" man".to_owned(), vec![6], 1)]
        );
        assert_eq!(
            said(&["..", ".", " a", " man"]),
            [("... a".to_owned(), vec![0, 1, 2], 3), (" man".to_owned(), vec![3], 1)]
        );
        assert_eq!(said(&["1 <", "th", "ree"]).iter().flat_map(|p| p.1.clone()).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(said(&["...", "."]), []);
    }

    #[test]
    fn what_only_looks_like_a_tag_is_shown_in_the_end() {
        assert_eq!(shown(&["1 <", " 2"]).0.concat(), "1 < 2");
        assert_eq!(shown(&["a <th"]).0.concat(), "a <th");
        assert_eq!(shown(&["<thinking>"]).0.concat(), "<thinking>");
    }

    #[test]
    fn control_characters_go_and_lines_stay() {
        assert_eq!(shown(&["a\u{1b}[31m\u{0}b\r\nc\u{7f}\u{9b}d"]).0.concat(), "a[31mb\ncd");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_the_text_however_it_is_cut(pieces in prop::collection::vec("[a-c.< \"\n…>/]{0,4}|<think>|</think>", 0..12)) {
            let whole = pieces.concat();
            let mut cut = Answer::default();
            let mut out: String = pieces.iter().filter_map(|p| cut.push(p)).collect();
            out.extend(cut.finish());
            let mut once = Answer::default();
            let _shown = once.push(&whole);
            let _shown = once.finish();
            prop_assert_eq!(cut.text(), once.text());
            prop_assert_eq!(out.as_str(), if cut.says_nothing() { "" } else { cut.text() });
            prop_assert_eq!(cut.is_shown(), !out.is_empty());
        }
    }
}
