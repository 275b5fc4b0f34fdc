//! Which text tokens go to the speech model together: ten at a time, and only once an eleventh is known, so that the last
//! chunk is known to be the last. Source: `generate` of MiniCPM-o 4.5's own Python (text chunks of the streaming mode).

use crate::error::{Error, Result};
use std::collections::VecDeque;

pub use crate::speech::CHUNK;

/// Tokens with their hidden states; rows of `width` numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct TextChunk {
    pub tokens: Vec<i32>,
    pub hidden: Vec<f32>,
    /// The reply ends with it.
    pub last: bool,
}

/// Text tokens that wait for their chunk.
#[derive(Debug, Clone, Default)]
pub struct Chunker {
    tokens: VecDeque<i32>,
    hidden: VecDeque<f32>,
}

impl Chunker {
    /// Takes tokens and hidden states. The states may come later than their tokens, never earlier.
    ///
    /// # Errors
    /// `speech_input` when there are more states than tokens, or part of one.
    pub fn push(&mut self, tokens: &[i32], hidden: &[f32], width: usize) -> Result<()> {
        let rows = (self.hidden.len() + hidden.len()) / width;
        if !hidden.len().is_multiple_of(width) || rows > self.tokens.len() + tokens.len() {
            let waiting = self.tokens.len() + tokens.len();
            let what =
                format!("{} numbers of hidden states, of which a row has {width}, for {waiting} tokens", hidden.len());
            return Err(Error::internal("speech_input", what));
        }
        self.tokens.extend(tokens);
        self.hidden.extend(hidden);
        Ok(())
    }

    /// The next chunk, if one can be made; `ended` when no more tokens will come.
    ///
    /// # Errors
    /// `speech_input` when the reply has ended and states are missing.
    pub fn next(&mut self, ended: bool, width: usize) -> Result<Option<TextChunk>> {
        let rows = self.hidden.len() / width;
        if ended && rows != self.tokens.len() {
            let what = format!("the reply ended with {rows} hidden states for {} tokens", self.tokens.len());
            return Err(Error::internal("speech_input", what));
        }
        let more = self.tokens.len() > CHUNK;
        let take = if more { CHUNK } else { self.tokens.len() };
        if take == 0 || rows < take || !(more || ended) {
            return Ok(None);
        }
        let tokens = self.tokens.drain(..take).collect();
        let hidden = self.hidden.drain(..take * width).collect();
        Ok(Some(TextChunk { tokens, hidden, last: !more }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of the chunks of a reply that comes token by token, and whether the last says so.
    fn plan(reply: usize, late: bool) -> (Vec<usize>, Vec<bool>) {
        let mut chunker = Chunker::default();
        let mut chunks = Vec::new();
        let mut early = Vec::new();
        for i in 0..reply {
            let hidden = [i as f32, 0.0];
            if late {
                // The state of a token is known one token later.
                chunker.push(&[i as i32], &[], 2).unwrap();
                chunks.extend(chunker.next(false, 2).unwrap());
                chunker.push(&[], &hidden, 2).unwrap();
            } else {
                chunker.push(&[i as i32], &hidden, 2).unwrap();
            }
            chunks.extend(chunker.next(false, 2).unwrap());
            early.push(chunks.len());
        }
        while let Some(chunk) = chunker.next(true, 2).unwrap() {
            chunks.push(chunk);
        }
        // A chunk goes out with the eleventh token, not later.
        for (i, made) in early.iter().enumerate() {
            assert_eq!(*made, i / CHUNK, "after {} tokens", i + 1);
        }
        let tokens: Vec<_> = chunks.iter().flat_map(|c| c.tokens.clone()).collect();
        assert_eq!(tokens, (0..reply as i32).collect::<Vec<_>>());
        let states: Vec<_> =
            chunks.iter().flat_map(|c| c.hidden.chunks(2).map(|h| h[0] as i32).collect::<Vec<_>>()).collect();
        assert_eq!(states, tokens);
        (chunks.iter().map(|c| c.tokens.len()).collect(), chunks.iter().map(|c| c.last).collect())
    }

    #[test]
    fn replies_of_all_lengths_end_with_a_chunk_that_says_so() {
        for late in [false, true] {
            for (reply, sizes) in [
                (0, vec![]),
                (1, vec![1]),
                (9, vec![9]),
                (10, vec![10]),
                (11, vec![10, 1]),
                (20, vec![10, 10]),
                (21, vec![10, 10, 1]),
            ] {
                let (got, last) = plan(reply, late);
                assert_eq!(got, sizes, "{reply} tokens");
                assert_eq!(last.iter().filter(|l| **l).count(), usize::from(reply > 0));
                assert!(last.last().copied().unwrap_or(true));
            }
        }
    }

    #[test]
    fn states_without_tokens_and_tokens_without_states_are_errors() {
        let mut chunker = Chunker::default();
        assert_eq!(chunker.push(&[1], &[0.0; 3], 2).unwrap_err().code, "speech_input");
        assert_eq!(chunker.push(&[1], &[0.0; 4], 2).unwrap_err().code, "speech_input");
        chunker.push(&[1], &[], 2).unwrap();
        assert_eq!(chunker.next(true, 2).unwrap_err().code, "speech_input");
    }
}
