"""Clips as pixels, in batches, with PyTorch on a GPU or a CPU: shapes, backgrounds, text, and what cameras do to them.

`pack` turns clips (`scenes.py`) into arrays on any process; `Renderer` draws them. Frames come out in the size that
the program gives to the vision tower, so nothing is resized between here and there. Not here: what is in a clip.
"""

import functools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

import scenes
from scenes import MAX_OBJECTS, SHAPES

STYLE = 41  # values of a clip that hold for all of its frames
STAMPS = 192  # different small writings; each has four states, as a clock has
STRIP = (48, 384)  # rows and columns of the picture of a text
LETTER = 32  # height of its capitals in pixels
FONT_FOLDERS = [Path("/usr/share/fonts/truetype"), Path("/usr/share/fonts/opentype"), Path(__file__).parent / "fonts"]
# Free fonts of the Debian packages fonts-dejavu-core, fonts-liberation2, fonts-freefont-ttf, fonts-lato and
# fonts-inconsolata. Seven segments are drawn here.
FONTS = [
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSerif.ttf",
    "LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf", "LiberationMono-Bold.ttf", "LiberationSerif-Bold.ttf",
    "LiberationMono-Regular.ttf", "FreeSans.ttf", "FreeSansBold.ttf", "FreeMonoBold.ttf", "FreeSerifBold.ttf",
    "Lato-Regular.ttf", "Lato-Bold.ttf", "Lato-Black.ttf", "Lato-Medium.ttf", "Inconsolata.otf",
]  # fmt: skip
SEGMENTS = {
    "0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd", "6": "afgedc", "7": "abc",
    "8": "abcdefg", "9": "abcdfg",
}  # fmt: skip


@functools.cache
def fonts():
    """The fonts that are here, at the size at which capitals are `LETTER` pixels high."""
    found = []
    for file in FONTS:
        path = next((p for folder in FONT_FOLDERS if folder.is_dir() for p in folder.rglob(file)), None)
        if path is None:
            continue
        size = LETTER
        for _ in range(4):
            top, bottom = ImageFont.truetype(path, size).getbbox("H")[1::2]
            size = max(8, round(size * LETTER / (bottom - top)))
        found.append(ImageFont.truetype(path, size))
    if len(found) < 8:
        raise SystemExit(f"only {len(found)} of {len(FONTS)} fonts are installed; see FONTS in {__file__}")
    return found


