"""Draws the fixed clips of `tests/demo_model.rs` and writes down what is asked about them and the right answers.

    python fixed_clips.py ../../tests/data/demo

The same versions of resvg, Pillow and the fonts give the same bytes. Not here: the evaluation (`evaluate.py`).
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import language
import scenes
import svg_scenes
import timeline

SIZES = [(640, 360), (640, 360), (640, 360), (480, 360), (400, 400), (360, 640)]
SKILLS = [s for s in language.SKILLS if s != "other"]
PER_SKILL = 5


class Writer:
    def __init__(self, folder):
        self.folder, self.lines, self.clips = folder, [], 0

    def clip(self, clip, rough=False):
        """Saves a clip's pictures and returns their names; frames that are alike are one file."""
        self.clips += 1
        names, of = [], {}
        for i, (svg, picture) in enumerate(
            zip(svg_scenes.draw(clip), svg_scenes.pictures(clip, rough=rough), strict=True)
        ):
            if svg not in of or rough:
                of[svg] = f"{self.clips:02}-{i}.jpg"
                Image.fromarray(picture).save(self.folder / of[svg], "JPEG", quality=85, optimize=True)
            names.append(of[svg])
        return names

    def ask(self, group, frames, question, exchange=False, context=()):
        skill, instruction, answer = question
        line = {"group": group, "skill": skill, "frames": frames, "instruction": instruction, "answer": answer}
        if context:
            line["context"] = list(context)
        if exchange:
            line["exchange"] = True
        self.lines.append(line)


def doubtful(text):
    """O and 0, I and 1 look too much alike, unless all the others are digits as well."""
    return text and not text["clock"] and any(c in "OI01" for c in text["characters"])


def drawn(rng, frames, fits=lambda clip: True, kind="scene"):
    size = SIZES[int(rng.integers(len(SIZES)))]
    while True:
        clip = scenes.sample(rng, frames, size=size, kind=kind)
        if fits(clip) and not doubtful(clip["text"]):
            return clip


def pair(rng, f, g, skill, differs=True):
    """One question about two sets of facts and both answers; None when none is found."""
    for _ in range(300):
        seed = int(rng.integers(1 << 31))
        one, other = (language.ask(np.random.default_rng(seed), x, skill, seen=seed % 2 == 0, augment=False) for x in (f, g))
        if one[1] == other[1] and (one[2] != other[2] or not differs):
            return one, other
    return None


def pairs(rng, f, g, skills, differs=True):
    found = [pair(rng, f, g, skill, differs) for skill in skills]
    return None if None in found else found


def worth(clip):
    return len(clip["objects"]) >= 2 or clip["text"]


def plain(rng, out):
    """Each skill `PER_SKILL` times and more, on general clips; the wordings alternate between seen and held out."""
    left = [s for s in SKILLS for _ in range(PER_SKILL)]
    kinds = ["scene"] * 19 + ["blank", "bars"]
    for n, kind in enumerate(kinds):
        fits = worth if kind == "scene" else lambda clip: True
        if n in (3, 8, 13):  # clocks
            fits = lambda clip: clip["text"] and clip["text"]["clock"]  # noqa: E731
        if n in (5, 15):
            fits = lambda clip: clip["daytime"] and worth(clip)  # noqa: E731
        clip = drawn(rng, 1 if n == 6 else 4, fits, kind)
        f = scenes.facts(clip)
        frames = out.clip(clip, rough=n % 5 == 4)
        # The skills that tell most about this clip first.
        order = sorted(left, key=lambda s: -f["interest"].get(s, 1.0) * rng.uniform(0.5, 1))
        chosen = list(dict.fromkeys(order))[: 5 if n < len(kinds) - 1 else len(order)]
        for i, skill in enumerate(chosen):
            left.remove(skill)
            out.ask("plain", frames, language.ask(rng, f, skill, seen=i % 2 == 0, augment=False))


