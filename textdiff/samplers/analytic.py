"""The analytic (Tweedie) sampler of log-score networks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..denoiser.prediction import Prediction
from ..noise import Noise, Stream, categorical
from ..process import Process
from .base import Sampler
from .filters import Filter, identity, refuse_filters


@dataclass(frozen=True)
class Analytic(Sampler):
    """Undo the noise of the step in the scores, then weigh by its kernel (arXiv 2310.16834;
    `maths.md` (5.1)).

    With κ' = κ_t/κ_s and the network's ratios s_y = q(y)/q(z), s_z = 1, of sum S over the N
    ordinary tokens,

        z visible:  p(y) = (s_y/κ' - (1/κ' - 1) S/N) ((1 - κ')/N + κ' 1[y = z]),   never MASK
        z = MASK:   p(y) = (m_t - m_s)/m_t (w_y/κ' - (1/κ' - 1) W/N),   w_y = s_y m_t/(1 - m_t),   p(MASK) the rest

    Negative entries, which no consistent scores have, are set to 0 and the rest is normalised. A
    call that ends at s = 0 leaves no MASK.

    Law: where the scores are consistent, s_y = q(y | x̂)/q(z | x̂), exactly that of `Ancestral`
    with this x̂; for other scores none that a reported bound describes. No distribution over clean
    tokens is drawn, so filters are refused.
    """

    prediction: ClassVar[Prediction] = Prediction.LOG_SCORE

    def check(self, process: Process) -> None:
        if process.leaks or process.atom:
            raise ValueError(
                f"{self} is defined for processes without leak or atom, not for {process}: use Ancestral"
            )
        if float(process.clock(torch.ones((), dtype=torch.float64)).keep) == 0:
            raise ValueError(
                f"under {process} nothing is left of the data at t = 1, and scores there tell nothing of them: stop short of it, as "
                "GammaHybrid(..., tail=5e-3) does"
            )

    def rows(
        self, process: Process, z: Tensor, t: Tensor, s: Tensor, N: int, noise: Noise
    ) -> Tensor:
        return (t > s) & ((z == N) | process.moves(s, t))

    def moves(
        self, process: Process, scores: Tensor, z: Tensor, t: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The probabilities of going elsewhere, [R, N] (0 at the own token), and of staying, [R],
        up to a factor of each row.

        scores [R, N] are s_y at visible tokens and w_y at MASK; z, t, s [R].
        """
        N, before, after = scores.shape[-1], process.clock(t), process.clock(s)
        kept, masked = (
            (before.log_keep - after.log_keep).exp().unsqueeze(-1),
            (z == N).unsqueeze(-1),
        )
        total = scores.sum(-1, keepdim=True)
        staggered = ((scores - (1 - kept) * total / N) / kept).clamp_min(0.0)
        own = (z.clamp(max=N - 1)).unsqueeze(-1)
        share = ((before.mask - after.mask) / before.mask.clamp_min(1e-300)).unsqueeze(-1)
        stay = torch.where(
            masked, 1 - share * total, staggered.gather(-1, own) * ((1 - kept) / N + kept)
        )
        away = staggered * torch.where(masked, share, (1 - kept) / N)
        away = torch.where(masked, away, away.scatter(-1, own, 0.0))
        return away, stay.squeeze(-1).clamp_min(0.0)

    def step(
        self,
        process: Process,
        logits: Tensor,
        rows: Tensor,
        z: Tensor,
        t: Tensor,
        s: Tensor,
        noise: Noise,
        warp: Filter = identity,
    ) -> tuple[Tensor, Tensor]:
        refuse_filters(self, warp)
        N, own, before, after = logits.shape[-1], z[rows], t[rows], s[rows]
        masked = own == N
        scores = (logits.double() - math.log(N) * masked.double().unsqueeze(-1)).exp()
        scores = torch.where(
            masked.unsqueeze(-1),
            scores,
            scores.scatter(-1, own.clamp(max=N - 1).unsqueeze(-1), 1.0),
        )
        away, stay = self.moves(process, scores, own, before, after)
        stay = torch.where(masked & (after == 0), 0.0, stay)
        total = away.sum(-1)
        moved = (total > 0) & (noise.positions(rows, Stream.ROUTE)[rows] * (stay + total) >= stay)
        y = categorical(away[moved].log(), noise.positions(rows, Stream.TOKEN)[rows][moved])
        return z.masked_scatter(rows, own.masked_scatter(moved, y)), s
