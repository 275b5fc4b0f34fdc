//! Where one may begin to speak while the rest is still being written: sentences, else clauses, else so many words.
//! Not here: what of a clause can be spoken (`speakable`), when it is spoken (`speaker`).

/// Most characters of a clause, and of what waits for its end.
pub const MAX_CLAUSE: usize = 240;
/// A sentence shorter than this waits for the next one ("No.", "Mr. Smith").
const MIN_SENTENCE: usize = 12;
/// A clause that ends with a comma has at least so many characters, or its melody suffers.
const MIN_CLAUSE: usize = 48;
/// The first clause of an utterance may be shorter, so that it is heard sooner.
const MIN_FIRST_CLAUSE: usize = 24;

/// The text of one utterance as it is written, cut into clauses. Nothing is lost and nothing comes twice: all clauses
/// in a row are the text.
#[derive(Debug, Default)]
pub struct Splitter {
    /// At most [`MAX_CLAUSE`] characters.
    pending: String,
    begun: bool,
}

impl Splitter {
    /// Takes a piece and returns the clauses that are whole now.
    pub fn push(&mut self, piece: &str) -> Vec<String> {
        let mut clauses = Vec::new();
        let mut text = std::mem::take(&mut self.pending);
        text.push_str(piece);
        let mut rest = text.as_str();
        while let Some(end) = self.end_of_clause(rest) {
            let (clause, after) = rest.split_at(end);
            clauses.push(clause.to_owned());
            rest = after;
            self.begun = true;
        }
        self.pending = rest.to_owned();
        clauses
    }

    /// The text is over: what was left of it.
    pub fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.pending);
        (!rest.is_empty()).then_some(rest)
    }

    /// Byte after the first clause of `text`, if it has a whole one.
    fn end_of_clause(&self, text: &str) -> Option<usize> {
        let least_clause = if self.begun { MIN_CLAUSE } else { MIN_FIRST_CLAUSE };
        // Byte after the last space, to cut at when there is nothing better.
        let mut last_space = None;
        for (count, (at, c)) in text.char_indices().enumerate() {
            if count == MAX_CLAUSE {
                return Some(last_space.unwrap_or(at));
            }
            let after = at + c.len_utf8();
            let words = &text[..at];
            let ends = match c {
                '\n' => count >= MIN_SENTENCE,
                '。' | '！' | '？' => true,
                '，' | '；' | '：' => count >= least_clause / 3,
                c if c.is_whitespace() => match mark_before(words) {
                    Some('.' | '!' | '?' | '…') => count >= MIN_SENTENCE && !ends_with_abbreviation(words),
                    Some(',' | ';' | ':' | '—' | '–') => count >= least_clause,
                    _ => false,
                },
                _ => false,
            };
            if ends {
                return Some(after);
            }
            if c.is_whitespace() {
                last_space = Some(after);
            }
        }
        None
    }
}

/// The last character that is no quotation mark or bracket.
fn mark_before(words: &str) -> Option<char> {
    words.chars().rev().find(|c| !matches!(c, '"' | '\'' | '”' | '’' | '»' | '“' | '‘' | ')' | ']'))
}

/// "Mr.", "e.g.", "J.": a dot that ends no sentence.
fn ends_with_abbreviation(words: &str) -> bool {
    let Some(word) = words.rsplit(char::is_whitespace).next().and_then(|w| w.strip_suffix('.')) else { return false };
    let short_name = word.chars().count() <= 2 && word.chars().next().is_some_and(char::is_uppercase);
    short_name || word.contains('.') || ["Mrs", "Prof", "vs", "approx", "etc"].contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&str]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut clauses: Vec<_> = pieces.iter().flat_map(|p| splitter.push(p)).collect();
        clauses.extend(splitter.finish());
        clauses
    }

    #[test]
    fn sentences_and_long_clauses_come_alone() {
        assert_eq!(
            split(&["A man in a red coat waves, then he turns away. A dog follows him."]),
            ["A man in a red coat waves, ", "then he turns away. ", "A dog follows him."]
        );
        assert_eq!(split(&["No. It is quiet. Yes."]), ["No. It is quiet. ", "Yes."]);
        assert_eq!(split(&["Mr. Smith, e.g. with 3.5 apples. Good."]), ["Mr. Smith, e.g. with 3.5 apples. ", "Good."]);
        assert_eq!(split(&["She said: \"Come in here.\" He came."]), ["She said: \"Come in here.\" ", "He came."]);
        assert_eq!(split(&["一只狗在跑。它停了。"]), ["一只狗在跑。", "它停了。"]);
        assert_eq!(split(&[""]), [""; 0]);
    }

    #[test]
    fn a_sentence_is_whole_once_something_follows_it() {
        let mut splitter = Splitter::default();
        assert!(splitter.push("The score is 3.").is_empty());
        assert!(splitter.push("5 now").is_empty());
        assert_eq!(splitter.push("."), [""; 0]);
        assert_eq!(splitter.push(" Next"), ["The score is 3.5 now. "]);
        assert_eq!(splitter.push(" one."), [""; 0]);
        assert_eq!(splitter.finish().as_deref(), Some("Next one."));
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn a_text_without_a_space_is_cut_by_force() {
        let clauses = split(&[&"x".repeat(100_000)]);
        assert!(clauses.iter().all(|c| c.len() <= MAX_CLAUSE));
        assert_eq!(clauses.concat().len(), 100_000);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_said_twice_however_it_is_cut(
            pieces in prop::collection::vec("[a-cA. ,!?。，\n\"é🐕]{0,40}|[a-z]{0,300}|([a-z]{1,9} ){0,60}", 0..12),
        ) {
            let mut splitter = Splitter::default();
            let mut clauses = Vec::new();
            for piece in &pieces {
                clauses.extend(splitter.push(piece));
                prop_assert!(splitter.pending.chars().count() <= MAX_CLAUSE);
            }
            clauses.extend(splitter.finish());
            prop_assert_eq!(clauses.concat(), pieces.concat());
            prop_assert!(clauses.iter().all(|c| !c.is_empty() && c.chars().count() <= MAX_CLAUSE));
            // The cuts depend on the text, not on how it came.
            let mut once = Splitter::default();
            let mut whole = once.push(&pieces.concat());
            whole.extend(once.finish());
            prop_assert_eq!(clauses, whole);
        }
    }
}
