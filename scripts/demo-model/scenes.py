"""Clips as facts: what is in them, where, and what happens, frame by frame.

`sample` draws a clip; `facts` says what `language.py` may ask about it; `pack` lays it out as arrays for the
renderer, `labels` as classes of patches for training. Not here: pixels (`render.py`), words (`language.py`).

Coordinates: x and y from 0 to 1 across and down the picture; sizes are shares of the shorter side.
"""

import numpy as np

from language import COLOURS, SHAPES, SIZES

MAX_OBJECTS = 5
PATCH = 14
# What the program gives to the vision tower for 16:9, 4:3, square and upright sources (src/frame.rs).
PICTURE_SIZES = [(602, 336), (518, 392), (448, 448), (336, 602)]
PICTURE_SHARES = [0.62, 0.16, 0.12, 0.10]
# Radius of a shape by its size word, as a share of the shorter side. The gaps keep the words apart.
RADII = {"small": (0.050, 0.072), "medium": (0.095, 0.125), "large": (0.165, 0.225)}
# Where a thing counts as left, centre and right (and top, centre, bottom). Nothing rests between them.
ZONES = [(0.0, 0.325), (0.40, 0.60), (0.675, 1.0)]
# Hue, saturation and value of each colour.
HSV = {
    "red": ((-10, 6), (0.80, 1.0), (0.70, 1.0)),
    "orange": ((24, 38), (0.85, 1.0), (0.88, 1.0)),
    "yellow": ((50, 61), (0.75, 1.0), (0.88, 1.0)),
    "green": ((105, 145), (0.70, 1.0), (0.45, 0.90)),
    "cyan": ((174, 188), (0.75, 1.0), (0.80, 1.0)),
    "blue": ((214, 244), (0.75, 1.0), (0.65, 1.0)),
    "purple": ((272, 302), (0.65, 1.0), (0.48, 0.90)),
    "white": ((0, 360), (0.0, 0.05), (0.92, 1.0)),
}
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:"
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}


def zone(v):
    """0, 1 or 2, or None between the zones."""
    for i, (low, high) in enumerate(ZONES):
        if low <= v <= high:
            return i
    return None


def hsv_to_rgb(h, s, v):
    h = (h % 360) / 60
    c = v * s
    x = c * (1 - abs(h % 2 - 1))
    r, g, b = [(c, x, 0), (x, c, 0), (0, c, x), (0, x, c), (x, 0, c), (c, 0, x)][int(h) % 6]
    return np.array([r + v - c, g + v - c, b + v - c], np.float32)


def colour_value(rng, colour):
    (h0, h1), (s0, s1), (v0, v1) = HSV[colour]
    return hsv_to_rgb(rng.uniform(h0, h1), rng.uniform(s0, s1), rng.uniform(v0, v1))


def _text(rng):
    """(characters, is a clock)."""
    roll = rng.random()
    if roll < 0.25:
        h, m, s = rng.integers(24), rng.integers(60), rng.integers(60)
        return (f"{h:02}:{m:02}:{s:02}" if rng.random() < 0.4 else f"{h:02}:{m:02}"), True
    pool = CHARACTERS[:36] if roll < 0.6 else (CHARACTERS[:26] if roll < 0.85 else CHARACTERS[26:36])
    letters = [pool[i] for i in rng.integers(len(pool), size=rng.integers(1, 7))]
    # Words have doubled letters far more often than chance does.
    if len(letters) > 1 and rng.random() < 0.4:
        at = rng.integers(len(letters) - 1, size=rng.integers(1, 3))
        for i in at:
            letters[i + 1] = letters[i]
    return "".join(letters), False


def _place(rng, radius, aspect, taken, want=None):
    """A resting point (x, y) in clear zones, away from `taken` [(x, y, r)]; None when there is none."""
    rx, ry = radius / max(aspect, 1), radius * min(aspect, 1)
    for _ in range(40):
        x, y = rng.uniform(rx * 1.02, 1 - rx * 1.02), rng.uniform(ry * 1.02, 1 - ry * 1.02)
        if zone(x) is None or zone(y) is None or (want and (zone(x), zone(y)) != want):
            continue
        if _free(x, y, radius, aspect, taken):
            return x, y
    return None


def _free(x, y, radius, aspect, taken):
    return all(_distance(x - u, y - v, aspect) > (radius + r) * 1.12 for u, v, r in taken)


