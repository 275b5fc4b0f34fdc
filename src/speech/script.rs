//! What of the commentary is to be said next: one utterance being spoken, one that waits, newest content wins.
//! Synchronous; time is an argument. Not here: sound (`speaker`, `audio`), where clauses end (`clauses`), chunks of tokens
//! (`token_queue`).

use super::clauses::Splitter;
use super::speakable::speakable;
use super::token_queue::TokenQueue;
use super::{HiddenStates, Piece};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most characters of an utterance that are spoken (two to three minutes); what follows is left out and counted
/// (`speech_shortened`).
pub const MAX_UTTERANCE: usize = 2_000;

/// How utterances follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// Silence between the end of one and the beginning of the next, at least.
    pub pause_after: Duration,
    /// From an utterance's first clause's being whole to its sound; one that would be later is not spoken.
    pub max_delay: Duration,
    /// How long viewers' pictures wait at first so that picture and voice agree; `None` when they do not.
    pub picture_delay: Option<Duration>,
}

/// One utterance on its way from text to voice.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) utterance: u64,
    /// When the newest frame that it is about was captured.
    pub(super) captured: Instant,
    /// When its first clause was whole, and could be spoken; before that, when its first word came.
    pub(super) written: Instant,
    words: Words,
    /// Its first clause was whole.
    begun: bool,
    shortened: bool,
    /// No more text comes.
    ended: bool,
}

/// What waits of an utterance to be handed to the voice.
#[derive(Debug)]
enum Words {
    /// For a voice that goes by text.
    Text {
        splitter: Splitter,
        /// Bounded by [`MAX_UTTERANCE`].
        clauses: VecDeque<String>,
        characters: usize,
    },
    /// For one that goes by tokens.
    Tokens(TokenQueue),
}

/// The words to be spoken next.
#[derive(Debug, PartialEq, Default)]
pub(super) struct Line {
    /// Empty only when it is the last and there is nothing left to pronounce.
    pub(super) text: String,
    pub(super) last: bool,
    /// For a voice that goes by them.
    pub(super) tokens: Vec<i32>,
    pub(super) hidden: Option<HiddenStates>,
}

#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) speaking: Option<Part>,
    pub(super) waiting: Option<Part>,
}

impl Script {
    /// More text of an utterance. A new one takes the place of the one that waits, whose number is returned.
    /// An utterance whose first piece has hidden states goes by tokens.
    pub(super) fn say(&mut self, utterance: u64, captured: Instant, piece: Piece, now: Instant) -> Option<u64> {
        if let Some(part) = self.part(utterance) {
            part.push(piece, now);
            return None;
        }
        let words = if piece.hidden.is_empty() {
            Words::Text { splitter: Splitter::default(), clauses: VecDeque::new(), characters: 0 }
        } else {
            Words::Tokens(TokenQueue::default())
        };
        let mut part = Part { utterance, captured, written: now, words, begun: false, shortened: false, ended: false };
        part.push(piece, now);
        self.waiting.replace(part).map(|old| old.utterance)
    }

    /// An utterance's text is over; true when some of it was left out.
    pub(super) fn end(&mut self, utterance: u64, now: Instant) -> bool {
        let Some(part) = self.part(utterance) else { return false };
        part.ended = true;
        match &mut part.words {
            Words::Text { splitter, clauses, .. } => clauses.extend(splitter.finish()),
            Words::Tokens(queue) => queue.end(),
        }
        part.note(now);
        part.shortened
    }

    /// True when the utterance is spoken or waits.
    pub(super) fn knows(&mut self, utterance: u64) -> bool {
        self.part(utterance).is_some()
    }

    /// Makes the one that waits the one that is spoken, if it has anything to say yet.
    pub(super) fn begin(&mut self) -> Option<&Part> {
        let has_words = self.waiting.as_ref().is_some_and(|part| part.ended || part.begun);
        if self.speaking.is_none() && has_words {
            self.speaking = self.waiting.take();
            return self.speaking.as_ref();
        }
        None
    }

    /// What the utterance that is spoken says next; `None` when that is not written yet.
    pub(super) fn line(&mut self) -> Option<Line> {
        let part = self.speaking.as_mut()?;
        match &mut part.words {
            Words::Text { clauses, .. } => {
                while let Some(clause) = clauses.pop_front() {
                    if let Some(text) = speakable(&clause) {
                        return Some(Line { text, last: part.ended && clauses.is_empty(), ..Line::default() });
                    }
                }
            }
            Words::Tokens(queue) => {
                if let Some(line) = queue.next() {
                    return Some(line);
                }
            }
        }
        part.ended.then(|| Line { last: true, ..Line::default() })
    }

