"""Languages whose truth is known: their laws by enumeration, and what their checkers find."""

import math
from itertools import product

import pytest
import torch

from textdiff.data import Addition, Characters, SmallSudoku, TextData, Truth


def truth(language):
    return Truth(language, Characters().build(language))


def test_the_grids_are_those_of_all_fillings_without_a_clash():
    """By another way: cell by cell, each digit that clashes with none before it."""

    def fillings(cells):
        if len(cells) == 16:
            yield "".join(cells)
            return
        place = len(cells)
        for digit in "1234":
            row, column = divmod(place, 4)
            clash = any(
                cells[other] == digit
                and (
                    other // 4 == row
                    or other % 4 == column
                    or (other // 8, other % 4 // 2) == (place // 8, column // 2)
                )
                for other in range(place)
            )
            if not clash:
                yield from fillings([*cells, digit])

    grids = list(SmallSudoku().documents("train"))
    assert sorted(fillings([])) == sorted(grids)
    assert SmallSudoku().entropy == pytest.approx(math.log(288))


def test_every_grid_and_no_neighbour_of_one_is_valid():
    grids = truth(SmallSudoku())
    ids = grids.encode(list(SmallSudoku().documents("test")))
    assert grids.valid(ids).all()
    other = ids.clone()
    other[:, 5] = torch.where(ids[:, 5] == ids.min(), ids.max(), ids[:, 5] - 1)
    assert not grids.valid(other).any()
    assert (grids.wrong(other) >= 2).all()  # the cell itself, and whom it clashes with


def test_sums_are_right_and_add_up_to_one():
    sums = Addition(1)
    known = truth(sums)
    every = ["".join(text) for text in product("059", "+=", "59", "=", "01", "04")]
    for text in every:
        a, sign, b, _, tens, ones = text
        right = sign == "+" and int(a) + int(b) == int(tens + ones)
        assert (sums.wrong(text) == 0) == right
    splits = [text for split in ("train", "validation", "test") for text in sums.documents(split)]
    assert len(set(splits)) == len(splits) == 100
    assert known.log_prob(known.encode(splits)).exp().sum() == pytest.approx(1.0)
    assert sums.entropy == pytest.approx(math.log(100))


@pytest.mark.parametrize("language", [SmallSudoku(), Addition(2)], ids=str)
def test_texts_that_do_not_belong_have_no_probability(language):
    known = truth(language)
    text = next(language.documents("train"))
    for other in ("", text[:-1], text + text[-1], text[::-1] + "4", text[:-1] + "\ufffd"):
        assert language.wrong(other) > 0, other
        assert language.log_prob(other) == -math.inf
    ended = torch.cat((known.encode([text]), torch.zeros(1, 2, dtype=torch.int64)), 1)
    assert known.valid(ended).all()  # what stands behind EOS is none of it


def test_other_lengths_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="3 tokens, a text of SmallSudoku 16"):
        truth(SmallSudoku()).encode(["123"])
    with pytest.raises(ValueError, match=r"digits must lie in 1\.\.3, got 4"):
        Addition(4)


def test_rows_of_training_are_whole_texts():
    data = TextData(SmallSudoku(), Characters(), length=17, batch_size=8)
    data.setup("fit")
    ids = torch.from_numpy(data.packed("train").ids.astype("int64"))
    assert len(ids) == 288
    assert Truth(SmallSudoku(), data.tokenizer).valid(ids).all()
