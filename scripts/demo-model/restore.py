"""Reads the two GGUF files of the demo model back into weights, so that tuning can start from what is checked in.

Quantised matrices come back as what they stand for, the heads that exist in training only do not come back. Not here:
writing the files (`export.py`).
"""

from pathlib import Path

import gguf
import torch

import model as net
import tokens as vocabulary

LANGUAGE = {"ln1": "attn_norm", "q_norm": "attn_q_norm", "k_norm": "attn_k_norm", "ln2": "ffn_norm", "q": "attn_q",
            "k": "attn_k", "v": "attn_v", "out": "attn_output", "gate": "ffn_gate", "up": "ffn_up",
            "down": "ffn_down"}  # fmt: skip
TOWER = {"out": "attn_out", "ln1": "ln1", "ln2": "ln2", "up": "ffn_down", "down": "ffn_up"}  # as `export.py` names them


def tensors(path):
    """All tensors of a GGUF file as float32, by name, in PyTorch's order of dimensions."""
    out = {}
    for t in gguf.GGUFReader(path).tensors:
        value = gguf.quants.dequantize(t.data, t.tensor_type)
        out[t.name] = torch.from_numpy(value.reshape([int(n) for n in reversed(t.shape)]).astype("float32"))
    return out


def both(f, there, here):
    """Weight and, where there is one, bias of one layer."""
    return {f"{here}.{part}": f[f"{there}.{part}"] for part in ("weight", "bias") if f"{there}.{part}" in f}


def language(f, shape):
    w = both(f, "token_embd", "language.embed") | both(f, "output_norm", "language.ln")
    w |= both(f, "output", "language.head")
    for i in range(shape.layers):
        for here, there in LANGUAGE.items():
            w |= both(f, f"blk.{i}.{there}", f"language.layers.{i}.{here}")
    return w


def vision(f, shape):
    w = {"tower.patch.weight": f["v.patch_embd.weight"].flatten(1), "tower.patch.bias": f["v.patch_embd.bias"]}
    # The file holds the sums of a row's and a column's part; any split of the sum will do.
    sums = f["v.position_embd.weight"].view(net.BUCKETS, net.BUCKETS, -1)
    w["tower.rows"], w["tower.columns"] = sums.mean(1), sums.mean(0) - sums.mean((0, 1))
    w |= both(f, "v.post_ln", "tower.ln")
    for i in range(shape.tower_layers):
        here, there = f"tower.layers.{i}.", f"v.blk.{i}."
        for part in ("weight", "bias"):
            w[f"{here}qkv.{part}"] = torch.cat([f[f"{there}attn_{p}.{part}"] for p in "qkv"])
        for a, b in TOWER.items():
            w |= both(f, there + b, here + a)
    w["resampler.query"] = f["resampler.query"]
    w |= both(f, "resampler.proj", "resampler.proj") | both(f, "resampler.kv", "resampler.kv")
    for part in ("q", "k", "v", "out"):
        w |= both(f, f"resampler.attn.{part}", f"resampler.{part}")
    for part in ("q", "kv", "post"):
        w |= both(f, f"resampler.ln_{part}", f"resampler.ln_{part}")
    return w


def load(folder):
    """The model from the only language model and the only vision file in `folder`."""
    (words,), (eyes,) = Path(folder).glob("*.gguf"), Path(folder, "vision").glob("*.gguf")
    shape = net.Shape(len(vocabulary.Tokens.load().tokens))
    m = net.Demo(shape)
    w = language(tensors(words), shape) | vision(tensors(eyes), shape)
    lacking, unknown = m.load_state_dict(w, strict=False)
    if unknown or any(not k.startswith("patch_heads.") for k in lacking):
        raise SystemExit(f"{folder} is not the demo model: it lacks {lacking} and has {unknown}")
    return m.eval()