def exchange(rng, out):
    """Pairs: the same question about the clip as it is and with red and blue exchanged."""
    named = {"red", "blue", "yellow", "cyan"}
    fits = lambda c: timeline.can_exchange(c) and worth(c) and any(  # noqa: E731
        o["colours"][-1] in named and o["visible"][-1] for o in c["objects"])  # fmt: skip
    done = 0
    while done < 6:
        clip = drawn(rng, 2, fits)
        found = pairs(rng, scenes.facts(clip), scenes.facts(timeline.exchanged(clip)), ("describe", "colour"))
        if not found:
            continue
        done += 1
        frames = out.clip(clip)
        for one, other in found:
            out.ask("exchange", frames, one)
            out.ask("exchange", frames, other, exchange=True)


def backwards(rng, out):
    """Pairs: the same question about the clip as it is and with its last frame first."""
    lively = lambda c: len(c["objects"]) < 4 and any(  # noqa: E731
        o["motion"] or o["event"] in ("appear", "disappear") for o in c["objects"])  # fmt: skip
    done = 0
    while done < 6:
        fits = lively if done < 4 else lambda c: lively(c) and not any(o["motion"] for o in c["objects"])
        clip = drawn(rng, 4, fits)
        f, g = scenes.facts(clip), scenes.facts(timeline.backwards(clip))
        found = pairs(rng, f, g, ("changed", "moving") if done < 4 else ("changed",), differs=False)
        if found[0][0][2] == found[0][1][2]:
            continue
        done += 1
        frames = out.clip(clip)
        for one, other in found:
            out.ask("backwards", frames, one)
            out.ask("backwards", frames[::-1], other)


def vigils(rng, out):
    """Windows of four frames over longer clips: quiet ones, and the first in which the thing is."""
    for _ in range(5):
        clip, target, start = timeline.vigil(rng, lambda r, n: drawn(r, n))
        frames = out.clip(clip)
        p = language.Picker(rng, seen=bool(rng.random() < 0.5))
        words = language.article(language.words_of(p, target))
        instruction = p.wording(language.WARN).format(a=words)
        for newest in range(3, start + 1):
            f = scenes.facts(timeline.window(clip, newest - 3, 4))
            found = language.matching(f["here"], target)
            answer = language.NOTHING_NEW
            if found:
                answer = f"Warning: {language.article(language.name(found[0]))} "
                answer += f"{language.place_words(found[0]['place'])}."
            group = "event" if found else "quiet"
            out.ask(group, frames[newest - 3 : newest + 1], ("warn", instruction, answer))


def others(rng, out):
    """Questions about the real world."""
    clip = drawn(rng, 2, worth)
    frames = out.clip(clip)
    f = scenes.facts(clip)
    for i in range(8):
        out.ask("other", frames, language.ask(rng, f, "other", seen=i % 2 == 0, augment=False))


def remembered(rng, out):
    """Reminded of what was said of another scene, and of what was said of this one."""
    clips = [drawn(rng, 4, worth) for _ in range(4)]
    frames = [out.clip(clip) for clip in clips]
    for i, clip in enumerate(clips):
        f, g = scenes.facts(clip), scenes.facts(clips[i - 1])
        for one, other in pairs(rng, f, g, ("describe", "count", "where")):
            out.ask("elsewhere", frames[i], one, context=[other[2]])
            out.ask("repeated", frames[i], (one[0], one[1], language.NOTHING_NEW), context=[one[2]])


def live(rng, out):
    """One still picture for a running stream, and what it is asked there, one instruction after the other."""
    clip = drawn(rng, 1, lambda c: c["text"] and len(c["objects"]) >= 2 and not c["text"]["clock"])
    frames = out.clip(clip)
    f = scenes.facts(timeline.lengthened(clip, 4))
    for skill in ("describe", "count", "where", "read", "present", "moving", "other", "only"):
        out.ask("live", frames, language.ask(rng, f, skill, augment=False))


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    out = Writer(folder)
    rng = np.random.default_rng(20)
    for part in (plain, exchange, backwards, vigils, others, live, remembered):
        part(rng, out)
    text = "".join(json.dumps(line) + "\n" for line in out.lines)
    (folder / "questions.jsonl").write_text(text)
    files = list(folder.glob("*.jpg"))
    sizes = [f.stat().st_size for f in files]
    print(f"{out.clips} clips, {len(files)} pictures, {sum(sizes) / 1e6:.2f} MB, largest {max(sizes)} bytes, "
          f"{len(out.lines)} questions")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
