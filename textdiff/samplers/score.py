"""How sure a network is of a token it would put at a masked position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import PART
from .draws import probability


@dataclass(frozen=True)
class Score:
    """Base of all scores, of the network's own logits before any filter; larger is surer."""

    def __call__(self, logits: Tensor, token: Tensor) -> Tensor:
        """logits [R, N] and the tokens [R] that were drawn there -> [R] float64."""
        raise NotImplementedError


@dataclass(frozen=True)
class Probability(Score):
    """The probability of the token that was drawn, in [0, 1] (MaskGIT, LLaDA)."""

    def __call__(self, logits: Tensor, token: Tensor) -> Tensor:
        return probability(logits, token)


@dataclass(frozen=True)
class Margin(Score):
    """The probability of the likeliest token less that of the second, in [0, 1] (arXiv
    2502.06768).
    """

    def __call__(self, logits: Tensor, token: Tensor) -> Tensor:
        largest = logits.topk(min(2, logits.shape[-1]), -1).indices
        first, *second = (probability(logits, largest[:, i]) for i in range(largest.shape[-1]))
        return first - second[0] if second else first


@dataclass(frozen=True)
class Entropy(Score):
    """Minus the entropy of the distribution in nats, in [-log N, 0] (Dream)."""

    def __call__(self, logits: Tensor, token: Tensor) -> Tensor:
        return -entropy(logits)


def entropy(logits: Tensor) -> Tensor:
    """The entropy of softmax(logits) in nats, [R, N] -> [R] float64."""
    some = logits.split(max(1, PART // logits.shape[-1]))
    return torch.cat([torch.special.entr(part.double().softmax(-1)).sum(-1) for part in some])
