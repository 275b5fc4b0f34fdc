//! Tokens of one utterance with their hidden states, handed out in chunks of ten as soon as an eleventh is known, so that
//! the last chunk is known to be the last. Not here: when they are spoken (`script`, `speaker`), text clauses (`clauses`).

use super::script::Line;
use super::{CHUNK, HiddenStates, Piece};
use std::collections::VecDeque;

/// Most tokens of an utterance that are spoken, some two minutes; and so the bound of what waits.
pub const MAX_TOKENS: usize = 400;

/// What waits of one utterance.
#[derive(Debug, Default)]
pub(super) struct TokenQueue {
    /// A token, and the text of its piece if it is the piece's last.
    tokens: VecDeque<(i32, String)>,
    /// Row after row, one for each of `tokens`.
    hidden: VecDeque<f32>,
    width: usize,
    /// Tokens taken so far.
    taken: usize,
    /// Something of it can be pronounced.
    pronounceable: bool,
    /// What still comes is left out.
    full: bool,
    ended: bool,
}

impl TokenQueue {
    /// Takes a piece; false when some of it is left out, because the utterance is too long or the piece lacks states.
    pub(super) fn push(&mut self, piece: Piece) -> bool {
        let Piece { text, tokens, hidden } = piece;
        let width = hidden.len().checked_div(tokens.len()).unwrap_or(0);
        self.width = if self.taken == 0 { width } else { self.width };
        let fits = width == self.width && width > 0 && hidden.len() == width * tokens.len();
        if self.full || !fits || self.taken + tokens.len() > MAX_TOKENS {
            // What comes after a gap would be nonsense.
            self.full = true;
            return false;
        }
        self.taken += tokens.len();
        self.pronounceable |= text.chars().any(char::is_alphanumeric);
        self.tokens.extend(tokens.into_iter().map(|token| (token, String::new())));
        if let Some((_, last)) = self.tokens.back_mut() {
            *last = text;
        }
        self.hidden.extend(hidden);
        true
    }

    /// No more comes.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// True when there is a chunk to hand out.
    pub(super) fn has_next(&self) -> bool {
        self.pronounceable && (self.tokens.len() > CHUNK || (self.ended && !self.tokens.is_empty()))
    }

    /// The next chunk.
    pub(super) fn next(&mut self) -> Option<Line> {
        if !self.has_next() {
            return None;
        }
        let count = self.tokens.len().min(CHUNK);
        let (tokens, texts): (Vec<_>, Vec<_>) = self.tokens.drain(..count).unzip();
        let rows = self.hidden.drain(..count * self.width).collect();
        let hidden = Some(HiddenStates { width: self.width, rows });
        let last = self.ended && self.tokens.is_empty();
        Some(Line { text: texts.concat(), last, tokens, hidden })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece of tokens from `from` on, each with its number twice for a state.
    fn piece(text: &str, from: i32, count: i32) -> Piece {
        let tokens: Vec<_> = (from..from + count).collect();
        let hidden = tokens.iter().flat_map(|t| [*t as f32, *t as f32]).collect();
        Piece { text: text.to_owned(), tokens, hidden }
    }

    #[test]
    fn chunks_have_ten_tokens_and_the_last_says_so() {
        for (count, sizes) in
            [(1, vec![1]), (9, vec![9]), (10, vec![10]), (11, vec![10, 1]), (20, vec![10, 10]), (21, vec![10, 10, 1])]
        {
            let mut queue = TokenQueue::default();
            let mut lines = Vec::new();
            for i in 0..count {
                assert!(queue.push(piece("a", i, 1)));
                lines.extend(queue.next());
                assert_eq!(lines.len(), i as usize / CHUNK, "a chunk goes out with the eleventh token");
            }
            queue.end();
            lines.extend(std::iter::from_fn(|| queue.next()));
            assert_eq!(lines.iter().map(|l| l.tokens.len()).collect::<Vec<_>>(), sizes);
            assert!(lines.iter().enumerate().all(|(i, l)| l.last == (i + 1 == sizes.len())));
            let tokens: Vec<_> = lines.iter().flat_map(|l| l.tokens.clone()).collect();
            assert_eq!(tokens, (0..count).collect::<Vec<_>>());
            for line in &lines {
                let states = line.hidden.as_ref().unwrap();
                assert_eq!((states.width, states.rows.len()), (2, 2 * line.tokens.len()));
                assert!(states.rows.chunks(2).zip(&line.tokens).all(|(row, t)| row == [*t as f32, *t as f32]));
            }
            assert_eq!(lines.iter().map(|l| l.text.as_str()).collect::<String>(), "a".repeat(count as usize));
        }
    }

    #[test]
    fn a_piece_of_several_tokens_may_be_cut() {
        let mut queue = TokenQueue::default();
        queue.push(piece("一", 0, 3));
        queue.push(piece("二三四", 3, 9));
        let line = queue.next().unwrap();
        assert_eq!((line.text.as_str(), line.tokens.len()), ("一", 10));
        queue.end();
        let line = queue.next().unwrap();
        assert_eq!((line.text.as_str(), line.tokens.len(), line.last), ("二三四", 2, true));
    }

    #[test]
    fn nothing_is_handed_out_until_something_can_be_pronounced() {
        let mut queue = TokenQueue::default();
        queue.push(piece("?!", 0, 15));
        assert!(!queue.has_next() && queue.next().is_none());
        queue.push(piece(" ok", 15, 1));
        assert_eq!(queue.next().unwrap().tokens.len(), 10);
        let mut queue = TokenQueue::default();
        queue.push(piece("🐕🐕", 0, 4));
        queue.end();
        assert!(queue.next().is_none());
    }

    #[test]
    fn what_is_too_long_or_without_states_ends_it_and_is_told() {
        let mut queue = TokenQueue::default();
        assert!(queue.push(piece("a", 0, MAX_TOKENS as i32)));
        assert!(!queue.push(piece("a", 0, 1)) && !queue.push(piece("a", 0, 1)));
        let early: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert!(early.len() == MAX_TOKENS / CHUNK - 1 && early.iter().all(|line| !line.last), "it has not ended yet");
        queue.end();
        let lines: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert!(lines.len() == 1 && lines[0].last);
        let mut queue = TokenQueue::default();
        assert!(queue.push(piece("a", 0, 3)));
        assert!(!queue.push("no states".into()) && queue.next().is_none());
        queue.end();
        assert!(queue.next().unwrap().last);
    }
}
