#!/usr/bin/env python3
"""Make the golden pictures that prove our preprocessing: what the reference makes of a picture when it cuts
one slice of it (`max_slice_nums = 1`), bit for bit.

The specification is `MiniCPMVImageProcessor` (image_processing_minicpmv.py of openbmb/MiniCPM-o-4_5 and
MiniCPM-V; Apache-2.0), read and written anew here:
 1. size: with ratio r = width / height, height = trunc(448 / sqrt(r)), width = trunc(height * r),
    each then rounded (Python's round) to a multiple of 14, at least 14 (`find_best_resize`, upscaling allowed);
 2. pixels: Pillow's `Image.resize(size, BICUBIC)` on 8-bit RGB;
 3. values: (pixel / 255 - 0.5) / 0.5 in float32, channels first;
 4. patches: 14 x 14, row by row, laid out as (3, 14, patches * 14) (`reshape_by_patch`).

Written to --out: NAME-in.png (the picture), NAME-out.png (step 2) and manifest.json with the SHA-256 of the
raw pixels of both and of the float32 little-endian bytes of step 4. The pictures come from integer formulas:
own work, licence MIT.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

SCALE_RESOLUTION = 448
PATCH = 14


def reference_size(width, height):
    """Step 1."""
    ratio = width / height
    scaled_height = int(SCALE_RESOLUTION / math.sqrt(ratio))
    scaled_width = int(scaled_height * ratio)
    return tuple(max(round(side / PATCH) * PATCH, PATCH) for side in (scaled_width, scaled_height))


def patches(pixels):
    """Steps 3 and 4 on an array (height, width, 3) of uint8."""
    values = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    grid = values.transpose(2, 0, 1).reshape(3, rows, PATCH, columns, PATCH)
    return grid.transpose(0, 2, 1, 3, 4).reshape(3, PATCH, rows * columns * PATCH)


def coordinates(width, height):
    return np.meshgrid(np.arange(width), np.arange(height))


def stack(*channels):
    return np.stack([np.asarray(c) & 255 for c in channels], axis=-1).astype(np.uint8)


def bars(width, height):
    """Colour bars over a slow ramp: hard edges, so that the filter overshoots and is clipped."""
    x, y = coordinates(width, height)
    bar = x * 8 // width
    ramp = y * 255 // max(height - 1, 1)
    top = y < height // 2
    return stack(*[np.where(top, (bar >> bit & 1) * 255, ramp if bit else 255 - ramp) for bit in (1, 2, 0)])


def checkers(width, height):
    """Checkerboards of one, two and five pixels side by side: the highest frequencies."""
    x, y = coordinates(width, height)
    cell = np.where(x < width // 3, 1, np.where(x < 2 * width // 3, 2, 5))
    on = (x // cell + y // cell) & 1
    return stack(on * 255, on * 200 + 20, (1 - on) * 255)


def rings(width, height):
    """A zone plate: all frequencies in all directions."""
    x, y = coordinates(width, height)
    square = (x - width // 2) ** 2 + (y - height // 2) ** 2
    wave = square // 12 & 511
    grey = np.minimum(wave, 511 - wave)
    return stack(grey, 255 - grey, square // 48)


def blocks(width, height):
    """Flat rectangles on a ramp, as of a user interface."""
    x, y = coordinates(width, height)
    tile = (x // 90 * 7 + y // 70 * 13) % 5
    inside = (x % 90 > 11) & (y % 70 > 9)
    ramp = x * 255 // max(width - 1, 1)
    return stack(*[np.where(inside, tile * 60 + shift, ramp) for shift in (0, 5, 15)])


def photo(width, height):
    """Ramps with noise on them, as a camera sees a wall; the noise is a linear congruential sequence."""
    x, y = coordinates(width, height)
    state, noise = 12345, np.empty(width * height, np.int64)
    for i in range(width * height):
        state = (state * 1103515245 + 12345) % 2**31
        noise[i] = (state >> 16) % 17 - 8
    noise = noise.reshape(height, width)
    base = 60 + x * 120 // width + y * 60 // height
    return stack(*[np.clip(base + tint + noise, 0, 255) for tint in (0, -20, 15)])


PICTURES = [
    ("bars", bars, 640, 360),
    ("checkers", checkers, 352, 288),
    ("square", blocks, 448, 448),
    ("tall", rings, 100, 300),
    ("strip", bars, 37, 500),
    ("large", blocks, 1100, 600),
    # A second resize of the next two would move them again (616x336 to 602x336, 448x434 to 448x448).
    ("moving", blocks, 630, 340),
    ("squarish", blocks, 620, 600),
    ("photo", photo, 320, 240),
]


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=Path("tests/data/preprocess"), help="folder (%(default)s)")
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    entries = []
    for name, draw, width, height in PICTURES:
        source = Image.fromarray(draw(width, height))
        size = reference_size(width, height)
        resized = np.asarray(source.resize(size, Image.Resampling.BICUBIC))
        source.save(given.out / f"{name}-in.png", optimize=True)
        Image.fromarray(resized).save(given.out / f"{name}-out.png", optimize=True)
        entries.append(
            {
                "name": name,
                "in": [width, height],
                "out": list(size),
                "in_rgb_sha256": sha256(np.asarray(source)),
                "out_rgb_sha256": sha256(resized),
                "patches_f32le_sha256": sha256(patches(resized).astype("<f4")),
            }
        )
    manifest = {
        "origin": "scripts/make_preprocess_golden.py; synthetic pictures, own work",
        "licence": "MIT",
        "pillow": PIL.__version__,
        "pictures": entries,
    }
    (given.out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    total = sum(path.stat().st_size for path in given.out.glob("*.png"))
    print(f"{len(entries)} pictures, {total / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
