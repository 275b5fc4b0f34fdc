"""Embeddings of clips by the demo model's own vision tower, kept in a file, so that its language model can be tuned on
a CPU (`tune.py`):

    python embed.py ../../gguf/demo --out embeddings.pt --clips 1500

Not here: the tuning.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import render
import restore
import scenes

SEED = 21


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("model", type=Path, help="folder with the two GGUF files")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--clips", type=int, default=1500, help="of four frames (%(default)s)")
    a.add_argument("--first", type=int, default=0, help="number of the first clip (%(default)s)")
    given = a.parse_args()
    torch.set_num_threads(1)  # another part of the clips can run beside (--first)
    m, out = restore.load(given.model), []
    renderer = render.Renderer(torch.device("cpu"), compile_=False)
    for i in range(given.first, given.first + given.clips):
        rng = np.random.default_rng([SEED, i])
        clip = scenes.sample(rng, 4)
        p = render.pack(clip)
        arrays = [torch.from_numpy(p[k])[None] for k in ("objects", "style", "mask")]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            drawn = renderer(*arrays, clip["size"], SEED + i)[0].float().div(127.5).sub(1)
            seen, _ = m.see(drawn)
        out.append((clip, seen.half()))
        if i % 100 == 99:
            print(i + 1, flush=True)
            torch.save(out, given.out)
    torch.save(out, given.out)


if __name__ == "__main__":
    main()
