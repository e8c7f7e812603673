"""γ-Hybrid: masking and uniform noise side by side, in two clocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Clock, Process, check_range


@dataclass(frozen=True)
class GammaHybrid(Process):
    """γ-Hybrid, exp(σ Q_γ) with Q_γ = (1-γ) Q_absorb + γ Q_uniform and log-linear σ = -log(1 -
    (1-tail) t).

    m = 1 - e^{-(1-γ)σ}, κ = e^{-γσ}. γ = 0 is absorbing noise, γ = 1 uniform noise. `tail` > 0
    stops short of full noise (the published 5e-3); the prior term of the bound then is not 0.
    """

    gamma: float = 0.05
    tail: float = 0.0

    def __post_init__(self) -> None:
        check_range("gamma", self.gamma, 0, 1)
        check_range("tail", self.tail, 0, 1, "[)")
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
        zero, g = torch.zeros_like(t), self.gamma
        visible = torch.exp(-(1 - g) * sigma) if g < 1 else zero + 1
        log_keep = -g * sigma if g > 0 else zero
        return Clock(
            -torch.expm1(-(1 - g) * sigma) if g < 1 else zero,
            (1 - g) * torch.where(visible > 0, rate * visible, float(g == 0))
            if g < 1
            else zero,  # infinite at the end, but for g = 0
            log_keep,
            (-torch.expm1(log_keep)).log(),
            -g * rate if g > 0 else zero,
            zero,
        )


@dataclass(frozen=True)
class GammaHybridMaskClock(Process):
    """γ-Hybrid in the clock m = t: κ = (1-t)^{γ/(1-γ)}, γ in [0, 1); the same path as
    `GammaHybrid`, other times.
    """

    gamma: float = 0.05

    def __post_init__(self) -> None:
        check_range("gamma", self.gamma, 0, 1, "[)")
        super().__post_init__()

    @property
    def corrupts(self) -> bool:
        return self.gamma > 0

    def _clock(self, t: Tensor) -> Clock:
        power, zero = self.gamma / (1 - self.gamma), torch.zeros_like(t)
        log_keep = power * torch.log1p(-t) if power > 0 else zero
        keep_rate = -power / (1 - t) if power > 0 else zero
        return Clock(t, zero + 1, log_keep, (-torch.expm1(log_keep)).log(), keep_rate, zero)
