//! What of a model's text may be spoken: its words untrusted, its marks harmless to any speech program.
//! Not here: where clauses end (`clauses`), "..." as a whole answer (`commentary`).

/// Most times that a character may follow itself.
const MOST_REPEATS: usize = 4;

/// `text` as plain words: no control or invisible characters, no emoji and pictures, nothing that could be markup
/// (SSML, `[[phonemes]]`, Markdown); space and repetition bounded. `None` when there is nothing to pronounce.
pub fn speakable(text: &str) -> Option<String> {
    let mut out = String::new();
    let (mut last, mut repeats) = (' ', 0);
    for c in text.chars() {
        let c = if is_pronounced_or_pause(c) { c } else { ' ' };
        repeats = if c == last { repeats + 1 } else { 0 };
        let most = if c == ' ' { 0 } else { MOST_REPEATS - 1 };
        if repeats <= most && !(c == ' ' && last == ' ') {
            out.push(c);
        }
        last = c;
    }
    let out = out.trim();
    out.chars().any(char::is_alphanumeric).then(|| out.to_owned())
}

fn is_pronounced_or_pause(c: char) -> bool {
    match c {
        // Markup of any kind, and what nobody would read aloud.
        '<' | '>' | '[' | ']' | '{' | '}' | '\\' | '|' | '*' | '_' | '#' | '`' | '~' | '^' => false,
        // Spaces of all kinds become the one plain space.
        c if c.is_control() || c.is_whitespace() => false,
        // Soft hyphen, zero-width and bidirectional marks, variation selectors, byte order mark, tags.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => false,
        '\u{2060}'..='\u{206f}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' => false,
        // Arrows, technical signs, frames, dingbats, emoji.
        '\u{2190}'..='\u{2bff}' | '\u{3030}' | '\u{303d}' | '\u{1f000}'..='\u{1faff}' => false,
        // Private use, not characters at all, and everything above the letters.
        '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}' | '\u{e0000}'..='\u{10ffff}' => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_stay_and_marks_go() {
        for (text, spoken) in [
            ("A man waves, and smiles.", "A man waves, and smiles."),
            ("  two\n\tlines ", "two lines"),
            ("<speak><break time=\"9s\"/>hi</speak>", "speak break time=\"9s\"/ hi /speak"),
            ("[[h@'loU]] there", "h@'loU there"),
            ("**bold** `code` # title", "bold code title"),
            ("a\u{1}100S b\u{1b}[31m", "a 100S b 31m"),
            ("It is 3.5 °C, 40 %.", "It is 3.5 °C, 40 %."),
            ("a dog 🐕‍🦺 runs ➡️", "a dog runs"),
            ("naïve café — “yes”", "naïve café — “yes”"),
            ("一只狗在跑。", "一只狗在跑。"),
            ("Собака бежит", "Собака бежит"),
            ("नमस्ते", "नमस्ते"),
            ("nooooooooo!!!!!!!!", "noooo!!!!"),
        ] {
            assert_eq!(speakable(text).as_deref(), Some(spoken), "{text:?}");
        }
    }

    #[test]
    fn what_has_no_word_in_it_is_not_spoken() {
        for text in ["", "...", "…", " \n", "?!", "🐕🐕", "—", "\"...\"", "<>", "\u{200b}", "\u{0}", "***"] {
            assert_eq!(speakable(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_it_is_plain_and_no_longer(text in "\\PC*|[\\x00-\\x7f]*|(<|>|\\[|\\]|a|\\x01){0,40}") {
            if let Some(spoken) = speakable(&text) {
                prop_assert!(spoken.chars().count() <= text.chars().count());
                prop_assert!(spoken.chars().all(is_plain));
                prop_assert!(!spoken.contains("  "));
                prop_assert_eq!(speakable(&spoken), Some(spoken));
            }
        }
    }

    fn is_plain(c: char) -> bool {
        c == ' ' || (!c.is_control() && !"<>[]{}\\|`".contains(c))
    }
}
