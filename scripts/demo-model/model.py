"""The demo model in PyTorch: MiniCPM-o 4.5's architecture, small.

Vision: SigLIP (learned positions by 70 x 70 buckets, tanh GELU) and the resampler (64 queries, sine positions of the
patches, attention heads of 128), as llama.cpp computes them (tools/mtmd/clip.cpp, models/minicpmv.cpp). Language:
Qwen3 (RMS norms on queries and keys, grouped heads, rotary positions, SwiGLU). Not here: training, files.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

PATCH = 14
BUCKETS = 70
QUERIES = 64
RESAMPLER_HEAD = 128  # fixed in llama.cpp
EPS = 1e-6


@dataclass
class Shape:
    """Widths and depths."""

    vocabulary: int
    tower_width: int = 192
    tower_layers: int = 6
    tower_heads: int = 3
    tower_forward: int = 768
    width: int = 256
    layers: int = 6
    heads: int = 4
    heads_kv: int = 2
    head: int = 64
    forward: int = 768
    rope_base: float = 10_000.0
    context: int = 4096


class TowerLayer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.heads = s.tower_heads
        self.ln1, self.ln2 = nn.LayerNorm(s.tower_width, EPS), nn.LayerNorm(s.tower_width, EPS)
        self.qkv = nn.Linear(s.tower_width, 3 * s.tower_width)
        self.out = nn.Linear(s.tower_width, s.tower_width)
        self.up, self.down = nn.Linear(s.tower_width, s.tower_forward), nn.Linear(s.tower_forward, s.tower_width)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(a.transpose(1, 2).reshape(b, n, d))
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))


class Tower(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.patch = nn.Linear(3 * PATCH * PATCH, s.tower_width)
        # A row's and a column's part; the file holds their sums.
        self.rows = nn.Parameter(torch.randn(BUCKETS, s.tower_width) * 0.02)
        self.columns = nn.Parameter(torch.randn(BUCKETS, s.tower_width) * 0.02)
        with torch.no_grad():
            half = s.tower_width // 2
            at = torch.arange(BUCKETS)[:, None] * 0.6 / (10 ** (torch.arange(half // 2) * 2.5 / (half // 2)))[None]
            waves = torch.cat([at.sin(), at.cos()], -1) * 0.3
            self.rows[:, :half] += waves
            self.columns[:, half : 2 * (half // 2) + half] += waves
        self.layers = nn.ModuleList(TowerLayer(s) for _ in range(s.tower_layers))
        self.ln = nn.LayerNorm(s.tower_width, EPS)

    def forward(self, pictures):
        """`pictures` [n, 3, h, w] from -1 to 1; returns [n, patches, width]."""
        n, _, h, w = pictures.shape
        rows, columns = h // PATCH, w // PATCH
        x = pictures.view(n, 3, rows, PATCH, columns, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, -1)
        r = torch.arange(rows, device=x.device) * BUCKETS // rows
        c = torch.arange(columns, device=x.device) * BUCKETS // columns
        positions = (self.rows[r][:, None] + self.columns[c][None]).flatten(0, 1)
        x = self.patch(x) + positions
        for layer in self.layers:
            x = layer(x)
        return self.ln(x)


def sine_positions(rows, columns, width, device):
    """[rows * columns, width]: sines and cosines of the column, then of the row (minicpmv.cpp)."""
    quarter = width // 4
    omega = 1.0 / 10000.0 ** (torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    x = torch.arange(columns, device=device, dtype=torch.float32)[None, :, None] * omega
    y = torch.arange(rows, device=device, dtype=torch.float32)[:, None, None] * omega
    x, y = x.expand(rows, -1, -1), y.expand(-1, columns, -1)
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], -1).flatten(0, 1)


class Resampler(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.heads = s.width // RESAMPLER_HEAD
        self.query = nn.Parameter(torch.randn(QUERIES, s.width))
        self.kv = nn.Linear(s.tower_width, s.width, bias=False)
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(s.width, EPS) for _ in range(3))
        self.q, self.k, self.v, self.out = (nn.Linear(s.width, s.width) for _ in range(4))
        self.proj = nn.Linear(s.width, s.width, bias=False)
        self._start(s.width)

    @torch.no_grad()
    def _start(self, width):
        """Each query starts out looking at one cell of an 8 x 8 grid over the picture: otherwise attention to the
        right places has to be discovered, which takes longer than everything else."""
        quarter = width // 4
        grid = sine_positions(28, 42, width, "cpu").view(28, 42, width)
        rows = [int((i + 0.5) * 28 / 8) for i in range(8)]
        columns = [int((i + 0.5) * 42 / 8) for i in range(8)]
        cells = torch.stack([grid[r, c] for r in rows for c in columns])
        select = torch.zeros(width, width)  # each head gets some waves of both directions
        per = RESAMPLER_HEAD // 4
        for head in range(self.heads):
            waves = [i for i in range(8, 8 + 12 * 2) if i % self.heads == head % 2][:per]
            for j, i in enumerate(waves):
                for part in range(4):
                    select[head * RESAMPLER_HEAD + part * per + j, part * quarter + i] = 1.0
        scale = RESAMPLER_HEAD**0.25
        self.k.weight.copy_(select * scale * 0.9 + torch.randn(width, width) * 0.005)
        self.k.bias.zero_()
        wanted = cells @ select.T * scale  # [64, width], what q() must give
        normed = F.layer_norm(self.query, (width,), eps=EPS)
        self.q.weight.copy_((torch.linalg.pinv(normed) @ wanted).T)
        self.q.bias.zero_()
        self.ln_kv.weight.fill_(0.3)
        nn.init.normal_(self.v.weight, std=0.2)

    def forward(self, x, rows, columns):
        """[n, patches, tower width] to [n, 64, width]."""
        n, d = x.shape[0], self.query.shape[1]
        v = self.ln_kv(self.kv(x))
        k = self.k(v + sine_positions(rows, columns, d, x.device).to(v.dtype))
        q = self.q(self.ln_q(self.query))[None].expand(n, -1, -1)

        def split(t):
            return t.view(n, -1, self.heads, RESAMPLER_HEAD).transpose(1, 2)

        a = F.scaled_dot_product_attention(split(q.to(k.dtype)), split(k), split(self.v(v)))
        return self.proj(self.ln_post(self.out(a.transpose(1, 2).reshape(n, QUERIES, d))))


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), EPS)


class LanguageLayer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.ln1, self.ln2 = RMSNorm(s.width), RMSNorm(s.width)
        self.q = nn.Linear(s.width, s.heads * s.head, bias=False)
        self.k = nn.Linear(s.width, s.heads_kv * s.head, bias=False)
        self.v = nn.Linear(s.width, s.heads_kv * s.head, bias=False)
        self.out = nn.Linear(s.heads * s.head, s.width, bias=False)
        self.q_norm, self.k_norm = RMSNorm(s.head), RMSNorm(s.head)
        self.gate, self.up = nn.Linear(s.width, s.forward, bias=False), nn.Linear(s.width, s.forward, bias=False)
        self.down = nn.Linear(s.forward, s.width, bias=False)

    def forward(self, x, cos, sin):
        b, n, _ = x.shape
        s, y = self.s, self.ln1(x)
        q = self.q_norm(self.q(y).view(b, n, s.heads, s.head)).transpose(1, 2)
        k = self.k_norm(self.k(y).view(b, n, s.heads_kv, s.head)).transpose(1, 2)
        v = self.v(y).view(b, n, s.heads_kv, s.head).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        groups = s.heads // s.heads_kv
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).reshape(b, n, -1))
        y = self.ln2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def rotate(x, cos, sin):
    """Rotary positions, halves paired (NEOX)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Language(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.embed = nn.Embedding(s.vocabulary, s.width)
        self.layers = nn.ModuleList(LanguageLayer(s) for _ in range(s.layers))
        self.ln = RMSNorm(s.width)
        self.head = nn.Linear(s.width, s.vocabulary, bias=False)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.03)
        nn.init.normal_(self.embed.weight, std=0.5)
        for layer in self.layers:
            nn.init.normal_(layer.out.weight, std=0.03 / (2 * s.layers) ** 0.5)
            nn.init.normal_(layer.down.weight, std=0.03 / (2 * s.layers) ** 0.5)

    def forward(self, x):
        """Embeddings [n, length, width] to the last hidden states, normed."""
        half = self.s.head // 2
        omega = self.s.rope_base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
        angle = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)[:, None] * omega
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.ln(x)


