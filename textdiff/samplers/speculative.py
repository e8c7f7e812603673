"""Speculation: a network drafts for itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..process import Process
from .ancestral import Ancestral
from .base import Sampler


@dataclass(frozen=True)
class SelfSpeculative(Ancestral):
    """Draft some tokens at once, then keep those that quenched AR draws (`maths.md` 10.6).

    A draft of `width` tokens is drawn in `levels` calls of `draft`; one more call gives the
    autoregressive law of each of them given those before, from which x_i = F(logits_i, u_i) is
    drawn with the u_i, a function of (seed, i), that quenched AR has there. The tokens up to the
    first that differs are kept, and that one too. Draft and check share u_i, so they agree often.

    Law: that of `Ancestral` under `QuenchedAR`, whatever the draft: the very tokens of the same
    seed (in float32 up to rounding). It pays for networks that were trained for both, one sequence
    at a time. Tokens per call: `Samples.tokens_per_forward`.

    Args:
        draft: how the draft is drawn.
        width: tokens of a draft.
        levels: T of a draft.
    """

    alone: ClassVar[bool] = True
    draft: Sampler = field(default_factory=Ancestral)
    width: int = 8
    levels: int = 1

    def __post_init__(self) -> None:
        for name in ("width", "levels"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if isinstance(self.draft, SelfSpeculative):
            raise ValueError("draft is SelfSpeculative itself: name the sampler of the draft")

    def check(self, process: Process) -> None:
        for stage in self.draft.stages:
            stage.check(process)
