"""Sudoku of 4 x 4 cells: all 288 grids, equally likely."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import Any

from .corpora import check_split
from .truth import KnownLanguage

SIDE = 4
DIGITS = "1234"


@dataclass(frozen=True)
class SmallSudoku(KnownLanguage):
    """The grids of 4 x 4 cells in which every row, column and box of 2 x 2 holds 1 to 4; a text is
    a grid, row by row. Each split is the whole language.

    >>> grids = list(SmallSudoku().documents("train"))
    >>> len(grids), grids[0], SmallSudoku().wrong(grids[0])
    (288, '1234341221434321', 0)
    """

    @property
    def letters(self) -> int:
        """16 cells."""
        return SIDE * SIDE

    @property
    def entropy(self) -> float:
        """log 288."""
        return math.log(len(_grids()))

    def documents(self, split: str) -> Iterator[str]:
        """All grids, in the order of their digits."""
        check_split(split)
        return iter(_grids())

    def wrong(self, text: str) -> int:
        """The cells whose digit stands in their row, column or box once more, or is none."""
        cells = text[: self.letters].ljust(self.letters)
        clashes = sum(
            cell not in DIGITS or any(cells[other] == cell for other in _PEERS[place])
            for place, cell in enumerate(cells)
        )
        return clashes + max(0, len(text) - self.letters)

    def provenance(self, split: str) -> dict[str, Any]:
        """That it is enumerated, and the SHA-256 of all grids."""
        check_split(split)
        return {
            "corpus": self.name,
            "split": "the whole language",
            "source": "enumerated",
            "revision": "embedded",
            "sha256": hashlib.sha256("\n".join(_grids()).encode()).hexdigest(),
        }


def _together(a: int, b: int) -> bool:
    """Whether two cells share a row, a column or a box."""
    (row, column), (other_row, other_column) = divmod(a, SIDE), divmod(b, SIDE)
    box = (row // 2, column // 2) == (other_row // 2, other_column // 2)
    return row == other_row or column == other_column or box


_PEERS = [
    [other for other in range(SIDE**2) if other != place and _together(place, other)]
    for place in range(SIDE**2)
]


@cache
def _grids() -> tuple[str, ...]:
    rows = ["".join(row) for row in permutations(DIGITS)]
    found = []
    for four in product(rows, repeat=SIDE):
        columns = all(len(set(column)) == SIDE for column in zip(*four, strict=True))
        boxes = all(
            len({*four[top][left : left + 2], *four[top + 1][left : left + 2]}) == SIDE
            for top in (0, 2)
            for left in (0, 2)
        )
        if columns and boxes:
            found.append("".join(four))
    return tuple(found)
