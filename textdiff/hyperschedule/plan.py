"""Plan: all that a hyperschedule fixes for L tokens, in the order in which they settle.

                       Slide(4, 2), 6 tokens               StartSteps(1, (2, 0, 1))
    rank               0  1  2  3  4  5                    0  1  2
    position           0  1  2  3  4  5                    1  2  0
    start              0  0  1  1  2  2                    0  1  2
    call 2             |settled|- window -|                |settled| window

At call k the first `settled(k)` ranks are clean for good, those up to `reached(k)` are the window,
and the rest is not fed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor


def constant(make: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what `make` returns for hashable arguments; not to be changed.

    It is made outside inference mode, so that training can use it.
    """
    return lru_cache(maxsize=64)(torch.inference_mode(False)(make))


class Tiling(NamedTuple):
    """Every position in exactly one window: the training view of a hyperschedule.

    Args:
        window: [B, L] int64, the number n of the position's window; windows are T calls apart.
        level: [B, L] float64 in (0, T], the position's level before that call.
        call: [B, L] float64, that call, k = o + nT; the window sees {j : s(j) <= k - T}.
    """

    window: Tensor
    level: Tensor
    call: Tensor


@dataclass(frozen=True, eq=False)
class Plan:
    """Every fact of a hyperschedule for L tokens: tensors on one device, decisions on the CPU.

    All is in rank space: entry r is about the token that settles r-th. Only `position` says where
    that token stands, so sequences with orders of their own can share a plan.

        >>> from textdiff.hyperschedule import Slide, StartSteps
        >>> plan = Slide(4, 2).plan(6)
        >>> plan.settled(2), plan.reached(2), plan.times(2).tolist()
        (2, 6, [0.0, 0.0, 0.5, 0.5])
        >>> StartSteps(1, (2, 0, 1)).plan(3).position.tolist()
        [1, 2, 0]

    Args:
        T: noise levels.
        position: [L] int64, or [B, L] with an order per sequence.
        start: [L] int64 start steps, ascending.
        rank: [L] int64, the context rule: a settled token sees those of no higher rank.
        group: [L] int64 in 0..groups-1, tokens that draw an offset together. Windows of different
            start steps that never overlap (block) have a group each; else all is one group.
        starts: `start`, for the CPU.
        left_to_right: whether `position` is 0, 1, 2, ...
        causal: whether each token sees just those that settle up to itself.
        exact: whether no token sees one that settles later, so that keys can be cached (6).
        apart: whether windows never overlap (flat, block).
    """

    T: int
    position: Tensor
    start: Tensor
    rank: Tensor
    group: Tensor
    starts: tuple[int, ...]
    left_to_right: bool
    causal: bool
    exact: bool
    apart: bool

    @property
    def calls(self) -> int:
        """K = T + max s, the network calls that a sequence takes."""
        return self.T + self.starts[-1]

    @property
    def flat(self) -> bool:
        """Whether all tokens go together (s = 0): one window, no context."""
        return self.starts[-1] == 0

    @property
    def one_by_one(self) -> bool:
        """Whether every call draws the next token from the left (quenched AR)."""
        return self.T == 1 and self.left_to_right and self.starts == tuple(range(len(self.starts)))

    @cached_property
    def groups(self) -> int:
        """How many groups draw offsets of their own."""
        return len(set(self.starts)) if self.apart else 1

    @cached_property
    def windows(self) -> int:
        """The most windows that the tiling of any offset has."""
        start = torch.tensor(self.starts)
        offsets = range(min(self.T, self.starts[-1] + 1))
        return max(len((-((o - start) // self.T)).unique()) for o in offsets)

    def settled(self, k: int) -> int:
        """How many tokens have settled when call k starts."""
        return bisect_right(self.starts, k - self.T)

    def reached(self, k: int) -> int:
        """How many tokens have settled or are active in call k."""
        return bisect_right(self.starts, k)

    def times(self, k: int) -> Tensor:
        """τ_{k+1}/T of the tokens that are active in call k, [W] float64 in [0, 1]."""
        start = self.start[self.settled(k) : self.reached(k)]
        return (start + (self.T - k - 1)).clamp(0, self.T).double() / self.T

    def by_position(self, x: Tensor) -> Tensor:
        """Values [..., L] by rank -> the same values by position."""
        if self.left_to_right:
            return x
        position, x = torch.broadcast_tensors(self.position, x)
        return torch.zeros_like(x, memory_format=torch.contiguous_format).scatter(-1, position, x)

    def tiling(self, offset: Tensor) -> Tiling:
        """Put each position in the one window that touches it at a call k = offset (mod T).

        Position i is in window n(i) = -floor((o - s(i))/T), at call k = o + nT and level T + s(i) -
        k in (0, T]. The sum of the step KLs of all windows, times T, is an unbiased estimate of the
        T-step bound for o uniform on {0..T-1}; real o in [0, T) gives the continuous NELBO with
        factor 1 (`maths.md` 3.4).

            >>> from textdiff.hyperschedule import Slide
            >>> Slide(4, 2).plan(6).tiling(torch.tensor([[0]])).level.tolist()
            [[2.0, 2.0, 1.0, 1.0, 2.0, 2.0]]

        Args:
            offset: [B, 1] in [0, T), or [B, groups], one for each; integers for the T-step bound.

        Returns:
            The tiling, by position.

        Raises:
            ValueError: if offsets lie outside [0, T) (looked at on the CPU only, a GPU would have
                to be waited for), or are neither one nor one for each group.
        """
        if offset.shape[-1] not in (1, self.groups):
            raise ValueError(
                f"give one offset, or one for each of the {self.groups} groups, "
                f"not {offset.shape[-1]}"
            )
        if offset.device.type == "cpu" and offset.numel():
            least, most = float(offset.min()), float(offset.max())
            if not (least >= 0 and most < self.T):
                raise ValueError(f"offsets must lie in [0, {self.T}), got {least:g}..{most:g}")
        offset = offset.double()
        if offset.shape[-1] > 1:
            offset = offset[:, self.group]
        window = -torch.floor((offset - self.start) / self.T).long()
        call = offset + window * self.T
        level = self.T + self.start - call
        return Tiling(*(self.by_position(x) for x in (window, level, call)))

    @cached_property
    def tiling_at_zero(self) -> Tiling:
        """The tiling of offset 0, [1, L]: all there is to say where windows never overlap.

        There another offset changes only the levels.
        """
        with torch.inference_mode(False):
            return self.tiling(torch.zeros(1, 1, dtype=torch.int64, device=self.start.device))


def last_call(plan: Plan, valid: Tensor) -> Tensor:
    """k* = s(i*) + T [B], the first call after the last valid token i* of each row has settled.

    Args:
        plan: one from left to right.
        valid: [B, L] True up to i*.
    """
    return plan.start[valid.sum(-1).clamp_min(1) - 1] + plan.T


def make_plan(start: Tensor, order: Tensor, T: int, device: torch.device) -> Plan:
    """The plan of T levels, start steps [L] and the context rule `order` [L], both by position."""
    position = start.argsort(stable=True)
    start = start[position]
    rank = order[position]
    starts, group = start.unique(return_inverse=True)
    apart = bool((starts.diff() >= T).all())
    return Plan(
        T=T,
        position=position.to(device),
        start=start.to(device),
        rank=rank.to(device),
        group=(group if apart else torch.zeros_like(group)).to(device),
        starts=tuple(start.tolist()),
        left_to_right=bool((position.diff() > 0).all()),
        causal=bool((rank.diff() > 0).all()),
        exact=torch.equal(_latest(start, rank), start),
        apart=apart,
    )


def _latest(start: Tensor, rank: Tensor) -> Tensor:
    """[L] the last start step among the tokens that each token sees, those of no higher rank."""
    ascending, order = rank.sort(stable=True)
    seen = torch.searchsorted(ascending, rank, right=True)
    return start[order].cummax(0).values[seen - 1]
