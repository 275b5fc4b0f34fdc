"""The demo model's evaluation, through the program (`make eval-demo`).

Questions about clips of the training generator that were held out, about clips drawn by another renderer (SVG) and by
GStreamer; the same with red and blue exchanged and played backwards; how long a look takes. Running streams are in
`steering.py`. Writes a report for the model card and exits with 1 when a bar is missed. Not here: scores (`score.py`).
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

import gst_clips
import language
import scenes
import svg_scenes
import timeline
from asking import Asker, Folder, elapsed
from score import CONFUSED, Tally, confusion_markdown

ROOT = Path(__file__).resolve().parents[2]
# Training draws from generators seeded with (seed of training, number of the batch); these begin otherwise.
HELD_OUT, SVG, GST, EXCHANGE, BACKWARDS, TIMING, REMEMBERED = (0x48454C44 + i for i in range(7))
CLIPS = {"generator": 500, "svg": 250, "exchange": 60, "backwards": 60, "remembered": 60, "timing": 80}
QUESTIONS = 4
BARS = {"generator": 0.95, "others": 0.90, "exchange": 0.90, "backwards": 0.90, "remembered": 0.90, "cycle_ms": 1000}
AT_ONCE = 25


def request(frames, instruction, context=()):
    return {"frames": frames, "instruction": instruction, "context": list(context), "max_tokens": 96}


def said(reply):
    return reply["answer"] if "answer" in reply else f"[{reply['error']['code']}]"


def length(rng):
    return int(rng.choice([1, 2, 3, 4], p=[0.12, 0.08, 0.15, 0.65]))


class Evaluation:
    def __init__(self, asker, work, limit):
        self.asker, self.folder, self.work = asker, Folder(work / "pictures"), work
        self.limit = limit
        self.began = time.monotonic()

    def clips(self, what):
        return min(CLIPS[what], self.limit) if self.limit else CLIPS[what]

    def note(self, text):
        print(f"[{elapsed(self.began)}] {text}", flush=True)

    def run(self, tally, clips):
        """`clips` yields (pictures, [(skill, seen, instruction, right, must, what was said before...)], note); returns
        (answer, exact) of all."""
        waiting, about, answers = [], [], []

        def flush():
            for (skill, seen, right, must, note, instruction), reply in zip(about, self.asker.ask(waiting), strict=True):
                exact = tally.add(skill, right, said(reply), seen, f"{note}: {instruction}", must)
                answers.append((said(reply), exact))
            waiting.clear()
            about.clear()
            self.folder.clear()

        for n, (pictures, questions, note) in enumerate(clips):
            frames = self.folder.save(pictures)
            for skill, seen, instruction, right, must, *before in questions:
                waiting.append(request(frames, instruction, before))
                about.append((skill, seen, right, must, note, instruction))
            if (n + 1) % AT_ONCE == 0:
                flush()
                self.note(f"{tally.title}: {n + 1} clips, attributes {tally.attributes():.1%}")
        flush()
        self.note(f"{tally.title}: attributes {tally.attributes():.1%}, done")
        return answers

    def drawn_questions(self, rng, clip):
        f = scenes.facts(clip)
        out = []
        for i in range(QUESTIONS):
            seen = i % 2 == 0
            skill, instruction, right = language.ask(rng, f, seen=seen, augment=False)
            out.append((skill, seen, instruction, right, None))
        return out

    def generator(self):
        """Clips of the training generator, drawn from seeds of their own."""
        import render  # needs PyTorch

        def clips():
            for i in range(self.clips("generator")):
                rng = np.random.default_rng([HELD_OUT, i])
                clip = scenes.sample(rng, length(rng))
                pictures = list(render.pictures([clip], seed=HELD_OUT + i)[0])
                yield pictures, self.drawn_questions(rng, clip), f"generator {i}"

        tally = Tally("Held-out clips of the training generator")
        self.run(tally, clips())
        return tally

    def svg(self):
        def clips():
            for i in range(self.clips("svg")):
                rng = np.random.default_rng([SVG, i])
                clip = svg_scenes.sample(rng, length(rng))
                yield svg_scenes.pictures(clip), self.drawn_questions(rng, clip), f"svg {i}"

        tally = Tally("Clips drawn as SVG, by a renderer that training never saw")
        self.run(tally, clips())
        return tally

    def gstreamer(self):
        def clips():
            made = gst_clips.clips(np.random.default_rng(GST), self.work / "gst")
            for n, (name, pictures, questions) in enumerate(made):
                if self.limit and n % max(1, 44 // self.limit):
                    continue
                yield pictures, [(skill, None, instruction, right, must)
                                 for skill, instruction, right, must in questions], name  # fmt: skip

        tally = Tally("Test patterns and texts of GStreamer")
        self.run(tally, clips())
        return tally

    def pairs(self, what, title, seed, fits, change, of_pictures, skills):
        """The same question about a clip and about the changed clip, where the right answers differ."""

        counts = []

        def clips():
            made = i = 0
            while made < self.clips(what):
                i += 1
                rng = np.random.default_rng([seed, i])
                clip = svg_scenes.sample(rng, 4)
                if not fits(clip):
                    continue
                f, g = scenes.facts(clip), scenes.facts(change(clip))
                questions = []
                for n, skill in enumerate(skills):
                    for _ in range(60):
                        number = int(rng.integers(1 << 31))
                        a, b = (language.ask(np.random.default_rng(number), x, skill, seen=n % 2 == 0, augment=False)
                                for x in (f, g))  # fmt: skip
                        if a[1] == b[1] and a[2] != b[2]:
                            questions.append((a, b, n % 2 == 0))
                            break
                if not questions:
                    continue
                made += 1
                counts.append(len(questions))
                pictures = svg_scenes.pictures(clip)
                yield pictures, [(a[0], s, a[1], a[2], None) for a, b, s in questions], f"{what} {i}"
                yield of_pictures(pictures), [(b[0], s, b[1], b[2], None) for a, b, s in questions], f"{what} {i} changed"

        tally = Tally(title)
        answers, at = self.run(tally, clips()), 0
        both = same = 0
        for n in counts:
            for one, other in zip(answers[at : at + n], answers[at + n : at + 2 * n], strict=True):
                both += one[1] and other[1]
                same += one[0] == other[0]
            at += 2 * n
        tally.remark = (f"Of {sum(counts)} pairs {both} are exactly right both before and after; in {same} the answer did not "
                        "change, though it should have.")  # fmt: skip
        return tally

    def exchange(self):
        def swap(pictures):
            # Frames that are alike stay one object.
            swapped = {id(p): svg_scenes.swapped(p) for p in pictures}
            return [swapped[id(p)] for p in pictures]

        return self.pairs("exchange", "Red and blue exchanged: each question before and after", EXCHANGE,
                          timeline.can_exchange, timeline.exchanged, swap,
                          ("describe", "colour", "shape", "describe"))  # fmt: skip

    def backwards(self):
        lively = lambda c: any(o["motion"] or o["event"] for o in c["objects"])  # noqa: E731
        return self.pairs("backwards", "Played backwards: each question before and after", BACKWARDS, lively,
                          timeline.backwards, lambda p: p[::-1], ("moving", "changed", "direction"))  # fmt: skip

    def remembered(self):
        """A comment on this scene is not repeated; a comment on another scene is no reason to be silent."""

        def clips():
            made = i = 0
            while made < self.clips("remembered"):
                i += 1
                rng = np.random.default_rng([REMEMBERED, i])
                one, other = (svg_scenes.sample(rng, length(rng)) for _ in range(2))
                number = int(rng.integers(1 << 31))
                seen = i % 2 == 0
                skill = ("describe", "describe", "where", "count", "read")[i % 5]
                a, b = (language.ask(np.random.default_rng(number), scenes.facts(x), skill, seen, augment=False)
                        for x in (one, other))  # fmt: skip
                if a[1] != b[1] or a[2] == b[2]:
                    continue
                made += 1
                yield svg_scenes.pictures(one), [
                    (skill, seen, a[1], a[2], None, b[2]),
                    (f"{skill}, said before", seen, a[1], language.NOTHING_NEW, None, a[2]),
                ], f"remembered {i}"

        tally = Tally("Reminded of a comment on another scene, and of one on the same scene")
        self.run(tally, clips())
        return tally

    def timing(self):
        """Looks as on a running stream: four frames, of which three were there before."""
        n = self.clips("timing") + 5
        rng = np.random.default_rng(TIMING)
        clip = {}
        while len(clip.get("objects", [])) < 2:
            clip = scenes.sample(rng, n, size=(1280, 720), kind="scene")
        names = self.folder.save([p.copy() for p in svg_scenes.pictures(clip, rough=True)])
        requests = [request(names[i : i + 4], "Tell me what you see.") for i in range(n - 4)]
        replies = [r for r in self.asker.ask(requests)[2:] if r.get("frames_encoded") == 1 and r.get("tokens")]
        self.folder.clear()
        if not replies:
            return {}
        figures = {k: [r[k] for r in replies] for k in ("encode_ms", "prefill_ms", "decode_ms", "tokens")}
        per_token = [d / t for d, t in zip(figures["decode_ms"], figures["tokens"], strict=True)]
        figures["decode_20_ms"] = [20 * p for p in per_token]
        figures["cycle_ms"] = [e + p + d for e, p, d in zip(figures["encode_ms"], figures["prefill_ms"],
                                                            figures["decode_20_ms"], strict=True)]  # fmt: skip
        return {k: {"p50": float(np.percentile(v, 50)), "p95": float(np.percentile(v, 95))} for k, v in figures.items()} | {
            "looks": len(replies)}  # fmt: skip


def report(tallies, timing, bars, limit):
    out = ["## Scores", "", "Measured through the program, by `make eval-demo`"
           + (f" **(a short run, --limit {limit})**" if limit else "") + ". *Exact*: the answer is the right one, letter for "
           "letter. *Attributes*: each colour, shape, size, place, direction, number, text, yes or no … of an answer is "
           "compared on its own; what is missing and what is made up count as wrong, and words that the question "
           "holds already count as well.", ""]  # fmt: skip
    out += ["| Bar | Wanted | Reached | |", "|---|--:|--:|---|"]
    out += [f"| {name} | {wanted} | {reached} | {'met' if met else '**missed**'} |" for name, wanted, reached, met in bars]
    out.append("")
    out += [t.markdown() for t in tallies.values()]
    if timing:
        out += ["### One look", "", f"Four frames, three of them in the cache, {timing['looks']} looks, milliseconds:", "",
                "| Step | p50 | p95 |", "|---|--:|--:|"]  # fmt: skip
        names = {"encode_ms": "one frame encoded", "prefill_ms": "prompt decoded", "decode_20_ms": "20 tokens",
                 "cycle_ms": "together"}  # fmt: skip
        out += [f"| {title} | {timing[k]['p50']:.0f} | {timing[k]['p95']:.0f} |" for k, title in names.items()] + [""]
    out += ["### Confusion", "", "Held-out clips, SVG and GStreamer together; – is missing or made up.", ""]
    shown = [tallies[k] for k in ("generator", "svg", "gst") if k in tallies]
    out += [confusion_markdown(shown, kind) for kind in CONFUSED]
    return "\n".join(out)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--binary", default=ROOT / "target/release/vidette")
    arguments.add_argument("--model", default=ROOT / "gguf/demo")
    arguments.add_argument("--work", type=Path, default=ROOT / "target/eval-demo")
    arguments.add_argument("--limit", type=int, help="at most so many clips of each kind")
    arguments.add_argument("--only", nargs="*", help="generator svg gst exchange backwards remembered timing")
    arguments.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="further options of the program")
    a = arguments.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    parts = a.only or ["timing", "svg", "gst", "exchange", "backwards", "remembered", "generator"]
    e = Evaluation(Asker(a.binary, a.model, a.options), a.work, a.limit)
    tallies, timing, bars = {}, {}, []
    for part in parts:
        if part == "timing":
            timing = e.timing()
            e.note(f"timing: {json.dumps(timing)}")
        else:
            method = {"gst": e.gstreamer}.get(part) or getattr(e, part)
            tallies[part] = method()
    e.asker.stop()

    def bar(name, key, value):
        bars.append((name, f"{BARS[key]:.0%}", f"{value:.1%}", value >= BARS[key]))

    if "generator" in tallies:
        bar("attributes, held-out clips", "generator", tallies["generator"].attributes())
    others = [tallies[k] for k in ("svg", "gst") if k in tallies]
    if others:
        n, good = (sum(t.totals()[i] for t in others) for i in (2, 3))
        bar("attributes, other renderers", "others", good / n)
    for key, name in (("exchange", "attributes, red and blue exchanged"), ("backwards", "attributes, played backwards"),
                      ("remembered", "attributes, reminded of comments")):
        if key in tallies:
            bar(name, key, tallies[key].attributes())
    if timing:
        p50 = timing["cycle_ms"]["p50"]
        bars.append(("one look, p50", f"{BARS['cycle_ms']} ms", f"{p50:.0f} ms", p50 <= BARS["cycle_ms"]))
    if e.asker.deaths:
        bars.append(("the program died", "never", f"{e.asker.deaths} times", False))
    text = report(tallies, timing, bars, a.limit)
    (a.work / "scores.md").write_text(text)
    (a.work / "scores.json").write_text(json.dumps(
        {"bars": bars, "timing": timing, "sets": {k: t.as_json() for k, t in tallies.items()}}, indent=1))  # fmt: skip
    with open(a.work / "wrong.jsonl", "w") as file:
        for k, t in tallies.items():
            file.writelines(json.dumps({"set": k} | w) + "\n" for w in t.wrong)
    print(text.split("###")[0])
    print(f"Report: {a.work / 'scores.md'}; wrong answers: {a.work / 'wrong.jsonl'}")
    sys.exit(0 if all(met for *_, met in bars) else 1)


if __name__ == "__main__":
    main()
