"""Trains the demo model: `python train.py --minutes 20 --out FOLDER`, on one GPU. A second call goes on where the
first one was stopped (`FOLDER/state.pt`). Seeds are fixed; how many steps fit into the minutes is the machine's
matter. Not here: pictures, questions, files for the program.
"""

import argparse
import json
import math
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import data
import language
import model as net
import render
import scenes
import tokens as vocabulary

WARM_UP = 150
# Steps in which most clips are single pictures.
EARLY = 1000
SEED = 20


def rate(step, progress):
    """Share of the highest learning rate: up, level, then down to nothing as `progress` goes to 1."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return min(1.0, max(0.0, (1 - progress) / 0.65))


def optimisers(m, lr):
    """Muon for the matrices within the layers, AdamW for everything else."""
    matrices, rest, small = [], [], []
    for name, p in m.named_parameters():
        inner = p.dim() == 2 and not any(k in name for k in ("embed", "head", "rows", "columns", "query"))
        if inner:
            matrices.append(p)
        elif p.dim() == 2:
            rest.append(p)
        else:
            small.append(p)
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": rest, "weight_decay": 0.01}, {"params": small, "weight_decay": 0.0}],
            lr=lr, betas=(0.9, 0.98), fused=torch.cuda.is_available(),
        ),
    ]  # fmt: skip


def to_device(b, device):
    return {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in b.items()}


def losses(m, b, renderer):
    """(answers' loss, patches' loss, which answer tokens are right)."""
    drawn = renderer(b["objects"], b["style"], b["mask"], b["size"], b["seed"])
    pictures = drawn.to(torch.bfloat16).div(127.5).sub(1)
    with torch.autocast(pictures.device.type, torch.bfloat16):
        logits, patches = m(pictures, b["tokens"].long(), b["slots"].long(), b["places"])
    loss = F.cross_entropy(logits.float(), b["targets"], reduction="none")
    right = logits.argmax(-1) == b["targets"]
    classes = b["classes"].flatten(0, 1).flatten(1, 2).long()
    aux, at = 0.0, 0
    for i, n in enumerate(m.classes):
        aux = aux + F.cross_entropy(patches[..., at : at + n].flatten(0, 1).float(), classes[..., i].flatten())
        at += n
    return (loss * b["weights"]).sum() / b["weights"].sum(), aux, right


@torch.no_grad()
def check(m, renderer, vocab, device, clips=64):
    """Share of right answers per skill over held-out clips; an answer is right when all of its tokens are."""
    rng = np.random.default_rng(777)
    right, asked = defaultdict(int), defaultdict(int)
    end = vocab.ids["<|im_end|>"]
    for frames in (1, 4, 4, 4):
        made = [scenes.sample(rng, frames, (602, 336)) for _ in range(clips)]
        packed = [render.pack(c) for c in made]
        stack = {k: torch.from_numpy(np.stack([p[k] for p in packed])).to(device) for k in packed[0]}
        drawn = renderer(stack["objects"], stack["style"], stack["mask"], (602, 336), 5)
        pictures = drawn.to(torch.bfloat16).div(127.5).sub(1)
        ids = torch.full((clips, 8, data.length(frames)), vocab.ids["<|endoftext|>"])
        spans = []
        for c, clip in enumerate(made):
            facts = scenes.facts(clip)
            for q in range(8):
                skill, question, answer = language.ask(rng, facts, seen=q % 2 == 0)
                reply = [*vocab.encode(answer), end]
                start = vocabulary.prompt(vocab, language.system(), question, frames, "")
                whole = (start + reply[:-1])[: ids.shape[2]]
                ids[c, q, : len(whole)] = torch.tensor(whole)
                spans.append((skill, (c * 8 + q) * ids.shape[2] + len(start) - 1, reply))
        image = ids < 0
        slots = torch.where(image, image.cumsum(-1) - 1, 0)
        places = torch.tensor([at + i for _, at, reply in spans for i in range(len(reply))], device=device)
        with torch.autocast(device.type, torch.bfloat16):
            logits, _ = m(pictures, ids.to(device), slots.to(device), places)
        said, at = logits.argmax(-1).tolist(), 0
        for skill, _, reply in spans:
            right[skill] += said[at : at + len(reply)] == reply
            asked[skill] += 1
            at += len(reply)
    table = {k: round(right[k] / asked[k], 3) for k in sorted(asked)}
    return sum(right.values()) / sum(asked.values()), table


def save(path, m, opts, step, seconds):
    state = {"model": m.state_dict(), "optimisers": [o.state_dict() for o in opts], "step": step, "seconds": seconds}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--minutes", type=float, default=20, help="of training in all (%(default)s)")
    a.add_argument("--lr", type=float, default=2e-3)
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--workers", type=int, default=14)
    a.add_argument("--check-every", type=int, default=500)
    a.add_argument("--stop-after", type=float, default=1e9, metavar="SECONDS", help="save and end; call again to go on")
    a.add_argument("--plain", action="store_true", help="nothing compiled (for tests on a CPU)")
    a.add_argument("--frames", type=int, default=data.FRAMES, help="frames of a batch")
    given = a.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    data.FRAMES = given.frames
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    vocab = vocabulary.Tokens.load()
    m = net.Demo(net.Shape(len(vocab.tokens))).to(device)
    opts = optimisers(m, given.lr)
    renderer = render.Renderer(device, compile_=not given.plain)
    if not given.plain:  # the layers alone: one compilation serves all of them
        torch._dynamo.config.cache_size_limit = 64
        for layer in [*m.tower.layers, *m.language.layers]:
            layer.compile()
    step, before = 0, 0.0
    state_file = given.out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        m.load_state_dict(state["model"])
        for o, s in zip(opts, state["optimisers"], strict=True):
            o.load_state_dict(s)
        step, before = state["step"], state["seconds"]
    batches = data.Batches(step, SEED, early=EARLY)
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=given.workers,
                                         pin_memory=device.type == "cuda", prefetch_factor=3 if given.workers else None)  # fmt: skip
    start = time.time()
    shown, sums = start, np.zeros(4)
    for b in loader:
        b = to_device(b, device)
        progress = (before + time.time() - start) / (60 * given.minutes)
        share = rate(step, progress)
        for o in opts:
            for g in o.param_groups:
                g["lr"] = given.lr * share
        loss, aux, right = losses(m, b, renderer)
        (loss + (0.25 if progress < 0.5 else 0.1) * aux).backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        for o in opts:
            o.step()
            o.zero_grad(set_to_none=True)
        step += 1
        if step % 10 == 0:
            sums += [loss.item(), aux.item(), right.float().mean().item(), 1]
        seconds = before + time.time() - start
        if step % 100 == 0 or step <= 3:
            n = max(1, sums[3])
            speed = 100 / (time.time() - shown)
            print(f"{step:6} {seconds:7.1f} s  loss {sums[0] / n:.4f}  patches {sums[1] / n:.4f}  "
                  f"tokens {sums[2] / n:.4f}  {speed:.2f} steps/s", flush=True)  # fmt: skip
            shown, sums = time.time(), np.zeros(4)
        if not math.isfinite(loss.item() if step % 50 == 0 else 0.0):
            raise SystemExit("the loss is not a number")
        if step % given.check_every == 0 or progress >= 1:
            score, table = check(m, renderer, vocab, device)
            print(f"   held out: {score:.3f} {json.dumps(table)}", flush=True)
            save(state_file, m, opts, step, seconds)
            shown = time.time()
        if progress >= 1 or time.time() - start > given.stop_after:
            break
    save(state_file, m, opts, step, before + time.time() - start)
    torch.save({k: v.half() for k, v in m.state_dict().items()}, given.out / "weights.pt")
    print(f"{step} steps in {before + time.time() - start:.0f} s of training", flush=True)


if __name__ == "__main__":
    main()
