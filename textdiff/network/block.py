"""A transformer block: pre-norm attention and MLP, RoPE, noise conditioning per token (adaLN); lean
in memory when it trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, embedding, gelu, silu
from torch.utils.checkpoint import checkpoint

from ..denoiser.visibility import Visibility
from .attention import attend

SINUSOIDS = 128  # features of the time embedding

Extend = Callable[
    [Tensor, Tensor], tuple[Tensor, Tensor]
]  # keys and values of the fed rows -> with the cached ones before them


def rotary(positions: Tensor, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cos and sin [..., R, 1, size/2] of RoPE at positions [..., R], base 10,000 (made here:
    buffers do not survive a meta load).
    """
    frequencies = 10000.0 ** (
        -torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size
    )
    angles = (positions.unsqueeze(-1).float() * frequencies).unsqueeze(-2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (first half, second half) of x [B, R, H, D/H]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Condition(NamedTuple):
    """The noise condition of the rows: a table [U, D] of the times that occur, and each row's place
    in it [B, R].
    """

    table: Tensor
    place: Tensor


def lean(function: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """function(*inputs), of which the backward pass keeps the inputs alone.

    What feeds a last matrix product is made again, the product itself is not: recomputing stops at
    the last tensor that is wanted.
    """
    if (
        torch.compiler.is_compiling() or not torch.is_grad_enabled()
    ):  # a compiler decides itself what to recompute
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def modulate(
    norm: nn.Module, x: Tensor, place: Tensor | None, shift: Tensor | None, scale: Tensor | None
) -> Tensor:
    """norm(x), with noise conditioning (1 + scale) norm(x) + shift; shift and scale are tables [U,
    D], read at `place` [B, R].
    """
    if place is None or shift is None or scale is None:
        return norm(x)
    return torch.addcmul(embedding(place, shift), norm(x), embedding(place, 1 + scale))


def gated(x: Tensor, y: Tensor, place: Tensor | None, gate: Tensor | None) -> Tensor:
    """x + y, with noise conditioning x + gate y; gate is a table [U, D], read at `place` [B, R]."""
    return x + y if place is None or gate is None else torch.addcmul(x, embedding(place, gate), y)


class Block(nn.Module):
    """Attention and MLP, pre-norm; with conditioning, shift, scale and gate per token (adaLN-zero)."""

    def __init__(self, config: Any):
        super().__init__()
        D = config.width
        self.heads, self.dropout, self.attention = config.heads, config.dropout, config.attention
        self.norm_attention, self.norm_mlp = (
            nn.LayerNorm(D, bias=False),
            nn.LayerNorm(D, bias=False),
        )
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        self.modulation = nn.Linear(D, 6 * D) if config.conditioned else None

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training) if self.dropout else x

    def _attention(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        visibility: Visibility,
        skip: int,
        extend: Extend | None,
    ) -> Tensor:
        B, R, D = *qkv.shape[:2], self.out.in_features
        q, k, v = qkv.view(B, R, 3, self.heads, D // self.heads).unbind(2)  # (B, R, H, D/H) each
        # v is copied, lest it keep q and k before their rotation alive; under autocast cos is
        # float32
        rows = (
            rotate(q, cos, sin)[:, skip:].to(v.dtype),
            rotate(k, cos, sin).to(v.dtype),
            v.contiguous(),
        )
        q, k, v = (x.transpose(1, 2) for x in rows)
        if extend is not None:
            k, v = extend(k, v)
        parts = attend(q, k, v, visibility, self.dropout if self.training else 0.0, self.attention)
        return self._drop(
            lean(lambda *parts: self.out(torch.cat(parts, 2).transpose(1, 2).flatten(2)), *parts)
        )

    def forward(
        self,
        x: Tensor,
        c: Condition | None,
        cos: Tensor,
        sin: Tensor,
        visibility: Visibility,
        skip: int = 0,
        extend: Extend | None = None,
    ) -> Tensor:
        """x [B, R, D] -> [B, R - skip, D]; c is the noise condition or None; the first `skip` rows
        are keys only.
        """
        place = tables = None
        if self.modulation is not None and c is not None:
            place, tables = c.place, self.modulation(c.table).chunk(6, -1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = tables or (None,) * 6
        qkv = lean(
            lambda *inputs: self.qkv(modulate(self.norm_attention, *inputs)),
            x,
            place,
            shift_a,
            scale_a,
        )
        attention = self._attention(qkv, cos, sin, visibility, skip, extend)
        place = None if place is None else place[:, skip:]
        x = lean(gated, x[:, skip:], attention, place, gate_a)
        up = lean(
            lambda *inputs: self.up(modulate(self.norm_mlp, *inputs)), x, place, shift_m, scale_m
        )
        mlp = self._drop(lean(lambda up: self.down(gelu(up, approximate="tanh")), up))
        return lean(gated, x, mlp, place, gate_m)


class TimeEmbedding(nn.Module):
    """t [..., R] in [0, 1] -> [..., R, D]: sinusoids of 1000 t, then a small MLP."""

    def __init__(self, D: int):
        super().__init__()
        self.first, self.second = nn.Linear(SINUSOIDS, D), nn.Linear(D, D)

    def forward(self, t: Tensor) -> Tensor:
        half = SINUSOIDS // 2
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device) / half)
        angles = 1000.0 * t.unsqueeze(-1).float() * frequencies
        features = torch.cat([angles.cos(), angles.sin()], -1).to(self.first.weight.dtype)
        return silu(self.second(silu(self.first(features))))
