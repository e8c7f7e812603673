"""Quality of samples: generative perplexity, always beside entropy, distinct n-grams and
repetition, with standard errors.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .judge import Judge, Scores

RESAMPLES = 1000


@dataclass(frozen=True)
class Measure:
    """One number about a set of samples.

    Args:
        name: which.
        value: the number.
        standard_error: over the draw of the samples.
        error: how that was computed.
        definition: what the number is.
    """

    name: str
    value: float
    standard_error: float
    error: str
    definition: str


def bootstrap(
    columns: Tensor, statistic: Callable[[Tensor], Tensor], seed: int = 0
) -> tuple[float, float]:
    """A statistic of column sums over samples, and its bootstrap standard error (1,000 resamples of
    the samples).

    Args:
        columns: [n, C] float64, one row a sample.
        statistic: sums [..., C] -> [...].
        seed: of the resamples.
    """
    n = len(columns)
    drawn = torch.randint(n, (RESAMPLES, n), generator=torch.Generator().manual_seed(seed))
    ones = torch.ones(1, 1, dtype=torch.float64).expand_as(drawn)
    counts = torch.zeros(RESAMPLES, n, dtype=torch.float64).scatter_add_(1, drawn, ones)
    return float(statistic(columns.sum(0))), float(statistic(counts @ columns).std())


def _mean(values: Tensor) -> tuple[float, float]:
    return bootstrap(torch.stack([values, torch.ones_like(values)], -1), _ratio)


def _ratio(sums: Tensor) -> Tensor:
    """First sum over second."""
    return sums[..., 0] / sums[..., 1]


def perplexities(scores: Scores) -> list[Measure]:
    """Both definitions of generative perplexity that are in use; texts of which nothing can be
    scored are left out of both.

    Raises:
        ValueError: if fewer than two texts can be scored.
    """
    kept = scores.scored > 0
    if kept.sum() < 2:
        raise ValueError(
            f"{int(kept.sum())} of {len(kept)} texts can be scored: generative perplexity needs "
            "two of 2 tokens or more"
        )
    nats = scores.nats[kept]
    tokens = scores.scored[kept].double()
    corpus = bootstrap(torch.stack([nats, tokens], -1), lambda sums: _ratio(sums).exp())
    each = _mean((nats / tokens).exp())
    return [
        Measure(
            "gen-PPL (per sequence)",
            *each,
            "bootstrap",
            "mean over texts of exp(nats per token of the text): SEDD, HDLM",
        ),
        Measure(
            "gen-PPL (corpus)",
            *corpus,
            "bootstrap",
            "exp(nats of all texts / tokens of all texts): MDLM, BD3-LM",
        ),
    ]


def token_entropy(ids: Sequence[int]) -> float:
    """Entropy in nats of the distribution of a text's own tokens: low where a text repeats itself,
    at most log(length).
    """
    shares = [count / len(ids) for count in Counter(ids).values()]
    return -sum(share * math.log(share) for share in shares)


def ngrams(ids: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """All n-grams of a text, in order."""
    return list(zip(*(ids[begin:] for begin in range(n)), strict=False))


def distinct(texts: Sequence[Sequence[int]], n: int) -> Measure:
    """Distinct n-grams of all texts over all their n-grams; falls with the number of texts, so
    compare at equal numbers.

    The standard error is the jackknife's: without text i the distinct n-grams are those that not
    only i has.
    """
    each = [ngrams(ids, n) for ids in texts]
    where = Counter(gram for grams in each for gram in set(grams))
    total = sum(map(len, each))
    kinds = len(where)
    without = []
    for grams in each:
        own = sum(where[gram] == 1 for gram in set(grams))
        without.append((kinds - own) / max(total - len(grams), 1))
    left = torch.tensor(without, dtype=torch.float64)
    error = math.sqrt((len(left) - 1) * float(left.var(correction=0)))
    return Measure(
        f"distinct-{n}",
        kinds / max(total, 1),
        error,
        "jackknife",
        f"distinct {n}-grams of all texts / all their {n}-grams",
    )


def repetition(texts: Sequence[Sequence[int]], n: int) -> Measure:
    """Mean over texts of 1 - distinct n-grams / n-grams: the share of a text's n-grams that it has
    said before.
    """
    each = [ngrams(ids, n) for ids in texts]
    shares = [1 - len(set(grams)) / len(grams) if grams else 0.0 for grams in each]
    mean = _mean(torch.tensor(shares, dtype=torch.float64))
    return Measure(
        f"repetition-{n}",
        *mean,
        "bootstrap",
        f"mean over texts of 1 - distinct {n}-grams / {n}-grams of the text",
    )


def diversity(texts: Sequence[Sequence[int]]) -> list[Measure]:
    """Token entropy, distinct-1 to -3 and repetition-4 of tokenised texts.

    Raises:
        ValueError: if there are fewer than two texts.
    """
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} text is too few for an error bar: give at least 2")
    entropy = _mean(torch.tensor([token_entropy(ids) for ids in texts], dtype=torch.float64))
    definition = "mean over texts of the entropy of the text's own token distribution, nats"
    return [
        Measure("token entropy", *entropy, "bootstrap", definition),
        *(distinct(texts, n) for n in (1, 2, 3)),
        repetition(texts, 4),
    ]


def quality_of(
    judge: Judge,
    texts: Sequence[str],
    max_tokens: int | None,
    bos: bool = False,
    batch_size: int = 8,
) -> dict[str, Any]:
    """Every measure of a set of texts under a judge, as plain values with the rules behind them.

    Args:
        judge: a causal language model; n-grams and entropy are over its tokens, too.
        texts: at least two.
        max_tokens: its tokens of each text that are read; None: all.
        bos: see `Judge.score`.
        batch_size: texts per network call.

    Raises:
        ValueError: if the judge is an encoder, or there are too few texts.
    """
    scores = judge.score(texts, max_tokens, bos, batch_size)
    if unscored := int((scores.scored == 0).sum()):
        warnings.warn(
            f"{unscored} of {len(texts)} texts are too short to be scored and not in the "
            "perplexities",
            stacklevel=2,
        )
    measures = [*perplexities(scores), *diversity(scores.ids)]
    first = "no BOS, the first token is context only"
    if bos:
        first = "BOS in front, every token is scored"
    return {
        "measures": [asdict(one) for one in measures],
        "judge": judge.as_dict(),
        "bos": first,
        "documents": f"running text: each document ends with {judge.end!r}",
        "max_tokens": max_tokens,
        "texts": len(texts),
        "scored_tokens": int(scores.scored.sum()),
        "truncated": scores.truncated,
        "unscored": unscored,
    }
