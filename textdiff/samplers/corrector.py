"""Exact correctors, one site per network call, and their alternation with a predictor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..noise import Stream
from ..process import Process
from .acs import posterior, refuse_absorbing
from .ancestral import Ancestral
from .base import Sampler, Step, draw_visible, parts
from .editing import Editing
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

    def rows(self, step: Step) -> Tensor:
        place = torch.where(step.visible & step.moving, step.draw(Stream.ORDER), 0.0)
        highest = place.amax(-1, keepdim=True)
        return (place == highest) & (highest > 0)

    def target(self, step: Step, rows: Tensor, logits: Tensor) -> Tensor:
        """Logits [R, N] of the clean token before it is noised again, from cavity logits."""
        return logits

    def move(
        self, step: Step, rows: Tensor, logits: Tensor, filter: Filter = identity
    ) -> tuple[Tensor, Tensor]:
        y, here = step.z, step.to(step.t)
        for some, part in parts(rows, logits):
            target = filter(self.target(step, some, part), step.where(some))
            y = y.masked_scatter(some, draw_visible(here, some, target))
        return y, step.t


@dataclass(frozen=True)
class PosteriorCorrector(GibbsCorrector):
    """Pass one visible token of each sequence through its clean value: x ~ P(x | z), then z^i ~
    d_t(. | x) (`maths.md` 5.4).

    Law: as `GibbsCorrector`, exactly invariant and reversible with the true posterior, but lazier:
    where little noise is left x is mostly z^i itself.
    """

    def target(self, step: Step, rows: Tensor, logits: Tensor) -> Tensor:
        return posterior(step, rows, logits)


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
        if self.corrector.predicts:
            raise ValueError(
                "corrector must be GibbsCorrector(), PosteriorCorrector() or Editing(), got "
                f"{self.corrector}"
            )
        masks = isinstance(self.corrector, Editing) and self.corrector.remask
        if self.predictor.own_times and masks:
            raise ValueError(
                f"{self.corrector} would mask what {self.predictor} unmasks, for ever: use "
                "remask=False, or a predictor of given times such as Ancestral()"
            )
        if not (isinstance(self.corrections, int) and self.corrections >= 1):
            raise ValueError(
                f"corrections must be an integer >= 1, got {self.corrections!r}: "
                "without any, use the predictor"
            )
        if self.predictor.prediction != self.corrector.prediction:
            raise ValueError(
                f"{self.predictor} reads log-scores and {self.corrector} cavity logits: "
                "no network predicts both"
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
