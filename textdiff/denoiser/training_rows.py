"""What one network call is fed in training: every window of a tiling at once.

A noisy stream of all windows stands beside the clean stream, which is their context:

    clean      0  1  2  3  4  5
    noisy      0  1  2  3  4  5        windows {0 1 2} and {3 4 5}

A single window (flat) has no context, so it costs one length; so does quenched AR in the shifted
layout, a causal language model whose context is its own input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..hyperschedule import Hyperschedule, Plan, Tiling
from ..hyperschedule.plan import constant
from .call import Call, check_documents, check_layout
from .protocol import Denoiser
from .visibility import NOWHERE, Visibility, context_order, window_sight


@dataclass(frozen=True)
class _Tokens:
    """What rows hold: ids and t, [B, R] both."""

    ids: Tensor
    t: Tensor

    def shift(self, bos: int) -> _Tokens:
        """The shifted layout: row r holds token r-1, row 0 a BOS."""
        return _Tokens(pad(self.ids[:, :-1], (1, 0), value=bos), pad(self.t[:, :-1], (1, 0)))

    def join(self, other: _Tokens) -> _Tokens:
        """These rows, then the others."""
        return _Tokens(torch.cat([self.ids, other.ids], -1), torch.cat([self.t, other.t], -1))

    def take(self, rows: Tensor) -> _Tokens:
        """The rows at an index [B, n]."""
        return _Tokens(self.ids.gather(-1, rows), self.t.gather(-1, rows))


class _Windows(NamedTuple):
    """The noisy stream: what its rows hold, their positions, window numbers and calls, [B, R].

    In the aligned layout positions are [L], numbers and calls may be [1, L].
    """

    tokens: _Tokens
    positions: Tensor
    number: Tensor
    call: Tensor


def training_call(
    network: Denoiser,
    schedule: Hyperschedule,
    x: Tensor,
    z: Tensor,
    t: Tensor,
    *,
    tiling: Tiling,
    document: Tensor | None = None,
    fed: int | None = None,
) -> Call:
    """The call that sees every window of a tiling at once.

    Args:
        network: the denoiser.
        schedule: its hyperschedule.
        x: clean tokens [B, L] in 0..N-1.
        z: noisy tokens [B, L] in 0..N.
        t: times [B, L] in [0, 1].
        tiling: windows of `schedule`, [B or 1, L].
        document: [B, L] how many documents have ended before each token, to show a call of its
            settled context only the last one (`maths.md` 10.2); None: all.
        fed: how many positions are fed, from the left, if nothing is asked of those behind and
            none of these sees them; None: L.

    Raises:
        ValueError: if the network's layout cannot follow the schedule, or `document` is there and
            what has settled is no growing prefix.
    """
    check_layout(network, schedule, x.shape[-1])
    if document is not None:
        check_documents(schedule.plan(x.shape[-1], x.device), schedule)
    if fed is not None and fed < x.shape[-1]:
        x, z, t = x[:, :fed], z[:, :fed], t[:, :fed]
        tiling = Tiling(*(each[:, :fed] for each in tiling))
        document = None if document is None else document[:, :fed]
    L = x.shape[-1]
    plan = schedule.plan(L, x.device)
    positions = torch.arange(L, device=x.device)
    clean = _Tokens(x, torch.zeros_like(t))
    noisy = _Tokens(z, t)
    if network.shifted and plan.one_by_one:
        rows = clean.shift(network.bos)
        return Call(rows.ids, positions, rows.t, Visibility(L, _among(plan, document)), L)
    if not network.shifted and plan.flat:
        return Call(z, positions, t, Visibility(), L)
    if plan.apart:  # whatever the offset
        tiling = plan.tiling_at_zero
    if not network.shifted:
        windows = _Windows(noisy, positions, tiling.window, tiling.call)
        return _two_streams(plan, clean, windows, document)
    windows = _shifted_windows(clean, noisy, tiling, bos=network.bos, plan=plan)
    return _two_streams(plan, clean.shift(network.bos), windows, document)


def _two_streams(plan: Plan, clean: _Tokens, windows: _Windows, document: Tensor | None) -> Call:
    """The noisy stream beside the clean one, or alone where there is one window."""
    L = clean.ids.shape[-1]
    if plan.flat:
        noisy = windows.tokens
        sight = window_sight(plan.start[:0], plan.T, windows.number, windows.call)
        return Call(noisy.ids, windows.positions, noisy.t, Visibility(0, None, sight), L)
    if document is None and windows.positions.ndim == 1 and plan.apart:
        sight = _sight(plan)
    else:
        start = plan.by_position(plan.start)
        sight = window_sight(start, plan.T, windows.number, windows.call, document)
    rows = clean.join(windows.tokens)
    places = torch.arange(L, device=clean.ids.device).expand(*windows.positions.shape[:-1], L)
    positions = torch.cat([places, windows.positions], -1)
    visibility = Visibility(L, _among(plan, document), sight)
    return Call(rows.ids, positions, rows.t, visibility, L)


def _among(plan: Plan, document: Tensor | None) -> Tensor | None:
    """Which context row sees which: those of no higher rank, of its own document."""
    if document is None:
        return _in_order(plan)
    order = plan.by_position(plan.rank)
    return (order <= order[:, None]) & (document[:, None, :] == document[:, :, None])


@constant
def _in_order(plan: Plan) -> Tensor | None:
    """Which context row sees which, whatever the documents."""
    return context_order(plan.by_position(plan.rank))


@constant
def _sight(plan: Plan) -> Tensor:
    """What window rows see in the aligned layout where no offset changes the windows."""
    tiling = plan.tiling_at_zero
    return window_sight(plan.by_position(plan.start), plan.T, tiling.window, tiling.call)


def _shifted_windows(
    clean: _Tokens, noisy: _Tokens, tiling: Tiling, *, bos: int, plan: Plan
) -> _Windows:
    """The noisy stream in the shifted layout.

        token              0   1   2   3   4   5        windows {0 1 2} and {3 4 5}

        row                0   1   2   3   4   5  |  3   6
        holds            BOS   0   1  *2   3   4  |  2   5
        window             0   0   0   1   1   1  |  0   1
        predicts           0   1   2   3   4   5  |

    * is clean: a window's first row is its boundary, whose token has settled. The trailing rows
    hold the windows' last tokens and are NOWHERE while these are at full noise. A sequence has
    `plan.windows` of them, the most that any has; where it has fewer windows, the rest is NOWHERE.
    If T = 1 all tokens are at full noise, and no trailing row is fed.
    """
    B, L = noisy.ids.shape
    number = tiling.window.expand(B, L)
    call = tiling.call.expand(B, L)
    last = pad(number.diff() != 0, (0, 1), value=True)  # the last token of each window
    boundary = pad(last[:, :-1], (1, 0), value=True)
    held = noisy.shift(bos)
    rows = _Tokens(
        torch.where(boundary, clean.shift(bos).ids, held.ids),
        torch.where(boundary, 0.0, held.t),
    )
    positions = torch.arange(L, device=number.device).expand(B, L)
    if plan.T == 1:
        return _Windows(rows, positions, number, call)
    ends = last.long().argsort(dim=-1, descending=True, stable=True)[:, : plan.windows]
    trailing = noisy.take(ends)
    seen = last.gather(-1, ends) & (trailing.t < 1)
    return _Windows(
        rows.join(trailing),
        torch.cat([positions, ends + 1], -1),
        torch.cat([number, torch.where(seen, number.gather(-1, ends), NOWHERE)], -1),
        torch.cat([call, call.gather(-1, ends)], -1),
    )
