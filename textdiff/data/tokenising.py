"""Texts -> token ids, in groups of bounded memory: an encoding takes about 100 times the memory of
its ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from .tokenizers import num_tokens_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_GROUP = 512  # pieces tokenised by one call,
_GROUP_CHARACTERS = 1 << 18  # or fewer if they have so many characters
_LONG = 1 << 18  # a document of more characters is tokenised in pieces
_AROUND = 200  # characters on each side of a cut that are compared with and without it
_TRIES = 50  # line ends tried for each cut


def smallest(size: int) -> type[np.uint16] | type[np.int32]:
    """The leanest integer type for values 0..size-1."""
    return np.uint16 if size <= 1 << 16 else np.int32


def tokenise(
    tokenizer: PreTrainedTokenizerFast, documents: Iterable[str], progress: str | None = None
) -> Iterator[np.ndarray]:
    """The ids [l] of each document with EOS appended, in the leanest type; `progress` names a bar
    shown after 3 s.
    """
    parts: list[np.ndarray] = []
    for ids, ended in pieces(tokenizer, documents, progress):
        parts.append(ids)
        if ended:
            yield np.concatenate(parts)
            parts = []


def pieces(
    tokenizer: PreTrainedTokenizerFast, documents: Iterable[str], progress: str | None = None
) -> Iterator[tuple[np.ndarray, bool]]:
    """As `tokenise`, a long document in several pieces, each with whether a document ends there."""
    from tqdm import tqdm

    backend = tokenizer.backend_tokenizer
    dtype = smallest(num_tokens_of(tokenizer))
    backend.no_truncation()  # some tokenizer.json ask for it; nothing may be dropped
    backend.no_padding()

    def encode(texts: list[str]) -> list[list[int]]:
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    texts = (piece for document in documents for piece in _pieces(document, encode))
    end = [tokenizer.eos_token_id]
    with tqdm(
        desc=progress, delay=3, unit=" characters", unit_scale=True, disable=progress is None
    ) as bar:
        for group in _groups(texts):
            encoded = encode([text for text, _ in group])
            for (_, last), ids in zip(group, encoded, strict=True):
                yield np.array(ids + end if last else ids, dtype), last
            bar.update(sum(len(text) for text, _ in group))


def _groups(pieces: Iterator[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    group = []
    characters = 0
    for piece in pieces:
        group.append(piece)
        characters += len(piece[0])
        if len(group) == _GROUP or characters >= _GROUP_CHARACTERS:
            yield group
            group = []
            characters = 0
    if group:
        yield group


def _pieces(
    text: str, encode: Callable[[list[str]], list[list[int]]]
) -> Iterator[tuple[str, bool]]:
    """A document in pieces whose tokens together are those of the whole, and which is the last."""
    begin = 0
    while len(text) - begin > _LONG:
        cut = _cut(text, begin + _LONG, encode)
        if cut is None:
            break
        yield text[begin:cut], False
        begin = cut
    yield text[begin:], True


def _cut(text: str, start: int, encode: Callable[[list[str]], list[list[int]]]) -> int | None:
    """The first place at a line end from `start` on where a cut leaves the tokens around it as they
    are, if any.
    """
    line_end = start - 1
    for _ in range(_TRIES):
        line_end = text.find("\n", line_end + 1)
        if line_end < 0:
            return None
        for cut in (line_end + 1, line_end):
            left = text[max(cut - _AROUND, 0) : cut]
            right = text[cut : cut + _AROUND]
            whole, first, second = encode([left + right, left, right])
            if right and first + second == whole:
                return cut
    return None
