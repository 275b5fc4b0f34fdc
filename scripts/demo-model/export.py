"""Writes trained weights as the two GGUF files that the program loads:

    python export.py weights.pt --out gguf/demo [--language Q8_0] [--vision Q8_0] [--only language]

The layout is that of the published MiniCPM-o 4.5 files (language model: architecture qwen3; projector: clip with
projector type resampler, version 100045). Not here: training; the shapes themselves (`model.py`).
"""

import argparse
import sys
from pathlib import Path

import gguf
import numpy as np
import torch

import model as net
import tokens as vocabulary

sys.path.insert(0, str(Path(__file__).parents[1]))
from make_tiny_model import CHAT_TEMPLATE  # noqa: E402

NAME = "vidette-demo"
DESCRIPTION = "a small demo of MiniCPM-o 4.5's architecture that knows drawn shapes and short texts only"
MINICPM_O_4_5 = 100045
SLICE = 448


class File:
    """A GGUF file being written. Matrices take the chosen type where their rows allow it."""

    def __init__(self, path, architecture, kind):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.kind = path, gguf.GGMLQuantizationType[kind]
        self.out = gguf.GGUFWriter(path, architecture)
        self.out.add_name(NAME)
        self.out.add_description(DESCRIPTION)
        self.out.add_license("mit")
        self.out.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}" if kind != "F32" else "ALL_F32"])
        self.out.add_bool("vidette.demo", True)

    def exact(self, name, value, dtype=np.float32):
        self.out.add_tensor(name, np.ascontiguousarray(value, dtype))

    def matrix(self, name, value, kind=None):
        kind = kind or self.kind
        if kind == gguf.GGMLQuantizationType.F16:
            return self.exact(name, value, np.float16)
        if kind == gguf.GGMLQuantizationType.F32:
            return self.exact(name, value)
        self.out.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(value, np.float32), kind), raw_dtype=kind)

    def close(self):
        self.out.write_header_to_file()
        self.out.write_kv_data_to_file()
        self.out.write_tensors_to_file()
        self.out.close()
        print(f"{self.path}  {self.path.stat().st_size / 2**20:.2f} MiB")


def write_language(path, w, s, vocab, kind):
    f = File(path, "qwen3", kind)
    out = f.out
    out.add_context_length(s.context)
    out.add_embedding_length(s.width)
    out.add_block_count(s.layers)
    out.add_feed_forward_length(s.forward)
    out.add_head_count(s.heads)
    out.add_head_count_kv(s.heads_kv)
    out.add_key_length(s.head)
    out.add_value_length(s.head)
    out.add_rope_freq_base(s.rope_base)
    out.add_layer_norm_rms_eps(net.EPS)
    # It was trained to give one right answer: the likeliest token, always.
    out.add_float32("general.sampling.temp", 0.0)
    out.add_float32("general.sampling.penalty_repeat", 1.0)
    special = {t: vocab.ids[t] for t in vocabulary.SPECIAL}
    types = [gguf.TokenType.NORMAL] * vocab.normal
    for t in vocab.tokens[vocab.normal :]:
        types.append(
            gguf.TokenType.UNUSED if t not in special
            else gguf.TokenType.USER_DEFINED if t in vocabulary.USER_DEFINED
            else gguf.TokenType.CONTROL
        )  # fmt: skip
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("qwen2")
    out.add_token_list(vocab.tokens)
    out.add_token_types(types)
    out.add_token_merges([f"{a} {b}" for a, b in vocab.merges])
    out.add_bos_token_id(special["<|endoftext|>"])
    out.add_eos_token_id(special["<|im_end|>"])
    out.add_pad_token_id(special["<|endoftext|>"])
    out.add_add_bos_token(False)
    out.add_chat_template(CHAT_TEMPLATE)

    f.matrix("token_embd.weight", w["language.embed.weight"])
    f.exact("output_norm.weight", w["language.ln.weight"])
    f.matrix("output.weight", w["language.head.weight"])
    for i in range(s.layers):
        here, there = f"language.layers.{i}.", f"blk.{i}."
        for a, b in [("ln1", "attn_norm"), ("q_norm", "attn_q_norm"), ("k_norm", "attn_k_norm"), ("ln2", "ffn_norm")]:
            f.exact(f"{there}{b}.weight", w[f"{here}{a}.weight"])
        for a, b in [("q", "attn_q"), ("k", "attn_k"), ("v", "attn_v"), ("out", "attn_output"), ("gate", "ffn_gate"),
                     ("up", "ffn_up"), ("down", "ffn_down")]:  # fmt: skip
            f.matrix(f"{there}{b}.weight", w[f"{here}{a}.weight"])
    f.close()


