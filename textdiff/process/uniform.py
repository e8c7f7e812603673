"""Uniform noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Clock, Process


@dataclass(frozen=True)
class Uniform(Process):
    """Tokens turn into uniform ones: m = 0, κ = 1 - t (UDLM, Duo, SEDD-uniform)."""

    @property
    def masks(self) -> bool:
        return False

    def _clock(self, t: Tensor) -> Clock:
        zero = torch.zeros_like(t)
        return Clock(zero, zero, torch.log1p(-t), t.log(), -1 / (1 - t), zero)
