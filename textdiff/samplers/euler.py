"""The Euler (tau-leaping) sampler of log-score networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..process import Process
from ..process.base import inside
from .analytic import Analytic


@dataclass(frozen=True)
class Euler(Analytic):
    """One Euler step of the reverse jump process: p(y) = (t - s) R_t(y -> z) s_y for y other than z
    (`maths.md` 5.3).

    R_t is the forward rate, m'/(1 - m) from a token to MASK and u/N between tokens; the token stays
    with the rest, or with 0 where that is negative. A position that ends at s = 0 takes the
    analytic step instead, so that no MASK is left.

    Law: that of `Analytic` up to O((t - s)^2) a step, O(1/T) in all; no bound describes it at
    finite T. Filters are refused.
    """

    def moves(
        self, process: Process, scores: Tensor, z: Tensor, t: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor]:
        N, now = scores.shape[-1], inside(t)
        clock, masked = process.clock(now), (z == N).unsqueeze(-1)
        rate = torch.where(
            z == N, clock.mask_rate / clock.mask.clamp_min(1e-300), process.rates(now).uniform / N
        )
        own = z.clamp(max=N - 1).unsqueeze(-1)
        away = ((t - s) * rate).unsqueeze(-1) * torch.where(
            masked, scores, scores.scatter(-1, own, 0.0)
        )
        stay = (1 - away.sum(-1)).clamp_min(0.0)
        last = s == 0
        exact, kept = super().moves(process, scores, z, t, s)
        return torch.where(last.unsqueeze(-1), exact, away), torch.where(last, kept, stay)
