"""Packed rows -> batches. A batch is a pure function of its number, so order, resume and world size
cannot disagree.

A batch is a dict: ids [b, L], example [b] (the row's name for the noise), slot [b] (its number in
the order of the whole run), all int64, and where needed valid [b, L] bool and document [b, L]
int64; b is one rank's share of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..noise import permutation
from .packing import Packed

Rows = dict[str, Tensor]
"""A batch, as above."""


def share(count: int, rank: int, world_size: int) -> slice:
    """A rank's contiguous part of the `count` rows of a global batch; parts differ by at most one
    row.
    """
    return slice(count * rank // world_size, count * (rank + 1) // world_size)


class TrainBatches(Dataset[Rows]):
    """Batch number g of a run: rows of epoch g // len(self), in the order `permutation(seed, epoch,
    n)`.

    The rows at the end of an epoch's order that do not fill a batch are left out of that epoch.

    Raises ValueError if the rows do not fill one global batch.
    """

    def __init__(
        self, packed: Packed, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if len(packed) < batch_size:
            raise ValueError(
                f"the train split has only {len(packed)} rows of {packed.ids.shape[1]} tokens, "
                f"fewer than a batch of {batch_size}: lower batch_size or length, or use more text"
            )
        self.packed = packed
        self.batch_size = batch_size
        self.seed = seed
        self.share = share(batch_size, rank, world_size)
        self.epoch = -1
        self.order = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        """Batches in an epoch; numbers beyond it are those of later epochs."""
        return len(self.packed) // self.batch_size

    def __getitem__(self, number: int) -> Rows:
        epoch, within = divmod(number, len(self))
        if epoch != self.epoch:  # the order is remembered because it costs a sort
            self.epoch = epoch
            self.order = permutation(self.seed, epoch, len(self.packed))
        size = self.batch_size
        rows = self.order[within * size : (within + 1) * size]
        slots = torch.arange(number * size, (number + 1) * size)
        return take(self.packed, rows[self.share], slots[self.share])


class EvalBatches(Dataset[Rows]):
    """Every row once over all ranks, in order.

    What is left at the end is a short batch, or joins the one before if it is less than half of
    one: so every rank has the same number of batches, none empty, and a limit on their number means
    the same rows on any number of ranks up to half a batch. Raises ValueError if there are fewer
    rows than ranks.
    """

    def __init__(self, packed: Packed, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        n = len(packed)
        if n < world_size:
            raise ValueError(
                f"only {n} rows for {world_size} ranks: evaluate on fewer devices or use more text"
            )
        self.packed = packed
        self.rank = rank
        self.world_size = world_size
        self.ends = [*range(batch_size, n, batch_size), n]
        if len(self.ends) > 1 and n - self.ends[-2] < max(world_size, batch_size // 2):
            del self.ends[-2]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> Rows:
        if number >= len(self.ends):
            raise IndexError(number)
        begin = self.ends[number - 1] if number else 0
        rows = torch.arange(begin, self.ends[number])
        rows = rows[share(len(rows), self.rank, self.world_size)]
        return take(self.packed, rows, rows)


def take(packed: Packed, rows: Tensor, slots: Tensor) -> Rows:
    """The rows [b] of a packed split as a batch."""
    index = rows.numpy()
    batch = {"ids": _int64(packed.ids[index]), "example": rows, "slot": slots}
    if packed.valid is not None:
        batch["valid"] = torch.from_numpy(packed.valid[index])
    if packed.counted is not None:
        batch["counted"] = torch.from_numpy(packed.counted[index])
    if packed.document is not None:
        batch["document"] = _int64(packed.document[index])
    return batch


def _int64(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


class Onwards(Sampler[int]):
    """Batch numbers from `start()` on, asked again for every pass, always a full epoch of them.

    After a resume in mid-epoch the trainer takes only what is left of its epoch; the next pass asks
    again.
    """

    def __init__(self, start: Callable[[], int], count: int) -> None:
        self.start = start
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        start = self.start()
        return iter(range(start, start + self.count))


class TrainLoader(DataLoader[Rows]):
    """A DataLoader of whole batches that tells Lightning it is resumable; its place is the
    trainer's own count.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the number of processed batches is already in every checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def loader(
    batches: TrainBatches | EvalBatches, num_workers: int, start: Callable[[], int] | None = None
) -> DataLoader[Rows]:
    """A DataLoader over whole batches; with `start` (the number of the first batch) it is for
    training.
    """
    options: dict[str, Any] = {
        "batch_size": None,
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
        # else each pass would draw a seed from torch's global generator
        "generator": torch.Generator(),
    }
    if start is None:
        return DataLoader(batches, **options)
    return TrainLoader(batches, sampler=Onwards(start, len(batches)), **options)
