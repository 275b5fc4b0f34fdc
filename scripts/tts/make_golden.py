#!/usr/bin/env python3
"""Write a voice with seeded random weights, in the published layout of MiniCPM-o 4.5, and what every stage of the
numpy reference makes of it:

    OUT/tts/…  OUT/token2wav-gguf/…     the file set (layout.py)
    OUT/golden.gguf                     inputs and results, stage by stage
    OUT/variants/…                      the speech model once more, with 16-bit matrices and the head the other way round

    make_golden.py --out tests/data/tts                    the narrow and shallow set of the tests
    make_golden.py --out /some/folder --full --chunks 3    published widths and depths, about 2 GB

It says nothing: the weights are random. Needs numpy and gguf. The same seed gives the same weights. Licence MIT.
"""

import argparse
from pathlib import Path

import numpy as np
from layout import FULL, NARROW, TTS, f16_matrices, read, tts_entries, weights, write, write_prompt_cache, write_weights
from reference import SpeechModel, Stream, conditions, harmonics, probabilities, prompt_cache

F = np.float32


def voice(s, w, noise, random):
    tokens = random.integers(0, s.codes, s.prompt_tokens + 3)
    mel = random.standard_normal((2 * s.prompt_tokens, s.mel)).astype(F)
    speaker = random.standard_normal(s.speaker).astype(F)
    return prompt_cache(w["encoder"], w["flow_extra"], w["flow_matching"], s.steps, tokens, mel, speaker, noise)


def conditions_golden(s, w, random):
    tokens = random.integers(0, s.text_rows, 16)
    hidden = random.standard_normal((16, s.llm_width)).astype(F) * F(3)
    rows = conditions(w["tts"]["emb_text.weight"], w["projector"], tokens, hidden)
    return {"cond.tokens": tokens, "cond.hidden": hidden, "cond.rows": rows}


def speech_model_golden(s, w, random, rows):
    """Two chunks of conditions, codes after each; the cache goes on. Logits after every decode."""
    model, text = SpeechModel(w["tts"], s.tts_heads), w["tts"]["emb_text.weight"]
    first = np.concatenate([rows[:10], text[[s.audio_bos]]])
    second = np.concatenate([rows[10:], text[[s.text_eos, s.audio_bos]]])
    codes = random.integers(0, s.codes, 12)
    logits = [model.decode(first)] + [model.decode_code(c) for c in codes[:8]]
    logits += [model.decode(second)] + [model.decode_code(c) for c in codes[8:]]
    return {"lm.first": first, "lm.second": second, "lm.codes": codes, "lm.logits": np.stack(logits)}


def sampler_golden(random):
    """logits, history and probabilities: flat, peaked (three must stay), repeated codes that are still likely after it,
    the same below zero, first code, more than 25."""
    cases = {}
    spread = lambda scale, n=80: random.standard_normal(n).astype(F) * F(scale)
    history = random.integers(0, 80, 30)
    repeated = np.array([5, 7, 5, 9, 5, 7, 5, 5, 60, 61, 5, 7, 5, 5, 5, 7, 9, 5])
    peaked = spread(1.0)
    peaked[11] = 30.0
    often = spread(2.0)
    often[[5, 7, 9]] = [6.0, 5.5, 5.0]
    for name, logits, past in (
        ("flat", spread(0.1), history), ("wide", spread(3.0), history), ("peaked", peaked, history[:3]),
        ("repeated", often, repeated), ("below", often - F(9), repeated), ("first", spread(1.0), history[:0]), ("short", spread(2.0), history[:1]),
    ):  # fmt: skip
        cases[f"sample.{name}.logits"] = logits
        cases[f"sample.{name}.history"] = past if len(past) else np.array([-1])
        cases[f"sample.{name}.probabilities"] = probabilities(logits.copy(), past, first=len(past) == 0)
    return cases


def harmonics_golden(random):
    f0 = np.array([0.0, 9.5, 110.0, 220.5, 180.0, 12.0], F)
    noise = random.standard_normal((480 * len(f0), 9)).astype(F)
    # Every seventh sample is enough to hold against.
    return {"sines.f0": f0, "sines.noise": noise, "sines.every7": harmonics(f0, noise)[::7]}


def stream_golden(s, w, cache, noise, random, codes):
    out = {}
    keep = {"mu", "mel", "f0", "source", "raw", "velocity"}

    def see(name, value):
        kind = name.split(".")[1]
        if kind in keep:
            out[name] = np.asarray(value, F)
        if kind == "state":
            out[f"{name}.flow_att"] = value.flow_state["att"][-1][1][-1]
            out[f"{name}.flow_cnn"] = value.flow_state["cnn"][-1][1][-1]
            out[f"{name}.slow"], out[f"{name}.fast"] = value.state["slow"][-1], value.state["fast"][-1]

    stream = Stream(w["encoder"], w["flow_extra"], w["flow_matching"], w["hifigan2"], cache, noise, see)
    spoken = np.concatenate([[s.silence] * 3, random.integers(0, s.codes, codes)])
    wave = stream.speak(spoken)
    assert len(wave) == 960 * len(spoken), (len(wave), len(spoken))
    out["speaker"] = stream.speaker
    # Of the states only those after the second chunk, after the first trim and after the sixth chunk are kept.
    for name in [n for n in out if ".state." in n and n.split(".")[0] not in ("1", "2", "4")]:
        del out[name]
    voiced = np.concatenate([v for n, v in out.items() if n.endswith(".f0")])
    report = f"{stream.chunk} chunks, {len(wave)} samples, rms {np.sqrt((wave**2).mean()):.4f}, peak {np.abs(wave).max():.3f}, "
    report += f"mel ±{max(np.abs(v).max() for n, v in out.items() if n.endswith('.mel')):.2f}, voiced {(voiced > 10).mean():.2f}"
    print(report)
    return out | {"codes": spoken, "wave": wave}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--full", action="store_true", help="published widths and depths")
    arguments.add_argument("--chunks", type=int, default=6)
    arguments.add_argument("--half", action="store_true", help="16-bit matrices in the speech model, as published")
    given = arguments.parse_args()

    s = FULL if given.full else NARROW
    w = weights(s, given.seed)
    random = np.random.default_rng([given.seed, 99])
    frames = 2 * s.prompt_tokens + 200
    noise = random.standard_normal((frames, s.mel)).astype(F)
    cache = voice(s, w, noise, random)
    write_weights(given.out, s, w, given.half)
    write_prompt_cache(given.out, s, cache)
    if given.half:
        w["tts"] = read(given.out / TTS)
    if not given.full:
        other = f16_matrices(w["tts"] | {"head_code.0.weight": w["tts"]["head_code.0.weight"].T})
        write(given.out / "variants" / "tts-head-as-is-F16.gguf", "llama", other, tts_entries(s))

    golden = conditions_golden(s, w, random)
    golden |= speech_model_golden(s, w, random, golden["cond.rows"]) | sampler_golden(random) | harmonics_golden(random)
    # 18 codes left for the last window, silence included.
    golden |= stream_golden(s, w, cache, noise, random, 25 * (given.chunks - 1) + 15) | {"noise": noise}
    typed = {n: v.astype(np.int32 if v.dtype.kind == "i" else F) for n, v in golden.items()}
    write(given.out / "golden.gguf", "golden", typed)
    size = sum(p.stat().st_size for p in given.out.rglob("*.gguf"))
    print(f"{given.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
