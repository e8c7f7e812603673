"""Several corpora as one, in stated shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .corpora import Corpus, check_split


@dataclass(frozen=True)
class Mixture(Corpus):
    """Documents of several corpora, so that each has its share of the text.

        >>> from textdiff.data import TinyShakespeare
        >>> mixed = Mixture([TinyShakespeare(), TinyShakespeare()], weights=[3, 1])
        >>> mixed.name
        'TinyShakespeare 0.75 + TinyShakespeare 0.25'

    The next document is of the corpus that has least of its share so far, counted in characters; it
    ends where that corpus does, so that the shares hold to the end. Always the same documents in
    the same order.

    Args:
        corpora: two or more.
        weights: one for each, > 0; shares are weights over their sum.
    """

    corpora: tuple[Corpus, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "corpora", tuple(self.corpora))
        object.__setattr__(self, "weights", tuple(self.weights))
        if len(self.corpora) < 2 or len(self.weights) != len(self.corpora):
            raise ValueError(
                f"a mixture has two or more corpora and a weight for each, got "
                f"{len(self.corpora)} corpora and {len(self.weights)} weights"
            )
        if bad := [w for w in self.weights if not 0 < w < float("inf")]:
            raise ValueError(f"weights must be > 0, got {bad[0]!r}: leave the corpus out")

    @property
    def name(self) -> str:
        """The names of all, with their shares."""
        whole = sum(self.weights)
        parts = zip(self.corpora, self.weights, strict=True)
        return " + ".join(f"{corpus.name} {weight / whole:.3g}" for corpus, weight in parts)

    def documents(self, split: str) -> Iterator[str]:
        """The documents of a split of all, mixed."""
        check_split(split)
        readers = [corpus.documents(split) for corpus in self.corpora]
        had = [0.0] * len(readers)
        while True:
            due = min(range(len(readers)), key=lambda n: had[n] / self.weights[n])
            document = next(readers[due], None)
            if document is None:
                return
            had[due] += max(len(document), 1)
            yield document

    def provenance(self, split: str) -> dict[str, Any]:
        """Where all are from, and the weights."""
        check_split(split)
        parts = [corpus.provenance(split) for corpus in self.corpora]
        return {"corpus": self.name, "split": split, "parts": parts, "weights": list(self.weights)}
