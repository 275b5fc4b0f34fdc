//! What of the commentary is to be said next: one utterance being spoken, one that waits, newest content wins.
//! Synchronous; time is an argument. Not here: sound (`speaker`, `audio`), where clauses end (`clauses`).

use super::clauses::Splitter;
use super::speakable::speakable;
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
}

/// One utterance on its way from text to voice.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) utterance: u64,
    /// When the newest frame that it is about was captured.
    pub(super) captured: Instant,
    /// When its first clause was whole, and could be spoken; before that, when its first word came.
    pub(super) written: Instant,
    splitter: Splitter,
    /// Bounded by [`MAX_UTTERANCE`].
    clauses: VecDeque<String>,
    characters: usize,
    /// Its first clause was whole.
    begun: bool,
    shortened: bool,
    /// No more text comes.
    ended: bool,
}

/// The words to be spoken next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Empty only when it is the last and there is nothing left to pronounce.
    pub(super) text: String,
    pub(super) last: bool,
}

#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) speaking: Option<Part>,
    pub(super) waiting: Option<Part>,
}

impl Script {
    /// More text of an utterance. A new one takes the place of the one that waits, whose number is returned.
    pub(super) fn say(&mut self, utterance: u64, captured: Instant, text: &str, now: Instant) -> Option<u64> {
        if let Some(part) = self.part(utterance) {
            part.push(text, now);
            return None;
        }
        let mut part = Part {
            utterance,
            captured,
            written: now,
            splitter: Splitter::default(),
            clauses: VecDeque::new(),
            characters: 0,
            begun: false,
            shortened: false,
            ended: false,
        };
        part.push(text, now);
        self.waiting.replace(part).map(|old| old.utterance)
    }

    /// An utterance's text is over; true when some of it was left out.
    pub(super) fn end(&mut self, utterance: u64, now: Instant) -> bool {
        let Some(part) = self.part(utterance) else { return false };
        part.ended = true;
        let rest = part.splitter.finish();
        part.take(rest, now);
        part.shortened
    }

    /// True when the utterance is spoken or waits.
    pub(super) fn knows(&mut self, utterance: u64) -> bool {
        self.part(utterance).is_some()
    }

    /// Makes the one that waits the one that is spoken, if it has anything to say yet.
    pub(super) fn begin(&mut self) -> Option<&Part> {
        let has_words = self.waiting.as_ref().is_some_and(|part| part.ended || !part.clauses.is_empty());
        if self.speaking.is_none() && has_words {
            self.speaking = self.waiting.take();
            return self.speaking.as_ref();
        }
        None
    }

    /// What the utterance that is spoken says next; `None` when that is not written yet.
    pub(super) fn line(&mut self) -> Option<Line> {
        let part = self.speaking.as_mut()?;
        while let Some(clause) = part.clauses.pop_front() {
            if let Some(text) = speakable(&clause) {
                return Some(Line { text, last: part.ended && part.clauses.is_empty() });
            }
        }
        part.ended.then(|| Line { text: String::new(), last: true })
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
    fn push(&mut self, text: &str, now: Instant) {
        let room = MAX_UTTERANCE - self.characters;
        let end = text.char_indices().nth(room).map_or(text.len(), |(at, _)| at);
        self.shortened |= end < text.len();
        self.characters += text[..end].chars().count();
        let clauses = self.splitter.push(&text[..end]);
        self.take(clauses, now);
    }

    fn take(&mut self, clauses: impl IntoIterator<Item = String>, now: Instant) {
        for clause in clauses {
            // However slowly a model writes, its words are not late before they can be spoken.
            if !std::mem::replace(&mut self.begun, true) {
                self.written = now;
            }
            self.clauses.push_back(clause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, last: bool) -> Option<Line> {
        Some(Line { text: text.to_owned(), last })
    }

    #[test]
    fn clauses_are_spoken_while_the_rest_is_written() {
        let (mut script, now) = (Script::default(), Instant::now());
        assert_eq!(script.say(1, now, "A man comes in", now), None);
        assert!(script.begin().is_none(), "there is no whole clause yet");
        script.say(1, now, ". He sits", now);
        assert_eq!(script.begin().unwrap().utterance, 1);
        assert_eq!(script.line(), line("A man comes in.", false));
        assert_eq!(script.line(), None);
        script.say(1, now, " down.", now);
        script.end(1, now);
        assert_eq!(script.line(), line("He sits down.", true));
        assert_eq!(script.line(), line("", true));
    }

    #[test]
    fn a_slow_writer_is_not_late_for_that() {
        let (mut script, now) = (Script::default(), Instant::now());
        let later = now + Duration::from_secs(60);
        script.say(1, now, "A dog", now);
        script.say(1, now, " is lying there. It", later);
        script.say(1, now, " is asleep by now. ", later + Duration::from_secs(60));
        assert_eq!(script.begin().unwrap().written, later);
        script.clear();
        script.say(2, now, "A dog", now);
        script.end(2, later);
        assert_eq!(script.begin().unwrap().written, later);
    }

    #[test]
    fn the_newest_waits_and_an_old_one_makes_room() {
        let (mut script, now) = (Script::default(), Instant::now());
        script.say(1, now, "One is here now. ", now);
        script.begin();
        assert_eq!(script.say(2, now, "Two.", now), None);
        script.end(2, now);
        assert_eq!(script.say(3, now, "Three.", now), Some(2));
        assert!(script.knows(1) && !script.knows(2) && script.knows(3));
        assert!(script.begin().is_none(), "one at a time");
        assert_eq!(script.clear(), (Some(1), Some(3)));
        assert_eq!(script.clear(), (None, None));
    }

    #[test]
    fn what_can_not_be_pronounced_is_passed_over() {
        let (mut script, now) = (Script::default(), Instant::now());
        script.say(1, now, "🐕🐕🐕\n\n***", now);
        script.end(1, now);
        script.begin();
        assert_eq!(script.line(), line("", true));
    }

    #[test]
    fn a_text_without_end_is_cut_short() {
        let (mut script, now) = (Script::default(), Instant::now());
        for _ in 0..100 {
            script.say(1, now, &"é".repeat(1_000), now);
        }
        assert!(script.end(1, now));
        script.begin();
        let spoken = script.speaking.as_ref().unwrap().clauses.iter().map(|c| c.chars().count()).sum::<usize>();
        assert_eq!(spoken, MAX_UTTERANCE);
    }
}
