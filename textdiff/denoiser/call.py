"""What one network call is fed, under any hyperschedule and in both layouts; here in training, in
generation see `decoding.py`.

*Aligned*: row r holds token r and predicts it. *Shifted*: row r holds token r-1 (row 0 a BOS) and
predicts token r; so the first row of a window is its clean boundary, and one row more, which
predicts nothing, holds the window's last token and is seen only while that token is below full
noise. All else is the same in both: row r has token r's place in the order, its window and its
call.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..hyperschedule import Hyperschedule
from .cache import Cache
from .protocol import Denoiser
from .visibility import Visibility


@dataclass(frozen=True)
class Call:
    """The rows of one network call: ids and t [B, R], positions [R] or [B, R].

    The first `count` rows with an output predict its tokens; the keys of the first `kept` rows may
    stay in a cache.
    """

    ids: Tensor
    positions: Tensor
    t: Tensor
    visibility: Visibility
    count: int
    kept: int = 0

    def hidden(self, network: Denoiser, cache: Cache | None = None) -> Tensor:
        """Hidden rows [B, count, D] of the predicted tokens, in order; a cache grows by the settled
        rows.
        """
        if cache is None:
            return network.body(self.ids, self.positions, self.t, self.visibility)[:, : self.count]
        hidden = network.body(self.ids, self.positions, self.t, self.visibility, cache)[
            :, : self.count
        ]
        cache.commit(self.kept)
        return hidden


def check_layout(network: Denoiser, schedule: Hyperschedule, L: int) -> None:
    """Raise a ValueError unless the network's layout can follow this hyperschedule."""
    if network.shifted and not schedule.plan(L).left_to_right:
        raise ValueError(
            f"the shifted layout needs a hyperschedule from left to right, not {schedule}: its rows predict the next token. "
            "Use layout: aligned"
        )
