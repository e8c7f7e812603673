"""Perplexity: every bound that can be stated for a model, with its standard error and its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..denoiser.protocol import Denoiser
from ..hyperschedule import Hyperschedule
from ..model.model import Model
from ..noise import Noise
from ..objective import Batch, Estimator, MaskCount, Objective, chain_rule, least_variance
from ..objective.bounds import bounds, sequence_nats
from ..objective.estimators import Draw, continuous
from ..process import Process
from . import ranks
from .curves import LEVELS, PLACES, Curve, Tally, level_bins, place_bins
from .tables import Table

SLOTS = 64  # draws of one sequence that are stratified together
MOST = 2 * SLOTS  # draws of one sequence

NAMES = {
    "nelbo": "NELBO",
    "b1": "B1: NELBO of masking alone, clean context",
    "b2": "B2: bound of unmasking with noisy display",
}
# what the NELBO of a process with an atom is called beside B1 and B2 (`maths.md` 4.4)
CORRECTING = "B3: NELBO with correction"


@dataclass(frozen=True)
class Measured:
    """A bound on -log p(text), as an estimate.

    Args:
        name: which bound.
        process: whose.
        hyperschedule: under which schedule.
        estimator: "exact chain rule", or how times or orders were drawn.
        nats: per scored token; the EOS that ends a document is one, a BOS and the filler of the
            last row are none.
        standard_error: of `nats`, Monte Carlo, for this text.
        draws: noisy versions, or orders, of each sequence.
        sequences, tokens: that were scored.
        text_bytes: UTF-8 bytes of the text that the scored tokens stand for, in which EOS has none;
            None if not known.
        by_position, by_level: where the nats are; the prior term and an atom's reconstruction are
            in both.
    """

    name: str
    process: str
    hyperschedule: str
    estimator: str
    nats: float
    standard_error: float
    draws: int
    sequences: int
    tokens: int
    text_bytes: int | None = None
    by_position: Curve | None = None
    by_level: Curve | None = None

    @property
    def bits(self) -> float:
        """Bits per token."""
        return self.nats / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats per token)."""
        return math.exp(min(self.nats, 700.0))

    @property
    def bits_per_byte(self) -> float | None:
        """All bits, those of EOS too, over all bytes of text; it compares models with different
        tokenizers.
        """
        return self.bits * self.tokens / self.text_bytes if self.text_bytes else None

    def as_dict(self) -> dict[str, object]:
        """All fields and the derived numbers, for JSON."""
        return {
            **asdict(self),
            "bits": self.bits,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
        }


One = Callable[[Batch, Noise], tuple[Tensor, Tensor]]
"""One unbiased draw of a bound: nats and noise level at every position, [B, L] both."""


@dataclass(frozen=True)
class _Watched(Estimator):
    """An estimator whose noise levels are kept."""

    inner: Estimator
    levels: list[Tensor] = field(default_factory=list)

    @property
    def blind(self) -> bool:  # type: ignore[override]
        return self.inner.blind

    def __call__(self, *words: Any) -> Draw:
        draw = self.inner(*words)
        self.levels.append(draw.t)
        return draw


