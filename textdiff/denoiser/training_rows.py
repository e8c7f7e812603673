"""What one network call is fed in training: every window of a tiling at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..hyperschedule import Hyperschedule, Plan, Tiling
from ..hyperschedule.plan import constant
from .call import Call, check_layout
from .protocol import Denoiser
from .visibility import NOWHERE, Visibility, context_order, window_sight


@dataclass(frozen=True)
class _Stream:
    """Rows that belong together: ids, t, document and valid [B, R] (the last two may be None)."""

    ids: Tensor
    t: Tensor
    document: Tensor | None
    valid: Tensor | None

    def shift(self, bos: int) -> _Stream:
        """The rows of the shifted layout: row r holds token r-1, or a BOS where a document begins."""
        ids, t = pad(self.ids[:, :-1], (1, 0), value=bos), pad(self.t[:, :-1], (1, 0))
        if self.document is not None:
            begins = pad(self.document.diff() != 0, (1, 0), value=True)
            ids, t = ids.masked_fill(begins, bos), t.masked_fill(begins, 0.0)
        valid = None if self.valid is None else pad(self.valid[:, :-1], (1, 0), value=True)
        return _Stream(ids, t, self.document, valid)

    def join(self, other: _Stream) -> _Stream:
        """This stream, then the other."""
        marks = [
            None if a is None or b is None else torch.cat([a, b], -1)
            for a, b in ((self.document, other.document), (self.valid, other.valid))
        ]
        return _Stream(
            torch.cat([self.ids, other.ids], -1), torch.cat([self.t, other.t], -1), *marks
        )

    def take(self, rows: Tensor) -> _Stream:
        """The rows at an index [B, n]."""
        picked = [
            None if x is None else x.gather(-1, rows)
            for x in (self.ids, self.t, self.document, self.valid)
        ]
        return _Stream(*picked)  # type: ignore[arg-type]


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

    A noisy stream of all windows stands beside the clean stream; for a single window (flat) there
    is no clean stream, so it costs one length. In the shifted layout quenched AR is a causal LM:
    its context is its own input.

    Args:
        network: the denoiser.
        schedule: its hyperschedule.
        x, z: clean and noisy tokens [B, L].
        t: times [B, L].
        tiling: windows of `schedule`, [B or 1, L].
        document: [B, L] attention stays inside a document, or None.
        valid: [B, L] False at ignored padding, or None.
    """
    L = x.shape[-1]
    check_layout(network, schedule, L)
    plan = schedule.plan(L, x.device)
    positions = torch.arange(L, device=x.device)
    clean, noisy = _Stream(x, torch.zeros_like(t), document, valid), _Stream(z, t, document, valid)
    if network.shifted and plan.one_by_one:
        rows = clean.shift(
            network.bos
        )  # ignored padding stands at the end, where no row before it sees it
        return Call(rows.ids, positions, rows.t, Visibility(context=L).within(rows.document), L)
    if plan.flat and not network.shifted:
        return Call(z, positions, t, Visibility().within(document, valid), L)
    if plan.apart:  # no offset changes the windows
        tiling = plan.tiling_at_zero
    window, call = tiling.window, tiling.call
    if network.shifted:
        noisy, window, call, positions = _shifted_windows(
            network, clean, noisy, window, call, schedule.T, plan.windows
        )
        clean = clean.shift(network.bos)
    if plan.flat:
        sight = window_sight(plan.start[:0], plan.T, window, call)
        return Call(
            noisy.ids,
            positions,
            noisy.t,
            Visibility(0, None, sight).within(noisy.document, noisy.valid),
            L,
        )
    if plan.apart and not network.shifted:
        sight = _constant_sight(plan)
    else:
        sight = window_sight(plan.by_position(plan.start), plan.T, window, call)
    rows, visibility = clean.join(noisy), Visibility(L, _among(plan), sight)
    places = torch.cat(
        [torch.arange(L, device=x.device).expand(*positions.shape[:-1], L), positions], -1
    )
    return Call(rows.ids, places, rows.t, visibility.within(rows.document, rows.valid), L)


@constant
def _among(plan: Plan) -> Tensor | None:
    """Which context row sees which in training."""
    return context_order(plan.by_position(plan.rank))


@constant
def _constant_sight(plan: Plan) -> Tensor:
    """What window rows see in the aligned layout where no offset changes the windows."""
    tiling = plan.tiling_at_zero
    return window_sight(plan.by_position(plan.start), plan.T, tiling.window, tiling.call)


def _shifted_windows(
    network: Denoiser,
    clean: _Stream,
    noisy: _Stream,
    window: Tensor,
    call: Tensor,
    T: int,
    windows: int,
) -> tuple[_Stream, Tensor, Tensor, Tensor]:
    """The noisy stream in the shifted layout: rows, their window numbers and calls, and their
    positions [B, L + windows].

    `windows` is the most that a row of the batch can have. If T = 1 all tokens are at full noise,
    and no window's last one is fed.
    """
    B, L = noisy.ids.shape
    window, call = window.expand(B, L), call.expand(B, L)
    last = pad(window.diff() != 0, (0, 1), value=True)  # the last token of each window
    ends = last.long().argsort(dim=-1, descending=True, stable=True)[:, :windows]
    boundary = pad(
        last[:, :-1], (1, 0), value=True
    )  # row r begins a window: its token r-1 is settled
    held, settled = noisy.shift(network.bos), clean.shift(network.bos)
    rows = _Stream(
        torch.where(boundary, settled.ids, held.ids),
        torch.where(boundary, 0.0, held.t),
        held.document,
        held.valid,
    )
    places = torch.arange(L, device=ends.device).expand(B, L)
    if T == 1:
        return rows, window, call, places
    more = noisy.take(ends)
    seen = last.gather(-1, ends) & (more.t < 1)
    number = torch.where(seen, window.gather(-1, ends), NOWHERE)
    return (
        rows.join(more),
        torch.cat([window, number], -1),
        torch.cat([call, call.gather(-1, ends)], -1),
        torch.cat([places, ends + 1], -1),
    )
