"""Batches for training: clips drawn at random, questions about them, all as arrays. Runs in worker processes.

Not here: pixels (drawn on the GPU from these arrays, `render.py`), the model.
"""

import itertools

import numpy as np
import torch

import language
import render
import scenes
import tokens as vocabulary

QUESTIONS = {1: 4, 2: 5, 3: 6, 4: 6}
# Frames of a batch in all, whatever its clips' length.
FRAMES = 384


def length(frames):
    """Tokens of a row: all prompts fit, and few are much shorter."""
    return 152 + 66 * frames


def elsewhere_said(rng, skill, elsewhere):
    """What was said of another scene to a like question, if one of a few tries meets the skill."""
    for _ in range(40):
        other, _, said = language.ask(rng, elsewhere)
        if other == skill:
            return [said]
    return []


def comments(rng, facts, answer, skill, elsewhere):
    """Earlier comments for the prompt, and the answer that is then right: nothing new is "...". What was said of
    another scene (`elsewhere`) to the same question is no reason to be silent: without such rows a model learns that
    whatever looks like its answer is a repetition."""
    roll = rng.random()
    if roll < 0.62 or answer == language.NOTHING_NEW:
        return ([], answer) if roll < 0.85 else ([language.ask(rng, facts)[2]], answer)
    if roll < 0.80:
        said = [language.ask(rng, facts)[2] for _ in range(int(rng.integers(0, 2)))]
        return [c for c in said if c != language.NOTHING_NEW] + [answer], language.NOTHING_NEW
    if elsewhere is not None and roll < 0.93:
        other = elsewhere_said(rng, skill, elsewhere)
    else:
        other = [language.ask(rng, facts)[2] for _ in range(int(rng.integers(1, 3)))]
    other = [c for c in other if c not in (language.NOTHING_NEW, answer)]
    return other, answer


def row(rng, vocab, facts, most, elsewhere=None):
    """One question as (prompt, answer) tokens, at most `most` together."""
    skill, question, answer = language.ask(rng, facts)
    said, answer = comments(rng, facts, answer, skill, elsewhere)
    said = [c for c in said if c != language.NOTHING_NEW]
    names = list(language.PROFILES)
    profile = names[0] if rng.random() < 0.7 else names[rng.integers(len(names))]
    end = vocab.ids["<|im_end|>"]
    reply = [*vocab.encode(answer), end]
    start = vocabulary.prompt(vocab, language.system(profile), question, facts["frames"], language.context(said))
    if len(start) + len(reply) > most:
        if said and answer == language.NOTHING_NEW:
            return row(rng, vocab, facts, most, elsewhere)
        start = vocabulary.prompt(vocab, language.system(), question, facts["frames"], "")
    if len(start) + len(reply) > most:
        return row(rng, vocab, facts, most, elsewhere)
    return start, reply


def batch(rng, vocab, frames, clips=None, size=None):
    """A batch of clips of `frames` frames and one size, as tensors."""
    if size is None:
        size = scenes.PICTURE_SIZES[int(rng.choice(len(scenes.PICTURE_SIZES), p=scenes.PICTURE_SHARES))]
    clips = clips or FRAMES // frames
    questions, most = QUESTIONS[frames], length(frames)
    pad = vocab.ids["<|endoftext|>"]
    ids = np.full((clips, questions, most), pad, np.int32)
    targets, weights, places = [], [], []
    packed, classes = [], []
    elsewhere = None
    for c in range(clips):
        clip = scenes.sample(rng, frames, size)
        packed.append(render.pack(clip))
        classes.append(scenes.labels(clip))
        facts = scenes.facts(clip)
        for q in range(questions):
            start, reply = row(rng, vocab, facts, most, elsewhere)
            whole = start + reply[:-1]
            ids[c, q, : len(whole)] = whole
            at = (c * questions + q) * most + len(start) - 1
            places += range(at, at + len(reply))
            targets += reply
            weights += [len(reply) ** -0.5] * len(reply)
        elsewhere = facts
    image = ids < 0
    slots = np.where(image, image.cumsum(-1) - 1, 0).astype(np.int32)
    return {
        "size": size, "frames": frames,
        "objects": torch.from_numpy(np.stack([p["objects"] for p in packed])),
        "style": torch.from_numpy(np.stack([p["style"] for p in packed])),
        "mask": torch.from_numpy(np.stack([p["mask"] for p in packed])),
        "classes": torch.from_numpy(np.stack(classes)),
        "tokens": torch.from_numpy(ids), "slots": torch.from_numpy(slots),
        "targets": torch.tensor(targets, dtype=torch.int64), "weights": torch.tensor(weights),
        "places": torch.tensor(places, dtype=torch.int64), "seed": int(rng.integers(1 << 31)),
    }  # fmt: skip


# Shares of clips with 1, 2, 3 and 4 frames, at first and later.
FIRST, LATER = [0.7, 0.05, 0.05, 0.2], [0.18, 0.12, 0.12, 0.58]


class Batches(torch.utils.data.IterableDataset):
    """Without end. Batch `i` is the same whoever makes it; those before `start` are left out."""

    def __init__(self, start, seed, early):
        self.start, self.seed, self.early = start, seed, early

    def __iter__(self):
        torch.set_num_threads(1)
        info = torch.utils.data.get_worker_info()
        of, mine = (info.num_workers, info.id) if info else (1, 0)
        vocab = vocabulary.Tokens.load()
        for i in itertools.count(self.start + mine, of):
            rng = np.random.default_rng([self.seed, i])
            frames = 1 + int(rng.choice(4, p=FIRST if i < self.early else LATER))
            yield batch(rng, vocab, frames)
