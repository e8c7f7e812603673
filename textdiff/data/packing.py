"""Documents of token ids -> rows of exactly L tokens; EOS ends every document and fills short rows;
nothing is dropped.

- joined: documents one after the other, cut every L tokens; a row may hold several;
- separate: the same, with the number of documents that ended before each token, so that a call can
  leave out those that ended in its settled context (`maths.md` 10.2);
- single: one document a row, long ones cut into several rows, short ones filled.

Filler is learnt (scored like any token, but not counted) or ignored (nothing is drawn behind the
EOS of a row, 10.3).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .tokenising import smallest

Documents = Literal["joined", "separate", "single"]
Padding = Literal["learnt", "ignored"]
_ROWS = 256  # whose ended documents are counted at a time


@dataclass(frozen=True)
class Packed:
    """Rows of tokens: ids [n, L]; document [n, L], how many ended before in the row, if separate.

    False at filler, where there is any: valid [n, L] if it is ignored, counted [n, L] if learnt.
    """

    ids: np.ndarray
    document: np.ndarray | None = None
    valid: np.ndarray | None = None
    counted: np.ndarray | None = None

    @property
    def tokens(self) -> np.ndarray:
        """All but the filler, row after row."""
        real = self.counted if self.valid is None else self.valid
        return self.ids.reshape(-1) if real is None else self.ids[real]

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, rows: int | None) -> Packed:
        """The first rows, None for all."""
        return Packed(
            ids=self.ids[:rows],
            document=None if self.document is None else self.document[:rows],
            valid=None if self.valid is None else self.valid[:rows],
            counted=None if self.counted is None else self.counted[:rows],
        )


def ended_before(ids: np.ndarray, eos: int) -> np.ndarray:
    """How many EOS stand before each token in its row, [..., L].

    >>> ended_before(np.array([5, 0, 7, 0, 0]), eos=0).tolist()
    [0, 0, 1, 1, 2]
    """
    ends = ids == eos
    return (ends.cumsum(-1) - ends).astype(smallest(ids.shape[-1]))


def _ended_before(ids: np.ndarray, eos: int) -> np.ndarray:
    """As `ended_before` of rows [n, L], with room for a few of them only."""
    ended = np.empty(ids.shape, smallest(ids.shape[-1]))
    for begin in range(0, len(ids), _ROWS):
        ended[begin : begin + _ROWS] = ended_before(ids[begin : begin + _ROWS], eos)
    return ended


@dataclass(frozen=True)
class Cursor:
    """A place in a stream: pass number, rows made in it, and the next document with the next token
    inside it.
    """

    epoch: int = 0
    row: int = 0
    document: int = 0
    offset: int = 0


class StreamRow(NamedTuple):
    """A row of a stream: ids [L], how many documents ended before each [L], the number of tokens
    before the filler, and the place after it.
    """

    ids: np.ndarray
    document: np.ndarray
    filled: int
    after: Cursor


def pack(
    tokens: Iterable[np.ndarray], length: int, eos: int, documents: Documents, padding: Padding
) -> Packed:
    """Pack documents of ids (EOS appended) into rows of `length`.

    Raises ValueError for a length below 1, an unknown choice or no document at all.
    """
    whole = ((document, True) for document in tokens)
    return pack_pieces(whole, length, eos, documents, padding=padding)


def pack_pieces(
    tokens: Iterable[tuple[np.ndarray, bool]],
    length: int,
    eos: int,
    documents: Documents,
    *,
    padding: Padding,
) -> Packed:
    """As `pack`, from pieces of documents, each with whether a document ends there.

    A buffer grows, and becomes the rows: more of a corpus is never held.
    """
    check(length, documents, padding)
    flat = bytearray()
    fillers = array("q")  # where each begins, and where it ends
    end = 0  # of what is packed
    piece = np.empty(0, np.uint16)

    def fill() -> None:
        filler = -end % length
        if filler:
            flat.extend(np.full(filler, eos, piece.dtype).tobytes())
            fillers.extend((end, end + filler))

    for piece, ended in tokens:
        flat.extend(piece.tobytes())
        end += len(piece)
        if ended and documents == "single":
            fill()
            end = -(-end // length) * length
    if not flat:
        raise ValueError("no document to pack: the split is empty")
    fill()
    ids = np.frombuffer(flat, piece.dtype).reshape(-1, length)
    filled: np.ndarray | None = None
    if fillers:
        filled = np.ones(ids.shape, bool)
        for place in range(0, len(fillers), 2):
            filled.reshape(-1)[fillers[place] : fillers[place + 1]] = False
    return Packed(
        ids,
        document=_ended_before(ids, eos) if documents == "separate" else None,
        valid=filled if padding == "ignored" else None,
        counted=filled if padding == "learnt" else None,
    )


def pack_stream(
    tokens: Iterable[np.ndarray],
    length: int,
    eos: int,
    documents: Documents,
    start: Cursor = Cursor(),
) -> Iterator[StreamRow]:
    """The rows of `pack` from `start` on, one by one.

    `tokens` begins with document number `start.document`.
    """
    pieces: list[np.ndarray] = []
    last = 0
    room = length
    row = start.row

    def finish(document: int, offset: int) -> StreamRow:
        ids = np.concatenate([*pieces, np.full(room, eos, pieces[0].dtype)])
        after = Cursor(start.epoch, row, document, offset)
        return StreamRow(ids, ended_before(ids, eos), length - room, after)

    for index, document in enumerate(tokens, start.document):
        offset = start.offset if index == start.document else 0
        while offset < len(document):
            piece = document[offset : offset + room]
            pieces.append(piece)
            last = index
            room -= len(piece)
            offset += len(piece)
            ended = offset == len(document)
            if room == 0 or (ended and documents == "single"):
                row += 1
                yield finish(index + ended, 0 if ended else offset)
                pieces = []
                room = length
    if pieces:
        row += 1
        yield finish(last + 1, 0)


def check(length: int, documents: str, padding: str) -> None:
    """Raise ValueError for a length below 1 or an unknown choice of `documents` or `padding`."""
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    if documents not in ("joined", "separate", "single"):
        raise ValueError(f"documents must be joined, separate or single, got {documents!r}")
    if padding not in ("learnt", "ignored"):
        raise ValueError(f"padding must be learnt or ignored, got {padding!r}")
