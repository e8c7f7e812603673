"""Numbers as vectors: positions as rotations (RoPE), times and noise levels as sinusoids."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

BASE = 10000.0
TIME_FEATURES = 128


class Rotation(NamedTuple):
    """Cosines and sines [..., R, 1, size / 2] of the angles of R positions."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Turn the pairs (first half, second half) of x [B, R, H, D/H]."""
        a, b = x.chunk(2, -1)
        return torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], -1)


def rotary(positions: Tensor, size: int, dtype: torch.dtype) -> Rotation:
    """RoPE of heads of `size` at positions [..., R], base 10,000.

    The angles are computed in each call: buffers do not survive a load on the meta device.
    """
    pairs = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32)
    frequencies = BASE ** (-pairs / size)
    angles = (positions.unsqueeze(-1).float() * frequencies).unsqueeze(-2)
    return Rotation(angles.cos().to(dtype), angles.sin().to(dtype))


class SinusoidEmbedding(nn.Module):
    """x [...] -> [..., D]: sinusoids of x, cosines first, then a small MLP."""

    def __init__(self, features: int, D: int):
        super().__init__()
        self.first = nn.Linear(features, D)
        self.second = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        half = self.first.in_features // 2
        frequencies = torch.exp(-math.log(BASE) * torch.arange(half, device=x.device) / half)
        angles = x.unsqueeze(-1) * frequencies
        features = torch.cat([angles.cos(), angles.sin()], -1).to(self.first.weight.dtype)
        return silu(self.second(silu(self.first(features))))


class TimeEmbedding(SinusoidEmbedding):
    """t [..., R] in [0, 1] -> [..., R, D], from sinusoids of 1000 t."""

    def __init__(self, D: int):
        super().__init__(TIME_FEATURES, D)

    def forward(self, t: Tensor) -> Tensor:
        return super().forward(1000.0 * t.float())
