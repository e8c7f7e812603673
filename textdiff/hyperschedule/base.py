"""Hyperschedules: which position is at which noise level at which network call.

A hyperschedule is a number of levels T and one integer start step s(i) >= 0 per position
(`maths.md` 3.1):

    τ_k(i) = clip(T + s(i) - k, 0, T),     k = 0..K,     K = T + max s

Level 0 is clean, level T full noise; level τ is time t = τ/T of a process. Calls run from noise to
data. Slide(4, 2) on six tokens, T = 2, s = 0 0 1 1 2 2, a call a line:

    call 0    2  2  2  2  2  2       active: 0..3
    call 1    1  1  2  2  2  2       active: 0..5
    call 2    0  0  1  1  2  2       settled: 0 1, active: 2..5
    call 3    0  0  0  0  1  1       settled: 0..3, active: 4 5
    the end   0  0  0  0  0  0

No table of steps is stored: who has settled, who is active, and the tiling that trains every
schedule are arithmetic on s (`plan.py`).
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
    """Base of all hyperschedules: a subclass gives the levels T and `start(L)`.

    >>> from textdiff.hyperschedule import Slide
    >>> schedule = Slide(4, 2)
    >>> schedule.T, schedule.start(6).tolist(), schedule.calls(6)
    (2, [0, 0, 1, 1, 2, 2], 4)
    >>> schedule.level(2, 6).tolist()
    [0, 0, 1, 1, 2, 2]
    """

    @property
    def T(self) -> int:
        """Number of noise levels."""
        raise NotImplementedError

    def start(self, L: int) -> Tensor:
        """s(i), [L] int64 >= 0."""
        raise NotImplementedError

    def order(self, L: int) -> Tensor:
        """The context rule, [L] int64: settled position i sees j iff order(j) <= order(i).

        Causal in (start step, position), unless a subclass says otherwise.
        """
        return self.start(L).argsort(stable=True).argsort()

    @property
    def members(self) -> tuple[Hyperschedule, ...]:
        """The schedules that a network of this one is trained under: itself, but of a `Mixture`."""
        return (self,)

    def fits(self, L: int) -> bool:
        """Whether it is defined for L tokens; start steps given one by one fit one length only."""
        try:
            self.start(L)
        except ValueError:
            return False
        return True

    def shortened(self, L: int, most: int) -> int:
        """A length of at most `most` tokens, but L itself where it is defined for no other.

        >>> from textdiff.hyperschedule import Flat, StartSteps
        >>> Flat().shortened(1024, most=32), StartSteps(1, (2, 0, 1)).shortened(3, most=2)
        (32, 3)
        """
        return min(L, most) if self.fits(min(L, most)) else L

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
        plan = self.plan(L)
        return max(plan.reached(k) - plan.settled(k) for k in range(plan.calls))

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
    """Whether networks trained under a and b see the same, whatever the levels.

    That is each call's pair of context and window, and the order within the context.

        >>> from textdiff.hyperschedule import Block, Flat
        >>> same_visibility(Flat(4), Flat(64), 8), same_visibility(Flat(4), Block(4, 4), 8)
        (True, False)
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
