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
from .call import Call, check_layout
from .protocol import Denoiser
from .visibility import NOWHERE, Visibility, context_order, window_sight


@dataclass(frozen=True)
class _Tokens:
    """What rows hold: ids, t, document and valid, each [B, R]; the last two may be None."""

    ids: Tensor
    t: Tensor
    document: Tensor | None
    valid: Tensor | None

    def shift(self, bos: int) -> _Tokens:
        """The shifted layout: row r holds token r-1, or a BOS where a document begins."""
        ids = pad(self.ids[:, :-1], (1, 0), value=bos)
        t = pad(self.t[:, :-1], (1, 0))
        if self.document is not None:
            begins = pad(self.document.diff() != 0, (1, 0), value=True)
            ids = ids.masked_fill(begins, bos)
            t = t.masked_fill(begins, 0.0)
        valid = None if self.valid is None else pad(self.valid[:, :-1], (1, 0), value=True)
        return _Tokens(ids, t, self.document, valid)

    def join(self, other: _Tokens) -> _Tokens:
        """These rows, then the others."""
        return _Tokens(
            torch.cat([self.ids, other.ids], -1),
            torch.cat([self.t, other.t], -1),
            _joined(self.document, other.document),
            _joined(self.valid, other.valid),
        )

    def take(self, rows: Tensor) -> _Tokens:
        """The rows at an index [B, n]."""
        return _Tokens(
            self.ids.gather(-1, rows),
            self.t.gather(-1, rows),
            None if self.document is None else self.document.gather(-1, rows),
            None if self.valid is None else self.valid.gather(-1, rows),
        )


def _joined(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else torch.cat([a, b], -1)


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
    valid: Tensor | None = None,
) -> Call:
    """The call that sees every window of a tiling at once.

    Args:
        network: the denoiser.
        schedule: its hyperschedule.
        x: clean tokens [B, L] in 0..N-1.
        z: noisy tokens [B, L] in 0..N.
        t: times [B, L] in [0, 1].
        tiling: windows of `schedule`, [B or 1, L].
        document: [B, L] attention stays inside a document, or None.
        valid: [B, L] False at ignored padding, or None.

    Raises:
        ValueError: if the network's layout cannot follow the schedule.
    """
    L = x.shape[-1]
    check_layout(network, schedule, L)
    plan = schedule.plan(L, x.device)
    positions = torch.arange(L, device=x.device)
    clean = _Tokens(x, torch.zeros_like(t), document, valid)
    noisy = _Tokens(z, t, document, valid)
    if network.shifted and plan.one_by_one:
        # Ignored padding stands at the end, where no row before it sees it.
        rows = clean.shift(network.bos)
        return Call(rows.ids, positions, rows.t, Visibility(context=L).within(document), L)
    if not network.shifted and plan.flat:
        return Call(z, positions, t, Visibility().within(document, valid), L)
    if plan.apart:  # whatever the offset
        tiling = plan.tiling_at_zero
    if not network.shifted:
        windows = _Windows(noisy, positions, tiling.window, tiling.call)
        return _two_streams(plan, clean, windows, _sight(plan) if plan.apart else None)
    windows = _shifted_windows(clean, noisy, tiling, bos=network.bos, plan=plan)
    return _two_streams(plan, clean.shift(network.bos), windows)


def _two_streams(
    plan: Plan, clean: _Tokens, windows: _Windows, sight: Tensor | None = None
) -> Call:
    """The noisy stream beside the clean one, or alone where there is one window.

    `sight` is what window rows see, where that is known.
    """
    L = clean.ids.shape[-1]
    if plan.flat:
        noisy = windows.tokens
        sight = window_sight(plan.start[:0], plan.T, windows.number, windows.call)
        visibility = Visibility(0, None, sight).within(noisy.document, noisy.valid)
        return Call(noisy.ids, windows.positions, noisy.t, visibility, L)
    if sight is None:
        start = plan.by_position(plan.start)
        sight = window_sight(start, plan.T, windows.number, windows.call)
    rows = clean.join(windows.tokens)
    places = torch.arange(L, device=clean.ids.device).expand(*windows.positions.shape[:-1], L)
    positions = torch.cat([places, windows.positions], -1)
    visibility = Visibility(L, _among(plan), sight).within(rows.document, rows.valid)
    return Call(rows.ids, positions, rows.t, visibility, L)


@constant
def _among(plan: Plan) -> Tensor | None:
    """Which context row sees which."""
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
        held.document,
        held.valid,
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
