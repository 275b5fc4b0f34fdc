"""Tunes the demo model's language model on embeddings of clips (`embed.py`), on a CPU: for new wordings, which need no
new pictures.

    python tune.py ../../gguf/demo embeddings.pt [more.pt] --out tuned --minutes 20
    python export.py tuned/weights.pt --only language --out ../../gguf/demo

Call it again with the same folder to go on after a break. Not here: training from the start (`train.py`).
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
import restore
import scenes
import timeline
import tokens as vocabulary

SEED = 22
ROWS = {1: 16, 2: 10, 3: 7, 4: 5}
SHARES = [0.36, 0.14, 0.08, 0.42]  # few frames cost less, and wordings are learnt from any number
# Noise on embeddings, as a share of their spread: the clips are few, and must not be learnt by heart.
NOISE = 0.1
KEPT = 32  # clips that are not trained on, for `check`


def cut(rng, clips, frames):
    """The last `frames` frames of a random clip (there, things rest where they have a name) and their embeddings."""
    clip, seen = clips[rng.integers(len(clips))]
    first = clip["frames"] - frames
    return timeline.window(clip, first, frames), seen[first:].flatten(0, 1)


def pad(vocab, rows):
    """Rows (prompt, answer, embeddings) as tensors: token numbers, embeddings, and for each token of the answers its
    place, its number and its weight."""
    most = max(len(start) + len(reply) for start, reply, _ in rows)
    ids = torch.full((len(rows), most), vocab.ids["<|endoftext|>"])
    places, targets, weights = [], [], []
    for i, (start, reply, _) in enumerate(rows):
        ids[i, : len(start) + len(reply) - 1] = torch.tensor(start + reply[:-1])
        at = i * most + len(start) - 1
        places += range(at, at + len(reply))
        targets += reply
        weights += [len(reply) ** -0.5] * len(reply)
    seen = torch.cat([s for *_, s in rows])
    return ids, seen, torch.tensor(places), torch.tensor(targets), torch.tensor(weights)


def batch(rng, vocab, clips):
    """Rows of one number of frames, so that few are much shorter than the longest."""
    frames = 1 + int(rng.choice(4, p=SHARES))
    rows, elsewhere = [], None
    for _ in range(ROWS[frames]):
        clip, seen = cut(rng, clips, frames)
        facts = scenes.facts(clip)
        rows.append((*data.row(rng, vocab, facts, data.length(frames), elsewhere), seen))
        elsewhere = facts
    return pad(vocab, rows)


def logits_of(m, ids, seen, places, noise=0.0):
    seen = seen.float()
    seen = seen + noise * seen.std() * torch.randn_like(seen)
    with torch.autocast("cpu", torch.bfloat16):
        x = m.embed(ids.clamp(min=0))
        x = x.masked_scatter((ids < 0)[..., None], seen.to(x.dtype))
        return m.head(m(x).flatten(0, 1)[places]).float()


@torch.no_grad()
def check(m, vocab, clips, asked=12):
    """Shares of answers that are right in all their tokens: (all, by skill), in wordings that training never sees."""
    rng = np.random.default_rng(778)
    right, counts, wrong = defaultdict(int), defaultdict(int), []
    end = vocab.ids["<|im_end|>"]
    for n in range(len(clips)):
        frames = (1, 4, 4, 4)[n % 4]
        clip, seen = cut(rng, clips, frames)
        rows, skills = [], []
        for _ in range(asked):
            skill, question, answer = language.ask(rng, scenes.facts(clip), seen=False, augment=False)
            start = vocabulary.prompt(vocab, language.system(), question, frames, "")
            rows.append((start, [*vocab.encode(answer), end], seen))
            skills.append((skill, question, answer))
        ids, seen, places, targets, _ = pad(vocab, rows)
        said, at = logits_of(m, ids, seen, places).argmax(-1), 0
        for (skill, question, answer), (_, reply, _) in zip(skills, rows, strict=True):
            good = bool((said[at : at + len(reply)] == targets[at : at + len(reply)]).all())
            if not good:
                wrong.append((question, answer, vocab.decode(said[at : at + len(reply)].tolist())))
            right[skill] += good
            counts[skill] += 1
            at += len(reply)
    table = {k: f"{right[k]}/{counts[k]}" for k in sorted(counts)}
    return sum(right.values()) / sum(counts.values()), table, wrong


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("model", type=Path, help="folder with the two GGUF files")
    a.add_argument("embeddings", type=Path, nargs="+")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--minutes", type=float, default=20, help="of training in all (%(default)s)")
    a.add_argument("--keep", type=float, default=0.4, help="share of the old weights in the mean with the new ones that "
                   "is written: what the few clips of the tuning do not show is then kept (%(default)s)")  # fmt: skip
    a.add_argument("--seed", type=int, default=SEED, help="another one for a second round (%(default)s)")
    a.add_argument("--lr", type=float, default=4e-4)
    given = a.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    vocab = vocabulary.Tokens.load()
    whole = restore.load(given.model).train()
    clips = [c for path in given.embeddings for c in torch.load(path, weights_only=False)]
    clips, kept = clips[KEPT:], clips[:KEPT]
    m = whole.language
    old = {k: v.clone() for k, v in m.state_dict().items()}
    optimiser = torch.optim.AdamW(m.parameters(), lr=given.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    step, before, file = 0, 0.0, given.out / "state.pt"
    if file.exists():
        state = torch.load(file, weights_only=True)
        m.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step, before = state["step"], state["seconds"]
    for layer in m.layers:
        layer.compile(dynamic=True)
    print(f"{len(clips)} clips, from step {step}", flush=True)
    start, sums = time.time(), np.zeros(3)
    while (progress := (before + time.time() - start) / 60 / given.minutes) < 1:
        ids, seen, places, targets, weights = batch(np.random.default_rng([given.seed, step]), vocab, clips)
        for g in optimiser.param_groups:
            g["lr"] = given.lr * min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * progress))
        logits = logits_of(m, ids, seen, places, NOISE)
        loss = F.cross_entropy(logits, targets, reduction="none")
        (loss * weights).sum().div(weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        sums += [loss.mean().item(), (logits.argmax(-1) == targets).float().mean().item(), 1]
        if step % 25 == 0:
            print(f"{step:5} {before + time.time() - start:6.0f} s  loss {sums[0] / sums[2]:.4f}  "
                  f"tokens {sums[1] / sums[2]:.4f}", flush=True)  # fmt: skip
            sums[:] = 0
        if step % 100 == 0:
            torch.save({"model": m.state_dict(), "optimiser": optimiser.state_dict(), "step": step,
                        "seconds": before + time.time() - start}, file)  # fmt: skip
    torch.save({k: v.half() for k, v in whole.state_dict().items()}, given.out / "tuned-alone.pt")
    m.load_state_dict({k: given.keep * old[k] + (1 - given.keep) * v for k, v in m.state_dict().items()})
    score, table, wrong = check(m, vocab, kept)
    print(f"{step} steps; in wordings kept from training {score:.3f} {json.dumps(table)}")
    for question, answer, said in wrong:
        print(f"  {question}\n    right: {answer}\n    said:  {said}")
    torch.save({k: v.half() for k, v in whole.state_dict().items()}, given.out / "weights.pt")


if __name__ == "__main__":
    main()
