"""Unmasking in the order of the network's confidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..noise import Stream
from ..process import Process
from .base import Sampler, Step, ancestral_step, parts, refuse_moving
from .draws import categorical
from .filters import Filter, identity
from .score import Probability, Score
from .selection import Count, Selection


@dataclass(frozen=True)
class Confidence(Sampler):
    """Draw a token at every masked position, keep those that the network is surest of, and mask the
    others again.

    `score` says how sure it is, `select` which tokens that unmasks: at least one a call. Tokens are
    drawn from the (filtered) x̂ and noised to d_t; with `temperature(1e-4)` they are the likeliest
    ones. Where the noise has an atom at t = 0 (ε-Hybrid) one more call draws every token from its
    posterior (1.5). The time that the network sees is the share of the group that is still masked.

    Law: none that is known in closed form; the order depends on the tokens, so no bound describes
    its samples, even at one token a call. Defined for flat and block schedules.
    """

    score: Score = field(default_factory=Probability)
    select: Selection = field(default_factory=Count)
    own_times: ClassVar[bool] = True

    def check(self, process: Process) -> None:
        refuse_moving(self, process)

    def rows(self, step: Step) -> Tensor:
        masked = step.masked & step.moving
        atom = step.moving & step.process.corrupts  # once none is masked
        return torch.where(masked.any(-1, keepdim=True), masked, atom)

    def move(
        self, step: Step, rows: Tensor, logits: Tensor, filter: Filter = identity
    ) -> tuple[Tensor, Tensor]:
        masked = rows & step.masked
        at_masked = logits[masked[rows]]
        u = step.draw(Stream.TOKEN)
        filled = step.z
        for some, part in parts(masked, at_masked):
            law = filter(part, step.where(some))
            filled = filled.masked_scatter(some, categorical(law, u[some]))
        drawn = filled[masked]
        score = torch.full_like(step.t, -torch.inf)
        score = score.masked_scatter(masked, self.score(at_masked, drawn).to(score))
        chosen = self.select(score, masked, at_masked)
        times = self._times(step, masked, chosen)
        y = torch.where(chosen, step.process.shuffle(filled, times, step.N, step.noise), step.z)
        last = rows & ~masked
        if last.any():
            ended = ancestral_step(step.to(times), last, logits[last[rows]], filter)
            y = torch.where(last, ended, y)
        return y, times

    def _times(self, step: Step, masked: Tensor, chosen: Tensor) -> Tensor:
        """The share of each group that is still masked, [B, W]; t stands while it waits for the
        atom alone.
        """
        left = (masked & ~chosen).sum(-1, keepdim=True)
        share = left.double() / step.moving.sum(-1, keepdim=True).clamp_min(1)
        waits = (left == 0) & masked.any(-1, keepdim=True) & step.process.corrupts
        return torch.where(step.moving & ~waits, torch.minimum(step.t, share), step.t)
