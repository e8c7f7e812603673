"""Sequences whose clocks differ, each with keys of its own: nothing is copied, nothing masked that
no sequence needs masked.

    a    stored stored stored new | window window          the rows of a sequence stand behind
    b    stored | window window window window              one another, in its place of the store

On a CPU an attention call for each sequence costs less than copying all keys into one tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .cache import Cache, Store
from .mixed_rows import Turn
from .visibility import Own, ended_before


class Ragged(Cache):
    """The places of a store that take part in one call, each written behind its own rows.

    Args:
        store: where the rows live.
        own: where the rows of each sequence of the call stand.
        C: the column of the fed rows where windows begin.
    """

    def __init__(self, store: Store, own: Sequence[Own], C: int):
        super().__init__(store.shape[1])
        self.store = store
        put = [
            (b, column, one.place, at)
            for b, one in enumerate(own)
            for column, at in zip(
                [*range(one.context), *range(C, C + one.window)],
                range(one.stored, one.stored + one.context + one.window),
                strict=True,
            )
        ]
        self._row, self._column, self._place, self._at = torch.tensor(put).unbind(1)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the fed rows k, v [B, H, R, D/H] of a layer.

        Returns:
            All keys and all values of all places, [places, H, capacity, D/H].
        """
        keys, values = self.store.layer(layer, k)
        for buffer, fed in ((keys, k), (values, v)):
            buffer[self._place, :, self._at] = fed[self._row, :, self._column]
        return keys, values

    def commit(self, rows: int) -> None:
        """Nothing: a row that does not stay is written over."""


def owns(
    turns: Sequence[Turn],
    places: Sequence[int],
    z: Tensor,
    t: Tensor,
    *,
    shifted: bool,
    eos: int | None,
) -> tuple[Own, ...]:
    """What each sequence sees, of tokens z [B, L] at times t [B, L].

    Args:
        turns: [B] what each is fed.
        places: [B] its place in the store.
        shifted: whether rows predict the token behind them.
        eos: the token behind which a document ends, where documents are kept apart.
    """
    documents = [None] * len(turns) if eos is None else list(ended_before(z, eos))
    return tuple(
        _own(turn, place, t[b], shifted, document=documents[b])
        for b, (turn, place) in enumerate(zip(turns, places, strict=True))
    )


def _own(turn: Turn, place: int, t: Tensor, shifted: bool, *, document: Tensor | None) -> Own:
    context, window = (len(rows) for rows in turn.rows(shifted))
    among = seen = None
    keys = turn.stored + context
    if context > 1 or (context and document is not None):
        order = turn.plan.rank[:keys].to(t.device)
        among = order[None] <= order[turn.stored :, None]
        if document is not None:
            among = among & (document[None, :keys] == document[turn.stored : keys, None])
    hides = window > turn.width > 0 and float(t[turn.plan.reached(turn.k) - 1]) >= 1
    if window and (hides or document is not None):
        seen = torch.ones(window, keys + window, dtype=torch.bool, device=t.device)
        if document is not None:
            seen[:, :keys] = document[:keys] == document[min(keys, len(document) - 1)]
        if hides:  # the row behind the last token is seen while that is below full noise
            seen[:-1, -1] = False
    masks = [None if mask is None else mask[None] for mask in (among, seen)]
    return Own(place, turn.stored, context, window, *masks)
