"""Which masked tokens a confidence sampler unmasks in a call, given how sure it is of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .score import entropy


@dataclass(frozen=True)
class Selection:
    """Base of all selections; the surest token of a sequence is always among them, so that
    generation ends.
    """

    def __call__(self, score: Tensor, masked: Tensor, logits: Tensor) -> Tensor:
        """score [B, L] (-inf where not masked), masked [B, L] bool, logits [R, N] of the masked ->
        [B, L] bool.
        """
        raise NotImplementedError


def rank_of(score: Tensor, masked: Tensor) -> Tensor:
    """0 for the surest masked token of each row, and so on; of equals the left one first, and
    behind all of them what is not masked.

    Equal is what agrees to three decimals of `_surety`: masked positions that see the same are
    equally sure, and rounding errors, which depend on the batch, must not order them.

    >>> rank_of(torch.tensor([[0.1, 2e-6, 1e-6]]), torch.ones(1, 3).bool()).tolist()
    [[0, 1, 2]]
    """
    rounded = _surety(score).mul(1e3).round().nan_to_num(neginf=-1e300, posinf=1e300)
    rounded = torch.where(masked, rounded, -torch.inf)
    return rounded.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


def _surety(score: Tensor) -> Tensor:
    """The scores on a scale that is as fine near its ends as in between: the log-odds of those in
    [0, 1], minus the logarithm of minus those below 0 (entropies), others as they are.
    """
    # of each sequence by itself: who shares its call must not matter
    is_entropy = (score.isfinite() & (score < 0)).any(-1, keepdim=True)
    is_other = (score > 1).any(-1, keepdim=True)
    odds = torch.where(is_entropy, -(-score).clamp_min(0.0).log(), score.clamp(0.0, 1.0).logit())
    return torch.where(is_other, score, odds)


@dataclass(frozen=True)
class Count(Selection):
    """The n surest tokens of each sequence."""

    n: int = 1

    def __post_init__(self) -> None:
        if not (isinstance(self.n, int) and self.n >= 1):
            raise ValueError(
                f"n must be an integer >= 1, got {self.n!r}: a call unmasks at least one token"
            )

    def __call__(self, score: Tensor, masked: Tensor, logits: Tensor) -> Tensor:
        return masked & (rank_of(score, masked) < self.n)


@dataclass(frozen=True)
class Threshold(Selection):
    """Every token with a score of at least `value`, in the units of the score (for `Entropy` minus
    nats, such as -0.1).
    """

    value: float

    def __post_init__(self) -> None:
        if math.isnan(self.value):
            raise ValueError(
                "value must be a number, such as 0.9 for a probability or -0.1 for an entropy of "
                "0.1 nats"
            )

    def __call__(self, score: Tensor, masked: Tensor, logits: Tensor) -> Tensor:
        return masked & ((score >= self.value) | (rank_of(score, masked) == 0))


@dataclass(frozen=True)
class EntropyBound(Selection):
    """As many of the surest tokens as keep Σ H - max H <= bound, in nats (the EB-sampler, arXiv
    2505.24857).

    That difference bounds what drawing them independently of one another can cost, their total
    correlation under the network's laws.
    """

    bound: float

    def __post_init__(self) -> None:
        if not self.bound >= 0:
            raise ValueError(
                f"bound must be >= 0 nats, got {self.bound!r}: "
                "0 unmasks one token a call, and those that are certain"
            )

    def __call__(self, score: Tensor, masked: Tensor, logits: Tensor) -> Tensor:
        H = torch.zeros_like(score).masked_scatter(masked, entropy(logits))
        rank = rank_of(score, masked)
        ordered = H.gather(-1, rank.argsort(dim=-1))
        within = ordered.cumsum(-1) - ordered.cummax(-1).values <= self.bound
        return masked & (within.gather(-1, rank) | (rank == 0))
