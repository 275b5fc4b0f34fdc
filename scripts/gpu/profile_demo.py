"""Where a training step's time goes: drawing, forward and backward, optimisers; for one and four frames a clip."""

import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "demo-model"))
import data  # noqa: E402
import model as net  # noqa: E402
import render  # noqa: E402
import tokens  # noqa: E402
import train  # noqa: E402

device = torch.device("cuda")
vocab = tokens.Tokens.load()
m = net.Demo(net.Shape(len(vocab.tokens))).to(device)
print(sum(p.numel() for p in m.parameters()) / 1e6, "M parameters")
opts = train.optimisers(m, 1e-3)
renderer = render.Renderer(device, compile_=True)
for layer in [*m.tower.layers, *m.language.layers]:
    layer.compile()


def clock(what, call, n=5):
    start = time.time()
    call()
    torch.cuda.synchronize()
    first, start = time.time() - start, time.time()
    for _ in range(n):
        call()
    torch.cuda.synchronize()
    print(f"{what}: {1000 * (time.time() - start) / n:.1f} ms (first {first:.1f} s)", flush=True)


for frames in (4, 1):
    b = train.to_device(data.batch(np.random.default_rng(1), vocab, frames, size=(602, 336)), device)
    clock(f"{frames} frames, drawing", lambda: renderer(b["objects"], b["style"], b["mask"], b["size"], 1))

    def step():
        loss, aux, _ = train.losses(m, b, renderer)
        (loss + aux).backward()

    clock(f"{frames} frames, drawing, forward, backward", step)

    def update():
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        for o in opts:
            o.step()

    clock("optimisers", update)
    print(torch.cuda.max_memory_allocated() / 1e9, "GB")
