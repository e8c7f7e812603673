"""The Adaptive Correction Sampler with an informed choice of what to correct."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import Noise, Stream, probability
from ..process import Process
from .acs import ACS
from .ancestral import Ancestral


@dataclass(frozen=True, repr=False)
class InformedACS(ACS):
    """ACS whose redraws go where the posterior doubts the visible token.

    As many redraws are expected as in `ACS`, E = Σ e_i over the visible tokens of a sequence, but
    token i is redrawn with probability min(1, λ e_i w_i), w_i = 1 - P(x^i = z^i | z) of the
    unfiltered posterior and λ such that they add up to E (to less, if fewer than E tokens are in
    doubt). All visible tokens need logits.

    Law: none in closed form, and not that of `ACS`: the choice looks at the token it may replace,
    so no marginal is kept. At a fixed
    context a doubted value is left sooner: a chain of such redraws settles at p(z)/w(z) instead of
    p(z), which is sharper.
    """

    def rows(
        self, process: Process, z: Tensor, t: Tensor, s: Tensor, N: int, noise: Noise
    ) -> Tensor:
        return Ancestral.rows(self, process, z, t, s, N, noise) | (
            (z < N) & (self.probability(process, t, s) > 0)
        )

    def redrawn(
        self,
        process: Process,
        logits: Tensor,
        rows: Tensor,
        z: Tensor,
        t: Tensor,
        s: Tensor,
        noise: Noise,
    ) -> Tensor:
        seen = rows & (z < logits.shape[-1])
        w = torch.zeros_like(t, dtype=torch.float64).masked_scatter(
            seen, doubt(process, logits[seen[rows]], z[seen], t[seen])
        )
        return seen & (
            noise.positions(z, Stream.CORRECT) < share(self.probability(process, t, s) * seen, w)
        )


def doubt(process: Process, logits: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """1 - P(x = z | z) at visible tokens (2.3), from cavity logits [R, N]; z, t [R] -> [R]."""
    p, N = probability(logits, z), logits.shape[-1]
    return (1 - p) / (1 - p + p * (1 + process.clock(t).log_odds(N).exp()))


def share(e: Tensor, w: Tensor) -> Tensor:
    """min(1, λ e w) with the λ of each row that keeps the sum of e, or 1 wherever e w > 0 if no λ
    is large enough; [B, L].
    """
    wanted = e * w
    order = wanted.sort(-1, descending=True).values
    rest = order.flip(-1).cumsum(-1).flip(-1)
    left = e.sum(-1, keepdim=True) - torch.arange(
        e.shape[-1], device=e.device
    )  # if so many of the largest are at 1
    fits = left * order <= rest
    first = fits.long().argmax(-1, keepdim=True)
    scaled = (wanted * left.gather(-1, first) / rest.gather(-1, first).clamp_min(1e-300)).clamp(
        max=1.0
    )
    enough = fits.any(-1, keepdim=True) & (rest.gather(-1, first) > 0)
    return torch.where(enough, scaled, (wanted > 0).to(wanted))
