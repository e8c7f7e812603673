"""Unmasking in the order of the network's confidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..noise import Noise, Stream, categorical
from ..process import Process
from .base import Sampler, refuse_moving, reverse_step
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

    def rows(
        self, process: Process, z: Tensor, t: Tensor, s: Tensor, N: int, noise: Noise
    ) -> Tensor:
        masked = (z == N) & (t > s)
        return torch.where(
            masked.any(-1, keepdim=True), masked, (t > s) & process.corrupts
        )  # none masked: the atom

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
        N = logits.shape[-1]
        masked = rows & (z == N)
        at_masked = logits[masked[rows]]
        drawn = categorical(warp(at_masked), noise.positions(z, Stream.TOKEN)[masked])
        score = torch.full_like(t, -torch.inf).masked_scatter(
            masked, self.score(at_masked, drawn).to(t)
        )
        chosen = self.select(score, masked, at_masked)
        left, moving = (masked & ~chosen).sum(-1, keepdim=True), t > s
        share = left.double() / moving.sum(-1, keepdim=True).clamp_min(1)
        waits = (left == 0) & masked.any(-1, keepdim=True) & process.corrupts  # for the atom
        times = torch.where(moving & ~waits, torch.minimum(t, share), t)
        y = torch.where(
            chosen, process.shuffle(z.masked_scatter(masked, drawn), times, N, noise), z
        )
        last = rows & ~masked
        if last.any():
            y = y.masked_scatter(
                last, reverse_step(process, warp(logits[last[rows]]), last, z, t, times, noise)
            )
        return y, times
