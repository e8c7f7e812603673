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
    only in the last reverse step unless the sampler draws them again (ACS).

    >>> EpsilonHybrid(0.25).clock(torch.tensor([0.0, 1e-9, 1.0])).keep.tolist()
    [1.0, 0.75, 0.75]
    """

    epsilon: float = 0.01
    needs_time: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range("epsilon", self.epsilon, 0, 1, closed="[)")
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
            mask=t,
            mask_rate=zero + 1,
            log_keep=torch.where(t > 0, math.log1p(-self.epsilon), zero),
            log_corrupt=torch.where(t > 0, log_corrupt, zero - math.inf),
            keep_rate=zero,
            leak=zero,
        )


@dataclass(frozen=True)
class SmoothEpsilonHybrid(Process):
    """ε-Hybrid without the atom: m = t, κ = 1 - ε (1 - (1-t)^power) (`maths.md` 1.4).

    Its best bound is the entropy H(x), which the atom of `EpsilonHybrid` keeps out of reach.

    >>> keep = SmoothEpsilonHybrid(0.5, power=2).clock(torch.tensor([0.0, 0.5, 1.0])).keep
    >>> [round(k, 3) for k in keep.tolist()]
    [1.0, 0.625, 0.5]
    """

    epsilon: float = 0.01
    power: float = 8.0

    def __post_init__(self) -> None:
        check_range("epsilon", self.epsilon, 0, 1, closed="[)")
        check_range("power", self.power, 1, math.inf, closed="[)")
        super().__post_init__()

    @property
    def corrupts(self) -> bool:
        return self.epsilon > 0

    def _clock(self, t: Tensor) -> Clock:
        zero = torch.zeros_like(t)
        power = self.power
        corrupt = -self.epsilon * torch.expm1(power * torch.log1p(-t))
        return Clock(
            mask=t,
            mask_rate=zero + 1,
            log_keep=torch.log1p(-corrupt),
            log_corrupt=corrupt.log(),
            keep_rate=-self.epsilon * power * (1 - t) ** (power - 1) / (1 - corrupt),
            leak=zero,
        )
