"""Hyperschedules: which position is at which noise level at which network call.

A hyperschedule is a number of levels T and one integer start step s(i) >= 0 per position
(`maths.md` 3.1):

    τ_k(i) = clip(T + s(i) - k, 0, T),     k = 0..K,     K = T + max s

Level 0 is clean, level T full noise; level τ is time t = τ/T of a process. Calls run from noise to
data. No table of steps is
stored: the partition into settled / window / worthless, and the tiling that trains every schedule,
are arithmetic on s.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor


class Tiling(NamedTuple):
    """Every position in exactly one window: the training view of a hyperschedule."""

    window: Tensor
    """[..., L] int64: number n of the window that holds the position; windows are T calls apart."""
    level: Tensor
    """[..., L] float64 in (0, T]: the position's level before that call."""
    call: Tensor
    """[..., L] float64: the call k = o + nT of that window; it sees the context {j : s(j) <= k -
    T}.
    """


@dataclass(frozen=True)
class Hyperschedule:
    """Base of all hyperschedules: a subclass gives the levels T and `start(L)`."""

    @property
    def T(self) -> int:
        """Number of noise levels."""
        raise NotImplementedError

    def start(self, L: int) -> Tensor:
        """s(i), [L] int64 >= 0."""
        raise NotImplementedError

    def order(self, L: int) -> Tensor:
        """[L] int64: settled position i sees settled position j iff order(j) <= order(i); causal in
        (start step, position).
        """
        return self.start(L).argsort(stable=True).argsort()

    def flat(self, L: int) -> bool:
        """Whether all positions go together (s = 0): one window, no context."""
        return int(self.start(L).max()) == 0

    def calls(self, L: int) -> int:
        """K = T + max s: network calls that a sequence of L tokens takes (NFE)."""
        return self.T + int(self.start(L).max())

    def level(self, k: int, L: int) -> Tensor:
        """τ_k, [L] int64 in 0..T, for k in 0..K.

        Raises:
            ValueError: if k lies outside 0..K.
        """
        if not 0 <= k <= self.calls(L):
            raise ValueError(
                f"step {k} lies outside 0..{self.calls(L)}, the steps of {self} for {L} tokens"
            )
        return (self.T + self.start(L) - k).clamp(0, self.T)

    def settled(self, k: int, L: int) -> Tensor:
        """[L] bool: clean for good when call k starts (τ_k = 0)."""
        return self.start(L) <= k - self.T

    def window(self, k: int, L: int) -> Tensor:
        """[L] bool: the active positions of call k, τ_k > 0 and τ_{k+1} < T."""
        start = self.start(L)
        return (start <= k) & (k < start + self.T)

    def newly_settled(self, k: int, L: int) -> Tensor:
        """[L] bool: settled by call k (τ_k = 1, τ_{k+1} = 0)."""
        return self.start(L) == k - self.T + 1

    def worthless(self, k: int, L: int) -> Tensor:
        """[L] bool: at level T and not touched by call k; not fed to the network."""
        return self.start(L) > k

    def omega(self, L: int) -> int:
        """ω: the widest window, tokens."""
        return max(int(self.window(k, L).sum()) for k in range(self.calls(L)))

    def rho(self, L: int) -> Fraction:
        """ρ: tokens settled per call, L/K on average over the whole sequence."""
        return Fraction(L, self.calls(L))

    def groups(self, L: int) -> Tensor:
        """[L] int64: 0, 1, ... for positions that draw an offset together.

        Windows of different start steps that never overlap (block) each have a group of their own;
        else all positions are in group 0.
        """
        starts, group = self.start(L).unique(return_inverse=True)
        return group if bool((starts.diff() >= self.T).all()) else torch.zeros_like(group)

    def tiling(self, offset: Tensor, L: int) -> Tiling:
        """Put each position in the one window that touches it at a call k = offset (mod T).

        Position i is in window n(i) = -floor((o - s(i))/T), at call k = o + nT and level T + s(i) -
        k in (0, T]. The sum of the step KLs of all windows, times T, is an unbiased estimate of the
        T-step bound for o uniform on {0..T-1}; real o in [0, T) gives the continuous NELBO with
        factor 1 (`maths.md` 3.4).

        Args:
            offset: [B, 1] in [0, T), or [B, L], one value for each of `groups(L)`; integers for the
                T-step bound.
            L: length.

        Raises:
            ValueError: if an offset lies outside [0, T), or positions of one group have different
                offsets.
        """
        if offset.numel() and not (offset.min() >= 0 and offset.max() < self.T):
            raise ValueError(
                f"offsets must lie in [0, {self.T}), got {float(offset.min()):g}..{float(offset.max()):g}"
            )
        if offset.shape[-1] != 1:
            group = self.groups(L)
            first = torch.zeros(int(group.max()) + 1, dtype=torch.int64).scatter_(
                0, group.flip(0), torch.arange(L).flip(0)
            )
            if not torch.equal(offset, offset[..., first[group]]):
                raise ValueError(
                    f"under {self} the positions of a group share one offset: give one value for each of groups(L)"
                )
        return tile(self.start(L).to(offset.device), self.T, offset)


def tile(start: Tensor, T: int, offset: Tensor) -> Tiling:
    """`Hyperschedule.tiling` from start steps [L], for offsets [..., 1] or [..., L] that are known
    to be right.
    """
    offset = offset.double()
    window = -torch.floor((offset - start) / T).long()
    call = offset + window * T
    return Tiling(window, T + start - call, call)


def same_visibility(a: Hyperschedule, b: Hyperschedule, L: int) -> bool:
    """Whether networks trained under a and b see the same: each call's pair of context and window,
    whatever the levels.
    """

    def seen(schedule: Hyperschedule) -> set[tuple[bytes, bytes]]:
        return {
            (schedule.settled(k, L).numpy().tobytes(), schedule.window(k, L).numpy().tobytes())
            for k in range(schedule.calls(L))
        }

    def ordered(schedule: Hyperschedule) -> Tensor:
        order = schedule.order(L)
        return order <= order[:, None]

    return a == b or (torch.equal(ordered(a), ordered(b)) and seen(a) == seen(b))
