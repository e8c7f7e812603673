"""A bound's estimate on any number of batches, with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..denoiser.protocol import Denoiser
from .batch import Batch
from .bounds import Bound, Nats
from .curve import LEVELS, PLACES, Curve, Tally, level_bins, place_bins
from .halves import Halves, check_draws, halves
from .measured import Measured

SLOTS = 64  # draws of one sequence that are stratified together
MOST = 2 * SLOTS  # draws of one sequence

Batches = Callable[[], Iterable[Batch]]
"""Makes an iterable of batches, any number of times."""


@dataclass(frozen=True)
class _Sums:
    """Over all rows of all processes: nats, their variance, tokens and rows; and where the nats
    are.
    """

    whole: Tensor
    places: Tensor
    levels: Tensor

    @property
    def nats(self) -> float:
        return float(self.whole[0] / self.whole[2])

    @property
    def standard_error(self) -> float:
        return float(self.whole[1].sqrt() / self.whole[2])

    @property
    def rows_of_error(self) -> float | None:
        """(Σ v)²/Σ v² of the variances v of the rows; None where nothing was drawn."""
        return float(self.whole[1] ** 2 / self.whole[4]) if self.whole[4] > 0 else None


def _add_places(places: Tally, pair: Halves, valid: Tensor) -> None:
    L = valid.shape[-1]
    position = torch.arange(L, device=valid.device).expand(valid.shape)
    bins = place_bins(L).to(valid.device)[position[valid]]
    variance = pair.standard_error.square()
    places.add(bins, position[valid], pair.mean[valid], variance[valid])


def _score(
    bound: Bound, network: Denoiser, batches: Iterable[Batch], draws: int, seed: int
) -> _Sums:
    """Two independent halves of draws of each sequence: their mean is the estimate, their
    differences are its variance.
    """
    whole = torch.zeros(5, dtype=torch.float64)
    places, levels = Tally(PLACES), Tally(LEVELS)

    def add_levels(valid: Tensor, nats: Nats) -> None:
        levels.add(level_bins(nats.t[valid]), nats.t[valid], nats.values[valid])

    for batch in batches:
        every = torch.ones_like(batch.ids, dtype=torch.bool)
        valid = every if batch.counts is None else batch.counts
        pair = halves(
            bound,
            network,
            batch,
            draws=draws,
            seed=seed,
            slots=SLOTS,
            watch=partial(add_levels, valid),
        )
        rows = pair.sequences
        count = torch.tensor(len(valid), device=valid.device)
        variance = rows.standard_error.square()
        sums = [rows.mean.sum(), variance.sum(), valid.sum(), count, variance.square().sum()]
        whole += torch.stack([value.double() for value in sums]).cpu()
        _add_places(places, pair, valid)
    return _Sums(whole, places.sums, levels.sums)


def estimate(
    bound: Bound,
    network: Denoiser,
    batches: Batches,
    L: int,
    *,
    draws: int = 8,
    seed: int = 0,
    until_se: float | None = None,
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Measured:
    """Estimate one bound on batches of rows of L tokens.

    The standard error is that of the Monte Carlo draws on this very text: half of the draws of each
    sequence are independent of the other half, so their differences tell the variance without
    assuming anything. No number depends on how the rows are put into batches.

    Args:
        bound: what is estimated.
        network: whose.
        batches: called once, or once more for each time that the draws are raised.
        L: tokens of a row.
        draws: noisy versions of each sequence, even, at most `MOST`.
        seed: key of the noise.
        until_se: spend more draws, up to `MOST`, until the standard error of `nats` is no larger.
            The error is itself an estimate, a poor one for few rows: to stop at it is to stop a
            little early.
        total: sums a tensor over all processes that share the rows.

    Raises:
        ValueError: if `draws` is odd or out of range, or `until_se` not above 0.
    """
    check_draws(draws, MOST)
    if until_se is not None and not until_se > 0:
        raise ValueError(f"the standard error to reach must be above 0, got {until_se!r}")

    def score(draws: int) -> _Sums:
        here = _score(bound, network, batches(), draws, seed)
        return _Sums(total(here.whole), total(here.places), total(here.levels))

    tally = score(draws)
    while until_se is not None and tally.standard_error > until_se and draws < MOST:
        wanted = draws * (tally.standard_error / until_se) ** 2
        draws = min(MOST, max(draws + 2, 2 * math.ceil(wanted / 2)))
        tally = score(draws)
    return Measured(
        name=bound.name,
        process=str(bound.process),
        hyperschedule=str(bound.hyperschedule),
        estimator=bound.described(L),
        nats=tally.nats,
        standard_error=tally.standard_error,
        draws=1 if bound.exact else draws,
        sequences=int(tally.whole[3]),
        tokens=int(tally.whole[2]),
        rows_of_error=tally.rows_of_error,
        by_position=Curve.of(tally.places, known=True),
        by_level=Curve.of(tally.levels, known=False),
    )