    /// Forgets everything; the numbers of what is spoken and what waits.
    pub(super) fn clear(&mut self) -> (Option<u64>, Option<u64>) {
        let number = |part: Option<Part>| part.map(|p| p.utterance);
        (number(self.speaking.take()), number(self.waiting.take()))
    }

    fn part(&mut self, utterance: u64) -> Option<&mut Part> {
        [&mut self.speaking, &mut self.waiting].into_iter().flatten().find(|p| p.utterance == utterance)
    }
}

impl Part {
    fn push(&mut self, piece: Piece, now: Instant) {
        match &mut self.words {
            Words::Text { splitter, clauses, characters } => {
                let text = piece.text.as_str();
                let room = MAX_UTTERANCE - *characters;
                let end = text.char_indices().nth(room).map_or(text.len(), |(at, _)| at);
                self.shortened |= end < text.len();
                *characters += text[..end].chars().count();
                clauses.extend(splitter.push(&text[..end]));
            }
            Words::Tokens(queue) => self.shortened |= !queue.push(piece),
        }
        self.note(now);
    }

    /// However slowly a model writes, its words are not late before they can be spoken.
    fn note(&mut self, now: Instant) {
        let whole = match &self.words {
            Words::Text { clauses, .. } => !clauses.is_empty(),
            Words::Tokens(queue) => queue.has_next(),
        };
        if whole && !std::mem::replace(&mut self.begun, true) {
            self.written = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, last: bool) -> Option<Line> {
        Some(Line { text: text.to_owned(), last, ..Line::default() })
    }

    #[test]
    fn clauses_are_spoken_while_the_rest_is_written() {
        let (mut script, now) = (Script::default(), Instant::now());
        assert_eq!(script.say(1, now, "A man comes in".into(), now), None);
        assert!(script.begin().is_none(), "there is no whole clause yet");
        script.say(1, now, ". He sits".into(), now);
        assert_eq!(script.begin().unwrap().utterance, 1);
        assert_eq!(script.line(), line("A man comes in.", false));
        assert_eq!(script.line(), None);
        script.say(1, now, " down.".into(), now);
        script.end(1, now);
        assert_eq!(script.line(), line("He sits down.", true));
        assert_eq!(script.line(), line("", true));
    }

    #[test]
    fn a_slow_writer_is_not_late_for_that() {
        let (mut script, now) = (Script::default(), Instant::now());
        let later = now + Duration::from_secs(60);
        script.say(1, now, "A dog".into(), now);
        script.say(1, now, " is lying there. It".into(), later);
        script.say(1, now, " is asleep by now. ".into(), later + Duration::from_secs(60));
        assert_eq!(script.begin().unwrap().written, later);
        script.clear();
        script.say(2, now, "A dog".into(), now);
        script.end(2, later);
        assert_eq!(script.begin().unwrap().written, later);
    }

    #[test]
    fn the_newest_waits_and_an_old_one_makes_room() {
        let (mut script, now) = (Script::default(), Instant::now());
        script.say(1, now, "One is here now. ".into(), now);
        script.begin();
        assert_eq!(script.say(2, now, "Two.".into(), now), None);
        script.end(2, now);
        assert_eq!(script.say(3, now, "Three.".into(), now), Some(2));
        assert!(script.knows(1) && !script.knows(2) && script.knows(3));
        assert!(script.begin().is_none(), "one at a time");
        assert_eq!(script.clear(), (Some(1), Some(3)));
        assert_eq!(script.clear(), (None, None));
    }

    #[test]
    fn what_can_not_be_pronounced_is_passed_over() {
        let (mut script, now) = (Script::default(), Instant::now());
        script.say(1, now, "🐕🐕🐕\n\n***".into(), now);
        script.end(1, now);
        script.begin();
        assert_eq!(script.line(), line("", true));
    }

    #[test]
    fn a_text_without_end_is_cut_short() {
        let (mut script, now) = (Script::default(), Instant::now());
        for _ in 0..100 {
            script.say(1, now, "é".repeat(1_000).as_str().into(), now);
        }
        assert!(script.end(1, now));
        script.begin();
        let Some(Part { words: Words::Text { clauses, .. }, .. }) = &script.speaking else { panic!("no text") };
        let spoken = clauses.iter().map(|c| c.chars().count()).sum::<usize>();
        assert_eq!(spoken, MAX_UTTERANCE);
    }
}
