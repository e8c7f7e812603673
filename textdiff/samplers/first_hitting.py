"""The first-hitting sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..noise import Stream
from ..process import Process
from .base import Sampler, Step, ancestral_step, refuse_moving
from .filters import Filter, identity


@dataclass(frozen=True)
class FirstHitting(Sampler):
    """Unmask one token per network call, at the time of its event (arXiv 2409.02908; `maths.md`
    5.6).

    With n masked tokens at time t the next event comes at t' = t U^{1/n} and hits each of them
    alike: every masked token has an event time t U_i, and the latest is next. The hit token is
    drawn from d_t'(. | x̂). Where the noise has an atom at t = 0 (ε-Hybrid) one more call draws
    every token from its posterior (1.5).

    Law: exactly that of the ancestral chain with infinitely many steps, for time-free networks
    under flat and block schedules, where groups follow one another; its bound is the continuous
    NELBO. A call of a batch moves every sequence by its own next event, so NFE is the number of
    tokens, and 1 more per group for an atom.
    """

    own_times: ClassVar[bool] = True

    def check(self, process: Process) -> None:
        refuse_moving(self, process)
        if process.needs_time:
            raise ValueError(
                f"{self} is exact for networks that do not see the time, which {process} has: "
                "use Ancestral, or train with Absorbing or EpsilonHybrid"
            )

    def _events(self, step: Step) -> Tensor:
        """U_i where a token waits for its event, else 0; [B, W]."""
        return torch.where(step.masked & step.moving, step.draw(Stream.ORDER), 0.0)

    def rows(self, step: Step) -> Tensor:
        events = self._events(step)
        latest = events.amax(-1, keepdim=True)
        atom = step.moving & step.process.corrupts  # once no event is left
        return torch.where(latest > 0, events == latest, atom)

    def move(
        self, step: Step, rows: Tensor, logits: Tensor, filter: Filter = identity
    ) -> tuple[Tensor, Tensor]:
        events = self._events(step)
        last = 0 if step.process.corrupts else 1  # without an atom the last event ends it
        done = (events > 0).sum(-1, keepdim=True) <= last
        at = torch.where(done, 0.0, step.t * events.amax(-1, keepdim=True))
        times = torch.where(step.moving, at, step.t)
        return ancestral_step(step.to(times), rows, logits, filter), times
