"""MiniCPM-o 4.5's way from text tokens and hidden states to sound, in numpy: what the Rust code is held against.

Everything is written out plainly and computed in float32 (phases in float64); sequences are [time, width], convolutions
[channels, time]. docs/VOICE-MODEL.md describes the stages and names their sources. `compare_published.py` holds this
file against the Python code that was published with the model.
"""

import numpy as np

F = np.float32


def linear(d, name, x):
    y = x @ d[f"{name}.weight"].T
    return y + d[f"{name}.bias"] if f"{name}.bias" in d else y


def standardise(x, eps):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + F(eps))


def layer_norm(d, name, x, eps):
    return standardise(x, eps) * d[f"{name}.weight"] + d[f"{name}.bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def mish(x):
    return x * np.tanh(np.logaddexp(x, F(0)))


def gelu(x):
    return F(0.5) * x * (1 + np.tanh(F(np.sqrt(2 / np.pi)) * (x + F(0.044715) * x**3)))


def leaky(x, slope):
    return np.where(x >= 0, x, F(slope) * x)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def conv(x, weight, bias, stride=1, pad=0, dilation=1):
    """x [in, time], weight [out, in, taps]."""
    x = np.pad(x, ((0, 0), (pad, pad)))
    taps = weight.shape[2]
    n = (x.shape[1] - dilation * (taps - 1) - 1) // stride + 1
    at = [x[:, k * dilation : k * dilation + (n - 1) * stride + 1 : stride] for k in range(taps)]
    return sum(weight[:, :, k] @ at[k] for k in range(taps)) + bias[:, None]


def conv_transposed(x, weight, bias, stride, pad):
    """x [in, time], weight [in, out, taps]."""
    taps, time = weight.shape[2], x.shape[1]
    out = np.zeros((weight.shape[1], (time - 1) * stride + taps), F)
    for k in range(taps):
        out[:, k : k + (time - 1) * stride + 1 : stride] += weight[:, :, k].T @ x
    return out[:, pad : out.shape[1] - pad] + bias[:, None]


def count(d, prefix):
    return 1 + max(int(name[len(prefix) :].split(".")[0]) for name in d if name.startswith(prefix))


# ---------- projector and condition rows


def project(d, hidden):
    return linear(d, "linear2", np.maximum(linear(d, "linear1", hidden), 0))


def conditions(emb_text, proj, tokens, hidden):
    p = project(proj, hidden)
    return emb_text[tokens] + p / np.maximum(np.linalg.norm(p, axis=-1, keepdims=True), F(1e-12))


# ---------- speech language model (llama), rows of q and k in GGUF's order


class SpeechModel:
    def __init__(self, d, heads, eps=1e-6, theta=10000.0):
        self.d, self.heads, self.eps, self.theta = d, heads, eps, theta
        self.layers = count(d, "blk.")
        self.clear()

    def clear(self):
        self.cache = [None] * self.layers
        self.position = 0

    def rms(self, name, x):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + F(self.eps)) * self.d[f"{name}.weight"]

    def rope(self, x, positions):
        n = x.shape[-1]
        angle = positions[:, None] * self.theta ** (-np.arange(0, n, 2) / n)
        cos, sin = np.cos(angle).astype(F)[:, None], np.sin(angle).astype(F)[:, None]
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def decode(self, rows):
        """Rows at the next positions; logits of the last one."""
        t, width = rows.shape
        at = np.arange(self.position, self.position + t)
        x = rows
        for i in range(self.layers):
            p = f"blk.{i}."
            h = self.rms(p + "attn_norm", x)
            q, k, v = (linear(self.d, p + f"attn_{n}", h).reshape(t, self.heads, -1) for n in "qkv")
            q, k = self.rope(q, at), self.rope(k, at)
            if self.cache[i] is not None:
                k, v = np.concatenate([self.cache[i][0], k]), np.concatenate([self.cache[i][1], v])
            self.cache[i] = (k, v)
            score = np.einsum("qhd,khd->hqk", q, k) / F(np.sqrt(q.shape[-1]))
            score = np.where(np.arange(len(k))[None] > at[:, None], F(-np.inf), score)
            x = x + linear(self.d, p + "attn_output", np.einsum("hqk,khd->qhd", softmax(score), v).reshape(t, width))
            h = self.rms(p + "ffn_norm", x)
            x = x + linear(self.d, p + "ffn_down", silu(linear(self.d, p + "ffn_gate", h)) * linear(self.d, p + "ffn_up", h))
        self.position += t
        return self.rms("output_norm", x[-1:])[0] @ self.d["head_code.0.weight"]

    def decode_code(self, code):
        return self.decode(self.d["emb_code.0.weight"][[code]])


