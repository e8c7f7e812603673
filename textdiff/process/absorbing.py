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
    """Tokens turn into MASK and nothing else: m = t, κ = 1 (MDLM, SEDD-absorb)."""

    conditioned: ClassVar[bool] = False

    @property
    def corrupts(self) -> bool:
        return False

    def _clock(self, t: Tensor) -> Clock:
        zero = torch.zeros_like(t)
        return Clock(t, zero + 1, zero, zero - math.inf, zero, zero)
