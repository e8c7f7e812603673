"""Measured: a bound's estimate on some text."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from .curve import Curve


@dataclass(frozen=True)
class Measured:
    """A bound on -log p(text), as an estimate.

    Args:
        name: which bound.
        process: whose.
        hyperschedule: under which schedule.
        estimator: "exact chain rule", or how times or orders were drawn.
        nats: all of them, those of filler too, per token of the text; the EOS that ends a document
            is one, a BOS and filler are none.
        standard_error: of `nats`, Monte Carlo, for this text.
        draws: noisy versions, or orders, of each sequence.
        sequences, tokens: that were scored.
        text_bytes: UTF-8 bytes of the text that the scored tokens stand for, in which EOS has none;
            None if not known.
        rows_of_error: how many rows the error rests on, (Σ v)²/Σ v² of their variances v: about a
            third of them if the draws are normal; if far fewer, tails are heavy and the error may
            be too small.
        by_position, by_level: where the nats are; the prior term and an atom's reconstruction are
            in both.

    >>> eighth = Measured("NELBO", "Absorbing()", "Flat(64)", "", math.log(8), 0.0, 8, 1, 128)
    >>> eighth.bits, round(eighth.perplexity, 6)
    (3.0, 8.0)
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
    rows_of_error: float | None = None
    by_position: Curve | None = None
    by_level: Curve | None = None

    @property
    def is_rough(self) -> bool:
        """Whether the standard error may be too small: of 8 rows or more it rests on less than an
        eighth.
        """
        rests = self.rows_of_error
        return rests is not None and self.sequences >= 8 and 8 * rests < self.sequences

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