def probabilities(logits, history, first):
    """What the next code is drawn from: temperature 0.8; then, unless it is the first code of the reply, repetition
    penalty 1.05 to the power of the count in the last 16, top-p 0.85 and top-k 25, each keeping at least 3."""
    x = logits.astype(F) / F(0.8)
    if not first:
        window = list(history)[-16:]
        for code in set(window):
            alpha = F(1.05) ** F(window.count(code))
            x[code] = x[code] * alpha if x[code] < 0 else x[code] / alpha
        order = np.argsort(x, kind="stable")
        tail = np.cumsum(softmax(x[order])) <= F(1 - 0.85)
        tail[-3:] = False
        x[order[tail]] = -np.inf
        x[x < np.sort(x)[-25]] = -np.inf
    return softmax(x)


# ---------- encoder


def sinusoids(relative, width):
    angle = relative[:, None] * np.exp(np.arange(0, width, 2) * -(np.log(10000.0) / width))
    out = np.empty((len(relative), width), F)
    out[:, 0::2], out[:, 1::2] = np.sin(angle), np.cos(angle)
    return out


class Encoder:
    def __init__(self, d, extra):
        self.d, self.extra = d, extra
        self.layers, self.up_layers = count(d, "encoders."), count(d, "up_encoders.")
        self.heads = d["encoders.0.self_attn.pos_bias_u"].shape[0]
        self.width = d["after_norm.weight"].shape[0]

    def empty(self):
        none = np.zeros((self.heads, 0, 2 * self.width // self.heads), F)
        zeros = lambda n: np.zeros((self.width, n), F)
        return {"look": zeros(2), "up": zeros(4), "slow": [none] * self.layers, "fast": [none] * self.up_layers}

    def split(self, x):
        return x.reshape(x.shape[0], self.heads, -1).transpose(1, 0, 2)

    def layer(self, p, x, cache):
        """cache [heads, time, K | V], oldest first. Returns x and the cache with the new frames."""
        d, a, dim = self.d, p + "self_attn.", self.width // self.heads
        h = layer_norm(d, p + "norm_mha", x, 1e-12)
        q, k, v = (self.split(linear(d, f"{a}linear_{n}", h)) for n in "qkv")
        k, v = np.concatenate([cache[..., :dim], k], 1), np.concatenate([cache[..., dim:], v], 1)
        t, keys = x.shape[0], k.shape[1]
        relative = np.arange(keys - 1, -t, -1)
        pos = self.split(sinusoids(relative.astype(F), self.width) @ d[a + "linear_pos.weight"].T)
        by_position = np.einsum("htd,hrd->htr", q + d[a + "pos_bias_v"][:, None], pos)
        # Row i, key j stand (keys - t + i) - j apart.
        index = (keys - 1) - ((keys - t + np.arange(t))[:, None] - np.arange(keys)[None])
        by_position = np.take_along_axis(by_position, np.broadcast_to(index, (self.heads, t, keys)), 2)
        by_content = np.einsum("htd,hsd->hts", q + d[a + "pos_bias_u"][:, None], k)
        weights = softmax((by_content + by_position) / F(np.sqrt(dim)))
        x = x + linear(d, a + "linear_out", (weights @ v).transpose(1, 0, 2).reshape(t, self.width))
        h = layer_norm(d, p + "norm_ff", x, 1e-12)
        x = x + linear(d, p + "feed_forward.w_2", silu(linear(d, p + "feed_forward.w_1", h)))
        return x, np.concatenate([k, v], 2)

    def embed(self, name, x):
        return layer_norm(self.d, f"{name}.out.1", linear(self.d, f"{name}.out.0", x), 1e-5) * F(np.sqrt(self.width))

    def __call__(self, codes, state, last):
        """mu [2·frames, mel] and the state after it. The last three codes of a chunk that is not the last are only
        looked at."""
        d = self.d
        x = self.embed("embed", self.extra["input_embedding.weight"][codes])
        if last:
            x = np.pad(x, ((0, 3), (0, 0)))
        y = leaky(conv(x.T, d["pre_lookahead_layer.conv1.weight"], d["pre_lookahead_layer.conv1.bias"]), 0.01)
        y = np.concatenate([state["look"], y], 1)
        out = {"look": y[:, -2:], "slow": [], "fast": []}
        x = conv(y, d["pre_lookahead_layer.conv2.weight"], d["pre_lookahead_layer.conv2.bias"]).T + x[:-3]
        for i in range(self.layers):
            x, cache = self.layer(f"encoders.{i}.", x, state["slow"][i])
            out["slow"].append(cache)
        up = np.concatenate([state["up"], np.repeat(x.T, 2, axis=1)], 1)
        out["up"] = up[:, -4:]
        x = self.embed("up_embed", conv(up, d["up_layer.conv.weight"], d["up_layer.conv.bias"]).T)
        for i in range(self.up_layers):
            x, cache = self.layer(f"up_encoders.{i}.", x, state["fast"][i])
            out["fast"].append(cache)
        return linear(self.extra, "encoder_proj", layer_norm(d, "after_norm", x, 1e-5)), out


# ---------- flow matching


class Flow:
    def __init__(self, d, steps):
        self.d = {name.removeprefix("estimator."): value for name, value in d.items()}
        self.layers = count(self.d, "blocks.")
        self.width = self.d["in_proj.weight"].shape[0]
        self.dim = self.d["blocks.0.attn.q_norm.weight"].shape[0]
        self.heads = self.d["blocks.0.attn.to_q.weight"].shape[0] // self.dim
        self.times = 1 - np.cos(np.linspace(0, 1, steps + 1) * np.pi / 2)
        self.steps = steps

    def empty(self):
        att = np.zeros((self.heads, 0, 2 * self.dim), F)
        cnn = np.zeros((2 * self.width, 2), F)
        each = lambda one: [[[one] * self.layers for _ in range(2)] for _ in range(self.steps)]
        return {"att": each(att), "cnn": each(cnn)}

    def time(self, t):
        half = self.d["t_embedder.mlp.0.weight"].shape[1] // 2
        angle = 1000 * t * np.exp(-np.log(10000.0) * np.arange(half) / half)
        x = np.concatenate([np.cos(angle), np.sin(angle)]).astype(F)
        return linear(self.d, "t_embedder.mlp.2", silu(linear(self.d, "t_embedder.mlp.0", x)))

    def estimate(self, x, t, att, cnn):
        """x [frames, x | mu | speaker | prompt mel]; att[block] [heads, keys, K | V]; cnn[block] [2·width, 2]."""
        d, w, dim = self.d, self.width, self.dim
        split = lambda y: y.reshape(y.shape[0], self.heads, dim).transpose(1, 0, 2)
        c, att_after, cnn_after = silu(self.time(t)), [], []
        x = linear(d, "in_proj", x)
        for b in range(self.layers):
            p = f"blocks.{b}."
            m = linear(d, p + "adaLN_modulation.1", c).reshape(9, w)
            modulated = lambda i: standardise(x, 1e-6) * (1 + m[3 * i + 1]) + m[3 * i]
            h = modulated(0)
            q = layer_norm(d, p + "attn.q_norm", split(linear(d, p + "attn.to_q", h)), 1e-5)
            k = layer_norm(d, p + "attn.k_norm", split(linear(d, p + "attn.to_k", h)), 1e-5)
            v = split(linear(d, p + "attn.to_v", h))
            # Newest first.
            k, v = np.concatenate([k, att[b][..., :dim]], 1), np.concatenate([v, att[b][..., dim:]], 1)
            att_after.append(np.concatenate([k, v], 2))
            y = softmax(q @ k.transpose(0, 2, 1) / F(np.sqrt(dim))) @ v
            x = x + m[2] * linear(d, p + "attn.proj", y.transpose(1, 0, 2).reshape(len(x), w))
            h = np.concatenate([cnn[b][:w], modulated(2).T], 1)
            first = h[:, -2:]
            h = conv(h, d[p + "conv.block.1.weight"], d[p + "conv.block.1.bias"]).T
            h = mish(layer_norm(d, p + "conv.block.3", h, 1e-5))
            h = np.concatenate([cnn[b][w:], h.T], 1)
            cnn_after.append(np.concatenate([first, h[:, -2:]], 0))
            x = x + m[8] * conv(h, d[p + "conv.block.6.weight"], d[p + "conv.block.6.bias"]).T
            x = x + m[5] * linear(d, p + "mlp.fc2", gelu(linear(d, p + "mlp.fc1", modulated(1))))
        shift, scale = linear(d, "final_layer.adaLN_modulation.1", c).reshape(2, w)
        return linear(d, "final_layer.linear", standardise(x, 1e-6) * (1 + scale) + shift), att_after, cnn_after

    def __call__(self, mu, speaker, noise, state, prompt=None, each=lambda step, velocities: None):
        """mel [frames, mel] and the state after it; `each` sees the two velocities of every step."""
        x, nothing = noise, np.zeros_like(mu)
        speaker = np.broadcast_to(speaker, mu.shape)
        cond = nothing if prompt is None else prompt
        out = {"att": [], "cnn": []}
        for i in range(self.steps):
            rows = [np.concatenate([x, mu, speaker, cond], 1), np.concatenate([x, nothing, nothing, nothing], 1)]
            done = [self.estimate(rows[b], self.times[i], state["att"][i][b], state["cnn"][i][b]) for b in range(2)]
            each(i, [one[0] for one in done])
            x = x + F(self.times[i + 1] - self.times[i]) * (F(1.7) * done[0][0] - F(0.7) * done[1][0])
            out["att"].append([one[1] for one in done])
            out["cnn"].append([one[2] for one in done])
        return x, out


def trim_flow(state, prompt):
    cut = lambda c: c if c.shape[1] <= prompt + 100 else np.concatenate([c[:, :prompt], c[:, -100:]], 1)
    return {"att": [[[cut(c) for c in half] for half in step] for step in state["att"]], "cnn": state["cnn"]}


def trim_encoder(state, prompt):
    if state["fast"][0].shape[1] <= prompt + 100:
        return state
    cut = lambda c, first, last: np.concatenate([c[:, :first], c[:, -last:]], 1)
    slow = [cut(c, prompt // 2, 50) for c in state["slow"]]
    return state | {"slow": slow, "fast": [cut(c, prompt, 100) for c in state["fast"]]}


# ---------- vocoder

WINDOW = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(16) / 16)
DFT = np.exp(-2j * np.pi * np.outer(np.arange(9), np.arange(16)) / 16)
STAGES = ((8, 16, 15, 7, 7), (5, 11, 3, 1, 7), (3, 7, 1, 0, 11))


def harmonics(f0, noise=None):
    """Sines of f0 and its first 8 multiples, [samples, 9]. noise N(0, 1) of the same shape."""
    n = 480 * len(f0)
    phase = np.cumsum((f0[:, None].astype(np.float64) * np.arange(1, 10) / 24000) % 1, 0) * 2 * np.pi * 480
    at = np.maximum((np.arange(n) + 0.5) / 480 - 0.5, 0)
    left = np.floor(at).astype(int)
    right, part = np.minimum(left + 1, len(f0) - 1), (at - left)[:, None]
    voiced = (np.repeat(f0, 480) > 10)[:, None]
    sines = 0.1 * np.sin(phase[left] * (1 - part) + phase[right] * part) * voiced
    if noise is not None:
        sines = sines + noise * np.where(voiced, 0.003, 0.1 / 3)
    return sines.astype(F)


class Vocoder:
    def __init__(self, d):
        self.d = d

    def snake(self, name, x):
        alpha = self.d[f"{name}.alpha"][:, None]
        return x + np.sin(alpha * x) ** 2 / (alpha + F(1e-9))

    def block(self, p, x, taps):
        get = lambda name: (self.d[f"{p}.{name}.weight"], self.d[f"{p}.{name}.bias"])
        for j, dilation in enumerate((1, 3, 5)):
            h = self.snake(f"{p}.activations1.{j}", x)
            h = conv(h, *get(f"convs1.{j}"), pad=(taps - 1) * dilation // 2, dilation=dilation)
            h = self.snake(f"{p}.activations2.{j}", h)
            x = x + conv(h, *get(f"convs2.{j}"), pad=(taps - 1) // 2)
        return x

    def pitch(self, mel):
        h = mel
        for i in (0, 2, 4, 6, 8):
            p = f"f0_predictor.condnet.{i}"
            h = conv(h, self.d[f"{p}.weight"], self.d[f"{p}.bias"], pad=1)
            h = np.where(h > 0, h, np.expm1(np.minimum(h, 0)))
        return np.abs(linear(self.d, "f0_predictor.classifier", h.T))[:, 0]

    def __call__(self, mel, source_cache):
        """mel [mel, frames] to (samples, source, f0), without noise."""
        d = self.d
        f0 = self.pitch(mel)
        n = 480 * len(f0)
        source = np.tanh(linear(d, "m_source.l_linear", harmonics(f0)))[:, 0]
        source[: len(source_cache)] = source_cache
        padded = np.pad(source, 8, mode="reflect")
        frames = np.stack([padded[i * 4 : i * 4 + 16] for i in range(n // 4 + 1)]) * WINDOW
        spectrum = DFT @ frames.T
        spectrum = np.concatenate([spectrum.real, spectrum.imag], 0).astype(F)
        x = conv(mel, d["conv_pre.weight"], d["conv_pre.bias"], pad=3)
        for i, (rate, taps, stride, pad, source_taps) in enumerate(STAGES):
            x = conv_transposed(leaky(x, 0.1), d[f"ups.{i}.weight"], d[f"ups.{i}.bias"], rate, (taps - rate) // 2)
            if i == 2:
                x = np.concatenate([x[:, 1:2], x], 1)
            down = conv(spectrum, d[f"source_downs.{i}.weight"], d[f"source_downs.{i}.bias"], stride, pad)
            x = x + self.block(f"source_resblocks.{i}", down, source_taps)
            x = sum(self.block(f"resblocks.{3 * i + j}", x, k) for j, k in enumerate((3, 7, 11))) / F(3)
        x = conv(leaky(x, 0.01), d["conv_post.weight"], d["conv_post.bias"], pad=3)
        z = np.minimum(np.exp(x[:9]), F(100)) * np.exp(1j * np.sin(x[9:]))
        frames = np.fft.irfft(z.T, 16, axis=1) * WINDOW
        out = np.zeros(16 + 4 * (len(frames) - 1))
        weight = np.zeros_like(out)
        for i, frame in enumerate(frames):
            out[4 * i : 4 * i + 16] += frame
            weight[4 * i : 4 * i + 16] += WINDOW**2
        return np.clip((out / np.maximum(weight, 1e-11))[8 : 8 + n], -0.99, 0.99), source, f0


# ---------- codes to sound


class Stream:
    """token2wav with all its state; `see(name, value)` gets every stage of every chunk."""

    def __init__(self, encoder, extra, flow, vocoder, cache, noise, see=lambda name, value: None):
        self.encode = Encoder(encoder, extra)
        self.flow = Flow(flow, noise_steps(cache, flow))
        self.vocode = Vocoder(vocoder)
        self.noise, self.see, self.chunk = noise, see, 0
        speaker = cache["spk_cb"].reshape(-1)
        self.speaker = linear(extra, "spk_embed_affine_layer", speaker / max(np.linalg.norm(speaker), F(1e-12)))
        self.unpack(cache)
        self.mel, self.source, self.tail = np.zeros((self.flow.d["final_layer.linear.bias"].size, 0), F), np.zeros(0), np.zeros(0)

    def unpack(self, cache):
        e, f = self.encode, self.flow
        cnn = cache["conformer_cnn_cache"].reshape(6, -1).T
        att = cache["conformer_att_cache"]
        self.prompt = att.shape[2]
        slow = [att[i][:, : self.prompt // 2] for i in range(e.layers)]
        self.state = {"look": cnn[:, :2], "up": cnn[:, 2:], "slow": slow, "fast": list(att[e.layers :])}
        cnn = cache["estimator_cnn_cache"].reshape(2, f.steps, f.layers, 2, -1).transpose(1, 0, 2, 4, 3)
        att = cache["estimator_att_cache"].reshape(2, f.steps, f.layers, f.heads, self.prompt, -1).transpose(1, 0, 2, 3, 4, 5)
        self.flow_state = {"att": att, "cnn": cnn}

    def __call__(self, codes, last):
        see = lambda name, value: self.see(f"{self.chunk}.{name}", value)
        held = self.flow_state["att"][0][0][0].shape[1]
        mu, state = self.encode(codes, self.state, last)
        see("mu", mu)
        velocity = lambda step, v: see("velocity", np.stack(v)) if step == 1 else None
        mel, flow_state = self.flow(mu, self.speaker, self.noise[held : held + len(mu)], self.flow_state, each=velocity)
        see("mel", mel)
        self.state, self.flow_state = trim_encoder(state, self.prompt), trim_flow(flow_state, self.prompt)
        see("state", self)
        x = np.concatenate([self.mel, mel.T], 1)
        wave, source, f0 = self.vocode(x, self.source)
        for name, value in (("f0", f0), ("source", source), ("raw", wave)):
            see(name, value)
        if len(self.tail):
            fade = np.hamming(7680)
            wave = wave.copy()
            wave[:3840] = wave[:3840] * fade[:3840] + self.tail * fade[3840:]
        self.mel, self.source, self.tail = x[:, -8:], source[-3840:], wave[-3840:]
        self.chunk += 1
        return wave if last else wave[:-3840]

    def speak(self, codes):
        """All codes (with the three of silence in front), in the windows that streaming makes of them."""
        out, at = [], 0
        while True:
            last = len(codes) - at < 28
            out.append(self(codes[at:] if last else codes[at : at + 28], last))
            if last:
                return np.concatenate(out)
            at += 25


def noise_steps(cache, flow):
    layers = count({n.removeprefix("estimator."): None for n in flow}, "blocks.")
    return cache["estimator_cnn_cache"].shape[1] // layers


def prompt_cache(encoder, extra, flow, steps, tokens, mel, speaker, noise):
    """The state after a voice's prompt, packed as in the published file. tokens: the prompt's codes and three more."""
    e, f = Encoder(encoder, extra), Flow(flow, steps)
    mu, state = e(tokens, e.empty(), False)
    affine = linear(extra, "spk_embed_affine_layer", speaker / max(np.linalg.norm(speaker), F(1e-12)))
    _, flow_state = f(mu, affine, noise[: len(mu)], f.empty(), prompt=mel)
    slow = [np.concatenate([c, c], 1) for c in state["slow"]]
    # [steps][2][blocks] -> [2][steps * blocks]
    halves = lambda key, pack: np.stack([np.stack([pack(c) for s in flow_state[key] for c in s[b]]) for b in range(2)])
    att = halves("att", lambda c: c)
    return {
        "spk_cb": speaker,
        "conformer_cnn_cache": np.concatenate([state["look"], state["up"]], 1).T[None],
        "conformer_att_cache": np.stack(slow + state["fast"]),
        "estimator_cnn_cache": halves("cnn", lambda c: c.T),
        "estimator_att_cache": att.reshape(2, -1, att.shape[-2], att.shape[-1]),
    }
