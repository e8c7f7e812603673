"""The Euler (tau-leaping) sampler of log-score networks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..process.base import inside
from .analytic import Analytic
from .base import Step


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

    def moves(self, step: Step, rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        now = replace(step, t=inside(step.t))
        unmasking = now.over_mask(now.before.mask_rate)
        rate = torch.where(step.masked, unmasking, step.process.rates(now.t).uniform / step.N)
        own = step.z[rows].clamp(max=step.N - 1).unsqueeze(-1)
        elsewhere = scores.scatter(-1, own, 0.0)
        elsewhere = torch.where(step.masked[rows].unsqueeze(-1), scores, elsewhere)
        away = ((step.t - step.s) * rate)[rows].unsqueeze(-1) * elsewhere
        stay = (1 - away.sum(-1)).clamp_min(0.0)
        last = step.s[rows] == 0
        exact, kept = super().moves(step, rows, scores)
        return torch.where(last.unsqueeze(-1), exact, away), torch.where(last, kept, stay)
