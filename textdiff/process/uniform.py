"""Uniform noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Clock, Process


@dataclass(frozen=True)
class Uniform(Process):
    """Tokens turn into uniform ones: m = 0, κ = 1 - t (UDLM, Duo, SEDD-uniform).

    >>> Uniform().clock(torch.tensor([0.0, 0.25, 1.0])).keep.tolist()
    [1.0, 0.75, 0.0]
    """

    @property
    def masks(self) -> bool:
        return False

    def _clock(self, t: Tensor) -> Clock:
        zero = torch.zeros_like(t)
        return Clock(
            mask=zero,
            mask_rate=zero,
            log_keep=torch.log1p(-t),
            log_corrupt=t.log(),
            keep_rate=-1 / (1 - t),
            leak=zero,
        )
