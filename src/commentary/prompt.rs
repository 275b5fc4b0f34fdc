//! The words around the frames: who the model is, how it is to watch, what it said last.
//! Not here: chat templates and tokens (`engine`), the profiles' own words (`profiles`).

use super::profiles::Profile;
use crate::engine::Prompt;
use std::collections::VecDeque;

/// Most answers that the model is reminded of.
const ANSWERS: usize = 3;
/// Most characters of them together.
const CHARACTERS: usize = 600;

const WHO: &str =
    "You are Vidette, a sentry who watches a live video. Each time you see its latest frames, the oldest first.";
const HOUSE_RULE: &str = "When there is nothing new to say, answer \"...\" and nothing else.";

/// Everything but the frames. `system` and `instruction` are the same from look to look, as the engine keeps them.
pub fn prompt(profile: &Profile, instruction: &str, history: &History) -> Prompt {
    Prompt {
        system: format!("{WHO} {} {HOUSE_RULE}", profile.system),
        instruction: instruction.to_owned(),
        context: history.context(),
    }
}

/// The last few answers under the instruction in force. The oldest go first when a bound is reached.
/// They are the model's own words and come back to it: the engine takes them as plain text.
#[derive(Debug, Default)]
pub struct History(VecDeque<String>);

impl History {
    /// Remembers an answer, or the beginning of it when it is very long.
    pub fn push(&mut self, answer: &str) {
        let answer = answer.trim();
        let kept = match answer.char_indices().nth(CHARACTERS - 1) {
            // One place is for the ellipsis.
            Some((at, last)) if at + last.len_utf8() < answer.len() => format!("{}…", &answer[..at]),
            _ => answer.to_owned(),
        };
        self.0.push_back(kept);
        while self.0.len() > ANSWERS || self.0.iter().map(|a| a.chars().count()).sum::<usize>() > CHARACTERS {
            self.0.pop_front();
        }
    }

    /// Forgets everything, as under a new instruction.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn context(&self) -> String {
        let all = self.0.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        match self.0.len() {
            0 => String::new(),
            1 => format!("Your last comment was: {all}; do not repeat it."),
            _ => format!("Your last comments were, the newest last:\n{all}\nDo not repeat them."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commentary::PROFILES;
    use proptest::prelude::*;

    #[test]
    fn the_prompt_has_who_how_and_what() {
        let mut history = History::default();
        assert_eq!(prompt(&PROFILES[0], "Watch the door.", &history).context, "");
        history.push(" A man. ");
        for profile in PROFILES {
            let prompt = prompt(profile, "Watch the door.", &history);
            assert!(prompt.system.contains(profile.system) && prompt.system.ends_with(HOUSE_RULE));
            assert_eq!(prompt.instruction, "Watch the door.");
            assert_eq!(prompt.context, "Your last comment was: A man.; do not repeat it.");
        }
        history.push("A dog.");
        assert_eq!(history.context(), "Your last comments were, the newest last:\nA man.\nA dog.\nDo not repeat them.");
        history.clear();
        assert_eq!(history.context(), "");
    }

    proptest! {
        #[test]
        fn history_is_bounded_and_keeps_the_newest(answers in prop::collection::vec("[aé…]{0,700}", 1..8)) {
            let mut history = History::default();
            for answer in &answers {
                history.push(answer);
                prop_assert!(history.0.len() <= ANSWERS);
                prop_assert!(history.0.iter().map(|a| a.chars().count()).sum::<usize>() <= CHARACTERS);
                let newest = history.0.back().unwrap();
                prop_assert!(newest == answer || (answer.chars().count() > CHARACTERS && newest.chars().count() == CHARACTERS));
            }
        }
    }
}
