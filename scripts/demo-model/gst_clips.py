"""Clips that GStreamer makes: its test patterns and its own text. A third renderer that training never saw.

Each clip is (name, frames, questions); a question is (skill, instruction, right answer, None), or, where only part of
an answer is certain, (skill, instruction, None, the certain attributes). Not here: our own drawings (`svg_scenes.py`).
"""

import shlex
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

import language

ARGB = {"red": 0xFFFF0000, "green": 0xFF00A000, "blue": 0xFF0000FF, "yellow": 0xFFFFFF00, "white": 0xFFFFFFFF,
        "cyan": 0xFF00FFFF, "orange": 0xFFFFA500, "purple": 0xFF9000A0}  # fmt: skip
SIZES = [(640, 480), (640, 360), (480, 480), (320, 240)]
# The ball has a radius of 20 pixels; in these it is as large as things that have a size word, or nearly.
BALL_SIZES = [(640, 360), (480, 270), (320, 240), (320, 180)]


def capture(folder, source, overlay="", size=(640, 360), frames=4):
    """Frames of a videotestsrc, one second apart."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    w, h = size
    line = (f"gst-launch-1.0 -q videotestsrc num-buffers={frames * 15} {source} ! "
            f"video/x-raw,format=I420,width={w},height={h},framerate=15/1 ! {overlay + ' ! ' if overlay else ''}"
            f"videorate drop-only=true ! video/x-raw,framerate=1/1 ! videoconvert ! video/x-raw,format=RGB ! pngenc ! "
            f"multifilesink location={shlex.quote(str(folder))}/%02d.png")  # fmt: skip
    subprocess.run(shlex.split(line), check=True, timeout=60)
    files = sorted(folder.glob("*.png"))[:frames]
    if len(files) < frames:
        raise SystemExit(f"GStreamer made {len(files)} of {frames} frames: {line}")
    return [np.asarray(Image.open(f).convert("RGB")) for f in files]


def state_questions(rng, answer, seen):
    pick = language.Picker(rng, seen)
    return [("describe", pick.wording(language.DESCRIBE), answer, None),
            ("state", pick.wording(language.STATE), answer, None)]  # fmt: skip


def ball_questions(rng, colour):
    """Of the ball it is certain that it is there, round, of its colour, alone, and moves; where and how is not."""
    pick = language.Picker(rng, seen=bool(rng.random() < 0.5))
    return [
        ("moving", pick.wording(language.MOVING), None, [("yes", "yes"), ("colour", colour), ("shape", "circle")]),
        ("colour", pick.wording(language.COLOUR).format(x="ball"), f"The circle is {colour}.", None),
        ("count", pick.wording(language.COUNT).format(p="balls"), "1 circle.", None),
        ("shape", pick.wording(language.WHICH_SHAPE).format(c=colour), "It is a circle.", None),
        ("state", pick.wording(language.STATE), "The picture is all right.", None),
        ("present", pick.wording(language.PRESENT).format(a="a square"), "No, there is no square.", None),
    ]


def clips(rng, folder):
    """All clips, one after the other."""
    for n, size in enumerate(SIZES):
        for pattern, answer in [("smpte", language.BARS), ("smpte75", language.BARS), ("snow", language.SNOW),
                                ("black", language.BLANK), ("white", language.BLANK)]:  # fmt: skip
            seen = n % 2 == 0
            questions = state_questions(rng, answer, seen)
            if pattern == "black":
                questions.append(("moving", "Is anything moving?", "No, nothing is moving.", None))
            yield f"{pattern} {size[0]}x{size[1]}", capture(folder, f"pattern={pattern}", size=size), questions
    for n, (colour, argb) in enumerate(ARGB.items()):
        size = BALL_SIZES[n % 4]
        source = f"pattern=ball foreground-color={argb} background-color={0xFF000000 if n % 2 else 0xFF303840}"
        if colour == "white":
            source = "pattern=ball"
        yield f"{colour} ball", capture(folder, source, size=size), ball_questions(rng, colour)
    # The small clock of the program's own test pictures is passed over.
    for n, overlay in enumerate(["timeoverlay valignment=bottom", "clockoverlay", "timeoverlay halignment=right"]):
        for pattern, answer in [("smpte", language.BARS), ("snow", language.SNOW), ("black", language.BLANK)]:
            made = capture(folder, f"pattern={pattern}", overlay, SIZES[n])
            yield f"{pattern} with {overlay}", made, state_questions(rng, answer, n == 0)
        colour = list(ARGB)[n]
        source = f"pattern=ball foreground-color={ARGB[colour]} background-color={0xFF000000}"
        yield f"{colour} ball with {overlay}", capture(folder, source, overlay, BALL_SIZES[n]), ball_questions(rng, colour)
    for n in range(16):
        clock = n % 2 == 0
        digits = rng.integers(0, [24, 60, 60])
        letters = "".join("ABCDEFGHJKLMNPRSTUVWXYZ23456789"[i] for i in rng.integers(31, size=rng.integers(2, 7)))
        text = f"{digits[0]:02}:{digits[1]:02}" + (f":{digits[2]:02}" if n % 4 == 0 else "") if clock else letters
        font = ["Sans", "Noto Sans", "Roboto", "Open Sans"][n // 2 % 4] + [" Bold", ""][n % 3 == 0]
        place = f"halignment={rng.choice(['left', 'center', 'right'])} valignment={rng.choice(['top', 'center', 'bottom'])}"
        style = f'font-desc="{font} {rng.integers(44, 64)}" {place} shaded-background={"true" if n % 5 == 0 else "false"}'
        # A time format without fields is a fixed time.
        overlay = f'clockoverlay time-format="{text}" {style}' if clock else f'textoverlay text="{text}" {style}'
        source = ["pattern=black", "pattern=solid-color foreground-color=4282400832", "pattern=solid-color foreground-color=4279245888",
                  "pattern=solid-color foreground-color=4288059030"][n % 4]  # fmt: skip
        pick = language.Picker(rng, seen=n % 3 == 0)
        questions = [("read", pick.wording(language.READ), f'The text says "{text}".', None)]
        questions.append(("clock", pick.wording(language.CLOCK), f"The clock shows {text}." if clock else "There is no clock.", None))
        questions.append(("count", "How many shapes are there?", "No shapes.", None))
        yield f"text {text}", capture(folder, source, overlay, SIZES[n % 2]), questions
