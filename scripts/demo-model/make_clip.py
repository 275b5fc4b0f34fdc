"""Draws the clip that plays when there is a demo model and no source:

    python make_clip.py ../../gguf/demo/clip.webm

Half a minute in five scenes of what the demo model knows, drawn as SVG (`svg_scenes.py`), encoded as VP8 by ffmpeg.
Not here: the clips of tests and evaluation.
"""

import subprocess
import sys

import svg_scenes

SIZE, FPS = (640, 360), 12
RADIUS = {"small": 0.06, "medium": 0.11, "large": 0.19}


def thing(frames, shape, colour, size, start, end=None, shown=(0.0, 1.0)):
    """A thing that goes from `start` to `end` and is there during the share `shown` of the scene."""
    end = end or start
    share = [i / (frames - 1) for i in range(frames)]
    return {"shape": shape, "size": size, "radius": RADIUS[size], "colours": [colour] * frames, "angle": 0.0,
            "path": [tuple(a + (b - a) * s for a, b in zip(start, end, strict=True)) for s in share],
            "visible": [shown[0] <= s <= shown[1] for s in share]}  # fmt: skip


def scene(seconds, seed, things=(), text=None, daytime=None, kind="scene"):
    frames = round(seconds * FPS)
    text = text and {"characters": text, "clock": ":" in text, "x": 0.5, "y": 0.82, "height": 0.16, "angle": 0.0}
    return {"kind": kind, "frames": frames, "size": SIZE, "seed": seed, "text": text, "daytime": daytime, "black": False,
            "objects": [thing(frames, *t) for t in things]}  # fmt: skip


STORY = [
    scene(7, 3, [("circle", "red", "medium", (0.12, 0.5), (0.88, 0.5)), ("star", "yellow", "small", (0.8, 0.15))],
          daytime="day"),
    scene(7, 8, [("square", "blue", "medium", (0.2, 0.5)), ("triangle", "green", "large", (0.8, 0.5), None, (0.35, 1))]),
    scene(6, 12, [("heart", "purple", "medium", (0.5, 0.45), (0.5, 0.18))], text="HELLO"),
    scene(7, 5, [("star", "white", "small", (0.2, 0.2)), ("cross", "orange", "medium", (0.85, 0.5), (0.2, 0.5)),
                 ("circle", "cyan", "small", (0.8, 0.15), None, (0, 0.55))], daytime="night"),
    scene(3, 1, kind="bars"),
]  # fmt: skip


def main():
    w, h = SIZE
    encoder = subprocess.Popen(
        ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{w}x{h}", "-r", str(FPS),
         "-i", "-", "-c:v", "libvpx", "-b:v", "400k", "-crf", "12", "-g", str(2 * FPS), "-pix_fmt", "yuv420p", sys.argv[1]],
        stdin=subprocess.PIPE,
    )  # fmt: skip
    for clip in STORY:
        for svg in svg_scenes.draw(clip):
            encoder.stdin.write(svg_scenes.rasterise(svg).tobytes())
    encoder.stdin.close()
    if encoder.wait():
        raise SystemExit("ffmpeg failed")


if __name__ == "__main__":
    main()