def _drawing(
    network: Denoiser,
    process: Process,
    schedule: Hyperschedule,
    objective: Objective,
    estimator: Estimator,
) -> One:
    def one(batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        watched = _Watched(estimator)
        nats = sequence_nats(network, batch, process, schedule, objective, watched, noise)
        return nats, watched.levels[-1]

    return one


def _estimator_name(estimator: Estimator, schedule: Hyperschedule, L: int, discrete: bool) -> str:
    if isinstance(estimator, MaskCount):
        return "mask count, continuous time"
    steps = discrete or not continuous(schedule, L)
    return f"stratified, {schedule.T}-step" if steps else "stratified, continuous time"


@dataclass(frozen=True)
class _Scores:
    """Sums over all rows of all processes: nats, their variance, tokens and rows; and where the
    nats are.
    """

    sums: Tensor
    places: Tensor
    levels: Tensor

    @property
    def nats(self) -> float:
        return float(self.sums[0] / self.sums[2])

    @property
    def standard_error(self) -> float:
        return float(self.sums[1].sqrt() / self.sums[2])


def _score(batches: Iterable[Batch], one: One, draws: int, seed: int) -> _Scores:
    """Two independent halves of draws of each sequence: their mean is the estimate, their
    differences are its variance.
    """
    sums, places, levels = torch.zeros(4, dtype=torch.float64), Tally(PLACES), Tally(LEVELS)
    for batch in batches:
        ids = batch.ids
        valid = torch.ones_like(ids, dtype=torch.bool) if batch.valid is None else batch.valid
        halves = torch.zeros(2, *ids.shape, dtype=torch.float64, device=ids.device)
        for half in range(2):
            for draw in range(draws // 2):
                placed = replace(batch, slot=batch.example * SLOTS + draw, key=half)
                nats, t = one(placed, Noise(seed, batch.example, step=half * SLOTS + draw))
                halves[half] += nats / (draws // 2)
                levels.add(level_bins(t[valid]), t[valid], nats[valid])
        first, second = halves.sum(-1)
        variance = ((first - second) ** 2).sum() / 4
        sums += torch.stack(
            [(first + second).sum() / 2, variance, valid.sum(), torch.tensor(len(ids)).to(variance)]
        ).cpu()
        position = torch.arange(ids.shape[-1], device=ids.device).expand(ids.shape)
        mean, spread = halves.mean(0), (halves[0] - halves[1]) ** 2 / 4
        places.add(
            place_bins(ids.shape[-1]).to(ids.device)[position[valid]],
            position[valid],
            mean[valid],
            spread[valid],
        )
    return _Scores(ranks.total(sums), ranks.total(places.sums), ranks.total(levels.sums))


def _until(
    score: Callable[[int], _Scores], draws: int, until_se: float | None
) -> tuple[_Scores, int]:
    """Score with more and more draws until the standard error is small enough, or there are `MOST`
    of them.

    The error is itself an estimate, a poor one for few rows: to stop at it is to stop a little
    early.
    """
    found = score(draws)
    while until_se is not None and found.standard_error > until_se and draws < MOST:
        wanted = draws * (found.standard_error / until_se) ** 2
        draws = min(MOST, max(draws + 2, 2 * math.ceil(wanted / 2)))
        found = score(draws)
    return found, draws


def _length(batches: Iterable[Batch]) -> int:
    for batch in batches:
        return batch.ids.shape[-1]
    raise ValueError("there is no row to score: give a text that is not empty, and a limit above 0")


@torch.no_grad()
def measure(
    model: Model,
    batches: Callable[[], Iterable[Batch]],
    hyperschedule: Hyperschedule | None = None,
    discrete: bool = False,
    draws: int = 8,
    seed: int = 0,
    until_se: float | None = None,
    any_order: bool = False,
) -> list[Measured]:
    """Measure every bound that can be stated for a model on some text.

    The standard error is that of the Monte Carlo draws on this very text: half of the draws of each
    sequence are independent of the other half, so their differences tell the variance without
    assuming anything. All numbers are independent of the batch size; under `torch.distributed` each
    process gives its own rows, and all get the result for the rows of all.

    Args:
        model: the model.
        batches: makes an iterable of batches; called once per bound, and once more to look at the
            length.
        hyperschedule: default: that of training.
        discrete: the T-step bound of a flat schedule, the law of `generate`, instead of continuous
            time.
        draws: noisy versions of each sequence, even, at most 128.
        seed: key of the noise.
        until_se: spend more draws, up to 128, until the standard error of `nats` is no larger.
        any_order: also the chain rule along random orders, L calls each, where a bound is their
            mean.

    Raises:
        ValueError: if `draws` is odd or out of range, `until_se` not above 0, or there is no row;
            if `any_order` is asked of a model that has none.
    """
    if draws < 2 or draws % 2 or draws > MOST:
        raise ValueError(
            f"draws must be an even number in 2..{MOST}, got {draws}: two halves give the standard error"
        )
    if until_se is not None and not until_se > 0:
        raise ValueError(f"the standard error to reach must be above 0, got {until_se!r}")
    if any_order and discrete:
        raise ValueError(
            "the mean over orders is the bound of infinitely many steps: ask for any_order or discrete, not both"
        )
    schedule, network, L = hyperschedule or model.hyperschedule, model.network, _length(batches())
    readings = bounds(model.process, model.prediction)
    found: list[Measured] = []

    def state(name: str, process: Process, estimator: str, one: One, exact: bool = False) -> None:
        scores, spent = _until(
            lambda draws: _score(batches(), one, draws, seed), 2 if exact else draws, until_se
        )
        numbers = (
            scores.nats,
            scores.standard_error,
            1 if exact else spent,
            int(scores.sums[3]),
            int(scores.sums[2]),
        )
        where = (Curve.of(scores.places), Curve.of(scores.levels))
        found.append(Measured(name, str(process), str(schedule), estimator, *numbers, None, *where))

    for key, (process, objective) in readings.items():
        estimator = least_variance(process, schedule, L, discrete, network.sees_time)
        one = _drawing(network, process, schedule, objective, estimator)
        if chain_rule.is_exact(network, process, schedule, L):
            state("exact -log p", process, "exact chain rule", one, exact=True)
            return found  # B1 and B2 coincide with it
        name = CORRECTING if key == "nelbo" and len(readings) > 1 else NAMES[key]
        state(name, process, _estimator_name(estimator, schedule, L, discrete), one)
        if any_order and chain_rule.has_orders(network, process, schedule, L):
            limit = name if schedule.plan(L).flat else f"{name}, limit of many steps"
            state(
                limit,
                process,
                "chain rule of random orders, continuous time",
                lambda b, n: chain_rule.order_nats(network, b, schedule, n),
            )
    if any_order and not any("orders" in bound.estimator for bound in found):
        raise ValueError(
            f"{model.process} under {schedule} is no mean over orders: ask for it of masking, flat or in blocks"
        )
    return found


def unigram_entropy(counts: Tensor) -> float:
    """Entropy in nats of a token distribution with these counts [N]: what no model without context
    can beat on that text.
    """
    p = counts.double() / counts.sum()
    return float(-torch.xlogy(p, p).sum())


def table(found: dict[str, list[Measured]]) -> str:
    """The bounds on each text as a table that lines up."""
    header = [
        "text",
        "bound",
        "nats/token",
        "± s.e.",
        "bits/token",
        "bits/byte",
        "perplexity",
        "draws",
        "estimator",
    ]
    rows = []
    for text, bounds_found in found.items():
        for number, b in enumerate(bounds_found):
            per_byte = "" if b.bits_per_byte is None else f"{b.bits_per_byte:.4f}"
            numbers = (
                f"{b.nats:.4f}",
                f"{b.standard_error:.4f}",
                f"{b.bits:.4f}",
                per_byte,
                f"{b.perplexity:.3f}",
                str(b.draws),
            )
            rows.append(("" if number else text, b.name, *numbers, b.estimator))
    return Table(header, rows, words=(0, 1, len(header) - 1)).text()
