"""The published DDiT restated plainly, one sequence at a time in float64: an independent check of
textdiff's. Imports torch only.

Written from the description of the architecture (pre-norm transformer, adaLN-zero, RoPE by halves,
tanh-GELU) with the published names of the weights; everything is spelt out, nothing is shared with
textdiff.
"""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor

State = dict[str, Tensor]


def published(
    V: int,
    D: int = 16,
    layers: int = 2,
    heads: int = 2,
    C: int = 8,
    output: bool = True,
    hdlm: bool = False,
    device: str = "cpu",
) -> State:
    """Random weights under the published names and shapes, in the order of registration; C = 0: no
    adaLN anywhere.
    """
    shapes: dict[str, tuple[int, ...]] = {"vocab_embed.embedding": (V, D)}
    noise = {"sigma_map.mlp.0.weight": (C, 256), "sigma_map.mlp.0.bias": (C,)}
    noise |= {"sigma_map.mlp.2.weight": (C, C), "sigma_map.mlp.2.bias": (C,)}
    if C and not hdlm:
        shapes |= noise
    shapes["rotary_emb.inv_freq"] = (D // heads // 2,)
    for i in range(layers):
        block = {
            "norm1.weight": (D,),
            "attn_qkv.weight": (3 * D, D),
            "attn_out.weight": (D, D),
            "norm2.weight": (D,),
        }
        block |= {
            "mlp.0.weight": (4 * D, D),
            "mlp.0.bias": (4 * D,),
            "mlp.2.weight": (D, 4 * D),
            "mlp.2.bias": (D,),
        }
        if C:
            block |= {"adaLN_modulation.weight": (6 * D, C), "adaLN_modulation.bias": (6 * D,)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    shapes |= {
        "output_layer.norm_final.weight": (D,),
        "output_layer.linear.weight": (V, D),
        "output_layer.linear.bias": (V,),
    }
    if C and output:
        shapes |= {
            "output_layer.adaLN_modulation.weight": (2 * D, C),
            "output_layer.adaLN_modulation.bias": (2 * D,),
        }
    if C and hdlm:
        shapes |= noise
    draw = torch.Generator().manual_seed(0)
    if device == "meta":
        return {name: torch.empty(shape, device=device) for name, shape in shapes.items()}
    state = {
        name: torch.randn(shape, dtype=torch.float64, generator=draw)
        * (shape[-1] ** -0.5 if len(shape) == 2 else 0.5)
        for name, shape in shapes.items()
    }
    state["vocab_embed.embedding"] *= D**0.5
    state["rotary_emb.inv_freq"] = torch.tensor(
        [10000 ** (-2 * k * heads / D) for k in range(D // heads // 2)], dtype=torch.float32
    )
    return state


def layer_norm(x: Tensor, weight: Tensor) -> Tensor:
    mean = x.sum() / len(x)
    variance = ((x - mean) ** 2).sum() / len(x)
    return weight * (x - mean) / (variance + 1e-5) ** 0.5


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def turn(x: Tensor, position: int) -> Tensor:
    """RoPE of one head's vector: component k and k + d/2 are the parts of a complex number, turned
    by position · 10000^{-2k/d}.
    """
    d, out = len(x), x.clone()
    for k in range(d // 2):
        turned = complex(x[k], x[k + d // 2]) * cmath.exp(1j * position * 10000 ** (-2 * k / d))
        out[k], out[k + d // 2] = turned.real, turned.imag
    return out


def condition(state: State, sigma: float) -> Tensor:
    """c = SiLU(MLP(cosines, then sines, of σ · 10000^{-k/128}))."""
    angles = [sigma * 10000 ** (-k / 128) for k in range(128)]
    features = torch.tensor(
        [math.cos(a) for a in angles] + [math.sin(a) for a in angles], dtype=torch.float64
    )
    inner = silu(state["sigma_map.mlp.0.weight"] @ features + state["sigma_map.mlp.0.bias"])
    return silu(state["sigma_map.mlp.2.weight"] @ inner + state["sigma_map.mlp.2.bias"])


def attention(
    rows: list[Tensor], weight: Tensor, heads: int, positions: list[int], sees: Tensor
) -> list[Tensor]:
    D = len(rows[0])
    d = D // heads
    q, k, v = (
        [part @ row for row in rows] for part in (weight[:D], weight[D : 2 * D], weight[2 * D :])
    )
    mixed = [torch.zeros(D, dtype=torch.float64) for _ in rows]
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        qs, ks = ([turn(x[part], p) for x, p in zip(xs, positions, strict=True)] for xs in (q, k))
        for i in range(len(rows)):
            seen = [j for j in range(len(rows)) if sees[i, j]]
            shares = torch.stack([qs[i] @ ks[j] / d**0.5 for j in seen]).softmax(0)
            mixed[i][part] = sum(share * v[j][part] for share, j in zip(shares, seen, strict=True))
    return mixed


def forward(
    state: State,
    ids: list[int],
    sigma: list[float],
    heads: int = 2,
    positions: list[int] | None = None,
    sees: Tensor | None = None,
    mix: float = 0.0,
) -> Tensor:
    """The outputs [R, V] of one sequence of published ids, before any parameterisation; σ per row
    (equal where it is global).
    """
    state = {name: value.double() for name, value in state.items()}
    R = len(ids)
    positions = list(range(R)) if positions is None else positions
    sees = torch.ones(R, R, dtype=torch.bool) if sees is None else sees
    table = state["vocab_embed.embedding"]
    x = [table[i] for i in ids]
    if mix:
        x = [
            math.exp(-mix * s) * row + (1 - math.exp(-mix * s)) * table[-1]
            for row, s in zip(x, sigma, strict=True)
        ]
    D = len(x[0])
    adaln = "blocks.0.adaLN_modulation.weight" in state
    c = [condition(state, s) for s in sigma] if adaln else []

    def modulation(name: str, parts: int) -> list[tuple[Tensor, ...]]:
        if f"{name}.adaLN_modulation.weight" not in state:
            return [
                tuple(torch.zeros(D) if p % 3 < 2 else torch.ones(D) for p in range(parts))
                for _ in range(R)
            ]
        made = [
            state[f"{name}.adaLN_modulation.weight"] @ row + state[f"{name}.adaLN_modulation.bias"]
            for row in c
        ]
        return [tuple(row[p * D : (p + 1) * D] for p in range(parts)) for row in made]

    i = 0
    while f"blocks.{i}.norm1.weight" in state:
        w = {
            name.removeprefix(f"blocks.{i}."): value
            for name, value in state.items()
            if name.startswith(f"blocks.{i}.")
        }
        six = modulation(f"blocks.{i}", 6)  # shift, scale, gate of attention, then of the MLP
        inner = [
            layer_norm(row, w["norm1.weight"]) * (1 + m[1]) + m[0]
            for row, m in zip(x, six, strict=True)
        ]
        mixed = attention(inner, w["attn_qkv.weight"], heads, positions, sees)
        x = [
            row + m[2] * (w["attn_out.weight"] @ a) for row, m, a in zip(x, six, mixed, strict=True)
        ]
        for r, m in enumerate(six):
            inner_r = layer_norm(x[r], w["norm2.weight"]) * (1 + m[4]) + m[3]
            hidden = gelu(w["mlp.0.weight"] @ inner_r + w["mlp.0.bias"])
            x[r] = x[r] + m[5] * (w["mlp.2.weight"] @ hidden + w["mlp.2.bias"])
        i += 1
    two = modulation("output_layer", 2)
    x = [
        layer_norm(row, state["output_layer.norm_final.weight"]) * (1 + m[1]) + m[0]
        for row, m in zip(x, two, strict=True)
    ]
    return torch.stack(
        [state["output_layer.linear.weight"] @ row + state["output_layer.linear.bias"] for row in x]
    )


def subs(outputs: Tensor, mask: int) -> Tensor:
    """MDLM's log p(x | z) at masked positions over all V columns; that of MASK is -inf."""
    outputs = outputs.clone()
    outputs[:, mask] = -math.inf
    return outputs - outputs.logsumexp(-1, keepdim=True)


def scaled_scores(outputs: Tensor, ids: list[int], sigma: list[float]) -> Tensor:
    """SEDD's log-scores with scale_by_sigma: less log(e^σ - 1) and log(V - 1); the score of the
    present token is 1.
    """
    scores = torch.stack(
        [
            row - math.log(math.expm1(s)) - math.log(len(row) - 1)
            for row, s in zip(outputs, sigma, strict=True)
        ]
    )
    for r, i in enumerate(ids):
        scores[r, i] = 0.0
    return scores


def block_diffusion_mask(L: int, width: int) -> Tensor:
    """BD3-LM's training mask over [noisy; clean]: own noisy block; clean blocks before it; clean
    blocks up to one's own.
    """
    sees = torch.zeros(2 * L, 2 * L, dtype=torch.bool)
    for i in range(2 * L):
        for j in range(2 * L):
            noisy_i, noisy_j, block_i, block_j = i < L, j < L, i % L // width, j % L // width
            sees[i, j] = block_i == block_j if noisy_i == noisy_j else noisy_i and block_i > block_j
            if not noisy_i and not noisy_j:
                sees[i, j] = block_i >= block_j
    return sees
