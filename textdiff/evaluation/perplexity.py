"""Perplexity: every bound that can be stated for a model, with its standard error and its name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..hyperschedule import Hyperschedule
from ..model.measuring import measure_rows
from ..model.model import Model
from ..objective.measured import Measured
from ..objective.measuring import Batches
from . import ranks
from .tables import Table


def measure(
    model: Model, batches: Batches, hyperschedule: Hyperschedule | None = None, **options: Any
) -> list[Measured]:
    """Every bound that can be stated for a model on rows of tokens, as `model.measuring` has it.

    Under `torch.distributed` each process gives its own rows, and all get the result for the rows
    of all.

    Args:
        model, batches, hyperschedule: as for `measure_rows`.
        options: its options.
    """
    return measure_rows(model, batches, hyperschedule, total=ranks.total, **options)


def unigram_entropy(counts: Tensor) -> float:
    """Entropy in nats of a token distribution with these counts [N]: what no model without context
    can beat on that text.
    """
    p = counts.double() / counts.sum()
    return float(-torch.xlogy(p, p).sum())


HEADER = [
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


def _row(text: str, bound: Measured) -> list[str]:
    per_byte = bound.bits_per_byte
    return [
        text,
        bound.name,
        f"{bound.nats:.4f}",
        f"{bound.standard_error:.4f}",
        f"{bound.bits:.4f}",
        "" if per_byte is None else f"{per_byte:.4f}",
        f"{bound.perplexity:.3f}",
        str(bound.draws),
        bound.estimator,
    ]


def table(measured_by_text: dict[str, list[Measured]]) -> str:
    """The bounds on each text as a table that lines up."""
    rows = [
        _row("" if number else text, bound)
        for text, measured in measured_by_text.items()
        for number, bound in enumerate(measured)
    ]
    return Table(HEADER, rows, words=(0, 1, len(HEADER) - 1)).text()
