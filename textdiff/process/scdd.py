"""SCDD: masking with uniform noise that peaks at a time of its own, and no way back from MASK."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .absorbing import Absorbing
from .base import Clock, Process, check_range


@dataclass(frozen=True)
class SCDD(Process):
    """SCDD (arXiv 2603.02230): tokens turn into others and into MASK, and MASK stays.

    With a = shape · t_peak, b = shape · (1 - t_peak), c = B t^a (1-t)^b and
    B = uniform/(1 - uniform) / (t_peak^a (1 - t_peak)^b):

        m = t/(1 + c)        κ = (1-t)/(1-t+c)        v = 0

    `uniform` is the share of uniform tokens at `t_peak`, in [0, 1); at 0 it is absorbing noise. At
    t_peak = 1/2 its marginals are those of GIDD with this `uniform` and `shape`. κ never rises only
    if b <= 1, and m never falls, whatever `uniform` is, if a <= 1.

    >>> clock = SCDD(uniform=0.2, t_peak=0.25).clock(torch.tensor(0.25))
    >>> share = (1 - clock.mask) * (1 - clock.keep)
    >>> round(float(clock.mask), 6), round(float(share), 6)
    (0.2, 0.2)

    Raises:
        ValueError: if a number is out of range, or a or b above 1.
    """

    uniform: float = 0.2
    shape: float = 1.0
    t_peak: float = 0.5

    def __post_init__(self) -> None:
        check_range("uniform", self.uniform, 0, 1, closed="[)")
        check_range("t_peak", self.t_peak, 0, 1, closed="()")
        check_range("shape", self.shape, 0, 2, closed="(]")
        for name, power in (("t_peak", self._a), ("(1 - t_peak)", self._b)):
            if power > 1:
                raise ValueError(
                    f"shape * {name} must lie in (0, 1], got {power:g}: beyond it this is no "
                    "Markov process; lower shape"
                )
        super().__post_init__()

    @property
    def _a(self) -> float:
        return self.shape * self.t_peak

    @property
    def _b(self) -> float:
        return self.shape * (1 - self.t_peak)

    @property
    def corrupts(self) -> bool:
        return self.uniform > 0

    def _clock(self, t: Tensor) -> Clock:
        if not self.corrupts:
            return Absorbing()._clock(t)
        a, b = self._a, self._b
        log_b = math.log(self.uniform / (1 - self.uniform))
        log_b -= a * math.log(self.t_peak) + b * math.log(1 - self.t_peak)
        # κ = x/(x + y) with both sides divided by (1-t)^b: finite at t = 1
        log_x = torch.special.xlogy(1 - b, 1 - t)
        log_y = log_b + a * t.log()
        total = torch.logaddexp(log_x, log_y)
        c = math.exp(log_b) * t**a * (1 - t) ** b
        early, late = t.clamp_min(1e-300), (1 - t).clamp_min(1e-300)
        c_rate = c * (a / early - b / late)
        return Clock(
            mask=t / (1 + c),
            mask_rate=(1 + c - t * c_rate) / (1 + c) ** 2,
            log_keep=log_x - total,
            log_corrupt=log_y - total,
            keep_rate=-(log_y - total).exp() * (a / early + (1 - b) / late),
            leak=torch.zeros_like(t),
        )
