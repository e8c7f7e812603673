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

Where documents are kept apart, a context row sees those of its own document, and a window sees of
what has settled only what stands behind the last EOS in it, whatever comes later (`maths.md` 10.2).

A settled row therefore never sees an unsettled one, which is what makes its keys and values
cacheable (`maths.md` 6). Context rows stand in front of window rows, so the two kinds are two
attention calls and no mask of double length is ever applied.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NOWHERE = -1  # the window number of a row that nobody sees


@dataclass(frozen=True)
class Own:
    """What one sequence sees where each has keys of its own (`ragged.py`).

        keys   stored | context | window, in the place of the sequence

    Args:
        place: its place in the store.
        stored, context, window: keys that it had, and rows of both kinds that are fed.
        among: [1, context, stored + context] bool, as in `Visibility`; None: all.
        seen: [1, window, stored + context + window] bool, likewise.
    """

    place: int
    stored: int
    context: int
    window: int
    among: Tensor | None = None
    seen: Tensor | None = None


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
        own: instead of all these, what each sequence sees of keys of its own.
    """

    context: int = 0
    among: Tensor | None = None
    window: Tensor | None = None
    before: int = 0
    own: tuple[Own, ...] = ()

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


def context_order(order: Tensor) -> Tensor | None:
    """Which context row sees which, [1, C, C] from the context rule `order` [C].

    None where that is causal in the rows' own order.
    """
    if bool((order.diff() > 0).all()):
        return None
    return (order <= order[:, None])[None]


def ended_before(ids: Tensor, eos: int) -> Tensor:
    """How many documents have ended before each token, [..., L]: the EOS in front of it.

    >>> ended_before(torch.tensor([[5, 0, 7, 0, 0]]), eos=0).tolist()
    [[0, 0, 1, 1, 2]]
    """
    ends = (ids == eos).long()
    return ends.cumsum(-1) - ends


def window_sight(
    start: Tensor, T: int, window: Tensor, call: Tensor, document: Tensor | None = None
) -> Tensor:
    """Which rows window rows see, [B or 1, W, C + W].

    Args:
        start: [C] start steps of the context rows, ascending if `document` is there.
        T: noise levels.
        window: [B or 1, W] window numbers, NOWHERE for rows that none but themselves see.
        call: [B or 1, W] the call k of the row's window.
        document: [B, C] how many documents ended before each token, to see of what has settled
            only what stands behind the last EOS in it (`maths.md` 10.2); None: all of it.
    """
    settled = start <= call.unsqueeze(-1) - T
    if document is not None:
        last = settled.sum(-1).clamp(max=document.shape[-1] - 1)  # the first that has not settled
        open_one = document.gather(-1, last.expand(len(document), -1))
        settled = settled & (document[:, None, :] == open_one[:, :, None])
    together = (window.unsqueeze(-1) == window.unsqueeze(-2)) & (window != NOWHERE).unsqueeze(-2)
    together = together | torch.eye(window.shape[-1], dtype=torch.bool, device=window.device)
    B = max(len(settled), len(together))
    return torch.cat([settled.expand(B, -1, -1), together.expand(B, -1, -1)], -1)
