"""The voice's file set in the published layout of MiniCPM-o 4.5, with seeded random weights of any width and depth.

    OUT/tts/MiniCPM-o-4_5-tts-F16.gguf         language model that writes audio codes (llama) and its extra tables
    OUT/tts/MiniCPM-o-4_5-projector-F16.gguf   from the big model's hidden state to the speech model's width
    OUT/token2wav-gguf/{encoder,flow_matching,flow_extra,hifigan2,prompt_cache}.gguf

Names and shapes follow the published files; shapes here are PyTorch's (slowest first). Weights are scaled so that
activations stay near one and every part matters: what a trained model has in its place would be learned.
"""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

TTS = "tts/MiniCPM-o-4_5-tts-F16.gguf"
PROJECTOR = "tts/MiniCPM-o-4_5-projector-F16.gguf"
TOKEN2WAV = "token2wav-gguf"
KEYS = "mtmd.prompt_cache."


@dataclass(frozen=True)
class Sizes:
    # Speech language model. `codes` does not count the end code, which has a row of its own at the end.
    llm_width: int = 4096
    tts_width: int = 768
    tts_heads: int = 12
    tts_layers: int = 20
    tts_forward: int = 3072
    text_rows: int = 152064
    codes: int = 6561
    # Encoder.
    width: int = 512
    heads: int = 8
    forward: int = 2048
    layers: int = 6
    up_layers: int = 4
    # Flow matching.
    mel: int = 80
    speaker: int = 192
    dit_width: int = 512
    dit_heads: int = 8
    dit_layers: int = 16
    dit_forward: int = 2048
    frequencies: int = 256
    # Vocoder.
    base: int = 512
    f0_width: int = 512
    # Voice.
    prompt_tokens: int = 151
    steps: int = 5
    # Rows with a role: text end, start of audio; the code of silence.
    text_eos: int = 151692
    audio_bos: int = 151687
    silence: int = 4218


FULL = Sizes()
NARROW = Sizes(
    llm_width=40, tts_width=32, tts_heads=2, tts_layers=2, tts_forward=64, text_rows=300, codes=24,
    width=32, heads=2, forward=64, layers=2, up_layers=2,
    mel=20, speaker=24, dit_width=48, dit_heads=3, dit_layers=2, dit_forward=96, frequencies=256,
    base=32, f0_width=16, prompt_tokens=12, steps=3, text_eos=292, audio_bos=287, silence=18,
)  # fmt: skip


class Random:
    """Weights from a seed; every tensor has its own stream, so that adding one leaves the others as they are."""

    def __init__(self, seed):
        self.seed = seed

    def normal(self, name, shape, scale=1.0, mean=0.0):
        stream = np.random.default_rng([self.seed, *name.encode()])
        return (stream.standard_normal(shape, dtype=np.float32) * np.float32(scale) + np.float32(mean)).astype(np.float32)

    def linear(self, name, out, into, scale=1.0, bias=True):
        tensors = {f"{name}.weight": self.normal(f"{name}.weight", (out, into), scale / into**0.5)}
        return tensors | ({f"{name}.bias": self.normal(f"{name}.bias", (out,), 0.1)} if bias else {})

    def norm(self, name, width):
        return {
            f"{name}.weight": self.normal(f"{name}.weight", (width,), 0.1, 1.0),
            f"{name}.bias": self.normal(f"{name}.bias", (width,), 0.1),
        }

    def conv(self, name, out, into, taps, scale=1.0):
        return {
            f"{name}.weight": self.normal(f"{name}.weight", (out, into, taps), scale / (into * taps) ** 0.5),
            f"{name}.bias": self.normal(f"{name}.bias", (out,), 0.1),
        }


