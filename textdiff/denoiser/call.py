"""What one network call is fed, under any hyperschedule and in both layouts.

*Aligned*: row r holds token r and predicts it. *Shifted*: row r holds token r-1 (row 0 a BOS) and
predicts token r. Below, tokens 0 and 1 have settled and 2..5 are the window:

    aligned   holds        0    1  |  2    3    4    5
              predicts             |  2    3    4    5

    shifted   holds      BOS    0  |  1    2    3    4  |  5
              predicts             |  2    3    4    5  |
                                     boundary            trailing

So shifted, the first row of a window is its clean *boundary*, and a *trailing* row, which predicts
nothing, holds the window's last token and is seen only while that token is below full noise. All
else is the same in both: row r has token r's place in the order, its window and its call.

`training_rows.py` makes the call of training, `generation_rows.py` those of generation.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..hyperschedule import Hyperschedule, Plan
from .cache import Cache
from .protocol import Denoiser
from .visibility import Visibility


@dataclass(frozen=True)
class Call:
    """The rows of one network call.

    Args:
        ids: [B, R] in 0..N.
        positions: [R] or [B, R].
        t: [B, R] in [0, 1].
        visibility: which row sees which.
        count: how many rows with an output, from the first on, predict a token.
        kept: how many rows, from the first on, have keys that may stay in a cache.
    """

    ids: Tensor
    positions: Tensor
    t: Tensor
    visibility: Visibility
    count: int
    kept: int = 0

    def hidden(self, network: Denoiser, cache: Cache | None = None) -> Tensor:
        """Hidden rows [B, count, D] of the predicted tokens, in order.

        A cache grows by the settled rows.
        """
        if cache is None:
            rows = network.body(self.ids, self.positions, self.t, self.visibility)
        else:
            rows = network.body(self.ids, self.positions, self.t, self.visibility, cache)
            cache.commit(self.kept)
        return rows[:, : self.count]


def check_layout(network: Denoiser, schedule: Hyperschedule, L: int) -> None:
    """Raise a ValueError unless the network's layout can follow this hyperschedule."""
    if network.shifted and not schedule.plan(L).left_to_right:
        raise ValueError(
            f"the shifted layout needs a hyperschedule from left to right, not {schedule}: "
            "its rows predict the next token. Use layout: aligned"
        )


def check_documents(plan: Plan, schedule: Hyperschedule) -> None:
    """Raise a ValueError unless what has settled is a prefix, in which documents can be told."""
    if not plan.left_to_right:
        raise ValueError(
            f"documents are kept apart under hyperschedules from left to right, not {schedule}: "
            "set documents: joined, or use QuenchedAR, Block or Slide"
        )
