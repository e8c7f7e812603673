"""γ-Hybrid: masking and uniform noise side by side, in two clocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Clock, Process, check_range


@dataclass(frozen=True)
class GammaHybrid(Process):
    """γ-Hybrid, exp(σ Q_γ) with Q_γ = (1-γ) Q_absorb + γ Q_uniform, in the log-linear clock.

    σ = -log(1 - (1-tail) t), m = 1 - e^{-(1-γ)σ}, κ = e^{-γσ} (`maths.md` 1.4). γ = 0 is absorbing
    noise, γ = 1 uniform noise. `tail` > 0 stops short of full noise (the published 5e-3); the prior
    term of the bound then is not 0.

    >>> clock = GammaHybrid(0.5).clock(torch.tensor([0.75, 1.0]))
    >>> clock.mask.tolist(), clock.keep.tolist()
    ([0.5, 1.0], [0.5, 0.0])
    """

    gamma: float = 0.05
    tail: float = 0.0

    def __post_init__(self) -> None:
        check_range("gamma", self.gamma, 0, 1)
        check_range("tail", self.tail, 0, 1, closed="[)")
        super().__post_init__()

    @property
    def corrupts(self) -> bool:
        return self.gamma > 0

    @property
    def masks(self) -> bool:
        return self.gamma < 1

    def sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """σ(t) and dσ/dt."""
        left = 1 - (1 - self.tail) * t
        return -left.log(), (1 - self.tail) / left

    def _clock(self, t: Tensor) -> Clock:
        sigma, rate = self.sigma(t)
        g = self.gamma
        zero = torch.zeros_like(t)
        mask = mask_rate = log_keep = keep_rate = zero
        if g < 1:
            mask = -torch.expm1(-(1 - g) * sigma)
            visible = torch.exp(-(1 - g) * sigma)
            # at the end of time m' is infinite, but for γ = 0
            mask_rate = (1 - g) * torch.where(visible > 0, rate * visible, float(g == 0))
        if g > 0:
            log_keep = -g * sigma
            keep_rate = -g * rate
        return Clock(
            mask=mask,
            mask_rate=mask_rate,
            log_keep=log_keep,
            log_corrupt=(-torch.expm1(log_keep)).log(),
            keep_rate=keep_rate,
            leak=zero,
        )


@dataclass(frozen=True)
class GammaHybridMaskClock(Process):
    """γ-Hybrid in the clock m = t: κ = (1-t)^{γ/(1-γ)}, γ in [0, 1) (`maths.md` 1.4).

    It is the path of `GammaHybrid` at other times:

    >>> clock = GammaHybridMaskClock(0.5).clock(torch.tensor([0.5, 1.0]))
    >>> clock.mask.tolist(), clock.keep.tolist()
    ([0.5, 1.0], [0.5, 0.0])
    """

    gamma: float = 0.05

    def __post_init__(self) -> None:
        check_range("gamma", self.gamma, 0, 1, closed="[)")
        super().__post_init__()

    @property
    def corrupts(self) -> bool:
        return self.gamma > 0

    def _clock(self, t: Tensor) -> Clock:
        power = self.gamma / (1 - self.gamma)
        zero = torch.zeros_like(t)
        log_keep = power * torch.log1p(-t) if power > 0 else zero
        return Clock(
            mask=t,
            mask_rate=zero + 1,
            log_keep=log_keep,
            log_corrupt=(-torch.expm1(log_keep)).log(),
            keep_rate=-power / (1 - t) if power > 0 else zero,
            leak=zero,
        )
