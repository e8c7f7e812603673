import tracemalloc

import numpy as np
import pytest

from textdiff.data import pack, pack_stream
from textdiff.data.packing import Cursor

EOS = 9
CHOICES = [(d, p) for d in ("joined", "separate", "single") for p in ("learnt", "ignored")]


def documents(*sizes):
    """Documents of the given sizes, EOS included; token values tell the document."""
    return [np.array([i + 1] * (size - 1) + [EOS], np.uint16) for i, size in enumerate(sizes)]


def test_joined():
    packed = pack(documents(3, 4, 2), 4, EOS, "joined", "learnt")
    assert packed.ids.tolist() == [[1, 1, 9, 2], [2, 2, 9, 3], [9, 9, 9, 9]]
    assert packed.document is None and packed.valid is None and packed.ids.dtype == np.uint16
    assert packed.counted.tolist() == [[True] * 4, [True] * 4, [True, False, False, False]]
    packed = pack(documents(3, 4, 2), 4, EOS, "joined", "ignored")
    assert packed.valid.tolist() == [[True] * 4, [True] * 4, [True, False, False, False]]
    assert pack(documents(4, 4), 4, EOS, "joined", "ignored").valid is None


def test_separate():
    packed = pack(documents(3, 4, 2), 4, EOS, "separate", "learnt")
    assert packed.ids.tolist() == [[1, 1, 9, 2], [2, 2, 9, 3], [9, 9, 9, 9]]
    assert packed.document.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 2, 3]]


def test_single():
    packed = pack(documents(3, 6, 4), 4, EOS, "single", "ignored")
    assert packed.ids.tolist() == [[1, 1, 9, 9], [2, 2, 2, 2], [2, 9, 9, 9], [3, 3, 3, 9]]
    assert packed.valid.sum(1).tolist() == [3, 4, 2, 4]
    assert pack(documents(3, 6, 4), 4, EOS, "single", "learnt").valid is None


@pytest.mark.parametrize("choice, padding", CHOICES)
@pytest.mark.parametrize("length", [1, 3, 7, 50])
def test_nothing_is_dropped_and_a_stream_gives_the_same_rows_from_any_place(
    choice, padding, length
):
    rng = np.random.default_rng(length)
    pieces = [
        np.append(rng.integers(0, 9, size), EOS).astype(np.uint16)
        for size in rng.integers(0, 12, 20)
    ]
    packed = pack(pieces, length, EOS, choice, padding)
    rows = list(pack_stream(pieces, length, EOS, choice))
    assert np.array_equal([row[0] for row in rows], packed.ids)
    valid = np.arange(length) < np.array([row[2] for row in rows])[:, None]
    assert packed.valid is None or np.array_equal(valid, packed.valid)
    assert packed.counted is None or np.array_equal(valid, packed.counted)
    assert np.array_equal(packed.tokens, np.concatenate(pieces))
    assert np.array_equal(packed.ids[valid], np.concatenate(pieces))
    if packed.document is not None:
        numbers = np.array([row[1] for row in rows])
        assert np.array_equal(numbers, packed.document)
    for done, row in enumerate(rows, 1):
        place = row[3]
        rest = list(pack_stream(pieces[place.document :], length, EOS, choice, place))
        assert place.row == done
        assert [r[0].tolist() for r in rest] == packed.ids[done:].tolist()


def test_document_numbers_keep_documents_apart():
    packed = pack(documents(5, 2, 2, 8), 6, EOS, "separate", "learnt")
    for ids, document in zip(packed.ids, packed.document, strict=True):
        for number in range(document.max() + 1):
            inside = ids[document == number]
            assert len(set(inside) - {EOS}) <= 1
    assert packed.document.max() == 2


def test_errors_and_types():
    with pytest.raises(ValueError, match="no document"):
        pack([], 4, EOS, "joined", "learnt")
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        pack(documents(3), 0, EOS, "joined", "learnt")
    with pytest.raises(ValueError, match="got 'glued'"):
        pack(documents(3), 4, EOS, "glued", "learnt")
    with pytest.raises(ValueError, match="got 'dropped'"):
        pack(documents(3), 4, EOS, "joined", "dropped")
    assert list(pack_stream([], 4, EOS, "joined", Cursor())) == []


@pytest.mark.parametrize("documents", ["joined", "separate", "single"])
@pytest.mark.parametrize("size", [6, 700])
@pytest.mark.parametrize("padding", ["learnt", "ignored"])
def test_packing_holds_a_corpus_once(documents, size, padding):
    """At most 1.3 times what comes out; lists of documents, and copies, would be several times
    that.
    """
    corpus = (np.append(np.arange(size, dtype=np.uint16), np.uint16(0)) for _ in range(1 << 14))
    tracemalloc.start()
    try:
        packed = pack(corpus, 128, 0, documents, padding)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    result = sum(column.nbytes for column in vars(packed).values() if column is not None)
    assert peak < 1.3 * result + (1 << 20)  # a few rows at a time
