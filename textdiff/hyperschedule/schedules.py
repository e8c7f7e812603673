"""Hyperschedules by name: each is a number of levels T and start steps s(i)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from .base import Hyperschedule


def _positive(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")


@dataclass(frozen=True)
class QuenchedAR(Hyperschedule):
    """One call per token, left to right: T = 1, s(i) = i. Autoregression; GPT in the shifted
    layout.
    """

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

    Settled tokens see the settled ones up to themselves, or with `block_causal` their whole block.
    Only here is that exact with a key-value cache, because a block settles as one (`maths.md` 6).
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
    """Blocks in which one starts at the call that settles the last: s(i) = (T-1) floor(i/width), T
    >= 2 (HDLM's noising figure).
    """

    width: int = 16
    levels: int = 16

    def __post_init__(self) -> None:
        _positive("width", self.width)
        _positive("levels", self.levels)
        if self.levels < 2:
            raise ValueError(
                f"a tight block needs levels >= 2, got {self.levels}: with one level use Block or QuenchedAR"
            )

    @property
    def T(self) -> int:
        return self.levels

    def start(self, L: int) -> Tensor:
        return (self.levels - 1) * (torch.arange(L) // self.width)


@dataclass(frozen=True)
class Slide(Hyperschedule):
    """A window of `width` tokens slides on by `rate` tokens per call: T = ceil(width/rate), s(i) =
    floor(i/rate).

    `rate` is ρ, an integer or a fraction such as "1/2": floats get the floor wrong and are refused.
    """

    width: int = 16
    rate: int | str | Fraction = 1

    def __post_init__(self) -> None:
        _positive("width", self.width)
        if isinstance(self.rate, float):
            raise ValueError(
                f"rate must be an integer or a fraction such as '1/2', got the float {self.rate!r}"
            )
        try:
            rate = Fraction(self.rate)
        except (ValueError, ZeroDivisionError):
            raise ValueError(
                f"rate must be an integer or a fraction such as '1/2', got {self.rate!r}"
            ) from None
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
    """Any order: the user's T and s(i), one integer >= 0 per position (random-order AR, diagonals
    within blocks, ...).
    """

    levels: int
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        _positive("levels", self.levels)
        if not self.steps or any(int(s) != s or s < 0 for s in self.steps):
            raise ValueError(
                f"start steps must be integers >= 0, one per position, got {self.steps!r}"
            )
        object.__setattr__(self, "steps", tuple(int(s) for s in self.steps))

    @property
    def T(self) -> int:
        return self.levels

    def start(self, L: int) -> Tensor:
        if len(self.steps) != L:
            raise ValueError(
                f"this hyperschedule has {len(self.steps)} start steps but the sequence has {L} tokens"
            )
        return torch.tensor(self.steps)
