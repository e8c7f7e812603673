"""Sums of two numbers: a language of a few rules whose carries reach across a text."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .corpora import SPLITS, check_split
from .truth import KnownLanguage


@dataclass(frozen=True)
class Addition(KnownLanguage):
    """Sums of two numbers of `digits` digits, both uniform and independent: "07+05=012".

    Every 20th sum of a shuffled order (by `seed`) is for validation, every 20th for testing.

    >>> sums = Addition(2)
    >>> sums.wrong("07+05=012"), sums.wrong("07+05=013"), round(sums.entropy, 4)
    (0, 1, 9.2103)

    Args:
        digits: of each number, in 1..3.
        seed: of the order.
    """

    digits: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.digits <= 3:
            raise ValueError(f"digits must lie in 1..3, got {self.digits!r}: all sums are listed")

    @property
    def letters(self) -> int:
        """Two numbers, two signs and a sum of one digit more."""
        return 3 * self.digits + 3

    @property
    def entropy(self) -> float:
        """2 digits log 10."""
        return 2 * self.digits * math.log(10)

    def documents(self, split: str) -> Iterator[str]:
        """The sums of a split."""
        from ..noise import permutation

        check_split(split)
        base = 10**self.digits
        order = permutation(self.seed, 0, base**2).tolist()
        wanted = {"validation": (18,), "test": (19,)}.get(split, range(18))
        for place, number in enumerate(order):
            if place % 20 in wanted:
                yield self.text(*divmod(number, base))

    def text(self, a: int, b: int) -> str:
        """The sum of two numbers, with leading zeros."""
        n = self.digits
        return f"{a:0{n}d}+{b:0{n}d}={a + b:0{n + 1}d}"

    def wrong(self, text: str) -> int:
        """The digits of the sum that are wrong; all characters, of a text of another form."""
        n = self.digits
        found = re.fullmatch(rf"([0-9]{{{n}}})\+([0-9]{{{n}}})=([0-9]{{{n + 1}}})", text)
        if found is None:
            return max(self.letters, len(text))
        true = self.text(int(found[1]), int(found[2]))
        return sum(a != b for a, b in zip(text, true, strict=True))

    def provenance(self, split: str) -> dict[str, Any]:
        """How the sums were made, and the SHA-256 of the split's."""
        check_split(split)
        return {
            "corpus": self.name,
            "split": split,
            "source": f"all sums of two numbers of {self.digits} digits, shuffled by {self.seed}",
            "revision": f"18 of 20 {SPLITS[0]}",
            "sha256": hashlib.sha256("\n".join(self.documents(split)).encode()).hexdigest(),
        }
