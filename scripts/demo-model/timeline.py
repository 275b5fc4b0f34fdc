"""What happens to the facts of a clip when it is cut, turned round in time, or has red and blue exchanged.

For the evaluation: each function takes a clip (`scenes.py`) and returns another one. Not here: pictures, questions.
"""

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up", None: None}
# What red and blue exchanged make of each colour; orange becomes one that has no name here.
EXCHANGED = {"red": "blue", "blue": "red", "yellow": "cyan", "cyan": "yellow", "green": "green", "purple": "purple",
             "white": "white"}  # fmt: skip


def backwards(clip):
    """The clip with its last frame first. Where things end may be between the zones: ask what moves and what
    changes, not where things are."""
    turned = {"appear": "disappear", "disappear": "appear"}
    objects = [o | {"path": o["path"][::-1], "visible": o["visible"][::-1], "colours": o["colours"][::-1],
                    "motion": OPPOSITE[o["motion"]], "event": turned.get(o["event"], o["event"])}
               for o in clip["objects"]]  # fmt: skip
    return clip | {"objects": objects}


def can_exchange(clip):
    """True when all of its colours have names after the exchange and day and night would have other skies."""
    return clip["kind"] == "scene" and clip["daytime"] is None and all(
        c in EXCHANGED for o in clip["objects"] for c in o["colours"]
    )  # fmt: skip


def exchanged(clip):
    """The clip with red and blue exchanged."""
    objects = [o | {"colours": [EXCHANGED[c] for c in o["colours"]]} for o in clip["objects"]]
    return clip | {"objects": objects}


def window(clip, first, frames):
    """`frames` frames of a clip from number `first` on, with what happens in them."""
    objects = []
    for o in clip["objects"]:
        visible, colours = (o[k][first : first + frames] for k in ("visible", "colours"))
        if not any(visible):
            continue
        event = None
        if not visible[0]:
            event = "appear" if visible[-1] else "flash"
        elif not visible[-1]:
            event = "disappear"
        elif colours[0] != colours[-1]:
            event = "recolour"
        motion = o["motion"] if frames > 1 else None
        objects.append(o | {"path": o["path"][first : first + frames], "visible": visible, "colours": colours,
                            "event": event, "motion": motion})  # fmt: skip
    return clip | {"objects": objects, "frames": frames}


def vigil(rng, sample, frames=8, newest=4):
    """A clip in which one thing appears late and only then fits the target: (clip, target, frame of its appearance).

    Before, nothing in any frame fits the target. `sample` draws clips, as `scenes.sample` does.
    """
    while True:
        clip = sample(rng, frames)
        if clip["kind"] != "scene" or len(clip["objects"]) < 2:
            continue
        chosen = int(rng.integers(len(clip["objects"])))
        x = clip["objects"][chosen]
        colour, shape = x["colours"][-1], x["shape"]
        roll = rng.random()
        target = (colour, shape) if roll < 0.6 else (None, shape) if roll < 0.85 else (colour, None)
        others = [o for i, o in enumerate(clip["objects"]) if i != chosen]
        if any(target[0] in (None, c) and target[1] in (None, o["shape"]) for o in others for c in o["colours"]):
            continue
        start = int(rng.integers(newest, frames))
        x |= {"colours": [colour] * frames, "visible": [i >= start for i in range(frames)], "event": "appear",
              "motion": None, "path": [x["path"][-1]] * frames}  # fmt: skip
        return clip, target, start


def still(clip):
    """The clip's last frame as one that stands still."""
    last = clip["frames"] - 1
    one = window(clip, last, 1)
    return one | {"objects": [o | {"event": None, "motion": None} for o in one["objects"]]}


def lengthened(clip, frames):
    """A clip of one frame, `frames` times."""
    objects = [o | {k: o[k] * frames for k in ("path", "visible", "colours")} for o in clip["objects"]]
    return clip | {"objects": objects, "frames": frames}

