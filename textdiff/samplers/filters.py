"""Logit filters: pure functions on the logits of the distribution that is drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

Filter = Callable[[Tensor], Tensor]


def identity(logits: Tensor) -> Tensor:
    """No filter: the law of the model."""
    return logits


def _divide(logits: Tensor, by: float) -> Tensor:
    return logits.double() / by


def temperature(value: float) -> Filter:
    """softmax(logits / value), value > 0; applied once.

    Raises:
        ValueError: if value is not positive.
    """
    if not value > 0:
        raise ValueError(f"temperature must be > 0, got {value!r}: for greedy choices use a small one, such as 1e-4")
    return identity if value == 1 else partial(_divide, by=value)


def compose(*chosen: Filter) -> Filter:
    """One filter after the other."""
    chosen = tuple(one for one in chosen if one is not identity)
    return chosen[0] if len(chosen) == 1 else partial(_chain, chosen=chosen) if chosen else identity


def _chain(logits: Tensor, chosen: tuple[Filter, ...]) -> Tensor:
    for one in chosen:
        logits = one(logits)
    return logits
