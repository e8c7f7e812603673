"""The exact ancestral sampler."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import Sampler, Step, ancestral_step, unmasked
from .filters import Filter, identity


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Reverse the T-step chain: z_s ~ q(z_s | z_t, x̂), the plug-in posterior (1.3) with cavity x̂,
    token by token.

    Law: exactly the model p(x) = Σ p(z_K) Π p(z_{k+1} | z_k) whose bound is the T-step NELBO of the
    same process and hyperschedule (3.1), at temperature 1. Nothing is approximated but what the
    model itself factorises. Defined for every process.
    """

    def rows(self, step: Step) -> Tensor:
        if not step.process.corrupts:
            return unmasked(step)
        return unmasked(step) | (step.visible & step.loose)

    def move(
        self, step: Step, rows: Tensor, logits: Tensor, filter: Filter = identity
    ) -> tuple[Tensor, Tensor]:
        return ancestral_step(step, rows, logits, filter), step.s
