"""Noising processes by name: what noise does to one token. Each is only the definition of its clocks (see `textdiff.family`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .family import Bridge, Clock, Process, Rates

__all__ = [
    "GIDD",
    "Absorbing",
    "Bridge",
    "Clock",
    "EpsilonHybrid",
    "GammaHybrid",
    "GammaHybridMaskClock",
    "Process",
    "Rates",
    "SmoothEpsilonHybrid",
    "Uniform",
]


def _check(name: str, value: float, low: float, high: float, closed: str = "[]") -> None:
    inside = (low <= value if closed[0] == "[" else low < value) and (value <= high if closed[1] == "]" else value < high)
    if not inside:
        raise ValueError(f"{name} must lie in {closed[0]}{low:g}, {high:g}{closed[1]}, got {value!r}")


@dataclass(frozen=True)
class Absorbing(Process):
    """Tokens turn into MASK and nothing else: m = t, κ = 1 (MDLM, SEDD-absorb)."""

    conditioned: ClassVar[bool] = False

    @property
    def corrupts(self) -> bool:
        return False

    def _clock(self, t: Tensor) -> Clock:
        zero = torch.zeros_like(t)
        return Clock(t, zero + 1, zero, zero - math.inf, zero, zero)


@dataclass(frozen=True)
class Uniform(Process):
    """Tokens turn into uniform ones: m = 0, κ = 1 - t (UDLM, Duo, SEDD-uniform)."""

    @property
    def masks(self) -> bool:
        return False

    def _clock(self, t: Tensor) -> Clock:
        zero = torch.zeros_like(t)
        return Clock(zero, zero, torch.log1p(-t), t.log(), -1 / (1 - t), zero)


@dataclass(frozen=True)
class GammaHybrid(Process):
    """γ-Hybrid, exp(σ Q_γ) with Q_γ = (1-γ) Q_absorb + γ Q_uniform and log-linear σ = -log(1 - (1-tail) t).

    m = 1 - e^{-(1-γ)σ}, κ = e^{-γσ}. γ = 0 is absorbing noise, γ = 1 uniform noise. `tail` > 0 stops short of full noise (the
    published 5e-3); the prior term of the bound then is not 0.
    """

    gamma: float = 0.05
    tail: float = 0.0

    def __post_init__(self) -> None:
        _check("gamma", self.gamma, 0, 1)
        _check("tail", self.tail, 0, 1, "[)")
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
    """γ-Hybrid in the clock m = t: κ = (1-t)^{γ/(1-γ)}, γ in [0, 1); the same path as `GammaHybrid`, other times."""

    gamma: float = 0.05

    def __post_init__(self) -> None:
        _check("gamma", self.gamma, 0, 1, "[)")
        super().__post_init__()

    @property
    def corrupts(self) -> bool:
        return self.gamma > 0

    def _clock(self, t: Tensor) -> Clock:
        power, zero = self.gamma / (1 - self.gamma), torch.zeros_like(t)
        log_keep = power * torch.log1p(-t) if power > 0 else zero
        keep_rate = -power / (1 - t) if power > 0 else zero
        return Clock(t, zero + 1, log_keep, (-torch.expm1(log_keep)).log(), keep_rate, zero)


@dataclass(frozen=True)
class EpsilonHybrid(Process):
    """ε-Hybrid as published: m = t; κ = 1 at t = 0 and 1 - ε for t > 0.

    All its uniform noise comes in one jump at t = 0+ (`maths.md` 1.5), so visible tokens change only in the last reverse step
    unless the sampler re-draws them (ACS).
    """

    epsilon: float = 0.01
    conditioned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check("epsilon", self.epsilon, 0, 1, "[)")
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
    """ε-Hybrid without the atom: m = t, κ = 1 - ε (1 - (1-t)^power); its best bound is the entropy H(x)."""

    epsilon: float = 0.01
    power: float = 8.0

    def __post_init__(self) -> None:
        _check("epsilon", self.epsilon, 0, 1, "[)")
        _check("power", self.power, 1, math.inf, "[)")
        super().__post_init__()

    @property
    def corrupts(self) -> bool:
        return self.epsilon > 0

    def _clock(self, t: Tensor) -> Clock:
        zero, e, p = torch.zeros_like(t), self.epsilon, self.power
        corrupt = -e * torch.expm1(p * torch.log1p(-t))
        keep_rate = -e * p * (1 - t) ** (p - 1) / (1 - corrupt)
        return Clock(t, zero + 1, torch.log1p(-corrupt), corrupt.log(), keep_rate, zero)


@dataclass(frozen=True)
class GIDD(Process):
    """GIDD: every state, MASK included, is resampled from the same law, so the leak is v = u.

    With B = 2^shape · uniform/(1 - uniform), c = B (t (1-t))^{shape/2}, C = 1 + c:  m = t/C,  κ = (1-t)/(1-t+c). `uniform` is
    the share of uniform tokens at t = 1/2 (p_u), `shape` the exponent (their γ), in (0, 2).
    """

    uniform: float = 0.2
    shape: float = 1.0

    def __post_init__(self) -> None:
        _check("uniform", self.uniform, 0, 1, "()")
        _check("shape", self.shape, 0, 2, "()")
        super().__post_init__()

    @property
    def leaks(self) -> bool:
        return True

    def _c(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """c(t) and dc/dt."""
        c = 2**self.shape * self.uniform / (1 - self.uniform) * (t * (1 - t)) ** (self.shape / 2)
        return c, c * self.shape / 2 * (1 - 2 * t) / (t * (1 - t)).clamp_min(1e-300)

    def _clock(self, t: Tensor) -> Clock:
        half = self.shape / 2
        log_b = math.log(2**self.shape * self.uniform / (1 - self.uniform))
        log_a = (1 - half) * torch.log1p(-t)  # κ = a/(a + b) with both sides divided by (1-t)^{shape/2}: finite at t = 1
        log_u = log_b + half * t.log()
        total = torch.logaddexp(log_a, log_u)
        c, c_rate = self._c(t)
        mask = t / (1 + c)
        mask_rate = (1 + c - t * c_rate) / (1 + c) ** 2
        # κ'/κ = (1-κ) (a'/a - b'/b)
        keep_rate = -(log_u - total).exp() * (half / t.clamp_min(1e-300) + (1 - half) / (1 - t).clamp_min(1e-300))
        leak = -keep_rate * (1 - mask)
        return Clock(mask, mask_rate, log_a - total, log_u - total, keep_rate, leak)

    def _stay(self, s: Tensor, t: Tensor) -> Tensor:
        (cs, _), (ct, _) = self._c(s), self._c(t)
        kept = (1 - t) / (1 + ct) / ((1 - s) / (1 + cs)).clamp_min(1e-300)  # a_t/a_s
        return kept + t / (1 + ct) - kept * s / (1 + cs)
