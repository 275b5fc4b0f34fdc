"""Clips drawn a second time, as SVG, by nothing that training uses: own outlines, own colours, own backgrounds, fonts
that training never sees, rasterised by resvg.

`draw` gives a clip's frames as SVG texts, `pictures` as pixels. What is in a clip comes from `scenes.py`, because that
is the ground truth. Not here: the training renderer (`render.py`), questions (`language.py`), scores (`evaluate.py`).
"""

import functools
import io
import math
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image, ImageColor, ImageFilter, ImageFont

import scenes

SIZES = [(1280, 720), (640, 480), (600, 600), (720, 1280)]
SIZE_SHARES = [0.55, 0.2, 0.15, 0.1]
# Colours of CSS Color 4, by their names there. Text may have other colours than things.
INK = ["white", "black", "ivory", "gainsboro", "midnightblue", "maroon", "darkslategray", "gold", "lightgreen"]
PLAIN = ["dimgray", "slategray", "darkslategray", "silver", "tan", "rosybrown", "black", "whitesmoke", "thistle",
         "lightsteelblue", "#3b3128", "#20303a", "#8a8f98", "#d9d3c5", "#5d4a5f", "#48604f"]  # fmt: skip
GROUND = ["darkolivegreen", "sienna", "dimgray", "peru", "darkseagreen", "gray"]
# Families of the Debian packages fonts-open-sans, fonts-roboto-unhinted and fonts-noto-core.
FONT_FOLDER = Path("/usr/share/fonts/truetype")
FONTS = {
    ("Open Sans", 400): "OpenSans-Regular.ttf", ("Open Sans", 700): "OpenSans-Bold.ttf",
    ("Roboto", 400): "Roboto-Regular.ttf", ("Roboto", 700): "Roboto-Bold.ttf", ("Roboto", 500): "Roboto-Medium.ttf",
    ("Noto Sans", 400): "NotoSans-Regular.ttf", ("Noto Sans", 700): "NotoSans-Bold.ttf",
}  # fmt: skip
CAPITALS = 0.714  # height of capitals in these fonts, of their size


@functools.cache
def font_files():
    """The path of each font; all must be there."""
    found = {}
    for key, file in FONTS.items():
        path = next(FONT_FOLDER.rglob(file), None)
        if path is None:
            raise SystemExit(f"{file} is missing: install fonts-open-sans, fonts-roboto-unhinted and fonts-noto-core")
        found[key] = str(path)
    return found


def rgb(colour):
    return np.array(ImageColor.getrgb(colour), float)


def apart(a, b):
    """How different two colours look: weighted distance, 0 to about 765 (Riemersma's "redmean")."""
    mean, (r, g, b_) = (a[0] + b[0]) / 2, a - b
    return math.sqrt((2 + mean / 256) * r * r + 4 * g * g + (2 + (255 - mean) / 256) * b_ * b_)


def points(pairs):
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in pairs)


def polar(radius, degrees):
    return radius * math.sin(math.radians(degrees)), -radius * math.cos(math.radians(degrees))


def outline(shape, r, v):
    """The SVG element of a shape around 0, 0 within the radius `r`. `v` from 0 to 1 varies it."""
    if shape == "circle":
        return f'<circle r="{r * 0.96:.2f}"/>'
    if shape == "square":
        side = r * (1.62 + 0.1 * v)
        rounded = side * 0.06 * (v > 0.6)
        return f'<rect x="{-side / 2:.2f}" y="{-side / 2:.2f}" width="{side:.2f}" height="{side:.2f}" rx="{rounded:.2f}"/>'
    if shape == "triangle":
        corners = [polar(r * 1.02, a) for a in (0, 120, 240)]
        return f'<polygon points="{points((x, y + r * 0.14) for x, y in corners)}"/>'
    if shape == "star":
        inner = 0.40 + 0.08 * v
        return f'<polygon points="{points(polar(r * (1 if i % 2 == 0 else inner), 36 * i) for i in range(10))}"/>'
    if shape == "cross":
        a, b = r * 0.93, r * (0.25 + 0.08 * v)
        turn = [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)]
        return f'<polygon points="{points(turn)}"/>'
    # Two cubic curves from the notch over the lobes down to the tip.
    d = (f"M 0 {-0.45 * r:.2f} C {-0.35 * r:.2f} {-1.12 * r:.2f} {-1.3 * r:.2f} {-0.72 * r:.2f} {-0.88 * r:.2f} {0.02 * r:.2f} "
         f"Q {-0.62 * r:.2f} {0.45 * r:.2f} 0 {0.92 * r:.2f} Q {0.62 * r:.2f} {0.45 * r:.2f} {0.88 * r:.2f} {0.02 * r:.2f} "
         f"C {1.3 * r:.2f} {-0.72 * r:.2f} {0.35 * r:.2f} {-1.12 * r:.2f} 0 {-0.45 * r:.2f} Z")  # fmt: skip
    return f'<path d="{d}"/>'