def encoder(s, r):
    t = {}
    for name in ("embed", "up_embed"):
        t |= r.linear(f"{name}.out.0", s.width, s.width) | r.norm(f"{name}.out.1", s.width)
    t |= r.conv("pre_lookahead_layer.conv1", s.width, s.width, 4) | r.conv("pre_lookahead_layer.conv2", s.width, s.width, 3)
    t |= r.conv("up_layer.conv", s.width, s.width, 5) | r.norm("after_norm", s.width)
    for i in range(s.layers + s.up_layers):
        p = f"encoders.{i}." if i < s.layers else f"up_encoders.{i - s.layers}."
        for n in ("q", "k", "v", "out"):
            t |= r.linear(f"{p}self_attn.linear_{n}", s.width, s.width)
        # Large, so that a position that is off by one shows.
        t |= r.linear(f"{p}self_attn.linear_pos", s.width, s.width, scale=4.0, bias=False)
        for n in "uv":
            t[f"{p}self_attn.pos_bias_{n}"] = r.normal(f"{p}self_attn.pos_bias_{n}", (s.heads, s.width // s.heads), 1.0)
        t |= r.linear(f"{p}feed_forward.w_1", s.forward, s.width) | r.linear(f"{p}feed_forward.w_2", s.width, s.forward)
        t |= r.norm(f"{p}norm_mha", s.width) | r.norm(f"{p}norm_ff", s.width)
    return t


def flow_matching(s, r):
    w = s.dit_width
    t = r.linear("t_embedder.mlp.0", w, s.frequencies) | r.linear("t_embedder.mlp.2", w, w)
    t |= r.linear("in_proj", w, 4 * s.mel)
    for i in range(s.dit_layers):
        p = f"blocks.{i}."
        for n in ("to_q", "to_k", "to_v", "proj"):
            t |= r.linear(f"{p}attn.{n}", w, w)
        t |= r.norm(f"{p}attn.q_norm", w // s.dit_heads) | r.norm(f"{p}attn.k_norm", w // s.dit_heads)
        t |= r.linear(f"{p}mlp.fc1", s.dit_forward, w) | r.linear(f"{p}mlp.fc2", w, s.dit_forward)
        t |= r.conv(f"{p}conv.block.1", w, w, 3) | r.norm(f"{p}conv.block.3", w) | r.conv(f"{p}conv.block.6", w, w, 3)
        t |= r.linear(f"{p}adaLN_modulation.1", 9 * w, w, scale=0.5)
    t |= r.linear("final_layer.adaLN_modulation.1", 2 * w, w, scale=0.5) | r.linear("final_layer.linear", s.mel, w)
    return {f"estimator.{name}": value for name, value in t.items()}


def flow_extra(s, r):
    t = {"input_embedding.weight": r.normal("input_embedding.weight", (s.codes, s.width))}
    return t | r.linear("spk_embed_affine_layer", s.mel, s.speaker, scale=s.speaker**0.5) | r.linear("encoder_proj", s.mel, s.width)


def hifigan2(s, r):
    t = r.linear("m_source.l_linear", 1, 9, scale=4.0)
    t |= r.conv("conv_pre", s.base, s.mel, 7)
    for i, n in enumerate((0, 2, 4, 6, 8)):
        t |= r.conv(f"f0_predictor.condnet.{n}", s.f0_width, s.mel if i == 0 else s.f0_width, 3)
    # On both sides of the 10 Hz from which a frame is voiced.
    classifier = r.linear("f0_predictor.classifier", 1, s.f0_width, scale=30.0)
    t |= classifier | {"f0_predictor.classifier.bias": np.array([18.0], np.float32)}
    for i, (taps, down, down_taps, source_taps) in enumerate(((16, 15, 30, 7), (11, 3, 6, 7), (7, 1, 1, 11))):
        into, out = s.base >> i, s.base >> (i + 1)
        t[f"ups.{i}.weight"] = r.normal(f"ups.{i}.weight", (into, out, taps), (2 / (into * 2)) ** 0.5)
        t[f"ups.{i}.bias"] = r.normal(f"ups.{i}.bias", (out,), 0.1)
        t |= r.conv(f"source_downs.{i}", out, 18, down_taps)
        blocks = [(f"source_resblocks.{i}", source_taps)]
        blocks += [(f"resblocks.{3 * i + j}", k) for j, k in enumerate((3, 7, 11))]
        for name, k in blocks:
            for j in range(3):
                for half in "12":
                    t |= r.conv(f"{name}.convs{half}.{j}", out, out, k, scale=0.3)
                    alpha = f"{name}.activations{half}.{j}.alpha"
                    t[alpha] = np.abs(r.normal(alpha, (out,), 0.3, 1.2)) + np.float32(0.1)
    t |= r.conv("conv_post", 18, s.base >> 3, 7, scale=0.4)
    # Quiet enough that the limit of 0.99 is met now and then only.
    t["conv_post.bias"][:9] -= np.float32(0.6)
    return t


def projector(s, r):
    return r.linear("linear1", s.tts_width, s.llm_width) | r.linear("linear2", s.tts_width, s.tts_width)


def tts(s, r, proj):
    """The speech language model, with rows of q and k as every llama GGUF has them (pairs side by side)."""
    w = s.tts_width
    t = {"output_norm.weight": r.normal("output_norm.weight", (w,), 0.1, 1.0)}
    # Nothing may use this table; large numbers make a use of it show.
    t["token_embd.weight"] = r.normal("token_embd.weight", (40, w), 30.0)
    for i in range(s.tts_layers):
        p = f"blk.{i}."
        for n in ("attn_q", "attn_k", "attn_v", "attn_output"):
            t |= r.linear(p + n, w, w, bias=False)
        t |= r.linear(p + "ffn_gate", s.tts_forward, w, bias=False) | r.linear(p + "ffn_up", s.tts_forward, w, bias=False)
        t |= r.linear(p + "ffn_down", w, s.tts_forward, bias=False)
        for n in ("attn_norm", "ffn_norm"):
            t[f"{p}{n}.weight"] = r.normal(f"{p}{n}.weight", (w,), 0.1, 1.0)
    t["emb_text.weight"] = r.normal("emb_text.weight", (s.text_rows, w), 0.5)
    t["emb_code.0.weight"] = r.normal("emb_code.0.weight", (s.codes + 1, w), 0.7)
    # Stored transposed, as the published converter does.
    t["head_code.0.weight"] = np.ascontiguousarray(r.normal("head_code.0.weight", (s.codes + 1, w), 3.0 / w**0.5).T)
    return t | {f"projector_semantic.{name}": value for name, value in proj.items()}


def write(path, arch, tensors, entries=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    w = gguf.GGUFWriter(path, arch)
    for kind, key, value in entries:
        getattr(w, f"add_{kind}")(key, value)
    for name, value in tensors.items():
        w.add_tensor(name, np.ascontiguousarray(value))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def tts_entries(s):
    entries = [
        ("uint32", "llama.block_count", s.tts_layers), ("uint32", "llama.context_length", 4096),
        ("uint32", "llama.embedding_length", s.tts_width), ("uint32", "llama.feed_forward_length", s.tts_forward),
        ("uint32", "llama.attention.head_count", s.tts_heads), ("uint32", "llama.attention.head_count_kv", s.tts_heads),
        ("float32", "llama.attention.layer_norm_rms_epsilon", 1e-6), ("float32", "llama.rope.freq_base", 10000.0),
        ("uint32", "llama.rope.dimension_count", s.tts_width // s.tts_heads), ("bool", "vidette.random", True),
    ]  # fmt: skip
    if (s.text_eos, s.audio_bos, s.silence) != (FULL.text_eos, FULL.audio_bos, FULL.silence):
        # The published rows do not exist in a narrow table.
        entries += [("uint32", f"vidette.tts.{n}", getattr(s, n)) for n in ("text_eos", "audio_bos", "silence")]
    return entries


def weights(s, seed):
    r = Random(seed)
    proj = projector(s, r)
    return {
        "projector": proj, "tts": tts(s, r, proj), "encoder": encoder(s, r), "flow_matching": flow_matching(s, r),
        "flow_extra": flow_extra(s, r), "hifigan2": hifigan2(s, r),
    }  # fmt: skip


def f16_matrices(tensors):
    return {n: v.astype(np.float16) if v.ndim == 2 and not n.startswith(("emb_", "projector")) else v for n, v in tensors.items()}


def write_weights(out, s, w, half=False):
    out = Path(out)
    write(out / TTS, "llama", f16_matrices(w["tts"]) if half else w["tts"], tts_entries(s))
    write(out / PROJECTOR, "projector", w["projector"])
    for name in ("encoder", "flow_matching", "flow_extra", "hifigan2"):
        write(out / TOKEN2WAV / f"{name}.gguf", "token2wav", w[name])


def write_prompt_cache(out, s, cache, path=None):
    """Into the set's folder `out`, or into the file `path`."""
    entries = [("uint32", KEYS + "version", 2), ("int32", KEYS + "n_timesteps", s.steps), ("float32", KEYS + "temperature", 1.0)]
    for name, value in (("pre_lookahead", 3), ("chunk_main", 25), ("chunk_total", 28), ("up_rate", 2)):
        entries.append(("int32", KEYS + name, value))
    path = path or Path(out) / TOKEN2WAV / "prompt_cache.gguf"
    write(path, "token2wav", {f"prompt_cache.{n}": v for n, v in cache.items()}, entries)


def read(path):
    """Tensors of a file as float32, in PyTorch's order of dimensions."""
    reader = gguf.GGUFReader(path)
    return {t.name: np.array(t.data).reshape([int(n) for n in reversed(t.shape)]).astype(np.float32) for t in reader.tensors}

