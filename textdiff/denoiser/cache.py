"""Keys and values of settled rows: what a network need not compute again (`maths.md` 6)."""

from __future__ import annotations

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
