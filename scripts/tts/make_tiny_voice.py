#!/usr/bin/env python3
"""Write a narrow voice with seeded random weights, in the published layout, for the language model that
scripts/make_tiny_model.py writes: the two together are a whole MiniCPM-o that writes and speaks, three thousand times
smaller, and means nothing. For tests of the program.

    make_tiny_voice.py --out gguf/tiny-random/speaking

Needs numpy and gguf. The same seed gives the same files. Licence MIT.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from layout import NARROW, weights, write_prompt_cache, write_weights
from make_golden import voice

# Width of the tiny language model, and more rows than its vocabulary has tokens.
LANGUAGE_WIDTH = 128
TEXT_ROWS = 512


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--width", type=int, default=LANGUAGE_WIDTH, help="of the language model (%(default)s)")
    given = arguments.parse_args()

    s = replace(NARROW, llm_width=given.width, text_rows=TEXT_ROWS, text_eos=TEXT_ROWS - 8, audio_bos=TEXT_ROWS - 13)
    w = weights(s, given.seed)
    random = np.random.default_rng([given.seed, 99])
    noise = random.standard_normal((2 * s.prompt_tokens + 200, s.mel)).astype(np.float32)
    write_weights(given.out, s, w)
    write_prompt_cache(given.out, s, voice(s, w, noise, random))
    # For make_voice.py: a prompt of another speaker, longer than the first, its mel a little short as recordings' are.
    (given.out / "voices").mkdir(exist_ok=True)
    codes, frames = 20, 37
    np.savez(
        given.out / "voices/other.npz",
        tokens=random.integers(0, s.codes, codes),
        mel=random.standard_normal((frames, s.mel)).astype(np.float32),
        speaker=random.standard_normal(s.speaker).astype(np.float32),
    )
    size = sum(p.stat().st_size for folder in ("tts", "token2wav-gguf") for p in (given.out / folder).glob("*.gguf"))
    print(f"{given.out}: a voice of {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
