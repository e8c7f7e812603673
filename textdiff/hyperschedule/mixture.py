"""Several hyperschedules for one network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import Hyperschedule


@dataclass(frozen=True)
class Mixture(Hyperschedule):
    """A network for several schedules: each batch of training is drawn under one of them.

    Which one is a hash of (seed, batch), all alike. Each has bounds of its own, which are reported
    under its name, and generation may ask for any; unless it does, it is the first.

        >>> from textdiff.hyperschedule import Block, QuenchedAR
        >>> both = Mixture((QuenchedAR(), Block(4, 4)))
        >>> both.T, both.start(4).tolist(), len(both.members)
        (1, [0, 1, 2, 3], 2)

    Args:
        schedules: two or more, none of them twice, no mixture among them.
    """

    schedules: tuple[Hyperschedule, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedules", tuple(self.schedules))
        if any(not isinstance(one, Hyperschedule) or len(one.members) > 1 for one in self.members):
            raise ValueError(f"a mixture is one of hyperschedules, got {self.schedules!r}")
        if len(set(self.schedules)) < max(2, len(self.schedules)):
            raise ValueError(
                f"a mixture has two schedules or more, each once, got {self.schedules!r}: "
                "name a single one by itself"
            )

    @property
    def members(self) -> tuple[Hyperschedule, ...]:
        return self.schedules

    @property
    def T(self) -> int:
        return self.schedules[0].T

    def start(self, L: int) -> Tensor:
        return self.schedules[0].start(L)

    def order(self, L: int) -> Tensor:
        return self.schedules[0].order(L)
