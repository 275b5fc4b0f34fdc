#!/usr/bin/env python3
"""Make a tiny MiniCPM-o 4.5 with random weights, as a pair of GGUF files in the published layout:

    OUT/MiniCPM-o-4_5-tiny-random-F16.gguf          language model (architecture qwen3)
    OUT/vision/MiniCPM-o-4_5-vision-F16.gguf        vision tower and resampler (architecture clip)

It says nothing sensible. It is for tests, and for trying the program without a download: everything
runs as with the real model, a thousand times smaller. Both files carry `general.name = tiny-random`
and `vidette.random = true`, so that the program can tell everyone who sees the answers.
The same seed gives the same bytes. Own work, licence MIT.

What llama.cpp (llama-cpp-sys-2 0.1.161, tools/mtmd/clip.cpp and models/minicpmv.cpp) forces on the shapes:
 * heads of the resampler are 128 wide, so the width of the language model is a multiple of 128;
 * the tower's position table has 70 x 70 = 4900 rows;
 * the tower's feed-forward width differs from its embedding width, or the swapped names of its two
   matrices (an old habit of the converters, kept here) can't be told from the right ones;
 * clip.minicpmv_version 100045 is MiniCPM-o 4.5.

--full makes one of the published widths and depths (17 GB; a pattern repeated, so that it is written in minutes): for
measuring speed and memory where the published files are not.
--demo makes one that passes for the demo model: `vidette.demo` and recommended sampling instead of `vidette.random`.
--wrong-width, --version and --no-image-tokens make files that must be refused, for the tests of that.
"""

import argparse
import zlib
from pathlib import Path

import gguf
import numpy as np

NAME = "tiny-random"
# Whatever has "random" in its name counts as random.
DEMO_NAME = "tiny-demo"
LANGUAGE_FILE = "MiniCPM-o-4_5-tiny-random-F16.gguf"
VISION_FILE = "vision/MiniCPM-o-4_5-vision-F16.gguf"

# Language model.
LAYERS = 2
HEADS = 4
HEADS_KV = 2
HEAD_WIDTH = 64
FEED_FORWARD = 256
CONTEXT = 8192

# Vision tower and resampler.
TOWER_WIDTH = 64
TOWER_LAYERS = 2
TOWER_HEADS = 4
TOWER_FEED_FORWARD = 128
PATCH = 14
SLICE = 448
POSITIONS = 70 * 70
QUERIES = 64
# What --full sets in place of the above; the scales below are for the tiny widths, and shrink with the root of the width.
FULL = {
    "LAYERS": 36, "HEADS": 32, "HEADS_KV": 8, "HEAD_WIDTH": 128, "FEED_FORWARD": 12288, "CONTEXT": 40960,
    "TOWER_WIDTH": 1152, "TOWER_LAYERS": 27, "TOWER_HEADS": 16, "TOWER_FEED_FORWARD": 4304,
}  # fmt: skip
FULL_WIDTH = 4096
FULL_VOCABULARY = 151748
MINICPM_O_4_5 = 100045

IMAGE_TOKENS = ["<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>"]
# The special tokens of MiniCPM-o 4.5's tokenizer, in its order.
SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<think>", "</think>",
    "<image>", "</image>", "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<point>", "</point>",
    "<slice>", "</slice>", "<image_id>", "</image_id>", "<unit>", "</unit>",
    "<|audio_start|>", "<|audio|>", "<|audio_end|>", "<|spk_bos|>", "<|spk|>", "<|spk_eos|>",
    "<|tts_bos|>", "<|tts_eos|>", "<|listen|>", "<|speak|>", "<|interrupt|>",
    "<|turn_bos|>", "<|turn_eos|>", "<|chunk_eos|>", "<|chunk_bos|>", "<|chunk_tts_bos|>", "<|chunk_tts_eos|>",
    "<|tts_pad|>",
]  # fmt: skip
# Text to the tokenizer, not control: Qwen3 marks them so.
USER_DEFINED = {"<think>", "</think>"}

