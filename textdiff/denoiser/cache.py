"""Keys and values of settled rows: what a network need not compute again (`maths.md` 6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Cache:
    """Keys and values of the context rows fed so far, in buffers allocated once.

        | stored: `length` rows | fed last | free |        `capacity` rows in all

    `commit` keeps the first of those fed last; the rest, a window's, is written over.

    Args:
        capacity: rows that are alive at a time, context and window.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.length = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the fed rows k, v [B, H, R, D/H] of a layer behind the stored ones.

        Returns:
            All keys and all values, [B, H, length + R, D/H].
        """
        if layer not in self._layers:
            shape = (*k.shape[:2], self.capacity, k.shape[3])
            self._layers[layer] = (k.new_empty(shape), v.new_empty(shape))
        keys, values = self._layers[layer]
        end = self.length + k.shape[2]
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]

    def commit(self, rows: int) -> None:
        """Keep the first `rows` of those fed last; the next call's rows are written behind them."""
        self.length += rows

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows of the batch only; rows [n]."""
        self._layers = self._of(rows)

    def some(self, rows: Tensor) -> Cache:
        """The stored rows of some sequences of the batch, for one call that stores nothing."""
        chosen = Cache(self.capacity)
        chosen.length = self.length
        chosen._layers = self._of(rows)
        return chosen

    def _of(self, rows: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        return {layer: (k[rows], v[rows]) for layer, (k, v) in self._layers.items()}


class Store:
    """Keys and values of sequences that do not go together: a place for each, with a length of its
    own, in buffers allocated once.

    Args:
        places: the most sequences at a time.
        capacity: rows of each that are alive at a time, context and window.
    """

    def __init__(self, places: int, capacity: int):
        self.shape = (places, capacity)
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def layer(self, number: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, [places, H, capacity, D/H] each, for rows `like` [B, H, R,
        D/H].
        """
        if number not in self._layers:
            places, capacity = self.shape
            shape = (places, like.shape[1], capacity, like.shape[3])
            # zeros: no row sees what was never written, but 0 times nan is nan
            self._layers[number] = (like.new_zeros(shape), like.new_zeros(shape))
        return self._layers[number]


class Part(Cache):
    """The places of a `Store` that take part in one call.

        |            stored rows, up to `length` of the longest             | fed |
        | what a shorter one has not is masked by the call that is made (`mixed_rows.py`) |

    Args:
        store: where the rows live.
        places: [B] the place of each sequence of the call.
        stored: [B] rows that each has there.
        kept: [B] which of its fed columns stay, in order.
    """

    def __init__(
        self,
        store: Store,
        places: Sequence[int],
        stored: Sequence[int],
        kept: Sequence[Sequence[int]],
    ):
        super().__init__(store.shape[1])
        self.store = store
        self.places = torch.tensor(places)
        self.length = max(stored)
        self._run = _run(places, stored, kept)
        if self._run is not None:
            return
        stays = [
            (b, column, stored[b] + j)
            for b, columns in enumerate(kept)
            for j, column in enumerate(columns)
        ]
        self._row, self._fed, self._at = torch.tensor(stays).view(-1, 3).long().unbind(1)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store what stays of the fed rows k, v [B, H, R, D/H] of a layer.

        Returns:
            The keys and the values of all stored and fed rows, [B, H, length + R, D/H].
        """
        put = self._join if self._run is None else self._append
        keys, values = (put(*pair) for pair in zip(self.store.layer(layer, k), (k, v), strict=True))
        return keys, values

    def commit(self, rows: int) -> None:
        """Nothing: what stays has been stored."""

    def _append(self, buffer: Tensor, fed: Tensor) -> Tensor:
        """In place, without a copy: the places are neighbours, and their clocks agree."""
        end = self.length + fed.shape[2]
        buffer[self._run, :, self.length : end] = fed
        return buffer[self._run, :, :end]

    def _join(self, buffer: Tensor, fed: Tensor) -> Tensor:
        stored = buffer[self.places, :, : self.length]
        if len(self._row):
            buffer[self.places[self._row], :, self._at] = fed[self._row, :, self._fed]
        return torch.cat([stored, fed], 2)


def _run(
    places: Sequence[int], stored: Sequence[int], kept: Sequence[Sequence[int]]
) -> slice | None:
    """The places as a slice, if they are neighbours of as many stored rows each, of which the fed
    ones that stay come first; None if not.
    """
    first, count = places[0], len(places)
    alike = len(set(stored)) == 1 and all(list(one) == list(range(len(one))) for one in kept)
    neighbours = list(places) == list(range(first, first + count))
    return slice(first, first + count) if alike and neighbours else None
