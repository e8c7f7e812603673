"""Where the nats are: by position in the row and by noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PLACES, LEVELS = 64, 16  # bins at most


class Tally:
    """Sums over draws that become a `Curve`: one row per bin, columns x, count, nats, variance of
    the nats.
    """

    def __init__(self, bins: int) -> None:
        self.sums = torch.zeros(bins, 4, dtype=torch.float64)

    def add(self, bins: Tensor, x: Tensor, nats: Tensor, variance: Tensor | None = None) -> None:
        """Add values at `bins`; all of the same shape."""
        columns = [
            x,
            torch.ones_like(x),
            nats,
            torch.zeros_like(x) if variance is None else variance,
        ]
        values = torch.stack([column.double().flatten().cpu() for column in columns], -1)
        self.sums.index_add_(0, bins.flatten().cpu(), values)


@dataclass(frozen=True)
class Curve:
    """Mean nats per token at each x, with its Monte Carlo standard error; None: not known."""

    x: list[float]
    nats: list[float]
    standard_error: list[float] | None

    @staticmethod
    def of(sums: Tensor, known: bool) -> Curve:
        """From the sums of a `Tally`, whose variances are known or not; bins without a value are
        left out.
        """
        x, count, nats, variance = sums[sums[:, 1] > 0].T
        error = (variance.sqrt() / count).tolist() if known else None
        return Curve((x / count).tolist(), (nats / count).tolist(), error)


def place_bins(L: int) -> Tensor:
    """The bin of each position [L]."""
    return torch.arange(L) * min(L, PLACES) // L


def level_bins(t: Tensor) -> Tensor:
    """The bin of each noise level t in (0, 1].

    >>> level_bins(torch.tensor([1e-12, 0.5, 1.0])).tolist()
    [0, 7, 15]
    """
    return ((t * LEVELS).ceil().long() - 1).clamp(0, LEVELS - 1)
