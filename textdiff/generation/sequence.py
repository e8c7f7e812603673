"""A sequence that has its own clock: what was asked, and how far it has got."""

from __future__ import annotations

from collections.abc import Sequence as Row
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..denoiser.mixed_rows import Turn, ends_of_pieces
from ..hyperschedule import Hyperschedule
from ..hyperschedule.plan import Plan
from ..samplers import Filter, Sampler
from ..samplers.filters import identity
from .state import REPEATS, is_end


@dataclass(frozen=True, eq=False)
class Request:
    """A sequence to draw.

    Args:
        ids: [L] tokens in 0..N, N where one is to be drawn.
        schedule: the hyperschedule to draw it under.
        sampler: how a token takes a step.
        seed: key of its draws.
        example: its number: draws of another number are independent.
        filter: on the logits of the distribution that is drawn; sequences with the same one, the
            same object, are filtered together.
        eos: tokens of which a drawn one ends it, if the drawn tokens are its tail.
        provisional: whether events tell of its window after every call.
        confidence: whether they tell how likely the network found its tokens.
    """

    ids: Tensor
    schedule: Hyperschedule
    sampler: Sampler
    seed: int = 0
    example: int = 0
    filter: Filter = identity
    eos: Row[int] = ()
    provisional: bool = False
    confidence: bool = False


@dataclass(eq=False)
class Sequence:
    """A request on its way.

    Args:
        request: what was asked.
        handle: its number in the engine.
        plan: its schedule's.
        mask: N.
        place: its place in the engine's tensors.
        cached: whether its settled rows are stored.
        stored: how many are.
        k, visit, stage: the call of its schedule, how often that has been taken, and the sampler's
            stage.
        nfe: network calls so far.
    """

    request: Request
    handle: int
    plan: Plan
    mask: int
    place: int = -1
    cached: bool = False
    stored: int = 0
    k: int = 0
    visit: int = 0
    stage: int = 0
    nfe: int = 0
    wanted: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        free = self.request.ids == self.mask
        self.wanted = free[self.plan.position.to(free.device)].tolist()
        self.tail = bool(free.any()) and bool(free[int(free.long().argmax()) :].all())
        self.k = self._next(self.plan.starts[0])

    @property
    def number(self) -> int:
        """The name of its next draws."""
        stages = len(self.request.sampler.stages)
        return (self.k * REPEATS + self.visit) * stages + self.stage

    @property
    def sampler(self) -> Sampler:
        """The stage that is due."""
        return self.request.sampler.stages[self.stage]

    @property
    def done(self) -> bool:
        """Whether every token has settled."""
        return self.k >= self.plan.calls

    def window(self) -> list[int]:
        """The positions of its window."""
        settled, reached = self.plan.settled(self.k), self.plan.reached(self.k)
        if self.plan.left_to_right:
            return list(range(settled, reached))
        return self.plan.position[settled:reached].tolist()

    def turn(self, prefill_chunk: int) -> Turn:
        """What its next call feeds: a piece of what has settled, if more than `prefill_chunk` rows
        of that are new.
        """
        sampler = self.request.sampler
        once = len(sampler.stages) == 1 and not sampler.own_times
        settled = self.plan.settled(self.k)
        piece = None
        if self.cached and settled - self.stored > prefill_chunk:
            most = self.stored + prefill_chunk
            cuts = [end for end in ends_of_pieces(self.plan) if self.stored < end < settled]
            piece = max((end for end in cuts if end <= most), default=min(cuts, default=None))
        return Turn(self.plan, self.k, self.stored, piece, once)

    def advance(self, unsettled: bool) -> range:
        """Go on behind a stage, with a token of the window `unsettled` or none: the ranks that have
        settled with it.
        """
        before = self.plan.settled(self.k)
        self.stage += 1
        if self.stage < len(self.request.sampler.stages):
            return range(before, before)
        self.stage = 0
        if self.request.sampler.own_times and unsettled:
            self.visit += 1
            return range(before, before)
        self.visit = 0
        reached = self.plan.reached(self.k)
        if not self.request.sampler.own_times:
            self.k += 1
        else:  # the window is settled: on to the call in which the next one starts
            is_last = reached == len(self.plan.starts)
            self.k = self.plan.calls if is_last else self.plan.starts[reached]
        self.k = self._next(self.k)
        return range(before, self.plan.settled(self.k))

    def _next(self, k: int) -> int:
        """The first call from k on whose window has a token to draw."""
        plan = self.plan
        while k < plan.calls and not any(self.wanted[plan.settled(k) : plan.reached(k)]):
            k = k + 1
        return k

    def ended(self, ids: Tensor, t: Tensor) -> int | None:
        """How long it is, if a drawn end of text is settled with all before it: ids [L] and t
        [L].
        """
        if not (self.request.eos and self.tail):
            return None
        settled = (t == 0).cumprod(-1).bool()
        free = (self.request.ids == self.mask).to(ids.device)
        ends = (settled & free & is_end(ids, self.request.eos)).nonzero()
        return int(ends[0]) + 1 if len(ends) else None


def noisy(names: Row[Sequence], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Seeds, examples and steps [B] that name the next draws of sequences."""
    rows = [(one.request.seed, one.request.example, one.number) for one in names]
    seed, example, step = torch.tensor(rows, dtype=torch.int64, device=device).unbind(1)
    return seed, example, step
