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

import torch
from torch import Tensor

from .plan import Plan, constant, make_plan

CPU = torch.device("cpu")


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

    def omega(self, L: int) -> int:
        """ω: the widest window, tokens."""
        return max(int(self.window(k, L).sum()) for k in range(self.calls(L)))

    def rho(self, L: int) -> Fraction:
        """ρ: tokens settled per call, L/K on average over the whole sequence."""
        return Fraction(L, self.calls(L))

    def plan(self, L: int, device: torch.device = CPU) -> Plan:
        """Every fact of this hyperschedule for L tokens, made once for each device."""
        return _plan(self, L, device)


@constant
def _plan(schedule: Hyperschedule, L: int, device: torch.device) -> Plan:
    return make_plan(schedule.start(L), schedule.order(L), schedule.T, device)


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
