"""ε-Hybrid: masking with a share of uniform noise, as published and without its jump."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Clock, Process, check_range


@dataclass(frozen=True)
class EpsilonHybrid(Process):
    """ε-Hybrid as published: m = t; κ = 1 at t = 0 and 1 - ε for t > 0.

    All its uniform noise comes in one jump at t = 0+ (`maths.md` 1.5), so visible tokens change
    only in the last reverse step unless the sampler re-draws them (ACS).
    """

    epsilon: float = 0.01
    conditioned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range("epsilon", self.epsilon, 0, 1, "[)")
        super().__post_init__()

    @property
    def corrupts(self) -> bool:
        return self.epsilon > 0

    @property
    def atom(self) -> float:
        return self.epsilon

    def _clock(self, t: Tensor) -> Clock:
        zero = torch.zeros_like(t)
        log_corrupt = math.log(self.epsilon) if self.epsilon > 0 else -math.inf
        return Clock(
            t,
            zero + 1,
            torch.where(t > 0, math.log1p(-self.epsilon), zero),
            torch.where(t > 0, log_corrupt, zero - math.inf),
            zero,
            zero,
        )


@dataclass(frozen=True)
class SmoothEpsilonHybrid(Process):
    """ε-Hybrid without the atom: m = t, κ = 1 - ε (1 - (1-t)^power); its best bound is the entropy
    H(x).
    """

    epsilon: float = 0.01
    power: float = 8.0

    def __post_init__(self) -> None:
        check_range("epsilon", self.epsilon, 0, 1, "[)")
        check_range("power", self.power, 1, math.inf, "[)")
        super().__post_init__()

    @property
    def corrupts(self) -> bool:
        return self.epsilon > 0

    def _clock(self, t: Tensor) -> Clock:
        zero, e, p = torch.zeros_like(t), self.epsilon, self.power
        corrupt = -e * torch.expm1(p * torch.log1p(-t))
        keep_rate = -e * p * (1 - t) ** (p - 1) / (1 - corrupt)
        return Clock(t, zero + 1, torch.log1p(-corrupt), corrupt.log(), keep_rate, zero)
