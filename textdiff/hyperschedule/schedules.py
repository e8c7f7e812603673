"""Hyperschedules by name: each is a number of levels T and start steps s(i)."""

from __future__ import annotations

from collections.abc import Sequence
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
    """One call per token, left to right: T = 1, s(i) = i.

    Autoregression; in the shifted layout GPT.

        >>> QuenchedAR().start(6).tolist()
        [0, 1, 2, 3, 4, 5]
    """

    @property
    def T(self) -> int:
        return 1

    def start(self, L: int) -> Tensor:
        return torch.arange(L)


@dataclass(frozen=True)
class Flat(Hyperschedule):
    """All positions together: s(i) = 0 (SEDD, MDLM).

        >>> Flat(64).start(6).tolist(), Flat(64).calls(6)
        ([0, 0, 0, 0, 0, 0], 64)

    Args:
        levels: T, also the number of calls.
    """

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
    """Blocks of tokens one after the other: s(i) = T floor(i/width) (BD3-LM, SSD-LM).

        >>> Block(2, 4).start(6).tolist()
        [0, 0, 4, 4, 8, 8]

    Args:
        width: ω, tokens in a block.
        levels: T.
        block_causal: whether settled tokens see their whole block, not just up to themselves. Only
            here is that exact with a key-value cache, for a block settles as one (`maths.md` 6).
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
    """Blocks of which one starts at the call that settles the last: s(i) = (T-1) floor(i/width).

    HDLM's noising figure.

        >>> TightBlock(2, 4).start(6).tolist()
        [0, 0, 3, 3, 6, 6]

    Args:
        width: tokens in a block.
        levels: T >= 2.
    """

    width: int = 16
    levels: int = 16

    def __post_init__(self) -> None:
        _positive("width", self.width)
        _positive("levels", self.levels)
        if self.levels < 2:
            raise ValueError(
                f"a tight block needs levels >= 2, got {self.levels}: "
                "with one level use Block or QuenchedAR"
            )

    @property
    def T(self) -> int:
        return self.levels

    def start(self, L: int) -> Tensor:
        return (self.levels - 1) * (torch.arange(L) // self.width)


@dataclass(frozen=True)
class OverlapBlock(Hyperschedule):
    """Blocks that start `delay` calls apart: s(i) = delay floor(i/width) (multi-block decoding).

    Blocks in flight are at different noise and see each other; a block still settles as one.
    `delay` = T is `Block`, T - 1 is `TightBlock`.

        >>> OverlapBlock(2, 1, levels=4).start(6).tolist()
        [0, 0, 1, 1, 2, 2]

    Args:
        width: tokens in a block.
        delay: calls between the starts of two blocks, in 1..levels.
        levels: T.
        block_causal: as of `Block`.
    """

    width: int = 16
    delay: int = 8
    levels: int = 16
    block_causal: bool = False

    def __post_init__(self) -> None:
        _positive("width", self.width)
        _positive("levels", self.levels)
        _positive("delay", self.delay)
        if self.delay > self.levels:
            raise ValueError(
                f"delay must be in 1..{self.levels}, got {self.delay}: a block that waits longer "
                "than one takes leaves calls that do nothing"
            )

    @property
    def T(self) -> int:
        return self.levels

    def start(self, L: int) -> Tensor:
        return self.delay * (torch.arange(L) // self.width)

    def order(self, L: int) -> Tensor:
        return self.start(L) if self.block_causal else super().order(L)


@dataclass(frozen=True)
class Slide(Hyperschedule):
    """A window that slides on: T = ceil(width/rate), s(i) = floor(i/rate).

        >>> Slide(4, 2).start(6).tolist(), Slide(4, "1/2").start(6).tolist()
        ([0, 0, 1, 1, 2, 2], [0, 2, 4, 6, 8, 10])

    Args:
        width: ω, tokens in the window.
        rate: ρ, tokens settled per call, an integer or a fraction such as "1/2": floats get the
            floor wrong and are refused.
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
            if "e" in str(self.rate).lower():  # 1e99999999 takes all memory
                raise ValueError
            rate = Fraction(self.rate)
        except (ValueError, TypeError, ZeroDivisionError):
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
    """Any order: the user's own start steps (random-order AR, diagonals within blocks, ...).

        >>> StartSteps(1, (2, 0, 1)).plan(3).position.tolist()
        [1, 2, 0]

    Args:
        levels: T.
        steps: s(i), one integer >= 0 per position; fits sequences of that length only.
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

    @classmethod
    def in_order(cls, order: Sequence[int], group: int = 1, levels: int = 1) -> StartSteps:
        """Groups of `group` positions one after the other, T = `levels` calls each.

            >>> StartSteps.in_order((2, 0, 1, 3), group=2, levels=3)
            StartSteps(levels=3, steps=(0, 3, 0, 3))

        Args:
            order: the positions 0..L-1, that which goes first first (`hyperschedule.orders`).

        Raises:
            ValueError: if `order` is no permutation of 0..L-1.
        """
        _positive("group", group)
        _positive("levels", levels)
        if sorted(order) != list(range(len(order))):
            raise ValueError(f"order must hold each of 0..{len(order) - 1} once, got {order!r}")
        steps = [0] * len(order)
        for rank, position in enumerate(order):
            steps[position] = levels * (rank // group)
        return cls(levels, tuple(steps))

    @property
    def T(self) -> int:
        return self.levels

    def start(self, L: int) -> Tensor:
        if len(self.steps) != L:
            raise ValueError(
                f"this hyperschedule has {len(self.steps)} start steps "
                f"but the sequence has {L} tokens"
            )
        return torch.tensor(self.steps)
