"""Who attends to whom: one rule, and the attention call that obeys it.

A row carries a position and a role, *context* (clean, settled) or *window n* (`maths.md` 6). The
training call of Block(2, T) on four tokens, a row a line, x what it sees:

                context 0 1 2 3    windows 0 1  2 3
    context  0          x . . .            . .  . .
             1          x x . .            . .  . .
             2          x x x .            . .  . .
             3          x x x x            . .  . .
    windows  0          . . . .            x x  . .
             1          . . . .            x x  . .
             2          x x . .            . .  x x
             3          x x . .            . .  x x

- context sees context, in the hyperschedule's order: causal in (start step, position), or
  block-causal;
- a window called at k sees every position that has settled when call k starts, s(j) <= k - T, and
  all of itself.

A settled row therefore never sees an unsettled one, which is what makes its keys and values
cacheable (`maths.md` 6). Context rows stand in front of window rows, so the two kinds are two
attention calls and no mask of double length is ever applied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

NOWHERE = -1  # the window number of a row that nobody sees


@dataclass(frozen=True)
class Visibility:
    """Which keys a row sees.

    Cached rows stand before all others, `context` rows come first of those fed, window rows follow.

        >>> Visibility(context=2).dense(3).int().tolist()
        [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]

    Args:
        context: C, the number of context rows that are fed.
        among: [B or 1, C, P + C] bool, which cached and context rows a context row sees; None:
            those up to itself (causal), which needs P = 0 or C <= 1.
        window: [B or 1, W, P + C + W] bool, which rows a window row sees; None: all.
        before: P, rows in the cache.
    """

    context: int = 0
    among: Tensor | None = None
    window: Tensor | None = None
    before: int = 0

    def dense(self, R: int, device: torch.device | None = None) -> Tensor:
        """The whole as one mask [B or 1, R, R] bool, for networks that know nothing of streams."""
        C = self.context
        among = self.among
        window = self.window
        if among is None:
            among = torch.ones(1, C, C, dtype=torch.bool, device=device).tril()
        if window is None:
            window = torch.ones(1, R - C, R, dtype=torch.bool, device=device)
        B = max(len(among), len(window))
        hidden = torch.zeros(B, C, R - C, dtype=torch.bool, device=among.device)
        return torch.cat(
            [torch.cat([among.expand(B, -1, -1), hidden], -1), window.expand(B, -1, -1)], 1
        )

    def within(self, document: Tensor | None = None, valid: Tensor | None = None) -> Visibility:
        """Restrict to keys of the query's document [B, R] and to valid keys [B, R].

        A row always sees itself.
        """
        marks = document if document is not None else valid
        if marks is None:
            return self
        R, C = marks.shape[-1], self.context
        allowed = torch.ones(1, R, R, dtype=torch.bool, device=marks.device)
        if document is not None:
            allowed = allowed & (document[:, :, None] == document[:, None, :])
        if valid is not None:
            allowed = allowed & valid[:, None, :]
        seen = (self.dense(R, marks.device) & allowed) | torch.eye(
            R, dtype=torch.bool, device=marks.device
        )
        return replace(
            self, among=seen[:, :C, :C] if C else None, window=seen[:, C:] if R > C else None
        )


def context_order(order: Tensor) -> Tensor | None:
    """Which context row sees which, [1, C, C] from the context rule `order` [C].

    None where that is causal in the rows' own order.
    """
    if bool((order.diff() > 0).all()):
        return None
    return (order <= order[:, None])[None]


def window_sight(start: Tensor, T: int, window: Tensor, call: Tensor) -> Tensor:
    """Which rows window rows see, [B or 1, W, C + W].

    Args:
        start: [C] start steps of the context rows.
        T: noise levels.
        window: [B or 1, W] window numbers, NOWHERE for rows that none but themselves see.
        call: [B or 1, W] the call k of the row's window.
    """
    settled = start <= call.unsqueeze(-1) - T
    together = (window.unsqueeze(-1) == window.unsqueeze(-2)) & (window != NOWHERE).unsqueeze(-2)
    together = together | torch.eye(window.shape[-1], dtype=torch.bool, device=window.device)
    return torch.cat([settled, together], -1)
