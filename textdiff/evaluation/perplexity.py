"""Perplexity: every bound that can be stated for a model, with its standard error and its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from ..estimator import Batch, Estimator, MaskCount, bounds, continuous, least_variance, sequence_nats
from ..hyperschedule import Hyperschedule
from ..model import Model
from ..network.protocol import Denoiser
from ..noise import Noise
from ..objective import Objective
from ..process import Process

SLOTS = 64  # draws of one sequence that are stratified together

NAMES = {"nelbo": "NELBO", "b1": "B1: NELBO of masking alone, clean context", "b2": "B2: bound of unmasking with noisy display"}


@dataclass(frozen=True)
class Bound:
    """A bound on -log p(text), as an estimate.

    Args:
        name: which bound.
        process: whose.
        hyperschedule: under which schedule.
        estimator: "exact chain rule", or how times were drawn.
        nats: per scored token.
        standard_error: of `nats`, Monte Carlo, for this text.
        draws: noisy versions of each sequence.
        sequences, tokens: that were scored.
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

    @property
    def bits(self) -> float:
        """Bits per token."""
        return self.nats / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats per token)."""
        return math.exp(min(self.nats, 700.0))

    def as_dict(self) -> dict[str, object]:
        """All fields and the derived numbers, for JSON."""
        return {**asdict(self), "bits": self.bits, "perplexity": self.perplexity}


def _is_chain_rule(network: Denoiser, process: Process, schedule: Hyperschedule, L: int) -> bool:
    """Whether the bound is -log p(x) itself, without noise: one token per call, each from a prior that tells nothing."""
    prior = process.clock(torch.ones((), dtype=torch.float64))
    nothing_left = prior.mask == 1 or (network.shifted and prior.keep == 0)
    return schedule.T == 1 and len(schedule.start(L).unique()) == L and bool(nothing_left)


def _estimator_name(estimator: Estimator, schedule: Hyperschedule, L: int, discrete: bool) -> str:
    if isinstance(estimator, MaskCount):
        return "mask count, continuous time"
    steps = discrete or not continuous(schedule, L)
    return f"stratified, {schedule.T}-step" if steps else "stratified, continuous time"


def _sequence_draws(
    network: Denoiser,
    batch: Batch,
    process: Process,
    schedule: Hyperschedule,
    objective: Objective,
    estimator: Estimator,
    seed: int,
    draws: int,
) -> Tensor:
    """Two independent halves of stratified draws for each sequence: mean nats [2, B]."""
    halves = []
    for half in range(2):
        total = torch.zeros(len(batch.ids), dtype=torch.float64, device=batch.ids.device)
        for draw in range(draws // 2):
            placed = replace(batch, slot=batch.example * SLOTS + draw, key=half)
            noise = Noise(seed, batch.example, step=half * SLOTS + draw)
            total += sequence_nats(network, placed, process, schedule, objective, estimator, noise).sum(-1)
        halves.append(total / (draws // 2))
    return torch.stack(halves)


@torch.no_grad()
def measure(
    model: Model,
    batches: Callable[[], Iterable[Batch]],
    hyperschedule: Hyperschedule | None = None,
    discrete: bool = False,
    draws: int = 8,
    seed: int = 0,
) -> list[Bound]:
    """Measure every bound that can be stated for a model on some text.

    The standard error is that of the Monte Carlo draws on this very text: half of the draws of each sequence are independent of the
    other half, so their differences tell the variance without assuming anything. All numbers are independent of the batch size.

    Args:
        model: the model.
        batches: makes an iterable of batches; called once per bound.
        hyperschedule: default: that of training.
        discrete: the T-step bound of a flat schedule, the law of `generate`, instead of continuous time.
        draws: noisy versions of each sequence, even, at most 128.
        seed: key of the noise.

    Raises:
        ValueError: if `draws` is odd or out of range.
    """
    if draws < 2 or draws % 2 or draws > 2 * SLOTS:
        raise ValueError(f"draws must be an even number in 2..{2 * SLOTS}, got {draws}: two halves give the standard error")
    schedule = hyperschedule or model.hyperschedule
    found = []
    for name, (process, objective) in bounds(model.process, model.prediction).items():
        total = variance = 0.0
        tokens = sequences = 0
        for batch in batches():
            L = batch.ids.shape[-1]
            exact = _is_chain_rule(model.network, process, schedule, L)
            estimator = least_variance(process, schedule, L, discrete, model.network.conditioned)
            spent = 2 if exact else draws
            first, second = _sequence_draws(model.network, batch, process, schedule, objective, estimator, seed, spent)
            total += float(((first + second) / 2).sum())
            variance += float(((first - second) ** 2 / 4).sum())
            tokens += int(batch.scored.sum())
            sequences += len(batch.ids)
        label = "exact chain rule" if exact else _estimator_name(estimator, schedule, L, discrete)
        found.append(
            Bound(
                "exact -log p" if exact else NAMES[name],
                str(process),
                str(schedule),
                label,
                total / tokens,
                math.sqrt(variance) / tokens,
                1 if exact else draws,
                sequences,
                tokens,
            )
        )
        if exact:  # B1 and B2 coincide with it
            break
    return found


def unigram_entropy(counts: Tensor) -> float:
    """Entropy in nats of a token distribution with these counts [N]: what no model without context can beat on that text."""
    p = counts.double() / counts.sum()
    return float(-torch.xlogy(p, p).sum())


def table(bounds_found: list[Bound]) -> str:
    """The bounds as a table that lines up."""
    rows = [("bound", "nats/token", "± s.e.", "bits/token", "perplexity", "estimator")]
    rows += [
        (b.name, f"{b.nats:.4f}", f"{b.standard_error:.4f}", f"{b.bits:.4f}", f"{b.perplexity:.3f}", b.estimator)
        for b in bounds_found
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i in (0, 5) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
