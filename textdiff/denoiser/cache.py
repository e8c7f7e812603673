"""Keys and values of settled rows: what a network need not compute again (`maths.md` 6)."""

from __future__ import annotations

from torch import Tensor


class Cache:
    """Keys and values of the context rows fed so far, in buffers allocated once; rows of a window
    are scratch behind them.

    Args:
        capacity: rows that are alive at a time, context and window.
    """

    def __init__(self, capacity: int):
        self.capacity, self.length = capacity, 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the fed rows k, v [B, H, R, D/H] of a layer behind the stored ones -> all of them,
        [B, H, length + R, D/H].
        """
        if layer not in self._layers:
            self._layers[layer] = tuple(
                x.new_empty(*x.shape[:2], self.capacity, x.shape[3]) for x in (k, v)
            )
        keys, values = self._layers[layer]
        end = self.length + k.shape[2]
        keys[:, :, self.length : end], values[:, :, self.length : end] = k, v
        return keys[:, :, :end], values[:, :, :end]

    def commit(self, rows: int) -> None:
        """Keep the first `rows` of those fed last; the next call's rows are written behind them."""
        self.length += rows

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows of the batch only; rows [n]."""
        self._layers = {layer: tuple(x[rows] for x in pair) for layer, pair in self._layers.items()}

    def some(self, rows: Tensor) -> Cache:
        """The stored rows of some sequences of the batch, for one call that stores nothing."""
        chosen = Cache(self.capacity)
        chosen.length = self.length
        chosen._layers = {
            layer: tuple(x[rows] for x in pair) for layer, pair in self._layers.items()
        }
        return chosen