class Demo(nn.Module):
    """All of it, and heads for the patches' classes that exist in training only."""

    def __init__(self, s, classes=(7, 9, 38)):
        super().__init__()
        self.s = s
        self.tower, self.resampler, self.language = Tower(s), Resampler(s), Language(s)
        self.patch_heads = nn.Linear(s.tower_width, sum(classes))
        self.classes = classes

    def see(self, pictures):
        """[n, 3, h, w] from -1 to 1: embeddings [n, 64, width] and the tower's patches."""
        rows, columns = pictures.shape[2] // PATCH, pictures.shape[3] // PATCH
        patches = self.tower(pictures)
        return self.resampler(patches, rows, columns), patches

    def forward(self, pictures, tokens, slots, places):
        """One training step's outputs.

        `pictures` [clips, frames, 3, h, w]; `tokens` [clips, questions, length], -1 where a picture's embedding goes;
        `slots` of the same shape, which of the clip's embeddings that is; `places`, flat indices into
        clips x questions x length. Returns the logits after those places [m, vocabulary] and the logits of the
        patches' classes.
        """
        clips, frames = pictures.shape[:2]
        seen, patches = self.see(pictures.flatten(0, 1))
        seen = seen.view(clips, frames * QUERIES, -1)
        row = torch.arange(clips, device=tokens.device)[:, None, None]
        # Training looks the pictures' rows up together with the words': one table for each.
        x = self.language.embed(tokens.clamp(min=0)).to(seen.dtype)
        x = torch.where((tokens >= 0)[..., None], x, seen[row, slots]).flatten(0, 1)
        hidden = self.language(x).flatten(0, 1)[places]
        return self.language.head(hidden), self.patch_heads(patches)
