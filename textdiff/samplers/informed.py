"""The Adaptive Correction Sampler with an informed choice of what to correct."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import Stream
from .acs import ACS
from .base import Step
from .draws import probability


@dataclass(frozen=True, repr=False)
class InformedACS(ACS):
    """ACS whose redraws go where the posterior doubts the visible token.

    As many redraws are expected as in `ACS`, E = Σ e_i over the visible tokens of a sequence, but
    token i is redrawn with probability min(1, λ e_i w_i), w_i = 1 - P(x^i = z^i | z) of the
    unfiltered posterior and λ such that they add up to E (to less, if fewer than E tokens are in
    doubt). All visible tokens need logits.

    Law: none in closed form, and not that of `ACS`: the choice looks at the token it may replace,
    so no marginal is kept. At a fixed context a doubted value is left sooner: a chain of such
    redraws settles at p(z)/w(z) instead of p(z), which is sharper.
    """

    def candidates(self, step: Step) -> Tensor:
        return step.visible & (self.probability(step) > 0)

    def redrawn(self, step: Step, rows: Tensor, logits: Tensor) -> Tensor:
        seen = rows & step.visible
        w = doubt(step, seen, logits[seen[rows]])
        w = torch.zeros_like(step.t, dtype=torch.float64).masked_scatter(seen, w)
        return seen & (step.draw(Stream.CORRECT) < share(self.probability(step) * seen, w))


def doubt(step: Step, rows: Tensor, logits: Tensor) -> Tensor:
    """1 - P(x = z | z) at visible tokens (2.3), from their cavity logits [R, N] -> [R]."""
    p = probability(logits, step.z[rows])
    return (1 - p) / (1 - p + p * (1 + step.before.log_odds(step.N)[rows].exp()))


def share(e: Tensor, w: Tensor) -> Tensor:
    """min(1, λ e w) with the λ of each row that keeps the sum of e, or 1 wherever e w > 0 if no λ
    is large enough; [B, W].

        >>> share(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.1, 0.3]])).tolist()
        [[0.25, 0.75]]
    """
    wanted = e * w
    order = wanted.sort(-1, descending=True).values
    rest = order.flip(-1).cumsum(-1).flip(-1)
    ones = torch.arange(e.shape[-1], device=e.device)  # so many of the largest are at 1
    left = e.sum(-1, keepdim=True) - ones
    fits = left * order <= rest
    first = fits.long().argmax(-1, keepdim=True)
    left, rest = left.gather(-1, first), rest.gather(-1, first)
    scaled = (wanted * left / rest).clamp(max=1.0)
    enough = fits.any(-1, keepdim=True) & (rest > 0)
    return torch.where(enough, scaled, (wanted > 0).to(wanted))
