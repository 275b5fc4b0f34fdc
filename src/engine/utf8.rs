//! Bytes of tokens to whole characters: a character split across tokens waits for its rest.
//! Not here: which tokens there are (`ffi`).

/// Collects bytes and gives back whole characters.
#[derive(Debug, Default)]
pub struct Utf8Stream {
    rest: Vec<u8>,
}

impl Utf8Stream {
    /// Adds bytes; returns what is complete now. Bytes that can never become a character turn into U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let mut text = String::new();
        let mut kept = 0;
        for chunk in self.rest.utf8_chunks() {
            text.push_str(chunk.valid());
            kept += chunk.valid().len();
            let invalid = chunk.invalid();
            if kept + invalid.len() == self.rest.len() && could_grow(invalid) {
                break;
            }
            if !invalid.is_empty() {
                text.push('\u{FFFD}');
            }
            kept += invalid.len();
        }
        self.rest.drain(..kept);
        text
    }

    /// What is left at the end of an answer.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.rest).into_owned();
        self.rest.clear();
        text
    }
}

/// True when the bytes may be the beginning of one character.
fn could_grow(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(e) if e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_split_gives_the_text_back(text in "\\PC{0,40}", cuts in proptest::collection::vec(0usize..200, 0..20)) {
            let bytes = text.as_bytes();
            let mut at: Vec<_> = cuts.iter().map(|c| c % (bytes.len() + 1)).chain([0, bytes.len()]).collect();
            at.sort_unstable();
            let mut stream = Utf8Stream::default();
            let mut out: String = at.windows(2).map(|w| stream.push(&bytes[w[0]..w[1]])).collect();
            out.push_str(&stream.finish());
            prop_assert_eq!(out, text);
        }

        #[test]
        fn any_bytes_end_as_the_standard_library_would(bytes in proptest::collection::vec(any::<u8>(), 0..60), cut in 0usize..60) {
            let cut = cut.min(bytes.len());
            let mut stream = Utf8Stream::default();
            let mut out = stream.push(&bytes[..cut]);
            out.push_str(&stream.push(&bytes[cut..]));
            out.push_str(&stream.finish());
            prop_assert_eq!(out, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
