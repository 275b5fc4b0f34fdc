#!/usr/bin/env python3
"""Hold reference.py against the Python code that was published with the model, on a set that make_golden.py wrote.

    compare_published.py DIR --package SRC [--site DIR]

SRC is `src/` of the unpacked source package of minicpmo-utils 1.0.7 (PyPI; Apache-2.0). Needs torch, numpy, gguf, einops,
scipy and onnxruntime; with transformers also the sampler's processors are compared. None of it is part of Vidette.
"""

import argparse
import sys
import types
from pathlib import Path

import numpy as np
from layout import TOKEN2WAV, TTS, read

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("dir", type=Path)
parser.add_argument("--package", required=True)
parser.add_argument("--site", help="a folder with further Python packages")
parser.add_argument("--heads", type=int, default=2, help="attention heads of the speech model (%(default)s)")
given = parser.parse_args()
if given.site:
    sys.path.append(given.site)

import torch  # noqa: E402
import torch.nn.utils.parametrize as parametrize  # noqa: E402

# The package's own __init__ wants CUDA and more.
package = types.ModuleType("stepaudio2")
package.__path__ = [f"{given.package}/stepaudio2"]
sys.modules["stepaudio2"] = package
sys.path.insert(0, given.package)
torch.compile = lambda *_, **__: lambda f: f

from stepaudio2.cosyvoice2.flow.decoder_dit import DiT  # noqa: E402
from stepaudio2.cosyvoice2.flow.flow import CausalMaskedDiffWithXvec  # noqa: E402
from stepaudio2.cosyvoice2.flow.flow_matching import CausalConditionalCFM  # noqa: E402
from stepaudio2.cosyvoice2.transformer.upsample_encoder_v2 import UpsampleConformerEncoderV2  # noqa: E402
from stepaudio2.flashcosyvoice.modules.hifigan import ConvRNNF0Predictor, HiFTGenerator  # noqa: E402

files = {name: read(given.dir / TOKEN2WAV / f"{name}.gguf") for name in ("encoder", "flow_matching", "flow_extra", "hifigan2", "prompt_cache")}
cache = {name.removeprefix("prompt_cache."): torch.from_numpy(value) for name, value in files["prompt_cache"].items()}
golden = read(given.dir / "golden.gguf")
worst = {}


def compare(name, mine, theirs):
    mine, theirs = np.asarray(mine), theirs.detach().numpy() if torch.is_tensor(theirs) else np.asarray(theirs)
    assert mine.shape == theirs.shape, (name, mine.shape, theirs.shape)
    worst[name] = max(worst.get(name, 0.0), float(np.abs(mine - theirs).max()))


def fill(module, tensors):
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    for part in module.modules():
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight")
    absent, surplus = module.load_state_dict(state, strict=False)
    assert not surplus and all("stft" in n or "pe" in n for n in absent), (absent, surplus)
    return module.eval()


