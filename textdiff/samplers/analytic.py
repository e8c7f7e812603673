"""The analytic (Tweedie) sampler of log-score networks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..denoiser.prediction import Prediction
from ..noise import Stream
from ..process import Process
from .base import Sampler, Step, parts
from .draws import categorical
from .filters import Filter, identity, refuse_filters


@dataclass(frozen=True)
class Analytic(Sampler):
    """Undo the noise of the step in the scores, then weigh by its kernel (arXiv 2310.16834;
    `maths.md` (5.1)).

    With κ' = κ_t/κ_s and the network's ratios s_y = q(y)/q(z), s_z = 1, of sum S over the N
    ordinary tokens,

        z visible:  p(y) = (s_y/κ' - (1/κ' - 1) S/N) ((1 - κ')/N + κ' 1[y = z]),   never MASK
        z = MASK:   p(y) = (m_t - m_s)/m_t (w_y/κ' - (1/κ' - 1) W/N),   p(MASK) the rest,
                    w_y = s_y m_t/(1 - m_t)

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
                f"{self} is defined for processes without leak or atom, not for {process}: "
                "use Ancestral"
            )

    def begin(self, process: Process) -> float:
        """`Process.last`: where κ(1) = 0 a step from t = 1 would divide by 0."""
        return process.last

    def rows(self, step: Step) -> Tensor:
        return (step.masked & step.moving) | step.loose

    def moves(self, step: Step, rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The probabilities of going elsewhere, [R, N] (0 at the own token), and of staying, [R],
        up to a factor of each row.

        scores [R, N] are s_y at visible tokens and w_y at MASK.
        """
        before, after, N = step.before, step.after, step.N
        masked = step.masked[rows].unsqueeze(-1)
        kept = (before.log_keep - after.log_keep)[rows].exp().unsqueeze(-1)
        share = step.over_mask(before.mask - after.mask)[rows].unsqueeze(-1)
        total = scores.sum(-1, keepdim=True)
        staggered = ((scores - (1 - kept) * total / N) / kept).clamp_min(0.0)
        own = step.z[rows].clamp(max=N - 1).unsqueeze(-1)
        in_place = staggered.gather(-1, own) * ((1 - kept) / N + kept)
        stay = torch.where(masked, 1 - share * total, in_place)
        away = staggered * torch.where(masked, share, (1 - kept) / N)
        away = torch.where(masked, away, away.scatter(-1, own, 0.0))
        return away, stay.squeeze(-1).clamp_min(0.0)

    def move(
        self, step: Step, rows: Tensor, logits: Tensor, filter: Filter = identity
    ) -> tuple[Tensor, Tensor]:
        refuse_filters(self, filter)
        y = step.z
        for some, part in parts(rows, logits):
            y = y.masked_scatter(some, self._part(step, some, part))
        return y, step.s

    def _part(self, step: Step, rows: Tensor, logits: Tensor) -> Tensor:
        """The new tokens [R] of some rows."""
        own, masked = step.z[rows], step.masked[rows]
        away, stay = self.moves(step, rows, self._scores(logits, own))
        stay = torch.where(masked & (step.s[rows] == 0), 0.0, stay)
        total = away.sum(-1)
        moved = (total > 0) & (step.draw(Stream.ROUTE)[rows] * (stay + total) >= stay)
        y = categorical(away[moved].log(), step.draw(Stream.TOKEN)[rows][moved])
        return own.masked_scatter(moved, y)

    def _scores(self, logits: Tensor, own: Tensor) -> Tensor:
        """The ratios [R, N] of log-scores: s_y, with s_z = 1, at visible tokens own [R], and w_y at
        MASK.
        """
        N = logits.shape[-1]
        masked = (own == N).unsqueeze(-1)
        scores = (logits.double() - math.log(N) * masked.double()).exp()
        itself = scores.scatter(-1, own.clamp(max=N - 1).unsqueeze(-1), 1.0)
        return torch.where(masked, scores, itself)
