"""The demo model's vocabulary: all bytes, merged words of its small language, MiniCPM-o 4.5's special tokens.

Byte-level BPE with Qwen2's pre-tokenizer, so llama.cpp reads it as it reads the published model's. `python tokens.py`
learns the merges anew from questions and answers and writes `vocabulary.json`, which is checked in because the
weights belong to it. Not here: what is said (`language.py`).
"""

import json
from collections import Counter
from pathlib import Path

import regex

HERE = Path(__file__).parent
FILE = HERE / "vocabulary.json"
MERGES = 1400
# Qwen2's pre-tokenizer (llama.cpp: src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_QWEN2).
PIECES = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The special tokens of MiniCPM-o 4.5's tokenizer, in its order.
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<think>", "</think>",
    "<image>", "</image>", "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<point>", "</point>",
    "<slice>", "</slice>", "<image_id>", "</image_id>", "<unit>", "</unit>",
    "<|audio_start|>", "<|audio|>", "<|audio_end|>", "<|spk_bos|>", "<|spk|>", "<|spk_eos|>",
    "<|tts_bos|>", "<|tts_eos|>", "<|listen|>", "<|speak|>", "<|interrupt|>",
    "<|turn_bos|>", "<|turn_eos|>", "<|chunk_eos|>", "<|chunk_bos|>", "<|chunk_tts_bos|>", "<|chunk_tts_eos|>",
    "<|tts_pad|>",
]  # fmt: skip
# Text to the tokenizer, not control: Qwen3 marks them so.
USER_DEFINED = {"<think>", "</think>"}


def byte_symbols():
    """The printable character that stands for each byte in a byte-level BPE vocabulary (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in symbols:
            symbols[byte] = chr(256 + len(symbols) - len(printable))
    return [symbols[byte] for byte in range(256)]


SYMBOLS = byte_symbols()


def spell(piece):
    return [SYMBOLS[b] for b in piece.encode()]


def may_merge(a, b):
    """Capitals stay letters unless a small letter follows, and digits stay digits: texts in pictures are read
    letter by letter."""
    whole = a + b
    if any(c.isdigit() for c in whole):
        return False
    letters = [c for c in whole if c.isascii() and c.isalpha()]
    capitals = [c for c in letters if c.isupper()]
    return not capitals or (len(capitals) == 1 and len(letters) > 1)


def learn(corpus, merges=MERGES):
    """The merges of a corpus (a list of strings), most frequent pair first; ties by spelling."""
    words = Counter()
    for text in corpus:
        words.update(PIECES.findall(text))
    words = {tuple(spell(w)): n for w, n in words.items()}
    learnt = []
    while len(learnt) < merges:
        pairs = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        pairs = [(n, p) for p, n in pairs.items() if n >= 2 and may_merge(*p)]
        if not pairs:
            break
        best = max(pairs)[1]
        learnt.append(best)
        words = {merge(word, best): n for word, n in words.items()} if len(words) else words
    return learnt


def merge(word, pair):
    out, i = [], 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


class Tokens:
    """Text to token numbers and back."""

    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.ranks = {m: i for i, m in enumerate(self.merges)}
        self.tokens = list(SYMBOLS)
        known = set(self.tokens)
        for a, b in self.merges:
            if a + b not in known:
                known.add(a + b)
                self.tokens.append(a + b)
        self.normal = len(self.tokens)
        self.tokens += SPECIAL
        while len(self.tokens) % 32:
            self.tokens.append(f"[PAD{len(self.tokens)}]")
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        self.cache = {}
        self.special = regex.compile("(" + "|".join(regex.escape(s) for s in SPECIAL) + ")")

    @classmethod
    def load(cls):
        return cls([m.split(" ") for m in json.loads(FILE.read_text())["merges"]])

    def encode(self, text):
        """Plain text; special tokens' spellings are text."""
        out = []
        for piece in PIECES.findall(text):
            ids = self.cache.get(piece)
            if ids is None:
                ids = self._piece(piece)
                if len(self.cache) < 50_000:
                    self.cache[piece] = ids
            out += ids
        return out

    def encode_special(self, text):
        """The template's own text, in which special tokens are tokens."""
        out = []
        for part in self.special.split(text):
            out += [self.ids[part]] if part in self.ids and self.special.fullmatch(part) else self.encode(part)
        return out

    def _piece(self, piece):
        word = spell(piece)
        while len(word) > 1:
            rank, i = min((self.ranks.get((a, b), 1 << 30), i) for i, (a, b) in enumerate(zip(word, word[1:])))
            if rank == 1 << 30:
                break
            word[i : i + 2] = [word[i] + word[i + 1]]
        return [self.ids[w] for w in word]

    def decode(self, ids):
        back = {s: b for b, s in enumerate(SYMBOLS)}
        return bytes(back[c] for i in ids if i < self.normal for c in self.tokens[i]).decode(errors="replace")


def prompt(tokens, system, instruction, frames, context):
    """A look's prompt in the program's layout (src/engine/template.rs), the embeddings of a frame as 64 times -1."""
    image = [tokens.ids["<image>"], *[-1] * 64, tokens.ids["</image>"]]
    return [
        *tokens.encode_special("<|im_start|>system\n"),
        *tokens.encode(system),
        *tokens.encode_special("<|im_end|>\n<|im_start|>user\n"),
        *tokens.encode(instruction + "\n"),
        *image * frames,
        *(tokens.encode("\n" + context) if context else []),
        *tokens.encode_special("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    ]


def corpus(n=60_000):
    """Questions and answers over random clips, the words around them, and all wordings once."""
    import numpy as np

    import language
    import scenes

    rng = np.random.default_rng(1)
    out = []
    for _ in range(n // 8):
        f = scenes.facts(scenes.sample(rng, int(rng.integers(1, 5)), size=(602, 336)))
        for _ in range(8):
            _, question, answer = language.ask(rng, f)
            out += [question + "\n", answer]
    for profile in language.PROFILES:
        out += [language.system(profile)] * 40
    for pair in vars(language).values():
        if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], list) and isinstance(pair[0][0], str):
            out += [w.replace("{", " ").replace("}", " ") for w in pair[0]] * 4
    out += [language.context(["a."]), language.context(["a.", "b."])] * 200
    return out


if __name__ == "__main__":
    learnt = learn(corpus())
    FILE.write_text(json.dumps({"merges": [f"{a} {b}" for a, b in learnt]}, ensure_ascii=True, indent=0) + "\n")
    t = Tokens(learnt)
    print(f"{len(learnt)} merges, {len(t.tokens)} tokens")
