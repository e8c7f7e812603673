"""Absorbing noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Clock, Process


@dataclass(frozen=True)
class Absorbing(Process):
    """Tokens turn into MASK and nothing else: m = t, κ = 1 (MDLM, SEDD-absorb).

    >>> t = torch.tensor([0.0, 0.25, 1.0])
    >>> Absorbing().clock(t).mask.tolist()
    [0.0, 0.25, 1.0]
    >>> Absorbing().clock(t).keep.tolist()
    [1.0, 1.0, 1.0]
    """

    needs_time: ClassVar[bool] = False

    @property
    def corrupts(self) -> bool:
        return False

    def _clock(self, t: Tensor) -> Clock:
        zero = torch.zeros_like(t)
        return Clock(
            mask=t,
            mask_rate=zero + 1,
            log_keep=zero,
            log_corrupt=zero - math.inf,
            keep_rate=zero,
            leak=zero,
        )
