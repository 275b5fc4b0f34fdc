"""Does the demo model do as it is told, at once, and is it silent otherwise? The second half of `make eval-demo`.

* 100 changes of the instruction on running streams: the next answer must be the right one to the new instruction.
* "Warn me when …" on windows over clips, through `vidette ask`: silent before, a warning in the first window.
* The same on a running stream, whose frame numbers say which frames each answer was given for.

Not here: what the model sees in general (`evaluate.py`), scores (`score.py`).
"""

import argparse
import http.client
import json
import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

import language
import scenes
import svg_scenes
import timeline
from asking import ENVIRONMENT, Asker, Folder
from evaluate import ROOT, request, said
from score import interval, slots

STEER, VIGIL, LIVE = 0x53544552, 0x56494749, 0x4C495645
SIZE = (640, 360)
FPS = 10
CAPTURE_FPS = 2
# Of a running vigil, seconds: the new instruction, and the thing from its appearance to its end.
SEGMENT, APPEARS, GOES = 8.0, 4.25, 7.25
STEADY = ["--server-port", "0", "--change-threshold", "0", "--inference-interval", "0",
          "--capture-fps", str(CAPTURE_FPS), "--frame-stride", "2", "--frames-per-inference", "4"]  # fmt: skip


class Program:
    """`vidette run` on a clip, and its events."""

    def __init__(self, binary, model, clip, more=()):
        command = [str(binary), "run", str(clip), "--model-path", str(model), *STEADY, *more]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                                        env=ENVIRONMENT)  # fmt: skip
        self.log, self.events = [], queue.Queue(maxsize=4096)
        threading.Thread(target=self._read_log, daemon=True).start()
        until = time.monotonic() + 60
        while not (address := self._address()):
            if time.monotonic() > until or self.process.poll() is not None:
                raise SystemExit("the program does not start:\n" + "".join(self.log))
            time.sleep(0.05)
        self.address = address
        threading.Thread(target=self._read_events, daemon=True).start()

    def _address(self):
        return next((m[1] for line in list(self.log) if (m := re.search(r"open http://([^/\s]+)", line))), None)

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)

    def _read_events(self):
        try:
            connection = http.client.HTTPConnection(self.address, timeout=120)
            connection.request("GET", "/api/stream")
            response, name = connection.getresponse(), None
            while line := response.readline():
                key, _, value = line.decode().strip().partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    self.events.put((name, json.loads(value)))
        except (OSError, http.client.HTTPException):
            pass
        self.events.put((None, None))

    def utterance(self, timeout=60):
        """The next answer that was not cut off."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            try:
                name, data = self.events.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                break
            if name is None:
                return None
            if name == "utterance" and data["finish"] in ("stop", "length"):
                return data
        return None

    def instruct(self, instruction):
        connection = http.client.HTTPConnection(self.address, timeout=20)
        connection.request("POST", "/api/instruction", json.dumps({"instruction": instruction}),
                           {"Content-Type": "application/json"})  # fmt: skip
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"{instruction!r} was refused: {response.read()}")
        response.read()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def encode(pictures, path):
    """Pictures, `FPS` a second, as H.264."""
    h, w = pictures[0].shape[:2]
    ffmpeg = subprocess.Popen(
        ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{w}x{h}", "-r", str(FPS),
         "-i", "-", "-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-g", "20", "-pix_fmt", "yuv420p", str(path)],
        stdin=subprocess.PIPE)  # fmt: skip
    for picture in pictures:
        ffmpeg.stdin.write(np.ascontiguousarray(picture).tobytes())
    ffmpeg.stdin.close()
    if ffmpeg.wait():
        raise SystemExit("ffmpeg can't make the clip")


def share(good, n):
    low, high = interval(good, n)
    return f"{good} of {n} ({100 * good / n if n else 0:.1f} %; 95 % interval {100 * low:.1f} to {100 * high:.1f})"


def steering(a, changes, wrong):
    """(right, of the kind asked for, changes)."""
    right = kind = done = scene = 0
    while done < changes:
        scene += 1
        rng = np.random.default_rng([STEER, scene])
        clip = scenes.sample(rng, 1, size=SIZE, kind="scene")
        if len(clip["objects"]) < 2:
            continue
        f = scenes.facts(timeline.lengthened(clip, 4))
        path = a.work / "still.mp4"
        encode([svg_scenes.pictures(clip, rough=False)[0]] * (4 * FPS), path)
        program = Program(a.binary, a.model, path)
        first = program.utterance()
        time.sleep(3.5)  # the window fills
        last = first and first["instruction"]
        for n in range(min(10, changes - done)):
            instruction = last
            while instruction == last:
                skill, instruction, answer = language.ask(rng, f, seen=n % 2 == 0, augment=False)
            last = instruction
            program.instruct(instruction)
            data = program.utterance()
            while data and data["instruction"] != instruction:
                data = program.utterance()
            text = data["text"].strip() if data else "[no answer]"
            done += 1
            right += text == answer
            kind += [k for k, _ in slots(text)] == [k for k, _ in slots(answer)]
            if text != answer:
                wrong.append({"part": "steering", "scene": scene, "instruction": instruction, "right": answer, "said": text})
            time.sleep(rng.uniform(0, 1.2))
        program.stop()
        print(f"steering: {right} of {done} right", flush=True)
    return right, kind, done


def warning(rng, target, seen):
    p = language.Picker(rng, seen)
    return p.wording(language.WARN).format(a=language.article(language.words_of(p, target)))


def fits(text, target):
    """A warning that names the thing."""
    found = slots(text)
    return ("warning", "warning") in found and all(
        v is None or (k, v) in found for k, v in zip(("colour", "shape"), target, strict=True))  # fmt: skip


def windows(a, quiet_wanted, events_wanted, wrong):
    """(quiet and silent, quiet, announced, exactly right, events) over windows of four frames."""
    asker, folder = Asker(a.binary, a.model), Folder(a.work / "vigil")
    result, n = np.zeros(5, int), 0
    while result[1] < quiet_wanted or result[4] < events_wanted:
        n += 1
        rng = np.random.default_rng([VIGIL, n])
        clip, target, start = timeline.vigil(rng, lambda r, frames: svg_scenes.sample(r, frames))
        instruction = warning(rng, target, n % 2 == 0)
        names = folder.save(svg_scenes.pictures(clip))
        newest = list(range(3, start + 1))
        replies = asker.ask([request(names[i - 3 : i + 1], instruction) for i in newest])
        folder.clear()
        for i, reply in zip(newest, replies, strict=True):
            text = said(reply)
            if i < start:
                answer, good = language.NOTHING_NEW, text == language.NOTHING_NEW
                result += [good, 1, 0, 0, 0]
            else:
                here = language.matching(scenes.facts(timeline.window(clip, i - 3, 4))["here"], target)[0]
                answer = f"Warning: {language.article(language.name(here))} {language.place_words(here['place'])}."
                good = fits(text, target)
                result += [0, 0, good, text == answer, 1]
            if text != answer:
                wrong.append({"part": "windows", "clip": n, "newest": i, "instruction": instruction, "right": answer,
                              "said": text})  # fmt: skip
    asker.stop()
    return [int(v) for v in result]


def vigil_clip(rng, events):
    """A long clip: things that rest, and one after the other `events` that come and go. (pictures, things)"""
    while True:
        size_of = {"size": SIZE, "kind": "scene"}
        clip = scenes.sample(rng, 1, **size_of)
        resting = [(o["colours"][0], o["shape"]) for o in clip["objects"]]
        taken = [(*o["path"][0], o["radius"]) for o in clip["objects"]]
        if not 1 <= len(resting) <= 2 or clip["text"]:
            continue
        things = []
        for _ in range(400):
            one = scenes.sample(rng, 1, **size_of)
            for o in one["objects"]:
                kind, last = (o["colours"][0], o["shape"]), things[-1] if things else None
                clear = scenes._free(*o["path"][0], o["radius"], SIZE[0] / SIZE[1], taken)
                other = not any(kind[0] == c or kind[1] == s for c, s in resting)
                after = last is None or (kind[0] != last["colours"][0] and kind[1] != last["shape"])
                if clear and other and after and len(things) < events:
                    things.append(o)
        if len(things) == events:
            break
    # The background must suit all of them.
    style = svg_scenes.look(clip | {"objects": clip["objects"] + things, "daytime": None, "black": False})
    clip["daytime"] = None
    rest = svg_scenes.rasterise(svg_scenes.draw(clip, style)[0])
    pictures = []
    for o in things:
        with_it = svg_scenes.rasterise(svg_scenes.draw(clip | {"objects": clip["objects"] + [o]}, style)[0])
        pictures += [with_it if APPEARS <= i / FPS < GOES else rest for i in range(int(SEGMENT * FPS))]
    return pictures + [rest] * (2 * FPS), things


def live(a, clips, events, wrong):
    """As `windows`, on running streams."""
    result = np.zeros(5, int)
    for n in range(clips):
        rng = np.random.default_rng([LIVE, n])
        pictures, things = vigil_clip(rng, events)
        path = a.work / "vigil.mp4"
        encode(pictures, path)
        program = Program(a.binary, a.model, path, ["--no-loop"])
        for j, o in enumerate(things):
            target = (o["colours"][0], o["shape"])
            instruction = warning(rng, target, (n + j) % 2 == 0)
            begins, appears = (round((j * SEGMENT + s) * CAPTURE_FPS) for s in (0.5, APPEARS + 0.25))
            answer = (f"Warning: {language.article(' '.join(target))} "
                      f"{language.place_words(tuple(scenes.zone(v) for v in o['path'][0]))}.")  # fmt: skip
            told = False
            while data := program.utterance():
                newest, text = data["stamps"]["newest_frame"], data["text"].strip()
                if not told:
                    if newest >= begins:
                        program.instruct(instruction)
                        told = True
                    continue
                if data["instruction"] != instruction:
                    continue
                if newest < appears:
                    silent = data["skipped"]
                    result += [silent, 1, 0, 0, 0]
                    if not silent:
                        wrong.append({"part": "live", "clip": n, "frame": newest, "instruction": instruction,
                                      "right": "...", "said": text})  # fmt: skip
                    continue
                result += [0, 0, fits(text, target), text == answer, 1]
                if text != answer:
                    wrong.append({"part": "live", "clip": n, "frame": newest, "instruction": instruction, "right": answer,
                                  "said": text})  # fmt: skip
                break
            else:
                wrong.append({"part": "live", "clip": n, "instruction": instruction, "said": "[the stream ended]"})
                result += [0, 0, 0, 0, 1]
        program.stop()
        print(f"live vigil: {result.tolist()}", flush=True)
    return [int(v) for v in result]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--binary", default=ROOT / "target/release/vidette")
    arguments.add_argument("--model", default=ROOT / "gguf/demo")
    arguments.add_argument("--work", type=Path, default=ROOT / "target/eval-demo")
    arguments.add_argument("--limit", type=int, help="a short run: so many changes and events")
    arguments.add_argument("--only", nargs="*", help="steering windows live")
    a = arguments.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    parts = a.only or ["steering", "windows", "live"]
    wrong, bars, figures = [], [], {}
    few = a.limit

    def bar(name, wanted, good, n):
        bars.append((name, f"{100 * wanted:.0f} %", share(good, n), bool(n) and good >= wanted * n))

    if "steering" in parts:
        right, kind, n = figures["steering"] = steering(a, few or 100, wrong)
        bar("next answer after a new instruction is right", 0.95, right, n)
        bars.append(("… is at least of the kind that was asked for", "", share(kind, n), True))
    if "windows" in parts:
        silent, quiet, announced, exact, n = figures["windows"] = windows(a, few or 200, few or 40, wrong)
        bar('"..." in quiet looks', 1.0, silent, quiet)
        bar("event announced in the first look that contains it", 0.95, announced, n)
        bars.append(("… exactly, with its place", "", share(exact, n), True))
    if "live" in parts:
        silent, quiet, announced, exact, n = figures["live"] = live(a, 1 if few else 2, min(few or 12, 12), wrong)
        bar('"..." in quiet looks, running stream', 1.0, silent, quiet)
        bar("event announced in the first look, running stream", 0.95, announced, n)
        bars.append(("… exactly, with its place", "", share(exact, n), True))
    lines = ["## Obeying and keeping silent" + (f" (a short run, --limit {few})" if few else ""), "",
             "| | Wanted | Reached | |", "|---|--:|--:|---|"]  # fmt: skip
    lines += [f"| {name} | {wanted} | {reached} | {('met' if met else '**missed**') if wanted else ''} |"
              for name, wanted, reached, met in bars]  # fmt: skip
    (a.work / "steering.md").write_text("\n".join(lines) + "\n")
    (a.work / "steering.json").write_text(json.dumps({"bars": bars, "figures": figures}, indent=1))
    (a.work / "steering-wrong.jsonl").write_text("".join(json.dumps(w) + "\n" for w in wrong))
    print("\n".join(lines))
    sys.exit(0 if all(met for *_, met in bars) else 1)


if __name__ == "__main__":
    main()
