"""Writes what proves that training and program see alike: pictures as the training generator draws them, and the
embeddings that PyTorch makes of their pixels with the weights of the shipped files.

    python pixels_golden.py ../../gguf/demo ../../tests/data/demo/pixels

`src/engine/tests.rs` gives the same pictures to the program's preprocessing and vision tower. Not here: training.
"""

import io
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import render
import restore
import scenes

SEED = 0x50495853
TRIES = 24


def main():
    model, out = restore.load(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for n, size in enumerate(scenes.PICTURE_SIZES):
        found = []
        for i in range(TRIES):  # not the plainest picture, and none that needs many bytes
            clip = scenes.sample(np.random.default_rng([SEED, n, i]), 1, size=size, kind="scene")
            if len(clip["objects"]) < 2 or not any(o["colours"][0] in ("red", "blue") for o in clip["objects"]):
                continue
            picture = render.pictures([clip], seed=SEED + i)[0][0]
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "PNG", optimize=True)
            found.append((len(file.getvalue()), i, file.getvalue(), picture))
        _, _, png, picture = sorted(found)[len(found) // 4]
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float().div(127.5).sub(1)
        with torch.no_grad():
            rows, _ = model.see(pixels)
        name = f"{size[0]}x{size[1]}"
        (out / f"{name}.png").write_bytes(png)
        (out / f"{name}.f16").write_bytes(rows[0].numpy().astype("<f2").tobytes())
        print(f"{name}: {len(png)} bytes, {tuple(rows.shape[1:])} rows")


if __name__ == "__main__":
    main()
