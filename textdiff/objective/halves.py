"""Draws of a bound in two independent halves, whose difference is the standard error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..denoiser.protocol import Denoiser
from ..noise import Noise
from .batch import Batch
from .bounds import Bound, Nats


@dataclass(frozen=True)
class Halves:
    """Two independent means a and b of the same draws, `values` [2, ...].

        mean = (a + b)/2,     standard error = |a - b|/2

    The error assumes nothing. It is rough for one number, and right in the root mean square over
    many.

    >>> Halves(torch.tensor([[1.0, 2.0], [3.0, 2.0]])).standard_error.tolist()
    [1.0, 0.0]
    """

    values: Tensor

    @property
    def mean(self) -> Tensor:
        """The estimates, [...]."""
        return self.values.mean(0)

    @property
    def standard_error(self) -> Tensor:
        """Of each estimate, [...]."""
        return (self.values[0] - self.values[1]).abs() / 2

    @property
    def sequences(self) -> Halves:
        """[2, B] sums over the positions of [2, B, L]."""
        return Halves(self.values.sum(-1))


def check_draws(draws: int, most: int | None = None) -> None:
    """Raise a ValueError unless so many draws make two halves."""
    if draws < 2 or draws % 2 or (most is not None and draws > most):
        right = "even and >= 2" if most is None else f"an even number in 2..{most}"
        raise ValueError(f"draws must be {right}, got {draws}: two halves give the standard error")


def halves(
    bound: Bound,
    network: Denoiser,
    batch: Batch,
    *,
    draws: int,
    seed: int,
    slots: int,
    watch: Callable[[Nats], object] = lambda nats: None,
) -> Halves:
    """Mean nats at every position over half of the draws each, [2, B, L] float64.

    Of an exact bound a single draw is made, which is both halves.

    Args:
        bound: what is drawn.
        network: whose.
        batch: its own slots and key are not used; sequences are named by `batch.example`.
        draws: even.
        seed: key of the noise.
        slots: the draws of one sequence that are stratified together; at least draws/2.
        watch: called with every draw.
    """
    each = 1 if bound.exact else draws // 2
    values = torch.zeros(2, *batch.ids.shape, dtype=torch.float64, device=batch.ids.device)
    for half in range(1 if bound.exact else 2):
        for draw in range(each):
            placed = replace(batch, slot=batch.example * slots + draw, key=half)
            noise = Noise(seed, batch.example, step=half * slots + draw)
            nats = bound.nats(network, placed, noise)
            values[half] += nats.values / each
            watch(nats)
    if bound.exact:
        values[1] = values[0]
    return Halves(values)
