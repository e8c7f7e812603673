"""Editing by threshold: tokens that the network now holds to be wrong are replaced or masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..process import Process
from .acs import posterior, refuse_absorbing
from .base import Sampler, Step, parts
from .draws import probability
from .filters import Filter, identity


@dataclass(frozen=True)
class Editing(Sampler):
    """Replace every visible token of which the network is surer that it is another:

        z^i <- argmax_x P(x | z)  where that is not z^i and P(argmax | z) >= threshold

    P(x | z) is the posterior (2.3) of the cavity. With `remask` the token turns to MASK instead,
    and the predictor draws it again. Times stay, and all sites are looked at in one call; it is a
    corrector of `PredictorCorrector`.

    Law: none; a greedy repair that leaves no q_t invariant, so no bound describes its samples. For
    noise that shows wrong tokens: under absorbing noise a network has learnt nothing about the
    tokens that it sees.

    Args:
        threshold: in (0, 1]; the lower, the more is edited.
        remask: mask instead of replacing; for noise that masks.
    """

    threshold: float = 0.9
    remask: bool = False
    predicts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(
                f"threshold must lie in (0, 1], got {self.threshold!r}: it is the probability "
                "that another token must have"
            )

    def check(self, process: Process) -> None:
        refuse_absorbing(self, process)
        if self.remask and not process.masks:
            raise ValueError(f"{self} masks tokens, but {process} has no MASK: use remask=False")

    def rows(self, step: Step) -> Tensor:
        return step.visible & step.moving

    def move(
        self, step: Step, rows: Tensor, logits: Tensor, filter: Filter = identity
    ) -> tuple[Tensor, Tensor]:
        y = step.z
        for some, part in parts(rows, logits):
            believed = filter(posterior(step, some, part), step.where(some))
            best = believed.argmax(-1)
            own = y[some]
            wrong = (best != own) & (probability(believed, best) >= self.threshold)
            other = torch.full_like(own, step.N) if self.remask else best
            y = y.masked_scatter(some, torch.where(wrong, other, own))
        return y, step.t