def build():
    d, f, h = files["encoder"], files["flow_matching"], files["hifigan2"]
    blocks = lambda t, prefix: len({n[len(prefix) :].split(".")[0] for n in t if n.startswith(prefix)})
    width, heads = d["after_norm.weight"].shape[0], d["encoders.0.self_attn.pos_bias_u"].shape[0]
    layers, up = blocks(d, "encoders."), blocks(d, "up_encoders.")
    forward = d["encoders.0.feed_forward.w_1.bias"].shape[0]
    encoder = UpsampleConformerEncoderV2(
        width, width, pre_lookahead_len=3, num_blocks=layers, num_up_blocks=up, up_stride=2, up_scale_factor=2,
        attention_heads=heads, linear_units=forward,
    )  # fmt: skip
    dim = f["estimator.blocks.0.attn.q_norm.weight"].shape[0]
    inner = f["estimator.in_proj.weight"].shape[0]
    mel = f["estimator.final_layer.linear.bias"].shape[0]
    ratio = f["estimator.blocks.0.mlp.fc1.bias"].shape[0] / inner
    dit = DiT(4 * mel, mel, ratio, blocks(f, "estimator.blocks."), inner // dim, dim, inner)
    cfm = CausalConditionalCFM(dit, 0.7)
    codes, speaker = files["flow_extra"]["input_embedding.weight"].shape[0], files["flow_extra"]["spk_embed_affine_layer.weight"].shape[1]
    flow = CausalMaskedDiffWithXvec(width, mel, speaker, "mel", codes, encoder, cfm)
    pitch = ConvRNNF0Predictor(1, mel, h["f0_predictor.classifier.weight"].shape[1])
    vocoder = HiFTGenerator(in_channels=mel, base_channels=h["conv_pre.bias"].shape[0], f0_predictor=pitch)
    fill(flow, {f"encoder.{n}": v for n, v in d.items()} | {f"decoder.{n}": v for n, v in f.items()} | files["flow_extra"])
    return flow, fill(vocoder, h), layers


def stream():
    flow, vocoder, layers = build()
    depth = len(flow.decoder.estimator.blocks)
    steps = cache["estimator_cnn_cache"].shape[1] // depth
    prompt = cache["conformer_att_cache"].shape[2]
    heads = flow.decoder.estimator.blocks[0].attn.num_heads
    noise = torch.from_numpy(golden["noise"])
    flow.decoder.rand_noise = noise.T[None]
    att = cache["estimator_att_cache"].reshape(2, steps, depth, heads, prompt, -1).permute(1, 2, 0, 3, 4, 5)
    cnn = cache["estimator_cnn_cache"].reshape(2, steps, depth, 2, -1).permute(1, 2, 0, 4, 3)
    # The package's buffers have the published widths.
    flow.decoder.att_cache_buffer = torch.zeros(steps, depth, 2, heads, 1000, att.shape[-1])
    flow.decoder.cnn_cache_buffer = torch.zeros(steps, depth, *cnn.shape[2:])
    flow.decoder.estimator.att_cache_buffer = torch.zeros(depth, 2, heads, 1000, att.shape[-1])
    flow.decoder.estimator.cnn_cache_buffer = torch.zeros(depth, *cnn.shape[2:])
    state = {
        "conformer_cnn_cache": cache["conformer_cnn_cache"].reshape(1, 6, -1).transpose(1, 2),
        "conformer_att_cache": cache["conformer_att_cache"][:, None],
        "estimator_cnn_cache": cnn, "estimator_att_cache": att,
    }  # fmt: skip
    seen = {}
    flow.encoder_proj.register_forward_hook(lambda m, i, o: seen.__setitem__("mu", o))
    speaker = cache["spk_cb"].reshape(1, -1)
    codes = torch.from_numpy(golden["codes"].astype(np.int64))[None]
    window = torch.from_numpy(np.hamming(7680))
    torch.randn_like = torch.zeros_like
    held = {"mel": torch.zeros(1, noise.shape[1], 0), "source": torch.zeros(1, 1, 0), "tail": torch.zeros(1, 0)}
    at, k, out = 0, 0, []
    while True:
        last = codes.shape[1] - at < 28
        mel, state = flow.inference_chunk(codes[:, at:] if last else codes[:, at : at + 28], speaker, state, last, steps)
        state = {n: v.clone() for n, v in state.items()}
        if state["estimator_att_cache"].shape[4] > prompt + 100:
            full = state["estimator_att_cache"]
            state["estimator_att_cache"] = torch.cat([full[..., :prompt, :], full[..., -100:, :]], 4)
        full = state["conformer_att_cache"]
        if full.shape[3] > prompt + 100:
            slow, fast = full[:layers, :, :, : full.shape[3] // 2], full[layers:]
            slow = torch.cat([slow[..., : prompt // 2, :], slow[..., -50:, :]], 3).repeat(1, 1, 1, 2, 1)
            state["conformer_att_cache"] = torch.cat([slow, torch.cat([fast[..., :prompt, :], fast[..., -100:, :]], 3)], 0)
        compare("mu", golden[f"{k}.mu"], seen["mu"][0])
        compare("mel", golden[f"{k}.mel"].T, mel[0])
        if f"{k}.state.flow_att" in golden:
            compare("flow cache", golden[f"{k}.state.flow_att"], state["estimator_att_cache"][-1, -1, 1])
            compare("flow conv cache", golden[f"{k}.state.flow_cnn"], state["estimator_cnn_cache"][-1, -1, 1])
            compare("encoder cache", golden[f"{k}.state.fast"], state["conformer_att_cache"][-1, 0])
            mine = golden[f"{k}.state.slow"]
            compare("encoder cache", mine, state["conformer_att_cache"][layers - 1, 0, :, : mine.shape[1]])
        x = torch.cat([held["mel"], mel], 2)
        wave, source = vocoder(x, held["source"])
        compare("f0", golden[f"{k}.f0"], vocoder.f0_predictor(x)[0])
        compare("source", golden[f"{k}.source"], source[0, 0])
        compare("wave", golden[f"{k}.raw"], wave[0])
        if held["tail"].shape[1]:
            wave = wave.clone()
            wave[:, :3840] = wave[:, :3840] * window[:3840] + held["tail"] * window[3840:]
        held = {"mel": x[..., -8:], "source": source[..., -3840:], "tail": wave[:, -3840:]}
        out.append(wave if last else wave[:, :-3840])
        at, k = at + 25, k + 1
        if last:
            break
    compare("whole", golden["wave"], torch.cat(out, 1)[0].float())


def sampler():
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    for name in sorted({n.split(".")[1] for n in golden if n.startswith("sample.")}):
        logits = torch.from_numpy(golden[f"sample.{name}.logits"]) / 0.8
        history = golden[f"sample.{name}.history"].astype(np.int64)
        if history[0] >= 0:
            times = torch.bincount(torch.from_numpy(history[-16:]), minlength=len(logits))
            alpha = torch.pow(torch.tensor(1.05), times)
            logits = torch.where(logits < 0, logits * alpha, logits / alpha)[None]
            logits = TopPLogitsWarper(0.85, min_tokens_to_keep=3)(None, logits)
            logits = TopKLogitsWarper(25, min_tokens_to_keep=3)(None, logits)[0]
        compare("sampler", golden[f"sample.{name}.probabilities"], torch.softmax(logits, -1))


def speech_model():
    from transformers import LlamaConfig, LlamaModel

    d = read(given.dir / TTS)
    width, heads = d["emb_code.0.weight"].shape[1], given.heads
    layers = len({n.split(".")[1] for n in d if n.startswith("blk.")})
    config = LlamaConfig(
        vocab_size=8, hidden_size=width, num_attention_heads=heads, num_key_value_heads=heads, num_hidden_layers=layers,
        intermediate_size=d["blk.0.ffn_up.weight"].shape[0], rms_norm_eps=1e-6, rope_theta=10000.0, max_position_embeddings=4096,
    )  # fmt: skip
    # GGUF has the two halves of a head's rows interleaved.
    apart = lambda m: m.reshape(heads, width // heads // 2, 2, width).swapaxes(1, 2).reshape(width, width)
    state = {"norm.weight": d["output_norm.weight"]}
    names = {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj"}
    names |= {"ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    for i in range(layers):
        state |= {f"layers.{i}.{b}.weight": d[f"blk.{i}.{a}.weight"] for a, b in names.items()}
        state |= {f"layers.{i}.self_attn.{n}_proj.weight": apart(d[f"blk.{i}.attn_{n}.weight"]) for n in "qk"}
    model = LlamaModel(config).eval()
    surplus = model.load_state_dict({n: torch.from_numpy(np.ascontiguousarray(v)) for n, v in state.items()}, strict=False)
    assert surplus.missing_keys == ["embed_tokens.weight"] and not surplus.unexpected_keys, surplus
    head, table, codes = d["head_code.0.weight"], d["emb_code.0.weight"], golden["lm.codes"].astype(int)
    rows = [golden["lm.first"], table[codes[:8]], golden["lm.second"], table[codes[8:]]]
    hidden = model(inputs_embeds=torch.from_numpy(np.concatenate(rows))[None]).last_hidden_state[0].detach().numpy()
    n = [len(r) for r in rows]
    ends = [n[0] - 1, *range(n[0], n[0] + 8), n[0] + 8 + n[2] - 1, *range(n[0] + 8 + n[2], sum(n))]
    compare("speech model", golden["lm.logits"], hidden[ends] @ head)


with torch.inference_mode():
    stream()
    for part in (sampler, speech_model):
        try:
            part()
        except ImportError as missing:
            print(f"not compared: {part.__name__} ({missing})")
print("largest differences:", {name: float(f"{value:.2g}") for name, value in worst.items()})