def write_vision(path, w, s, kind):
    f = File(path, "clip", kind)
    out = f.out
    out.add_bool("clip.has_text_encoder", False)
    out.add_bool("clip.has_vision_encoder", True)
    out.add_bool("clip.has_minicpmv_projector", True)
    out.add_string("clip.projector_type", "resampler")
    out.add_int32("clip.minicpmv_version", MINICPM_O_4_5)
    out.add_uint32("clip.minicpmv_query_num", net.QUERIES)
    out.add_uint32("clip.vision.image_size", SLICE)
    out.add_uint32("clip.vision.patch_size", net.PATCH)
    out.add_uint32("clip.vision.embedding_length", s.tower_width)
    out.add_uint32("clip.vision.feed_forward_length", s.tower_forward)
    out.add_uint32("clip.vision.projection_dim", 0)
    out.add_uint32("clip.vision.attention.head_count", s.tower_heads)
    out.add_float32("clip.vision.attention.layer_norm_epsilon", net.EPS)
    out.add_uint32("clip.vision.block_count", s.tower_layers)
    out.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    out.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    out.add_bool("clip.use_gelu", True)

    def linear(name, here, rows=slice(None)):
        f.matrix(name + ".weight", w[here + ".weight"][rows])
        f.exact(name + ".bias", w[here + ".bias"][rows])

    def norm(name, here):
        f.exact(name + ".weight", w[here + ".weight"])
        f.exact(name + ".bias", w[here + ".bias"])

    # A convolution kernel can't be quantised.
    f.exact("v.patch_embd.weight", w["tower.patch.weight"].reshape(s.tower_width, 3, net.PATCH, net.PATCH), np.float16)
    f.exact("v.patch_embd.bias", w["tower.patch.bias"])
    positions = (w["tower.rows"][:, None] + w["tower.columns"][None]).reshape(-1, s.tower_width)
    f.matrix("v.position_embd.weight", positions)
    width = s.tower_width
    for i in range(s.tower_layers):
        here, there = f"tower.layers.{i}.", f"v.blk.{i}."
        for j, part in enumerate("qkv"):
            linear(f"{there}attn_{part}", here + "qkv", slice(j * width, (j + 1) * width))
        linear(f"{there}attn_out", here + "out")
        norm(f"{there}ln1", here + "ln1")
        norm(f"{there}ln2", here + "ln2")
        # The converters' old habit: `down` leads up and `up` leads down.
        linear(f"{there}ffn_down", here + "up")
        linear(f"{there}ffn_up", here + "down")
    norm("v.post_ln", "tower.ln")

    f.exact("resampler.query", w["resampler.query"])
    # In the published layout, but llama.cpp computes these waves itself: coarse numbers do.
    waves = net.sine_positions(net.BUCKETS, net.BUCKETS, s.width, "cpu").numpy()
    f.matrix("resampler.pos_embed_k", waves, gguf.GGMLQuantizationType.Q4_0)
    f.matrix("resampler.proj.weight", w["resampler.proj.weight"])
    f.matrix("resampler.kv.weight", w["resampler.kv.weight"])
    for part in ("q", "k", "v", "out"):
        linear(f"resampler.attn.{part}", f"resampler.{part}")
    for part in ("q", "kv", "post"):
        norm(f"resampler.ln_{part}", f"resampler.ln_{part}")
    f.close()


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("weights", type=Path)
    a.add_argument("--out", type=Path, default=Path("gguf/demo"))
    a.add_argument("--language", default="Q8_0", help="type of the language model's matrices (%(default)s)")
    a.add_argument("--vision", default="Q8_0", help="type of the vision tower's matrices (%(default)s)")
    a.add_argument("--only", choices=["language", "vision"], help="write this file and leave the other one")
    given = a.parse_args()
    state = torch.load(given.weights, map_location="cpu", weights_only=True)
    w = {k: v.float().numpy() for k, v in state.items()}
    vocab = vocabulary.Tokens.load()
    shape = net.Shape(len(vocab.tokens))
    if given.only != "vision":
        write_language(given.out / f"{NAME}-{given.language}.gguf", w, shape, vocab, given.language)
    if given.only != "language":
        write_vision(given.out / "vision" / f"{NAME}-vision-{given.vision}.gguf", w, shape, given.vision)


if __name__ == "__main__":
    main()
