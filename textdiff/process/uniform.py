"""Uniform noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Clock, Process, check_range


@dataclass(frozen=True)
class Uniform(Process):
    """Tokens turn into uniform ones: m = 0, κ = 1 - (1-tail) t (UDLM, Duo, SEDD-uniform).

    `tail` > 0 stops short of full noise, at σ = -log(tail); the prior term of the bound then is not
    0 (`maths.md` 1.6). A network of log-scores wants it: whatever it errs at full noise costs the
    same for every unit of σ, and without a tail σ is infinite at t = 1.

    >>> Uniform().clock(torch.tensor([0.0, 0.25, 1.0])).keep.tolist()
    [1.0, 0.75, 0.0]
    >>> Uniform(tail=0.5).clock(torch.tensor([0.0, 0.5, 1.0])).keep.tolist()
    [1.0, 0.75, 0.5]
    """

    tail: float = 0.0

    def __post_init__(self) -> None:
        check_range("tail", self.tail, 0, 1, closed="[)")
        super().__post_init__()

    @property
    def masks(self) -> bool:
        return False

    def _clock(self, t: Tensor) -> Clock:
        zero = torch.zeros_like(t)
        lost = (1 - self.tail) * t
        return Clock(
            mask=zero,
            mask_rate=zero,
            log_keep=torch.log1p(-lost),
            log_corrupt=lost.log(),
            keep_rate=-(1 - self.tail) / (1 - lost),
            leak=zero,
        )
