"""Batches of a corpus that is read as training goes, resumable at the exact token.

Every rank reads and packs the whole stream and keeps its share; the order is the stream's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from .corpora import Corpus
from .loading import Rows, share, take
from .packing import Cursor, Documents, Packed, Padding, StreamRow, pack_stream
from .tokenising import tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_REMEMBERED = 8  # Lightning fetches one batch ahead of the one it trains on


@dataclass
class StreamBatches(IterableDataset[tuple[Rows, tuple[int, ...]]]):
    """One pass over the train split from `cursor` on: (batch, place after it); an incomplete last
    batch is left out.
    """

    corpus: Corpus
    tokenizer: PreTrainedTokenizerFast
    length: int
    batch_size: int
    documents: Documents
    padding: Padding
    rank: int = 0
    world_size: int = 1
    number: int = 0  # of the first batch
    cursor: Cursor = Cursor()  # noqa: RUF009 (frozen)

    def __iter__(self) -> Iterator[tuple[Rows, tuple[int, ...]]]:
        number = self.number
        texts = islice(self.corpus.documents("train"), self.cursor.document, None)
        tokens = tokenise(self.tokenizer, texts)
        eos = self.tokenizer.eos_token_id
        rows = pack_stream(tokens, self.length, eos, self.documents, start=self.cursor)
        while len(group := list(islice(rows, self.batch_size))) == self.batch_size:
            yield self._batch(group, number), astuple(group[-1].after)
            number += 1

    def _batch(self, group: list[StreamRow], number: int) -> Rows:
        packed = Packed(np.stack([row.ids for row in group]))
        if self.documents == "separate":
            packed = replace(packed, document=np.stack([row.document for row in group]))
        filled = np.array([row.filled for row in group])
        real = np.arange(self.length) < filled[:, None]
        if self.padding == "ignored":
            packed = replace(packed, valid=real)
        elif not real.all():
            packed = replace(packed, counted=real)
        part = share(self.batch_size, self.rank, self.world_size)
        places = torch.arange(self.batch_size)[part]
        batch = take(packed, places, places)
        batch["example"] = torch.tensor([row.after.row - 1 for row in group])[part]
        batch["slot"] += number * self.batch_size
        return batch


class StreamLoader(DataLoader[Any]):
    """Passes over a stream, each from the place after the last processed batch.

    `start()` is the number of processed batches; `places` maps such a number to the place after
    that batch. Raises ValueError if a whole pass does not fill one batch.
    """

    def __init__(
        self,
        batches: StreamBatches,
        start: Callable[[], int],
        places: dict[int, Cursor],
        background: bool,
    ) -> None:
        # One worker at most: two would each read the whole stream.
        super().__init__(
            batches,
            batch_size=None,
            num_workers=int(background),
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )
        self.batches = batches
        self.start = start
        self.places = places

    def __iter__(self) -> Any:
        number = start = self.start()
        if number and number not in self.places:
            warnings.warn(
                "the checkpoint has no place in this stream: it starts from the beginning",
                stacklevel=2,
            )
        cursor = self.places.setdefault(number, Cursor())
        while number == start:  # a pass of which too little is left is followed by the next
            self.batches.number = number
            self.batches.cursor = cursor
            for batch, place in super().__iter__():
                number += 1
                self._remember(number, Cursor(*place))
                yield batch
            if number == start and cursor == Cursor(cursor.epoch):
                raise ValueError(
                    f"the train split of {self.batches.corpus.name} does not fill a batch of "
                    f"{self.batches.batch_size} rows of {self.batches.length} tokens: lower "
                    "batch_size or length, or use more text"
                )
            cursor = Cursor(cursor.epoch + 1)
            self._remember(number, cursor)

    def _remember(self, number: int, place: Cursor) -> None:
        self.places[number] = place
        for old in [n for n in self.places if n < number - _REMEMBERED]:
            del self.places[old]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the data module keeps the place."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
