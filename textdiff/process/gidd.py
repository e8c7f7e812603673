"""GIDD: masking and uniform noise that resample every state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Clock, Process, check_range


@dataclass(frozen=True)
class GIDD(Process):
    """GIDD: every state, MASK included, is resampled from the same law, so the leak is v = u.

    With B = 2^shape · uniform/(1 - uniform) and c = B (t (1-t))^{shape/2} (`maths.md` 1.4):

        m = t/(1 + c)        κ = (1-t)/(1-t+c)

    `uniform` is the share of uniform tokens at t = 1/2 (p_u), `shape` the exponent (their γ), in
    (0, 2).

    >>> clock = GIDD(uniform=0.2).clock(torch.tensor(0.5))
    >>> share = (1 - clock.mask) * (1 - clock.keep)
    >>> round(float(clock.mask), 6), round(float(share), 6)
    (0.4, 0.2)
    """

    uniform: float = 0.2
    shape: float = 1.0

    def __post_init__(self) -> None:
        check_range("uniform", self.uniform, 0, 1, closed="()")
        check_range("shape", self.shape, 0, 2, closed="()")
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
        # κ = a/(a + b) with both sides divided by (1-t)^{shape/2}: finite at t = 1
        log_a = (1 - half) * torch.log1p(-t)
        log_u = log_b + half * t.log()
        total = torch.logaddexp(log_a, log_u)
        c, c_rate = self._c(t)
        mask = t / (1 + c)
        mask_rate = (1 + c - t * c_rate) / (1 + c) ** 2
        # κ'/κ = (1-κ) (a'/a - b'/b)
        keep_rate = -(log_u - total).exp() * (
            half / t.clamp_min(1e-300) + (1 - half) / (1 - t).clamp_min(1e-300)
        )
        return Clock(
            mask=mask,
            mask_rate=mask_rate,
            log_keep=log_a - total,
            log_corrupt=log_u - total,
            keep_rate=keep_rate,
            leak=-keep_rate * (1 - mask),
        )

    def _stay(self, s: Tensor, t: Tensor) -> Tensor:
        cs, _ = self._c(s)
        ct, _ = self._c(t)
        kept = (1 - t) / (1 + ct) / ((1 - s) / (1 + cs)).clamp_min(1e-300)  # a_t/a_s
        return kept + t / (1 + ct) - kept * s / (1 + cs)
