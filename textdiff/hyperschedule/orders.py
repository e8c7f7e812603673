"""Orders of the cells of a grid, for `StartSteps.in_order`: which of them goes first.

Of 4 x 4 cells, the number at which each goes:

    raster   0  1  2  3    by_scale   0  4  1  5    halton   0  4 13  8
             4  5  6  7               6  7  8  9             6 10  2 11
             8  9 10 11               2 10  3 11             9  1 15  5
            12 13 14 15              12 13 14 15             3 12  7 14
"""

from __future__ import annotations

from itertools import count


def raster(height: int, width: int) -> tuple[int, ...]:
    """Row by row, each from left to right: the cells of a grid, cell = row * width + column.

    >>> raster(2, 2)
    (0, 1, 2, 3)
    """
    _check(height, width)
    return tuple(range(height * width))


def by_scale(height: int, width: int) -> tuple[int, ...]:
    """Coarse to fine: first the cells whose row and column are multiples of the largest power of
    two, then of half of it, to those of one; row by row within a scale.

    >>> by_scale(2, 4)
    (0, 2, 1, 3, 4, 5, 6, 7)
    """
    _check(height, width)
    stride = 1 << max(height - 1, width - 1).bit_length()

    def scale(cell: int) -> int:
        both = cell // width | cell % width
        return both & -both or stride

    return tuple(sorted(raster(height, width), key=lambda cell: (-scale(cell), cell)))


def halton(height: int, width: int) -> tuple[int, ...]:
    """Spread evenly at any time: the cells in the order in which the Halton sequence of the bases 2
    (rows) and 3 (columns) first comes to them (arXiv 2503.17076).

    >>> halton(2, 3)
    (0, 4, 2, 3, 1, 5)
    """
    _check(height, width)
    order: dict[int, None] = {}
    numbers = count()
    while len(order) < height * width:
        n = next(numbers)
        row, column = int(height * _radical(n, 2)), int(width * _radical(n, 3))
        order.setdefault(row * width + column)
    return tuple(order)


def _radical(n: int, base: int) -> float:
    """The digits of n behind the point, the last first."""
    value, share = 0.0, 1.0
    while n:
        share /= base
        n, digit = divmod(n, base)
        value += digit * share
    return value


def _check(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"a grid has at least one row and one column, got {height} x {width}")