def farthest(rng, candidates, from_, least):
    """One of `candidates` that differs enough from every colour of `from_`; else the one that differs most."""
    order = list(rng.permutation(len(candidates)))
    scored = [(min((apart(rgb(candidates[i]), rgb(c)) for c in from_), default=999), -n, candidates[i])
              for n, i in enumerate(order)]  # fmt: skip
    good = [s for s in scored if s[0] >= least]
    return max(good, key=lambda s: s[1])[2] if good else max(scored)[2]


def look(clip):
    """How a clip is drawn: all that does not change from frame to frame, from its seed alone."""
    rng = np.random.default_rng([clip["seed"], 0x5E6])
    colours = sorted({c for o in clip["objects"] for c in o["colours"]})
    w, h = clip["size"]
    daytime = clip["daytime"]
    empty = not clip["text"] and not all(any(o["visible"][i] for o in clip["objects"]) for i in range(clip["frames"]))
    extra, horizon = "", h * rng.uniform(0.66, 0.88)
    if clip["kind"] == "blank":
        stops = [["black", "gray", "white", "#101a66", "#2a2a2a"][rng.integers(5)]] * 2
    elif daytime == "day":
        sky = farthest(rng, ["lightskyblue", "skyblue", "#7cc4f2", "#9bd3f7"], colours, 90)
        stops = [sky, "#cfe6f5" if "white" not in colours else "#a9d3ee"]
        ground = farthest(rng, GROUND, colours, 160)
        extra = f'<rect y="{horizon:.1f}" width="{w}" height="{h}" fill="{ground}"/>'
    elif daytime == "night":
        stops = ["#040714", "#141f3d"]
        extra = "".join(
            f'<circle cx="{rng.uniform(0, w):.1f}" cy="{rng.uniform(0, horizon):.1f}" '
            f'r="{rng.uniform(0.0009, 0.0021) * min(w, h):.2f}" fill="#cdd3e0" opacity="{rng.uniform(0.3, 0.9):.2f}"/>'
            for _ in range(rng.integers(25, 70))
        )
        extra += f'<rect y="{horizon:.1f}" width="{w}" height="{h}" fill="#0c0f12"/>'
    elif clip.get("black") and not empty:
        stops = ["black"] * 2
    else:
        first = farthest(rng, PLAIN, colours, 190)
        near = [c for c in PLAIN if c != first and apart(rgb(c), rgb(first)) < 330]
        # An empty scene needs some structure, or it would be a blank picture.
        gradient = rng.random() < 0.45 or empty
        second = farthest(rng, near, colours, 150) if gradient and near else first
        if min((apart(rgb(second), rgb(c)) for c in colours), default=999) < 110:
            second = first
        if empty and second == first:
            second = "black" if rgb(first).mean() > 128 else "whitesmoke"
        stops = [first, second]
    turn = 0 if daytime else int(rng.choice([0, 90, 35, 320]))
    ink = farthest(rng, INK, stops, 330) if clip["text"] else None
    plate = None
    if clip["text"] and rng.random() < 0.25:
        plate = farthest(rng, ["black", "white", "#333333", "#efe6d0"], [ink], 400)
    if clip["text"] and daytime == "day" and not plate:
        ink = "black"
    family, weight = list(FONTS)[rng.integers(len(FONTS))]
    soft = rng.random() < 0.3
    return {"stops": stops, "turn": turn, "extra": extra, "ink": ink, "plate": plate, "family": family, "weight": weight,
            "soft": soft, "variants": rng.random(8), "turns": rng.uniform(-9, 9, 8),
            "rough": bool(rng.random() < 0.5), "noise": rng.uniform(1.5, 7), "blur": float(rng.choice([0, 0, 0.6, 1.1])),
            "quality": int(rng.integers(40, 85))}  # fmt: skip


def written(clip, style):
    """The text as SVG, in letters of the height that the facts say, no wider than its room."""
    t = clip["text"]
    w, h = clip["size"]
    short = min(w, h)
    size = t["height"] * short / CAPITALS
    font = ImageFont.truetype(font_files()[style["family"], style["weight"]], 200)
    width = font.getlength(t["characters"]) / 200 * size
    room = 0.94 * w - 2 * abs(t["x"] - 0.5) * w
    # The room that `scenes.py` keeps free: 0.72 of the height for each letter and a little at the ends.
    room = min(room, (0.72 * len(t["characters"]) + 0.5) * t["height"] * short)
    size *= min(1.0, room / width)
    width = min(width, room)
    cap = size * CAPITALS
    x, y = t["x"] * w, t["y"] * h
    behind = ""
    if style["plate"]:
        px, py = width / 2 + cap * 0.25, cap * 0.75
        behind = (f'<rect x="{x - px:.1f}" y="{y - py:.1f}" width="{2 * px:.1f}" height="{2 * py:.1f}" '
                  f'rx="{cap * 0.15:.1f}" fill="{style["plate"]}"/>')  # fmt: skip
    return (f'<g transform="rotate({math.degrees(t["angle"]):.2f} {x:.1f} {y:.1f})">{behind}'
            f'<text x="{x:.1f}" y="{y + cap / 2:.1f}" text-anchor="middle" font-family="{style["family"]}" '
            f'font-weight="{style["weight"]}" font-size="{size:.2f}" fill="{style["ink"]}">{t["characters"]}</text></g>')  # fmt: skip


