"""The exact ancestral sampler."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..noise import Noise
from ..process import Process
from .base import Sampler, reverse_step, unmasks
from .filters import Filter, identity


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Reverse the T-step chain: z_s ~ q(z_s | z_t, x̂), the plug-in posterior (1.3) with cavity x̂,
    token by token.

    Law: exactly the model p(x) = Σ p(z_K) Π p(z_{k+1} | z_k) whose bound is the T-step NELBO of the
    same process and hyperschedule (3.1), at temperature 1. Nothing is approximated but what the
    model itself factorises. Defined for every process.
    """

    def rows(
        self, process: Process, z: Tensor, t: Tensor, s: Tensor, N: int, noise: Noise
    ) -> Tensor:
        chosen = unmasks(process, z, t, s, N, noise)
        if not process.corrupts:
            return chosen
        return chosen | ((z < N) & (t > s) & process.moves(s, t))

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
        return z.masked_scatter(rows, reverse_step(process, warp(logits), rows, z, t, s, noise)), s