def _distance(dx, dy, aspect):
    """In shares of the shorter side."""
    return np.hypot(dx * max(aspect, 1), dy / min(aspect, 1))


def sample(rng, frames, size=None, kind=None):
    """A clip of `frames` frames as a dictionary."""
    if size is None:
        size = PICTURE_SIZES[int(rng.choice(len(PICTURE_SIZES), p=PICTURE_SHARES))]
    aspect = size[0] / size[1]
    if kind is None:
        kind = ["scene", "blank", "snow", "bars"][int(rng.choice(4, p=[0.94, 0.02, 0.02, 0.02]))]
    clip = {"kind": kind, "frames": frames, "size": size, "objects": [], "text": None, "daytime": None}
    clip["seed"] = int(rng.integers(1 << 31))
    if kind != "scene":
        return clip
    roll = rng.random()
    clip["daytime"] = "day" if roll < 0.16 else "night" if roll < 0.32 else None
    clip["black"] = clip["daytime"] is None and rng.random() < 0.12
    taken = []
    if rng.random() < 0.27:
        taken += _add_text(rng, clip, aspect)
    most = 3 if clip["text"] else MAX_OBJECTS
    wanted = int(rng.choice(6, p=[0.06, 0.22, 0.24, 0.20, 0.15, 0.13]))
    few = rng.random() < 0.25  # few kinds of things, so that some counts are high
    pool = [(COLOURS[rng.integers(8)], SHAPES[rng.integers(6)]) for _ in range(2)] if few else None
    lively = rng.random() < 0.8
    for _ in range(min(most, wanted)):
        o = _object(rng, clip, aspect, taken, pool, lively)
        if o:
            clip["objects"].append(o)
    if not clip["objects"] and not clip["text"] and not clip["daytime"]:
        clip["kind"] = "blank"  # nobody can tell an empty wall from a blank picture
    return clip


def _add_text(rng, clip, aspect):
    characters, clock = _text(rng)
    height = rng.uniform(0.11, 0.27)  # of the letters, as a share of the shorter side
    width = height * 0.72 * len(characters)
    limit = 0.92 * max(aspect, 1)
    if width > limit:
        height *= limit / width
        width = limit
    half_x, half_y = width / 2 / max(aspect, 1), height / 2 / max(1, 1 / aspect)
    x = rng.uniform(half_x + 0.02, max(half_x + 0.021, 0.98 - half_x))
    y = rng.uniform(half_y + 0.03, max(half_y + 0.031, 0.97 - half_y))
    clip["text"] = {"characters": characters, "clock": clock, "x": x, "y": y, "height": height,
                    "angle": float(rng.normal() * 0.03), "font": int(rng.integers(1 << 16))}  # fmt: skip
    # Circles along the line of letters keep shapes off it.
    n = max(1, int(np.ceil(width / height)))
    return [(x + (i - (n - 1) / 2) * width / n / max(aspect, 1), y, height * 0.75) for i in range(n)]


def _object(rng, clip, aspect, taken, pool, lively):
    frames = clip["frames"]
    colour, shape = pool[rng.integers(len(pool))] if pool else (COLOURS[rng.integers(8)], SHAPES[rng.integers(6)])
    size = SIZES[rng.integers(3)]
    radius = rng.uniform(*RADII[size])
    spot = _place(rng, radius, aspect, taken)
    if spot is None:
        return None
    x, y = spot
    o = {"shape": shape, "size": size, "radius": radius, "motion": None, "event": None,
         "colours": [colour] * frames, "visible": [True] * frames, "path": [(x, y)] * frames,
         "angle": float(rng.uniform(-0.26, 0.26))}  # fmt: skip
    roll = rng.random()
    if frames > 1 and lively:
        if roll < 0.38:
            _move(rng, o, aspect, taken, frames)
        elif roll < 0.50:
            start = int(rng.integers(1, frames))
            o["visible"] = [i >= start for i in range(frames)]
            o["event"] = "appear"
        elif roll < 0.60:
            end = int(rng.integers(1, frames))
            o["visible"] = [i < end for i in range(frames)]
            o["event"] = "disappear"
        elif roll < 0.69:
            other = COLOURS[rng.integers(8)]
            if other != colour:
                start = int(rng.integers(1, frames))
                o["colours"] = [other if i < start else colour for i in range(frames)]
                o["event"] = "recolour"
    taken.extend((u, v, radius) for u, v in {*o["path"]})
    return o