def strip(text):
    """The text's picture (`STRIP`, 0 to 255, in its middle) and the boxes [left, right) of its characters in letter
    heights from the middle."""
    rows, columns = STRIP
    image = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(image)
    characters = text["characters"]
    pick = text["font"]
    if all(c.isdigit() or c == ":" for c in characters) and pick % 5 == 0:
        edges = _seven_segments(draw, characters, columns, rows, pick // 5)
    else:
        font = fonts()[pick % len(fonts())]
        gap = (pick // 64) % 5
        widths = [font.getlength(c) + gap for c in characters]
        x = (columns - sum(widths)) / 2
        top, bottom = font.getbbox("H")[1::2]
        y = (rows - (top + bottom)) / 2
        edges = [x]
        for c, w in zip(characters, widths, strict=True):
            draw.text((x, y), c, fill=255, font=font)
            x += w
            edges.append(x)
    boxes = [((a - columns / 2) / LETTER, (b - columns / 2) / LETTER) for a, b in zip(edges, edges[1:])]
    return np.array(image), boxes


def _seven_segments(draw, characters, columns, rows, style):
    width, thick, gap = 18, 4 + style % 2, 5
    total = sum(width if c != ":" else 6 for c in characters) + gap * (len(characters) - 1)
    x, y = (columns - total) / 2, (rows - LETTER) / 2
    edges = [x - gap / 2]
    for c in characters:
        h, m = LETTER, LETTER / 2
        if c == ":":
            for dy in (h * 0.3, h * 0.7):
                draw.rectangle((x + 1, y + dy - 2, x + 5, y + dy + 2), fill=255)
            x += 6 + gap
        else:
            bars = {"a": (2, 0, width - 2, thick), "g": (2, m - thick / 2, width - 2, m + thick / 2),
                    "d": (2, h - thick, width - 2, h), "f": (0, 2, thick, m - 1), "e": (0, m + 1, thick, h - 2),
                    "b": (width - thick, 2, width, m - 1), "c": (width - thick, m + 1, width, h - 2)}  # fmt: skip
            for s in SEGMENTS[c]:
                l, t, r, b = bars[s]
                draw.rectangle((x + l, y + t, x + r, y + b), fill=255)
            x += width + gap
        edges.append(x - gap / 2)
    return edges


def _far(rng, base, low, values, least):
    """A colour drawn by `base` that differs from all of `values` by `least` (root mean square), if one is found."""
    best, best_distance = None, -1.0
    for _ in range(12):
        c = base(rng)
        d = min((np.sqrt(np.mean((c - v) ** 2)) for v in values), default=9.0)
        if d >= least:
            return c
        if d > best_distance:
            best, best_distance = c, d
    return best


def _grey(rng):
    c = np.full(3, rng.choice([rng.uniform(0.02, 0.25), rng.uniform(0.25, 0.75), rng.uniform(0.75, 0.97)]))
    return np.clip(c + rng.normal(size=3) * 0.02, 0, 1)


def _muted(rng):
    return scenes.hsv_to_rgb(rng.uniform(0, 360), rng.uniform(0.05, 0.35), rng.uniform(0.15, 0.95))


KINDS = {"scene": 0, "blank": 1, "snow": 2, "bars": 3}


def pack(clip):
    """A clip's arrays: `frame` [n, ...] values that change from frame to frame, `clip` values that do not."""
    rng = np.random.default_rng(clip["seed"])
    n, (w, h) = clip["frames"], clip["size"]
    objects = np.zeros((n, MAX_OBJECTS, 12), np.float32)
    values = []
    for i, o in enumerate(clip["objects"]):
        variants = rng.random(3)
        outline = rng.random() < 0.2
        of = {}
        for colour in dict.fromkeys(o["colours"]):
            of[colour] = scenes.colour_value(rng, colour)
        values += list(of.values())
        for f in range(n):
            x, y = o["path"][f]
            objects[f, i] = [o["visible"][f], SHAPES.index(o["shape"]), x * w, y * h, o["radius"] * min(w, h),
                             o["angle"], *of[o["colours"][f]], *variants[:2], outline]  # fmt: skip
    style = np.zeros(STYLE, np.float32)
    style[0] = KINDS[clip["kind"]]
    style[1] = rng.integers(1 << 20)
    daytime = clip["daytime"]
    if clip["kind"] == "blank":
        a = _grey(rng) if rng.random() < 0.6 else _muted(rng)
        if rng.random() < 0.35:
            a = np.zeros(3) + rng.choice([0.0, 1.0])
        b, mode = a, 0
    elif daytime == "day":
        a = scenes.hsv_to_rgb(rng.uniform(198, 215), rng.uniform(0.3, 0.6), rng.uniform(0.85, 1))
        b = scenes.hsv_to_rgb(rng.uniform(195, 215), rng.uniform(0.08, 0.3), rng.uniform(0.9, 1))
        mode = 3
    elif daytime == "night":
        a = scenes.hsv_to_rgb(rng.uniform(215, 255), rng.uniform(0.3, 0.8), rng.uniform(0.03, 0.12))
        b = scenes.hsv_to_rgb(rng.uniform(210, 260), rng.uniform(0.3, 0.8), rng.uniform(0.06, 0.22))
        mode = 4
    elif clip.get("black"):
        a = b = np.zeros(3) + (0.0 if rng.random() < 0.8 else rng.uniform(0, 0.05))
        mode = 0
    else:
        kind = _grey if rng.random() < 0.5 else _muted
        a = _far(rng, kind, None, values, 0.22)
        b = np.clip(a + rng.normal(size=3) * rng.choice([0.0, 0.04, 0.1]), 0, 1)
        mode = int(rng.choice([0, 1, 2, 5], p=[0.35, 0.3, 0.2, 0.15]))
    style[2:5], style[5:8], style[8] = a, b, mode
    style[9:12] = rng.uniform(0, 2 * np.pi), rng.uniform(20, 90), rng.uniform(0.6, 0.9)
    style[12:15] = scenes.hsv_to_rgb(rng.uniform(20, 140), rng.uniform(0.1, 0.45), rng.uniform(0.05, 0.16)
                                     if daytime == "night" else rng.uniform(0.35, 0.75))  # fmt: skip
    # What the camera does: gain, noise (still, moving), blur, detail, JPEG quality.
    plain_clip = rng.random() < 0.3
    gain = 1.0 if plain_clip else rng.uniform(0.72, 1.15)
    if daytime == "night":
        gain *= rng.uniform(0.75, 1.0)
    noise = 0.0 if plain_clip or rng.random() < 0.4 else abs(rng.normal()) * 0.03
    style[15:17] = gain, noise
    style[17] = 0.0 if rng.random() < 0.5 else rng.uniform(0, 1)  # share of the noise that stands still
    style[18] = 0.0 if plain_clip or rng.random() < 0.5 else rng.uniform(28, 95)  # JPEG quality; 0 for none
    style[19] = daytime == "night" and rng.random() < 0.7  # stars
    style[20] = 0.0 if rng.random() < 0.5 else rng.uniform(0, 0.06)  # large soft spots of light
    text = clip["text"]
    mask = np.zeros(STRIP, np.uint8)
    if text:
        mask, boxes = strip(text)
        short = min(w, h)
        text["boxes"] = [(l * text["height"] * short, r * text["height"] * short) for l, r in boxes]
        limit = (0.94 * w) / max(1.0, text["boxes"][-1][1] - text["boxes"][0][0])
        height = text["height"] * short * min(1.0, limit)
        if limit < 1:
            text["boxes"] = [(l * limit, r * limit) for l, r in text["boxes"]]
        ground = a if daytime != "day" else np.array([0.75, 0.85, 0.95])
        ink = _far(rng, lambda r: _grey(r) if r.random() < 0.6 else scenes.hsv_to_rgb(
            r.uniform(0, 360), r.uniform(0.5, 1), r.uniform(0.5, 1)), None, [ground, b], 0.38)  # fmt: skip
        plate = rng.random() < 0.35
        back = _far(rng, _grey, None, [ink], 0.45)
        style[21:24] = text["x"] * w, text["y"] * h, height
        style[24], style[25:28], style[28], style[29:32] = text["angle"], ink, plate, back
    style[32] = rng.random() < 0.12  # the strip of a burnt-in clock
    if rng.random() < (0.5 if style[32] else 0.12):  # small writing, as cameras burn it in
        style[33] = 1 + rng.integers(STAMPS)
        style[34] = rng.uniform(0.026, 0.066) * min(w, h)
        style[35], style[36] = rng.integers(6), rng.uniform(3, 34)
        style[37:40] = rng.choice([1.0, 0.0]) if rng.random() < 0.8 else rng.choice([0.0, 1.0], 3)
        style[40] = rng.random() < 0.2
    return {"objects": objects, "style": style, "mask": mask}


def sdf(kind, u, v, p, q):
    """Signed distance, in radii, to the outline of each shape. `p`, `q` from 0 to 1 vary its proportions."""
    circle = torch.sqrt(u * u + v * v) - 0.95
    side = 0.80 + 0.08 * p
    round_ = 0.12 * q * (q > 0.5)
    ax, ay = u.abs(), v.abs()
    bx, by = ax - side + round_, ay - side * (0.94 + 0.06 * q) + round_
    square = torch.sqrt(bx.clamp(min=0) ** 2 + by.clamp(min=0) ** 2) + torch.maximum(bx, by).clamp(max=0) - round_
    # An isosceles triangle, apex up.
    foot, half = 0.62 + 0.15 * p, 0.80 + 0.15 * q
    nx, ny = (foot + 0.95), half
    length = torch.sqrt(nx * nx + ny * ny)
    triangle = torch.maximum(v - foot, (ax * nx - (v + 0.95) * ny) / length)
    # A star with five points: the edge from a point (radius 1) to the next notch.
    inner = 0.38 + 0.14 * p
    sector = 2 * torch.pi / 5
    angle = torch.atan2(u, -v)
    fold = (torch.remainder(angle + sector / 2, sector) - sector / 2).abs()
    radius = torch.sqrt(u * u + v * v)
    px, py = radius * torch.cos(fold), radius * torch.sin(fold)
    ex, ey = inner * 0.80902 - 1.0, inner * 0.58779
    star = ((px - 1.0) * -ey + py * ex) / -torch.sqrt(ex * ex + ey * ey)
    arm, reach = 0.22 + 0.13 * p, 0.92
    cross = torch.minimum(torch.maximum(ax - arm, ay - reach), torch.maximum(ax - reach, ay - arm))
    # A heart: a square on its corner with a disc on each upper side.
    s = 0.62
    hx, hy = (u + v - 0.06) * 0.70711, (v - u - 0.06) * 0.70711
    box = torch.maximum(hx.abs(), hy.abs()) - s * 0.96
    c = s * 0.70711 * 0.96
    discs = torch.sqrt((ax - c) ** 2 + (v - 0.06 + c) ** 2) - s * 0.97
    heart = torch.minimum(box, discs)
    out = circle
    for i, other in enumerate([square, triangle, star, cross, heart], 1):
        out = torch.where(kind == i, other, out)
    return out


def hash_noise(x, y, seed):
    """Repeatable uniform noise in [0, 1) from integers."""
    n = (x * 374761393 + y * 668265263 + seed * 974711) & 0x7FFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0x7FFFFFFF
    n = ((n ^ (n >> 16)) * 461845907) & 0x7FFFFFFF
    return (n & 0xFFFFFF).float() / 0x1000000


def across(w: int, h: int, device):
    """The pixels' centres: x [1, 1, 1, w] and y [1, 1, h, 1]."""
    xs = torch.arange(w, device=device, dtype=torch.float32) + 0.5
    ys = torch.arange(h, device=device, dtype=torch.float32) + 0.5
    return xs[None, None, None, :], ys[None, None, :, None]


def ground(style, xs, ys):
    """What lies behind everything: [frames, 3, h, w] from 0 to 1."""
    w, h = xs.shape[3], ys.shape[2]
    s = style[:, :, None, None]
    a, b, mode = s[:, 2:5], s[:, 5:8], s[:, 8:9]
    angle, period = s[:, 9:10], s[:, 10:11]
    along = (torch.cos(angle) * xs / w + torch.sin(angle) * ys / h) * 0.5 + 0.5
    stripes = ((torch.cos(angle) * xs + torch.sin(angle) * ys) / period).floor().remainder(2)
    checks = ((xs / period).floor() + (ys / period).floor()).remainder(2)
    down = ys / h
    share = torch.where(mode == 1, along.clamp(0, 1), torch.where(mode == 2, stripes, torch.where(
        mode == 5, checks, torch.where(mode >= 3, down.expand_as(along), torch.zeros_like(along)))))  # fmt: skip
    picture = a + (b - a) * share
    soil = ((mode == 3) | (mode == 4)) & (down > s[:, 11:12])
    picture = torch.where(soil, s[:, 12:15].expand_as(picture), picture)
    cell = 26.0
    cx, cy = (xs / cell).floor(), (ys / cell).floor()
    seed = s[:, 1:2].long()
    sx = hash_noise(cx.long(), cy.long(), seed) * 0.6 + 0.2
    sy = hash_noise(cx.long() + 91, cy.long(), seed) * 0.6 + 0.2
    dots = ((xs / cell - cx - sx) ** 2 + (ys / cell - cy - sy) ** 2) < 0.0022
    bright = hash_noise(cx.long(), cy.long() + 57, seed)
    return torch.where((s[:, 19:20] > 0) & dots & (bright > 0.45) & ~soil, bright * 0.8 + 0.1, picture)


def paint(picture, o, xs, ys):
    """One object of each frame over the picture; `o` [frames, 12, 1, 1]."""
    radius = o[:, 4:5].clamp(min=1.0)
    dx, dy = (xs - o[:, 2:3]) / radius, (ys - o[:, 3:4]) / radius
    cos, sin = torch.cos(o[:, 5:6]), torch.sin(o[:, 5:6])
    u, v = cos * dx + sin * dy, -sin * dx + cos * dy
    d = sdf(o[:, 1:2], u, v, o[:, 9:10], o[:, 10:11])
    cover = (0.5 - d * radius).clamp(0, 1) * o[:, 0:1]
    rim = ((d * radius + 3.0).clamp(0, 1)) * o[:, 11:12]
    ink = o[:, 6:9] * (1 - 0.75 * rim)
    return picture + (ink - picture) * cover


def write(picture, style, mask, xs, ys):
    """The text, over the picture: `mask` [frames, rows, columns] from 0 to 1."""
    device = picture.device
    xs, ys = xs[0], ys[0]
    s = style[:, :, None, None]
    tx, ty, height, angle = (style[:, i, None, None] for i in (21, 22, 23, 24))
    scale = LETTER / height.clamp(min=1.0)
    dx, dy = xs - tx, ys - ty
    u = (torch.cos(angle) * dx + torch.sin(angle) * dy) * scale
    v = (-torch.sin(angle) * dx + torch.cos(angle) * dy) * scale
    grid = torch.stack([u / (STRIP[1] / 2), v / (STRIP[0] / 2)], -1)
    ink = F.grid_sample(mask[:, None], grid, align_corners=False, padding_mode="zeros")
    columns = (mask.amax(1) > 0).float()
    half = (columns * (torch.arange(STRIP[1], device=device) - STRIP[1] / 2 + 0.5).abs()).amax(1)[:, None, None] + 8
    inside = ((u.abs() < half) & (v.abs() < STRIP[0] / 2) & (style[:, 28, None, None] > 0))[:, None]
    there = (style[:, 23, None, None] > 0)[:, None]
    picture = torch.where(inside & there, s[:, 29:32].expand_as(picture), picture)
    return picture + (s[:, 25:28] - picture) * ink * there


BARS_TOP = [(.75, .75, .75), (.75, .75, 0), (0, .75, .75), (0, .75, 0), (.75, 0, .75), (.75, 0, 0), (0, 0, .75)]
BARS_MIDDLE = [(0, 0, .75), (.07, .07, .07), (.75, 0, .75), (.07, .07, .07), (0, .75, .75), (.07, .07, .07),
               (.75, .75, .75)]  # fmt: skip
BARS_BOTTOM = [(0, .13, .3), (1, 1, 1), (.2, 0, .42), (.07, .07, .07), (.07, .07, .07), (.03, .03, .03),
               (.07, .07, .07)]  # fmt: skip


def test_pictures(picture, style, w: int, h: int, generator):
    """SMPTE bars and snow in place of what was drawn, where the clip is one."""
    kind = style[:, 0]
    if bool((kind == 3).any()):
        device = picture.device
        columns = (torch.arange(w, device=device) * 7 // w).clamp(max=6)
        rows = torch.arange(h, device=device)
        table = torch.tensor([BARS_TOP, BARS_MIDDLE, BARS_BOTTOM], device=device)
        for i in torch.nonzero(kind == 3)[:, 0].tolist():
            bars = table.clone()
            full = float(style[i, 9]) < 1.5
            level = 1.0 if float(style[i, 10]) < 60 else 4 / 3
            bars[0] = (bars[0] * level).clamp(max=1)
            cut = [1.0, 1.0] if full and float(style[i, 10]) < 45 else [2 / 3, 3 / 4]
            band = torch.where(rows < h * cut[0], 0, torch.where(rows < h * cut[1], 1, 2))
            picture[i] = bars[band][:, columns].permute(2, 0, 1)
    if bool((kind == 2).any()):
        for i in torch.nonzero(kind == 2)[:, 0].tolist():
            grain = [1, 1, 2, 3][int(style[i, 1]) % 4]
            coloured = int(style[i, 1]) % 7 == 0
            snow = torch.rand(1, 3 if coloured else 1, -(-h // grain), -(-w // grain), device=picture.device,
                              generator=generator)  # fmt: skip
            picture[i] = F.interpolate(snow, scale_factor=grain)[0, :, :h, :w]
    return picture


def burn_in(picture, style, still, generator):
    """The strip of black and white blocks at the top that the program's test pictures carry (src/ingest/timecode.rs):
    its left blocks change from frame to frame, its right ones seldom."""
    device, (count, _, h, w) = picture.device, picture.shape
    clips = still.shape[0]
    bits = torch.rand(count, 40, device=device, generator=generator) < 0.5
    slow = torch.rand(clips, 14, device=device, generator=generator) < 0.5
    bits[:, 26:] = slow.repeat_interleave(count // clips, 0)
    columns = torch.arange(w, device=device) * 40 // w
    top = picture[:, :, : h // 15]
    blocks = bits[:, columns][:, None, None].to(picture.dtype)
    picture[:, :, : h // 15] = torch.where(style[:, 32, None, None, None] > 0, blocks.expand_as(top), top)
    return picture


def _stamp_text(rng):
    """Four states of a small writing."""
    roll, start, step = rng.random(), int(rng.integers(86400)), rng.choice([0.5, 1.0, 1.0, 2.0])
    moments = [start + i * step for i in range(4)]
    clocks = [f"{int(t) // 3600 % 24:02}:{int(t) // 60 % 60:02}:{int(t) % 60:02}" for t in moments]
    if roll < 0.35:  # a stream's time
        return [f"{int(t) // 3600 % 5}{c[2:]}.{int(rng.integers(1000)):03}" for t, c in zip(moments, clocks, strict=True)]
    year, month, day = int(rng.integers(2000, 2040)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    if roll < 0.7:
        date = [f"{year}-{month:02}-{day:02} ", f"{day:02}/{month:02}/{year} ", f"{month:02}-{day:02} ", ""][int(rng.integers(4))]
        return [date + c for c in clocks]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    words = ["".join(letters[i] for i in rng.integers(len(letters), size=rng.integers(2, 8))) for _ in range(rng.integers(1, 3))]
    return [" ".join([*words, ["CAM 1", "REC", "Camera 01", "IPC"][int(rng.integers(4))]][-2:])] * 4


@functools.cache
def _stamps(device):
    """[STAMPS * 4, *STRIP], from 0 to 1; smoothed, because they are drawn at less than half their size."""
    rng = np.random.default_rng(11)
    masks = []
    for _ in range(STAMPS):
        font = int(rng.integers(1 << 16))
        masks += [strip({"characters": text, "font": font})[0] for text in _stamp_text(rng)]
    masks = torch.from_numpy(np.stack(masks)).to(device).float().div(255)
    return F.avg_pool2d(masks[:, None], 3, 1, 1)[:, 0]


def stamp(picture, style, frames, xs, ys):
    """Small writing near an edge of some clips, over everything else. It is no text for the questions: the model learns
    to pass it over."""
    at = torch.nonzero(style[:, 33] > 0)[:, 0]
    if len(at) == 0:
        return picture
    (h, w), s = picture.shape[2:], style[at].clone()
    mask = _stamps(picture.device)[(s[:, 33].long() - 1) * 4 + at % frames % 4]
    height, corner, margin = s[:, 34], s[:, 35].long(), s[:, 36]
    distance = (torch.arange(STRIP[1], device=picture.device) - STRIP[1] / 2 + 0.5).abs()
    half = ((mask.amax(1) > 0) * distance).amax(1) * height / LETTER
    across, down = corner % 3, corner // 3
    s[:, 21] = torch.where(across == 0, margin + half, torch.where(across == 1, w / 2, w - margin - half))
    s[:, 22] = torch.where(down == 0, margin + height / 2, h - margin - height / 2)
    s[:, 23], s[:, 24], s[:, 28], s[:, 29:32] = height, 0, s[:, 40], 1 - s[:, 37:40]
    shadow = s.clone()
    shadow[:, 21:23] += 1
    shadow[:, 25:28] = 1 - s[:, 37:40]
    s[:, 25:28] = s[:, 37:40]
    s[:, 28] = 0  # the shadow has the plate
    picture[at] = write(write(picture[at], shadow, mask, xs, ys), s, mask, xs, ys)
    return picture


def _dct(device):
    """The 8 x 8 cosine transform."""
    k, x = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    m = torch.cos((2 * x + 1) * k * torch.pi / 16) * 0.5
    m[0] *= 0.5**0.5
    return m.to(device)


# ITU-T T.81, tables K.1 and K.2.
LUMA = [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29,
        51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121,
        120, 101, 72, 92, 95, 98, 112, 100, 103, 99]  # fmt: skip
CHROMA = [17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66] + [
    99] * 38  # fmt: skip


def jpeg(picture, quality, m):
    """What JPEG of a quality (0 for none) leaves of a picture in [0, 1], colours at half resolution.
    Its sides are multiples of 16; `m` is the cosine transform."""
    device = picture.device
    n = picture.shape[0]
    x = picture * 255
    r, g, b = x[:, 0], x[:, 1], x[:, 2]
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb, cr = (b - y) * 0.564, (r - y) * 0.713
    chroma = F.avg_pool2d(torch.stack([cb, cr], 1), 2)
    q = quality.clamp(min=1)
    scale = torch.where(q < 50, 5000 / q, 200 - 2 * q)[:, None, None, None, None, None] / 100

    def squeeze(plane, table):
        _, c, ph, pw = plane.shape
        steps = (torch.tensor(table, device=device, dtype=torch.float32).view(8, 8) * scale).clamp(min=1)
        blocks = plane.view(n, c, ph // 8, 8, pw // 8, 8).permute(0, 1, 2, 4, 3, 5)
        f = m @ (blocks - 0.0) @ m.T
        f = torch.round(f / steps) * steps
        back = m.T @ f @ m
        return back.permute(0, 1, 2, 4, 3, 5).reshape(n, c, ph, pw)

    y = squeeze(y[:, None] - 128, LUMA)[:, 0] + 128
    chroma = F.interpolate(squeeze(chroma, CHROMA), scale_factor=2)
    cb, cr = chroma[:, 0], chroma[:, 1]
    r, b = y + cr / 0.713, y + cb / 0.564
    g = (y - 0.299 * r - 0.114 * b) / 0.587
    out = (torch.stack([r, g, b], 1) / 255).clamp(0, 1)
    return torch.where((quality > 0)[:, None, None, None], out, picture)


class Renderer:
    """Draws batches of packed clips of one picture size."""

    def __init__(self, device, compile_=False):
        self.device = device
        # Compiled once for all sizes: compiling costs more than it saves per size.
        fast = functools.partial(torch.compile, dynamic=True) if compile_ else lambda f: f
        self.ground, self.paint, self.write, self.jpeg = fast(ground), fast(paint), fast(write), fast(jpeg)
        self.dct = _dct(device)

    @torch.no_grad()
    def __call__(self, objects, style, mask, size, seed):
        """`objects` [clips, frames, MAX_OBJECTS, 12], `style` [clips, STYLE], `mask` [clips, *STRIP] uint8, all on the
        device; returns uint8 [clips, frames, 3, h, w]."""
        clips, frames = objects.shape[:2]
        w, h = size
        generator = torch.Generator(self.device).manual_seed(seed)
        objects = objects.flatten(0, 1)
        still = style
        style = style.repeat_interleave(frames, 0)
        xs, ys = across(w, h, self.device)
        picture = self.ground(style, xs, ys)
        for i in range(MAX_OBJECTS):
            picture = self.paint(picture, objects[:, i, :, None, None], xs, ys)
        picture = self.write(picture, style, mask.float().div(255).repeat_interleave(frames, 0), xs, ys)
        picture = test_pictures(picture, style, w, h, generator)
        picture = burn_in(picture, style, still, generator)
        picture = stamp(picture, style, frames, xs, ys)
        picture = self._camera(picture, style, still, clips, frames, w, h, generator)
        out = (picture.clamp(0, 1) * 255).round().to(torch.uint8)
        return out.view(clips, frames, 3, h, w)

    def _camera(self, picture, style, still, clips, frames, w, h, generator):
        spots = F.interpolate(torch.randn(clips, 1, 4, 6, device=self.device, generator=generator), size=(h, w),
                              mode="bicubic")  # fmt: skip
        spots = (spots * still[:, 20, None, None, None]).repeat_interleave(frames, 0)
        picture = (picture + spots) * style[:, 15, None, None, None]
        # Less detail for some clips: down and up again, a factor for each eighth of the batch.
        picture = picture.view(clips, frames, 3, h, w)
        eighth = max(1, clips // 8)
        for i in range(0, clips, eighth):
            if torch.rand((), generator=generator, device=self.device) < 0.45:
                continue
            factor = float(torch.rand((), generator=generator, device=self.device)) * 0.6 + 0.4
            some = picture[i : i + eighth].flatten(0, 1)
            small = F.interpolate(some, scale_factor=factor, mode="bilinear", antialias=True)
            picture[i : i + eighth] = F.interpolate(small, size=(h, w), mode="bilinear").view(-1, frames, 3, h, w)
        picture = picture.flatten(0, 1)
        noise, stands = style[:, 16, None, None, None], style[:, 17, None, None, None]
        fixed = torch.randn(clips, 1, 3, h, w, device=self.device, generator=generator)
        fixed = fixed.expand(-1, frames, -1, -1, -1).flatten(0, 1)
        fresh = torch.randn(picture.shape, device=self.device, generator=generator)
        picture = (picture + noise * (stands * fixed + (1 - stands) * fresh)).clamp(0, 1)
        padded = F.pad(picture, (0, -w % 16, 0, -h % 16), mode="replicate")
        return self.jpeg(padded, style[:, 18], self.dct)[:, :, :h, :w]


def pictures(clips, seed=0):
    """Pictures of clips on the CPU, for evaluation: a list of uint8 arrays [frames, h, w, 3]."""
    renderer, out = Renderer(torch.device("cpu")), []
    for i, clip in enumerate(clips):
        p = pack(clip)
        drawn = renderer(torch.from_numpy(p["objects"])[None], torch.from_numpy(p["style"])[None],
                         torch.from_numpy(p["mask"])[None], clip["size"], seed + i)  # fmt: skip
        out.append(drawn[0].permute(0, 2, 3, 1).contiguous().numpy())
    return out
