"""What a bound and a sampler are worth on a language whose truth is known: anyone's `nll(ids)` and
anyone's samples, without another model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.truth import Truth

Nll = Callable[[Tensor], Tensor]
"""ids [B, L] -> [B] nats: what is claimed to be a bound on -log p."""

SURE = 3.0  # standard errors by which a mean must lie below the entropy


@dataclass(frozen=True)
class AuditedBound:
    """What is claimed of texts that were drawn from a known law.

    No law's mean -log p is below the entropy of what it is measured on (Gibbs), so no bound's is.

    Args:
        nats: mean of a text.
        standard_error: of that mean: over texts, or of the estimate.
        entropy: of the language, nats a text.
        texts: how many were scored.
        repeated: most nats by which the second asking differs from the first.
        alone: most nats by which a text alone differs from the same text in its batch.
        mass: Σ exp(-nll) over the whole language, where all its texts were scored; at most 1 for
            any bound. nan where they were not.
    """

    nats: float
    standard_error: float
    entropy: float
    texts: int
    repeated: float = 0.0
    alone: float = 0.0
    mass: float = math.nan

    @property
    def gap(self) -> float:
        """Mean less entropy: of -log p itself it is KL(language || model)."""
        return self.nats - self.entropy

    @property
    def is_bound(self) -> bool:
        """False: it is none. True: nothing here speaks against it."""
        below = self.gap < -SURE * self.standard_error - 1e-9 * self.entropy
        too_much = self.mass > 1 + 1e-6 and self.repeated == 0  # noise alone can bring it above 1
        return not (below or too_much)

    def __str__(self) -> str:
        if self.is_bound:
            return f"{self.gap:.3f} nats above the entropy"
        if self.gap < 0:
            return f"not a bound: {-self.gap:.3f} nats below the entropy"
        return f"not a bound: Σ exp(-nll) of the language is {self.mass:.3f}, above 1"


def audit_bound(nll: Nll, truth: Truth, texts: list[str], batch_size: int = 64) -> AuditedBound:
    """Ask `nll` about texts of a language: twice, and some of them alone.

    >>> from textdiff.data import Characters, SmallSudoku
    >>> grids = SmallSudoku()
    >>> truth = Truth(grids, Characters().build(grids))
    >>> def half(ids):  # "reconstruction only": half of the tokens are not paid for
    ...     return torch.full((len(ids),), 8 * math.log(2.0))
    >>> print(audit_bound(half, truth, list(grids.documents("test"))))
    not a bound: 0.118 nats below the entropy

    Args:
        nll: what is claimed; nats of whole texts.
        truth: the language.
        texts: drawn from the language, or all of it.
        batch_size: of the calls.

    Raises:
        ValueError: if there is no text, or `nll` does not give one number a text.
    """
    if not texts:
        raise ValueError("there is no text to score: give some of the language")
    ids = truth.encode(texts)
    first, second = (_asked(nll, ids, batch_size) for _ in range(2))
    some = ids[: min(8, len(ids))]
    alone = _asked(nll, some, 1)
    whole = len(set(texts)) == len(texts) and math.isclose(math.log(len(texts)), truth.entropy)
    spread = float(first.std() / math.sqrt(len(first))) if len(first) > 1 and not whole else 0.0
    return AuditedBound(
        nats=float(first.mean()),
        standard_error=spread,
        entropy=truth.entropy,
        texts=len(texts),
        repeated=float((first - second).abs().max()),
        alone=float((alone - first[: len(some)]).abs().max()),
        mass=float((-first).exp().sum()) if whole else math.nan,
    )


def _asked(nll: Nll, ids: Tensor, batch_size: int) -> Tensor:
    """[B] float64 nats, `batch_size` rows a call."""
    parts = []
    for rows in ids.split(batch_size):
        nats = torch.as_tensor(nll(rows))
        if nats.shape != (len(rows),):
            raise ValueError(
                f"nll gave numbers of shape {tuple(nats.shape)} for {len(rows)} texts: "
                "it must give one sum of nats a text"
            )
        parts.append(nats.detach().double().cpu())
    return torch.cat(parts)


@dataclass(frozen=True)
class AuditedSamples:
    """What samples are worth, against a language all of whose texts are equally likely.

    Args:
        samples: how many.
        valid: the share that belongs to the language.
        wrong: tokens of a sample that break a rule, on the mean.
        distinct: different valid ones.
        entropy_of_valid: of the law of the valid ones, nats: plug-in with the first correction of
            its bias (Miller and Madow); nan where none is valid.
        entropy: of the language.
    """

    samples: int
    valid: float
    wrong: float
    distinct: int
    entropy_of_valid: float
    entropy: float

    @property
    def valid_error(self) -> float:
        """Standard error of the share."""
        return math.sqrt(self.valid * (1 - self.valid) / self.samples)

    @property
    def kl(self) -> float:
        """KL of the valid ones' law from the language's, nats; about 0 or above."""
        return self.entropy - self.entropy_of_valid


def audit_samples(ids: Tensor, truth: Truth) -> AuditedSamples:
    """Judge samples ids [B, L].

    >>> from textdiff.data import Characters, SmallSudoku
    >>> grids = SmallSudoku()
    >>> truth = Truth(grids, Characters().build(grids))
    >>> found = audit_samples(truth.encode(list(grids.documents("test"))), truth)
    >>> found.valid, found.distinct, found.wrong
    (1.0, 288, 0.0)

    Raises:
        ValueError: if there is none.
    """
    if not len(ids):
        raise ValueError("there is no sample to judge: draw some")
    texts = truth.texts(ids)
    wrong = [truth.language.wrong(text) for text in texts]
    right = Counter(text for text, count in zip(texts, wrong, strict=True) if not count)
    n = right.total()
    law = torch.tensor(list(right.values())).double() / n
    plug_in = float(torch.special.entr(law).sum())
    correction = (len(right) - 1) / (2 * max(1, n))
    return AuditedSamples(
        samples=len(ids),
        valid=n / len(ids),
        wrong=sum(wrong) / len(ids),
        distinct=len(right),
        entropy_of_valid=plug_in + correction if n else math.nan,
        entropy=truth.entropy,
    )