# A few words, so that the output has more shapes than single letters. `_` stands for a space.
WORDS = ["the", "and", "ing", "er", "on", "re", "_a", "_the", "_is", "_in", "_of", "_man", "_left", "_door", "_red"]

# Chatml as Qwen3 has it: without thinking, an empty thought is put before the answer.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}"
    "{%- if use_tts_template is defined and use_tts_template %}"
    "{{- '<|tts_bos|>' }}"
    "{%- endif %}"
    "{%- endif %}"
)


class Random:
    """Random tensors, each from a generator of its own, so that one more tensor changes no other."""

    def __init__(self, seed):
        self.seed = seed

    def __call__(self, name, shape, scale, dtype=np.float16):
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        values = generator.standard_normal(shape, dtype=np.float32)
        return (values * np.asarray(scale, np.float32)).astype(dtype)


class Repeated(Random):
    """The same for large tensors: some rows of random numbers, over and over, smaller for wide inputs."""

    ROWS = 251

    def __call__(self, name, shape, scale, dtype=np.float16):
        if len(shape) != 2 or shape[0] <= self.ROWS:
            return super().__call__(name, shape, scale, dtype)
        # One scale for all rows here: which tokens are likely does not matter.
        scale = float(np.max(scale)) * (128 / max(shape[1], 128)) ** 0.5
        rows = super().__call__(name, (self.ROWS, shape[1]), scale, dtype)
        return np.tile(rows, (-(-shape[0] // self.ROWS), 1))[: shape[0]]


def byte_symbols():
    """The printable character that stands for each byte in a byte-level BPE vocabulary (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in symbols:
            symbols[byte] = chr(256 + len(symbols) - len(printable))
    return [symbols[byte] for byte in range(256)]


def vocabulary(image_tokens, size=0):
    """Tokens, their types, and merges. All bytes are there, so any text can be tokenised."""
    symbols = byte_symbols()
    tokens = list(symbols)
    merges = []
    for word in WORDS:
        parts = [symbols[ord(" " if letter == "_" else letter)] for letter in word]
        for end in range(2, len(parts) + 1):
            whole = "".join(parts[:end])
            if whole not in tokens:
                tokens.append(whole)
                merges.append(f"{''.join(parts[: end - 1])} {parts[end - 1]}")
    types = [gguf.TokenType.NORMAL] * len(tokens)
    for token in SPECIAL_TOKENS:
        if image_tokens or token not in IMAGE_TOKENS:
            tokens.append(token)
            types.append(gguf.TokenType.USER_DEFINED if token in USER_DEFINED else gguf.TokenType.CONTROL)
    while len(tokens) < size:
        # Words that no text is cut into, but that are read well.
        tokens.append(f"{symbols[32]}w{len(tokens)}")
        types.append(gguf.TokenType.NORMAL)
    while len(tokens) % 32 and not size:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(gguf.TokenType.UNUSED)
    return tokens, types, merges


def output_scales(tokens, types):
    """How loud each token is in the output, one row each: mostly readable text, sometimes other bytes,
    now and then the end of the turn, never another special token."""
    symbols = byte_symbols()
    scales = np.full((len(tokens), 1), 0.1, np.float32)
    for i, token in enumerate(tokens):
        if types[i] == gguf.TokenType.NORMAL:
            readable = i >= 256 or token == symbols[32] or token.isascii()
            scales[i] = 0.35 if readable else 0.22
        elif token == "<|im_end|>":
            scales[i] = 0.38
    return scales


def writer(path, architecture, description, demo=False):
    """A writer with what both files say of themselves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = gguf.GGUFWriter(path, architecture)
    out.add_name(DEMO_NAME if demo else NAME)
    out.add_description(description)
    out.add_license("mit")
    out.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    out.add_bool("vidette.demo" if demo else "vidette.random", True)
    return out


def finish(out):
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def write_language(path, random, width, image_tokens, demo, size):
    """The language model: Qwen3 with two layers."""
    tokens, types, merges = vocabulary(image_tokens, size)
    out = writer(path, "qwen3", "random weights in the shape of MiniCPM-o 4.5; for tests", demo)
    if demo:
        # No method of GGUFWriter's own has these names in every release.
        out.add_float32("general.sampling.temp", 0.0)
        out.add_float32("general.sampling.penalty_repeat", 1.0)
    out.add_context_length(CONTEXT)
    out.add_embedding_length(width)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(FEED_FORWARD)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS_KV)
    out.add_key_length(HEAD_WIDTH)
    out.add_value_length(HEAD_WIDTH)
    out.add_rope_freq_base(1000000.0)
    out.add_layer_norm_rms_eps(1e-6)

    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("qwen2")
    out.add_token_list(tokens)
    out.add_token_types(types)
    out.add_token_merges(merges)
    out.add_bos_token_id(tokens.index("<|endoftext|>"))
    out.add_eos_token_id(tokens.index("<|im_end|>"))
    out.add_pad_token_id(tokens.index("<|endoftext|>"))
    out.add_add_bos_token(False)
    out.add_chat_template(CHAT_TEMPLATE)

    def matrix(name, rows, columns, scale):
        out.add_tensor(name, random(name, (rows, columns), scale))

    def ones(name, length):
        out.add_tensor(name, np.ones(length, np.float32))

    matrix("token_embd.weight", len(tokens), width, 0.5)
    ones("output_norm.weight", width)
    matrix("output.weight", len(tokens), width, output_scales(tokens, types))
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight", width)
        matrix(block + "attn_q.weight", HEADS * HEAD_WIDTH, width, 0.3)
        matrix(block + "attn_k.weight", HEADS_KV * HEAD_WIDTH, width, 0.3)
        matrix(block + "attn_v.weight", HEADS_KV * HEAD_WIDTH, width, 0.2)
        matrix(block + "attn_output.weight", width, HEADS * HEAD_WIDTH, 0.2)
        ones(block + "attn_q_norm.weight", HEAD_WIDTH)
        ones(block + "attn_k_norm.weight", HEAD_WIDTH)
        ones(block + "ffn_norm.weight", width)
        matrix(block + "ffn_gate.weight", FEED_FORWARD, width, 0.2)
        matrix(block + "ffn_up.weight", FEED_FORWARD, width, 0.2)
        matrix(block + "ffn_down.weight", width, FEED_FORWARD, 0.2)
    finish(out)


def write_vision(path, random, width, version, demo):
    """The vision tower (SigLIP with two layers) and the resampler to 64 embeddings of `width`."""
    out = writer(path, "clip", "image encoder with random weights in the shape of MiniCPM-o 4.5's; for tests", demo)
    out.add_bool("clip.has_text_encoder", False)
    out.add_bool("clip.has_vision_encoder", True)
    out.add_bool("clip.has_minicpmv_projector", True)
    out.add_string("clip.projector_type", "resampler")
    out.add_int32("clip.minicpmv_version", version)
    out.add_uint32("clip.minicpmv_query_num", QUERIES)
    out.add_uint32("clip.vision.image_size", SLICE)
    out.add_uint32("clip.vision.patch_size", PATCH)
    out.add_uint32("clip.vision.embedding_length", TOWER_WIDTH)
    out.add_uint32("clip.vision.feed_forward_length", TOWER_FEED_FORWARD)
    out.add_uint32("clip.vision.projection_dim", 0)
    out.add_uint32("clip.vision.attention.head_count", TOWER_HEADS)
    out.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    out.add_uint32("clip.vision.block_count", TOWER_LAYERS)
    out.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    out.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    out.add_bool("clip.use_gelu", True)

    def matrix(name, shape, scale, dtype=np.float16):
        out.add_tensor(name, random(name, shape, scale, dtype))

    def linear(name, rows, columns, scale):
        matrix(name + ".weight", (rows, columns), scale)
        out.add_tensor(name + ".bias", np.zeros(rows, np.float32))

    def norm(name, length):
        out.add_tensor(name + ".weight", np.ones(length, np.float32))
        out.add_tensor(name + ".bias", np.zeros(length, np.float32))

    matrix("v.patch_embd.weight", (TOWER_WIDTH, 3, PATCH, PATCH), 0.1)
    out.add_tensor("v.patch_embd.bias", np.zeros(TOWER_WIDTH, np.float32))
    matrix("v.position_embd.weight", (POSITIONS, TOWER_WIDTH), 0.05)
    for layer in range(TOWER_LAYERS):
        block = f"v.blk.{layer}."
        for part in ("q", "k", "v", "out"):
            linear(f"{block}attn_{part}", TOWER_WIDTH, TOWER_WIDTH, 0.1)
        norm(block + "ln1", TOWER_WIDTH)
        norm(block + "ln2", TOWER_WIDTH)
        # The converters' old habit: `down` leads up and `up` leads down.
        linear(block + "ffn_down", TOWER_FEED_FORWARD, TOWER_WIDTH, 0.1)
        linear(block + "ffn_up", TOWER_WIDTH, TOWER_FEED_FORWARD, 0.1)
    norm("v.post_ln", TOWER_WIDTH)

    matrix("resampler.query", (QUERIES, width), 0.5, np.float32)
    matrix("resampler.pos_embed_k", (POSITIONS, width), 0.05)
    matrix("resampler.proj.weight", (width, width), 0.1)
    matrix("resampler.kv.weight", (width, TOWER_WIDTH), 0.2)
    for part in ("q", "k", "v", "out"):
        linear(f"resampler.attn.{part}", width, width, 0.1)
    for part in ("q", "kv", "post"):
        norm(f"resampler.ln_{part}", width)
    finish(out)


def check(path, demo):
    """Reads a file back and fails when it does not say what it must. Returns its size in bytes."""
    reader = gguf.GGUFReader(path)
    assert reader.get_field("general.name").contents() == (DEMO_NAME if demo else NAME), path
    assert reader.get_field("vidette.demo" if demo else "vidette.random").contents() is True, path
    end = max(t.data_offset + t.n_bytes for t in reader.tensors)
    size = path.stat().st_size
    assert end <= size, f"{path} ends at {size}, its tensors at {end}"
    return size


def multiple_of_128(text):
    width = int(text)
    if width <= 0 or width % 128:
        raise argparse.ArgumentTypeError("must be a positive multiple of 128")
    return width


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=Path("gguf") / NAME, help="folder to write into (%(default)s)")
    arguments.add_argument("--seed", type=int, default=1, help="another seed, other weights (%(default)s)")
    arguments.add_argument("--width", type=multiple_of_128, default=128, help="language model's width (%(default)s)")
    arguments.add_argument("--wrong-width", type=multiple_of_128, metavar="W", help="width of the vision file, to mismatch")
    arguments.add_argument("--version", type=int, default=MINICPM_O_4_5, help="clip.minicpmv_version (%(default)s)")
    arguments.add_argument("--no-image-tokens", action="store_true", help="a vocabulary without <image> and its kin")
    arguments.add_argument("--full", action="store_true", help="published widths, depths and vocabulary size")
    arguments.add_argument("--demo", action="store_true", help="say that it is the demo model, with sampling advice")
    given = arguments.parse_args()

    random, size = Random(given.seed), 0
    if given.full:
        globals().update(FULL)
        random, size, given.width = Repeated(given.seed), FULL_VOCABULARY, FULL_WIDTH
    language, vision = given.out / LANGUAGE_FILE, given.out / VISION_FILE
    write_language(language, random, given.width, image_tokens=not given.no_image_tokens, demo=given.demo, size=size)
    write_vision(vision, random, given.wrong_width or given.width, given.version, given.demo)
    for path in (language, vision):
        print(f"{path}  {check(path, given.demo) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
