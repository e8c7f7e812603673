"""Orders of grids, as start steps: each cell once, coarse ones first, spread at any time."""

import pytest

from textdiff.hyperschedule import StartSteps, orders
from textdiff.hyperschedule.orders import by_scale, halton, raster

SHAPES = [(1, 1), (4, 4), (3, 5), (8, 8), (16, 16), (1, 7)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("order", [raster, by_scale, halton])
def test_each_cell_goes_once(order, shape):
    cells = order(*shape)
    assert sorted(cells) == list(range(shape[0] * shape[1]))
    plan = StartSteps.in_order(cells, group=3, levels=2).plan(len(cells))
    groups = [set(cells[begin : begin + 3]) for begin in range(0, len(cells), 3)]
    found = [
        set(plan.position[plan.settled(k + 1 - 1) : plan.settled(k + 1)].tolist())
        for k in range(1, plan.calls, 2)
    ]
    assert found == groups


def test_the_pictures_of_the_page():
    def numbers(order):
        cells = order(4, 4)
        return [[cells.index(4 * row + column) for column in range(4)] for row in range(4)]

    lines = (orders.__doc__ or "").splitlines()
    rows = [
        [int(word) for word in line.split() if word.isdecimal()] for line in lines if "  " in line
    ]
    rows = [row for row in rows if len(row) == 12]
    for part, order in enumerate((raster, by_scale, halton)):
        assert [row[4 * part : 4 * part + 4] for row in rows] == numbers(order)


def test_halton_leaves_no_large_gap():
    """After a quarter of the cells, every 4 x 4 patch of 16 x 16 has some."""
    first = halton(16, 16)[:64]
    patches = {(cell // 16 // 4, cell % 16 // 4) for cell in first}
    assert len(patches) == 16


def test_a_grid_has_cells():
    with pytest.raises(ValueError, match="0 x 3"):
        halton(0, 3)
