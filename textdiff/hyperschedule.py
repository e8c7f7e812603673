"""Hyperschedules: which position is at which noise level at which network call.

A hyperschedule is a number of levels T and one integer start step s(i) >= 0 per position (`design.md`):

    τ_k(i) = clip(T + s(i) - k, 0, T),     k = 0..K,     K = T + max s

Level 0 is clean, level T full noise; level τ is time t = τ/T of a process. Calls run from noise to data. No table of steps is
stored: the partition into settled / window / worthless, and the tiling that trains every schedule, are arithmetic on s.
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
    """[..., L] float64: the call k = o + nT of that window; it sees the context {j : s(j) <= k - T}."""


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
        """[L] int64: settled position i sees settled position j iff order(j) <= order(i); causal in (start step, position)."""
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
            raise ValueError(f"step {k} lies outside 0..{self.calls(L)}, the steps of {self} for {L} tokens")
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

        Windows of different start steps that never overlap (block) each have a group of their own; else all positions are in group 0.
        """
        starts, group = self.start(L).unique(return_inverse=True)
        return group if bool((starts.diff() >= self.T).all()) else torch.zeros_like(group)

    def tiling(self, offset: Tensor, L: int) -> Tiling:
        """Put each position in the one window that touches it at a call k = offset (mod T).

        Position i is in window n(i) = -floor((o - s(i))/T), at call k = o + nT and level T + s(i) - k in (0, T]. The sum of the
        step KLs of all windows, times T, is an unbiased estimate of the T-step bound for o uniform on {0..T-1}; real o in
        [0, T) gives the continuous NELBO with factor 1 (`maths.md` 3.4).

        Args:
            offset: [B, 1] in [0, T), or [B, L], one value for each of `groups(L)`; integers for the T-step bound.
            L: length.

        Raises:
            ValueError: if an offset lies outside [0, T), or positions of one group have different offsets.
        """
        if offset.numel() and not (offset.min() >= 0 and offset.max() < self.T):
            raise ValueError(f"offsets must lie in [0, {self.T}), got {float(offset.min()):g}..{float(offset.max()):g}")
        if offset.shape[-1] != 1:
            group = self.groups(L)
            first = torch.zeros(int(group.max()) + 1, dtype=torch.int64).scatter_(0, group.flip(0), torch.arange(L).flip(0))
            if not torch.equal(offset, offset[..., first[group]]):
                raise ValueError(f"under {self} the positions of a group share one offset: give one value for each of groups(L)")
        return tile(self.start(L).to(offset.device), self.T, offset)


def tile(start: Tensor, T: int, offset: Tensor) -> Tiling:
    """`Hyperschedule.tiling` from start steps [L], for offsets [..., 1] or [..., L] that are known to be right."""
    offset = offset.double()
    window = -torch.floor((offset - start) / T).long()
    call = offset + window * T
    return Tiling(window, T + start - call, call)


def _positive(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")


@dataclass(frozen=True)
class QuenchedAR(Hyperschedule):
    """One call per token, left to right: T = 1, s(i) = i. Autoregression; GPT in the shifted layout."""

    @property
    def T(self) -> int:
        return 1

    def start(self, L: int) -> Tensor:
        return torch.arange(L)


@dataclass(frozen=True)
class Flat(Hyperschedule):
    """All positions together: s(i) = 0 (SEDD, MDLM). `levels` = T is also the number of calls."""

    levels: int = 64

    def __post_init__(self) -> None:
        _positive("levels", self.levels)

    @property
    def T(self) -> int:
        return self.levels

    def start(self, L: int) -> Tensor:
        return torch.zeros(L, dtype=torch.int64)


@dataclass(frozen=True)
class Block(Hyperschedule):
    """Blocks of `width` tokens one after the other: s(i) = T floor(i/width) (BD3-LM, SSD-LM).

    Settled tokens see the settled ones up to themselves, or with `block_causal` their whole block. Only here is that exact with a
    key-value cache, because a block settles as one (`maths.md` 6).
    """

    width: int = 16
    levels: int = 16
    block_causal: bool = False

    def __post_init__(self) -> None:
        _positive("width", self.width)
        _positive("levels", self.levels)

    @property
    def T(self) -> int:
        return self.levels

    def start(self, L: int) -> Tensor:
        return self.levels * (torch.arange(L) // self.width)

    def order(self, L: int) -> Tensor:
        return self.start(L) if self.block_causal else super().order(L)


@dataclass(frozen=True)
class TightBlock(Hyperschedule):
    """Blocks in which one starts at the call that settles the last: s(i) = (T-1) floor(i/width), T >= 2 (HDLM's noising figure)."""

    width: int = 16
    levels: int = 16

    def __post_init__(self) -> None:
        _positive("width", self.width)
        _positive("levels", self.levels)
        if self.levels < 2:
            raise ValueError(f"a tight block needs levels >= 2, got {self.levels}: with one level use Block or QuenchedAR")

    @property
    def T(self) -> int:
        return self.levels

    def start(self, L: int) -> Tensor:
        return (self.levels - 1) * (torch.arange(L) // self.width)


@dataclass(frozen=True)
class Slide(Hyperschedule):
    """A window of `width` tokens slides on by `rate` tokens per call: T = ceil(width/rate), s(i) = floor(i/rate).

    `rate` is ρ, an integer or a fraction such as "1/2": floats get the floor wrong and are refused.
    """

    width: int = 16
    rate: int | str | Fraction = 1

    def __post_init__(self) -> None:
        _positive("width", self.width)
        if isinstance(self.rate, float):
            raise ValueError(f"rate must be an integer or a fraction such as '1/2', got the float {self.rate!r}")
        try:
            rate = Fraction(self.rate)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"rate must be an integer or a fraction such as '1/2', got {self.rate!r}") from None
        if rate <= 0:
            raise ValueError(f"rate must be > 0, got {self.rate!r}")
        object.__setattr__(self, "rate", rate.numerator if rate.denominator == 1 else str(rate))

    @property
    def T(self) -> int:
        return -(-self.width // Fraction(self.rate))

    def start(self, L: int) -> Tensor:
        rate = Fraction(self.rate)
        return torch.arange(L) * rate.denominator // rate.numerator


@dataclass(frozen=True)
class StartSteps(Hyperschedule):
    """Any order: the user's T and s(i), one integer >= 0 per position (random-order AR, diagonals within blocks, ...)."""

    levels: int
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        _positive("levels", self.levels)
        if not self.steps or any(int(s) != s or s < 0 for s in self.steps):
            raise ValueError(f"start steps must be integers >= 0, one per position, got {self.steps!r}")
        object.__setattr__(self, "steps", tuple(int(s) for s in self.steps))

    @property
    def T(self) -> int:
        return self.levels

    def start(self, L: int) -> Tensor:
        if len(self.steps) != L:
            raise ValueError(f"this hyperschedule has {len(self.steps)} start steps but the sequence has {L} tokens")
        return torch.tensor(self.steps)


def same_visibility(a: Hyperschedule, b: Hyperschedule, L: int) -> bool:
    """Whether networks trained under a and b see the same: each call's pair of context and window, whatever the levels."""

    def seen(schedule: Hyperschedule) -> set[tuple[bytes, bytes]]:
        return {
            (schedule.settled(k, L).numpy().tobytes(), schedule.window(k, L).numpy().tobytes()) for k in range(schedule.calls(L))
        }

    def ordered(schedule: Hyperschedule) -> Tensor:
        order = schedule.order(L)
        return order <= order[:, None]

    return a == b or (torch.equal(ordered(a), ordered(b)) and seen(a) == seen(b))
