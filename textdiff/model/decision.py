"""Which of several options stands in a gap: `Model.decide`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .scoring import Score, score
from .trained import Trained

GAP = "[GAP]"


@dataclass(frozen=True)
class Decision:
    """The options of a gap, and how likely each is.

    Args:
        options: the texts.
        probabilities: of each, they add up to 1.
        scores: from which they come.
        note: what to know about them; empty where they are exact and there is nothing to say.
    """

    options: tuple[str, ...]
    probabilities: tuple[float, ...]
    scores: tuple[Score, ...]
    note: str

    @property
    def best(self) -> str:
        """The likeliest option."""
        return max(zip(self.probabilities, self.options, strict=True))[1]


def decide(
    model: Trained,
    text: str,
    options: Sequence[str],
    *,
    lengths: Mapping[int, float] | None = None,
    **scoring: Any,
) -> Decision:
    """The probability of each option at the gap of a text, among these options.

        model.decide("The capital of France is [GAP].", [" Paris", " Rome"])

        p(option) ∝ exp(-score(option)) lengths[its tokens]

    Under AR the score is of option and suffix given the prefix, exactly. Every other model is given
    the number of tokens, so options of different token counts need a prior over these counts.

    Args:
        model: the model.
        text: with one `[GAP]`.
        options: two or more texts.
        lengths: token count -> prior probability, of the caller's; not for autoregressive models,
            whose p is over texts of any length.
        scoring: options of `score`.

    Raises:
        ValueError: if there is not one gap or not two options, they are not all different, their
            token counts differ and no prior says how likely these are.
    """
    pieces = text.split(GAP)
    if len(pieces) != 2:
        raise ValueError(f"the text must have one {GAP}, it has {len(pieces) - 1}")
    if len(options) < 2 or len(set(options)) < len(options):
        raise ValueError(f"give two or more different options, got {list(options)!r}")
    scores = score(model, pieces[0], list(options), suffix=pieces[1], **scoring)
    chain = all(one.sequential for one in scores)
    counts = {one.tokens for one in scores}
    if chain and lengths is not None:
        raise ValueError("lengths: an autoregressive model weighs texts of any length itself")
    if not chain and lengths is None and len(counts) > 1:
        raise ValueError(
            f"the options have {sorted(counts)} tokens, and this model is given the number of "
            "tokens: say how likely each number is, lengths={2: 0.5, 3: 0.5}, or give options of "
            "one length"
        )
    if lengths is not None and (missing := sorted(counts - lengths.keys())):
        raise ValueError(f"lengths says nothing of {missing} tokens, which some options have")
    prior = [1.0 if lengths is None else lengths[one.tokens] for one in scores]
    if any(not 0 <= p < math.inf for p in prior) or not sum(prior):
        raise ValueError(f"lengths must be probabilities, some above 0, got {lengths!r}")
    weights = torch.tensor([-one.nats for one in scores], dtype=torch.float64)
    weights = weights + torch.tensor(prior, dtype=torch.float64).log()
    probabilities = tuple(weights.softmax(-1).tolist())
    return Decision(tuple(options), probabilities, tuple(scores), _note(scores, weights))


def _note(scores: Sequence[Score], weights: torch.Tensor) -> str:
    """What bounds leave open."""
    if all(one.exact for one in scores):
        return ""
    first, second = weights.topk(2).indices.tolist()
    errors = [scores[number].standard_error or 0.0 for number in (first, second)]
    gap = float(weights[first] - weights[second])
    if gap < 2 * math.hypot(*errors):
        return (
            f"the two likeliest options differ by {gap:.3f} nats, within twice the standard error: "
            "these bounds cannot tell them apart; raise draws"
        )
    return (
        "from bounds: an option whose bound is looser looks less likely than it is; the order is "
        "that of the bounds"
    )