def bars(w, h):
    """SMPTE EG 1-1990, roughly: 75 % bars over reverse bars over the pluge."""
    rows = [(0, 0.67, ["#bfbfbf", "#bfbf00", "#00bfbf", "#00bf00", "#bf00bf", "#bf0000", "#0000bf"]),
            (0.67, 0.08, ["#0000bf", "#131313", "#bf00bf", "#131313", "#00bfbf", "#131313", "#bfbfbf"]),
            (0.75, 0.25, ["#00214c", "white", "#32006a", "#131313", "#090909", "#1d1d1d", "#131313"])]  # fmt: skip
    return "".join(
        f'<rect x="{i * w / 7:.2f}" y="{top * h:.2f}" width="{w / 7 + 1:.2f}" height="{high * h + 1:.2f}" fill="{c}"/>'
        for top, high, row in rows
        for i, c in enumerate(row)
    )


def draw(clip, style=None):
    """The frames of a clip as SVG texts."""
    style = style or look(clip)
    w, h = clip["size"]
    short = min(w, h)
    first, second = style["stops"]
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}"><defs><linearGradient id="b" x1="0" y1="0" '
            f'x2="0" y2="1" gradientTransform="rotate({style["turn"]} .5 .5)"><stop stop-color="{first}"/>'
            f'<stop offset="1" stop-color="{second}"/></linearGradient></defs>'
            f'<rect width="{w}" height="{h}" fill="url(#b)"/>{style["extra"]}')  # fmt: skip
    if clip["kind"] == "bars":
        return [head + bars(w, h) + "</svg>"] * clip["frames"]
    tail = (written(clip, style) if clip["text"] else "") + "</svg>"
    out = []
    for f in range(clip["frames"]):
        body = ""
        for i, o in enumerate(clip["objects"]):
            if not o["visible"][f]:
                continue
            (x, y), colour, r = o["path"][f], o["colours"][f], o["radius"] * short
            joint = f' stroke="{colour}" stroke-width="{r * 0.1:.2f}" stroke-linejoin="round"' if style["soft"] else ""
            shape = outline(o["shape"], r * (0.95 if style["soft"] else 1), style["variants"][i % 8])
            body += (f'<g transform="translate({x * w:.2f} {y * h:.2f}) rotate({style["turns"][i % 8]:.1f})" '
                     f'fill="{colour}"{joint}>{shape}</g>')  # fmt: skip
        out.append(head + body + tail)
    return out


@functools.lru_cache(maxsize=8)
def rasterise(svg):
    """An SVG text as uint8 [h, w, 3]."""
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, font_files=list(font_files().values()))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def worn(picture, style, rng):
    """What a poor camera leaves of a picture."""
    image = Image.fromarray(picture)
    if style["blur"]:
        image = image.filter(ImageFilter.GaussianBlur(style["blur"] * picture.shape[0] / 480))
    noisy = np.asarray(image, float) + rng.normal(size=picture.shape) * style["noise"]
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=style["quality"])
    return np.asarray(Image.open(file).convert("RGB"))


def pictures(clip, rough=None):
    """The frames of a clip as uint8 arrays [h, w, 3]; half of the clips are worn by JPEG, noise and blur."""
    style = look(clip)
    rough = style["rough"] if rough is None else rough
    rng = np.random.default_rng([clip["seed"], 0xCA])
    frames = [rasterise(svg) for svg in draw(clip, style)]
    return [worn(p, style, rng) for p in frames] if rough else frames


def sample(rng, frames=None):
    """A clip in one of our picture sizes. Snow is left to GStreamer, which makes the real thing."""
    if frames is None:
        frames = int(rng.choice([1, 2, 3, 4], p=[0.12, 0.08, 0.15, 0.65]))
    size = SIZES[int(rng.choice(len(SIZES), p=SIZE_SHARES))]
    kind = ["scene", "blank", "bars"][int(rng.choice(3, p=[0.95, 0.03, 0.02]))]
    return scenes.sample(rng, frames, size=size, kind=kind)


def swapped(picture):
    """Red and blue exchanged."""
    return picture[..., ::-1]


if __name__ == "__main__":
    import sys

    rng = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 5)
    rows = []
    for _ in range(24):
        frames = pictures(sample(rng, 4))
        rows.append(np.hstack([np.asarray(Image.fromarray(frames[i]).resize((320, 240))) for i in (0, 3)]))
    sheet = np.vstack([np.hstack(rows[i : i + 3]) for i in range(0, 24, 3)])
    Image.fromarray(sheet).save(sys.argv[1])
