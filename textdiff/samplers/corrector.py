"""Exact correctors, one site per network call, and their alternation with a predictor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..denoiser.prediction import posterior_logits
from ..noise import Noise, Stream
from ..process import Process
from .acs import refuse_absorbing
from .ancestral import Ancestral
from .base import Sampler, draw_visible
from .filters import Filter, identity


@dataclass(frozen=True)
class GibbsCorrector(Sampler):
    """Redraw one visible token of each sequence from its law given all others: z^i ~ d_t(. | x̂),
    x̂ the cavity (`maths.md` 5.4).

    The site is drawn uniformly from the visible tokens that the call moves; times stay. Law: with
    the true cavity it leaves q_t exactly invariant and is reversible (Gibbs sampling); with a
    trained one, it heads for what the network holds to be consistent.
    """

    predicts: ClassVar[bool] = False

    def check(self, process: Process) -> None:
        refuse_absorbing(self, process)

    def rows(
        self, process: Process, z: Tensor, t: Tensor, s: Tensor, N: int, noise: Noise
    ) -> Tensor:
        place = torch.where((z < N) & (t > s), noise.positions(z, Stream.ORDER), 0.0)
        highest = place.amax(-1, keepdim=True)
        return (place == highest) & (highest > 0)

    def target(self, process: Process, logits: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Logits [R, N] of the clean token before it is noised again; z, t [R]."""
        return logits

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
        target = warp(self.target(process, logits, z[rows], t[rows]))
        return z.masked_scatter(rows, draw_visible(process, target, t, noise, rows)), t


@dataclass(frozen=True)
class PosteriorCorrector(GibbsCorrector):
    """Pass one visible token of each sequence through its clean value: x ~ P(x | z), then z^i ~
    d_t(. | x) (`maths.md` 5.4).

    Law: as `GibbsCorrector`, exactly invariant and reversible with the true posterior, but lazier:
    where little noise is left x is mostly z^i itself.
    """

    def target(self, process: Process, logits: Tensor, z: Tensor, t: Tensor) -> Tensor:
        clock = process.clock(t)
        return posterior_logits(logits, z, clock.log_keep, clock.log_corrupt)


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """Before every step of `predictor`, `corrections` calls of `corrector` at the times where the
    state stands.

    Law: none that a bound describes. With the true cavity a correction leaves q_t as it is, so it
    takes no state further from q_t: what the predictor errs by drawing tokens together shrinks.
    Costs 1 + corrections network calls per call of the schedule.
    """

    predictor: Sampler = field(default_factory=Ancestral)
    corrector: Sampler = field(default_factory=GibbsCorrector)
    corrections: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.corrector, GibbsCorrector):
            raise ValueError(
                f"corrector must be GibbsCorrector() or PosteriorCorrector(), got {self.corrector}"
            )
        if not (isinstance(self.corrections, int) and self.corrections >= 1):
            raise ValueError(
                f"corrections must be an integer >= 1, got {self.corrections!r}: without any, use the predictor"
            )
        if self.predictor.prediction != self.corrector.prediction:
            raise ValueError(
                f"{self.predictor} reads log-scores and {self.corrector} cavity logits: no network predicts both"
            )

    @property
    def own_times(self) -> bool:  # type: ignore[override]
        """Whether the predictor chooses its times."""
        return self.predictor.own_times

    @property
    def stages(self) -> tuple[Sampler, ...]:
        return (self.corrector,) * self.corrections + self.predictor.stages

    def check(self, process: Process) -> None:
        for sampler in (self.predictor, self.corrector):
            sampler.check(process)
