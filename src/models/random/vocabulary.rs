//! A made-up vocabulary with the size of MiniCPM-o 4.5's and its special tokens at their places: every byte, some
//! English words (so that an English prompt has about as many tokens as with the real one), and numbered tokens.
//! Not here: weights (`blocks`).

use std::collections::HashSet;
use std::ops::Range;

/// llama.cpp's numbers for what a token is (`llama_token_type`).
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Qwen3's special tokens in its order (from 151,643 on), then MiniCPM-o's.
const SPECIAL: &[&str] = &[
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
    "<image>",
    "</image>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
    "<quad>",
    "</quad>",
    "<point>",
    "</point>",
    "<slice>",
    "</slice>",
    "<image_id>",
    "</image_id>",
    "<unit>",
    "</unit>",
    "<|audio_start|>",
    "<|audio|>",
    "<|audio_end|>",
    "<|spk_bos|>",
    "<|spk|>",
    "<|spk_eos|>",
    "<|tts_bos|>",
    "<|tts_eos|>",
    "<|listen|>",
    "<|speak|>",
    "<|interrupt|>",
    "<|turn_bos|>",
    "<|turn_eos|>",
    "<|chunk_eos|>",
    "<|chunk_bos|>",
    "<|chunk_tts_bos|>",
    "<|chunk_tts_eos|>",
    "<|tts_pad|>",
];
/// Text to the tokenizer, not control: Qwen3 marks them so.
const AS_TEXT: &[&str] = &["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"];

/// Words that are one token each with the space before them.
const WORDS: &str = "a about across again also an and animals answer any anything are as at away back before behind \
    below beside between big black blind blue both bright brown but by camera can car change child clear close cloud \
    colour come comment corner cross dark describe direction do does dog door down each else empty enter far first \
    floor follow for frame frames from front garden gate give go goes green grey ground hand happens has have he her \
    here his house how if in inside instruction into is it its large last latest leave left light like little live \
    long look man matter matters me moment more move moves near new next no not nothing now of off oldest on one only \
    open or other out outside over people person picture place plants play quiet rain red repeat report right road \
    room rule run runs same say scene second see sees sentence sentences sentry she short sit sits sky sleep sleeps \
    small sofa some something stand stands stop street sun table tell text than that the their them then there they \
    thing this time to towards tree two under until up vehicle video wait walk walks wall was watch watches water way \
    we wears weather well what when where which while white who wind window with without woman word words yellow you \
    your";

/// Tokens, their types, and merges.
pub struct Vocabulary {
    pub tokens: Vec<String>,
    pub types: Vec<i32>,
    pub merges: Vec<String>,
    /// The first special token; those after it, too, are never to be said.
    first_special: usize,
}

impl Vocabulary {
    /// A vocabulary of `size` tokens with the special ones from `first_special` on. There is room for all when
    /// `first_special` is at least 1,400 and 60 below `size`.
    pub fn new(size: usize, first_special: usize) -> Self {
        let symbols = byte_symbols();
        let mut tokens: Vec<String> = symbols.iter().map(char::to_string).collect();
        let mut merges = Vec::new();
        let mut known: HashSet<String> = HashSet::new();
        // Each beginning of a word is a token as well: that is how byte-pair encoding gets to the whole.
        for word in WORDS.split_ascii_whitespace() {
            let mut begun = symbols[usize::from(b' ')].to_string();
            for letter in word.chars() {
                let longer = format!("{begun}{letter}");
                if known.insert(longer.clone()) {
                    merges.push(format!("{begun} {letter}"));
                    tokens.push(longer.clone());
                }
                begun = longer;
            }
        }
        for i in tokens.len()..first_special {
            tokens.push(format!("{}tok{i}", symbols[usize::from(b' ')]));
        }
        let mut types = vec![NORMAL; tokens.len()];
        for token in SPECIAL {
            tokens.push((*token).to_owned());
            types.push(if AS_TEXT.contains(token) { USER_DEFINED } else { CONTROL });
        }
        for i in tokens.len()..size {
            tokens.push(format!("[PAD{i}]"));
            types.push(UNUSED);
        }
        Self { tokens, types, merges, first_special }
    }

    /// The number of a special token.
    pub fn special(&self, text: &str) -> u32 {
        let place = SPECIAL.iter().position(|t| *t == text).unwrap_or(0);
        (self.first_special + place) as u32
    }

    /// Tokens that a model with random weights is not to say: its answers then are whole characters, token by token,
    /// and only end when they are as long as was asked for.
    pub fn silent(&self) -> Vec<Range<u64>> {
        vec![0..32, 127..256, self.first_special as u64..self.tokens.len() as u64]
    }
}

/// The printable character that stands for each byte in a byte-level vocabulary (GPT-2's table).
fn byte_symbols() -> Vec<char> {
    let printable = |b: u32| (0x21..=0x7e).contains(&b) || (0xa1..=0xac).contains(&b) || (0xae..=0xff).contains(&b);
    let mut moved = 255;
    (0..256)
        .map(|b| {
            if printable(b) {
                b
            } else {
                moved += 1;
                moved
            }
        })
        .filter_map(char::from_u32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_have_their_places_and_all_differ() {
        let vocabulary = Vocabulary::new(151_748, 151_643);
        assert_eq!((vocabulary.tokens.len(), vocabulary.types.len()), (151_748, 151_748));
        for (text, id) in
            [("<|endoftext|>", 151_643), ("<|im_end|>", 151_645), ("<think>", 151_667), ("<image>", 151_669)]
        {
            assert_eq!((vocabulary.special(text), vocabulary.tokens[id].as_str()), (id as u32, text));
        }
        assert_eq!(vocabulary.tokens.iter().collect::<HashSet<_>>().len(), 151_748);
        assert_eq!(vocabulary.tokens[usize::from(b' ')], "\u{120}");
        assert_eq!(vocabulary.tokens[10], "\u{10a}");
        assert_eq!(vocabulary.types[151_645], CONTROL);
        let small = Vocabulary::new(2048, 1920);
        assert_eq!(small.tokens[small.special("<|im_start|>") as usize], "<|im_start|>");
        assert!(small.tokens.contains(&"\u{120}sentences".to_owned()));
    }
}