def _move(rng, o, aspect, taken, frames):
    """A straight path that ends where the object rests now, if one is free."""
    (x, y), radius = o["path"][0], o["radius"]
    for _ in range(8):
        direction = list(DIRECTIONS)[rng.integers(4)]
        dx, dy = DIRECTIONS[direction]
        length = rng.uniform(0.05, 0.22) * (frames - 1)
        drift = rng.uniform(-0.25, 0.25)
        sx = x - (dx + abs(dy) * drift / max(aspect, 1)) * length
        sy = y - (dy + abs(dx) * drift * max(aspect, 1) * 0.6) * length
        rx, ry = radius / max(aspect, 1), radius * min(aspect, 1)
        if not (rx <= sx <= 1 - rx and ry <= sy <= 1 - ry):
            continue
        shares = np.linspace(0, 1, frames)
        if frames > 2:
            shares[1:-1] += rng.uniform(-0.08, 0.08, frames - 2)
        path = [(float(sx + (x - sx) * s), float(sy + (y - sy) * s)) for s in shares]
        if all(_free(u, v, radius, aspect, taken) for u, v in path):
            o["path"], o["motion"] = path, direction
            return


def facts(clip):
    """What there is to know of a clip, for `language.ask`."""
    here, gone = [], []
    for o in clip["objects"]:
        last = max(i for i in range(clip["frames"]) if o["visible"][i])
        x, y = o["path"][last]
        known = {"shape": o["shape"], "colour": o["colours"][last], "size": o["size"], "motion": o["motion"],
                 "event": o["event"], "place": (zone(x), zone(y)), "x": x, "before": o["colours"][0]}  # fmt: skip
        (here if o["visible"][-1] else gone).append(known)
    here.sort(key=lambda o: o["x"])
    gone.sort(key=lambda o: o["x"])
    text = clip["text"]
    interest = {}
    if not text:
        interest |= {"read": 0.3, "clock": 0.4}
    else:
        interest |= {"read": 3.5, "clock": 4.0 if text["clock"] else 0.5}
    if clip["frames"] == 1:
        interest |= {"moving": 0.25, "direction": 0.2, "changed": 0.2}
    elif not any(o["motion"] or o["event"] for o in here) and not gone:
        interest |= {"moving": 0.6, "direction": 0.4, "changed": 0.6}
    if not clip["daytime"]:
        interest["daytime"] = 0.4
    if clip["kind"] != "scene":
        interest |= {"state": 5.0, "where": 0.3, "colour": 0.3, "only": 0.5, "count": 0.3, "direction": 0.2}
    return {"kind": clip["kind"], "frames": clip["frames"], "here": here, "gone": gone, "interest": interest,
            "daytime": clip["daytime"], "text": text and text["characters"], "clock": bool(text and text["clock"])}  # fmt: skip


def labels(clip):
    """Classes of the patches of each frame, for training only: [frames, rows, columns, 3] of
    (shape or 0, colour or 0, character or 0), from the patch's centre."""
    (w, h), n = clip["size"], clip["frames"]
    rows, columns = h // PATCH, w // PATCH
    out = np.zeros((n, rows, columns, 3), np.uint8)
    xs = (np.arange(columns) + 0.5) * PATCH
    ys = (np.arange(rows) + 0.5) * PATCH
    short = min(w, h)
    for o in clip["objects"]:
        r = o["radius"] * short * 0.8
        for i in range(n):
            if o["visible"][i]:
                x, y = o["path"][i]
                inside = (xs[None] - x * w) ** 2 + (ys[:, None] - y * h) ** 2 < r * r
                out[i, inside, 0] = 1 + SHAPES.index(o["shape"])
                out[i, inside, 1] = 1 + COLOURS.index(o["colours"][i])
    t = clip["text"]
    if t and "boxes" in t:
        cos, sin = np.cos(t["angle"]), np.sin(t["angle"])
        dx, dy = xs[None] - t["x"] * w, ys[:, None] - t["y"] * h
        u, v = cos * dx + sin * dy, -sin * dx + cos * dy
        half = t["height"] * short / 2
        for character, (left, right) in zip(t["characters"], t["boxes"], strict=True):
            inside = (u >= left) & (u < right) & (abs(v) < half)
            out[:, inside, 2] = 1 + CHARACTERS.index(character)
    return out
