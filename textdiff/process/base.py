"""The family of noising processes: two clocks and a leak, and all that follows from them.

A process is two clocks and a leak (`maths.md` 0-1):

    m(t) = P(z_t = MASK)      κ(t) = P(z_t intact | z_t visible)      v(t) = rate MASK -> any token

With N ordinary tokens (MASK is id N) and c = (1 - κ)/N:

    d_t(y | x) = κ 1[y = x] + c                     the visible law
    q_t(. | x) = m MASK + (1 - m) d_t(. | x)        the marginal, linear in x                 (0.1)

Three kinds of jump, with the rates of (1.1), lead from one time to a later one:

    token ── u ──> uniform token        token ── r ──> MASK        MASK ── v ──> uniform token

Everything else (corruption, bridge, rates, prior) is written once for the family; the laws of it
all stand in `check.py`. Times are `t: [B, L] in [0, 1]`, 0 = data; s < t. Clocks are float64. A
process that no Markov chain realises cannot be constructed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..noise import Noise, Stream, uniform_token


class Clock(NamedTuple):
    """The clocks of a process at times t; every field has the shape of t, float64.

    log κ and log(1 - κ) are kept apart, because 1 - κ loses its digits where κ is almost 1.
    """

    mask: Tensor  # m
    mask_rate: Tensor  # m' = dm/dt
    log_keep: Tensor  # log κ
    log_corrupt: Tensor  # log(1 - κ)
    keep_rate: Tensor  # κ'/κ <= 0
    leak: Tensor  # v

    @property
    def keep(self) -> Tensor:
        """κ, for reading."""
        return self.log_keep.exp()

    def log_odds(self, N: int) -> Tensor:
        """L = log(κ/c), the own-token log-odds, clipped to <= 80 (κ = 1) and >= -700 (κ = 0)."""
        return (self.log_keep + math.log(N) - self.log_corrupt.clamp_min(-80.0)).clamp(-700.0, 80.0)


class Bridge(NamedTuple):
    """The kernel q(z_t | z_s) as four numbers per position (1.2); `keep + to_mask + fresh = 1`."""

    keep: Tensor  # visible: no event
    to_mask: Tensor  # visible -> MASK
    fresh: Tensor  # visible -> a fresh uniform token
    stay: Tensor  # MASK -> MASK; 1 - stay leaks to a uniform token

    @property
    def moves(self) -> Tensor:
        """Where a visible token may change on the way back, bool."""
        return (self.fresh > 0) | (self.stay < 1)


class Rates(NamedTuple):
    """The three jump rates at t (1.1)."""

    uniform: Tensor  # u: visible -> a fresh uniform token
    mask: Tensor  # r: visible -> MASK
    leak: Tensor  # v: MASK -> a uniform token


@dataclass(frozen=True)
class Process:
    """Base of all noising processes: a subclass defines `_clock` and, with a leak, `_stay`.

    A process of your own, which masks slowly at first and lets one token in ten be wrong:

    >>> @dataclass(frozen=True)
    ... class Slow(Process):
    ...     def _clock(self, t):
    ...         return Clock(
    ...             mask=t**2,
    ...             mask_rate=2 * t,
    ...             log_keep=torch.log1p(-t / 10),
    ...             log_corrupt=torch.log(t / 10),
    ...             keep_rate=-1 / (10 - t),
    ...             leak=torch.zeros_like(t),
    ...         )
    >>> from textdiff.process import check
    >>> check(Slow())  # silent, for all of it is consistent
    >>> t = torch.linspace(0, 1, 8).expand(1, 8)
    >>> noise = Noise(seed=67, example=torch.tensor([0]))
    >>> Slow().corrupt(torch.full((1, 8), 7), t, 99, noise).tolist()  # MASK is 99
    [[7, 7, 7, 56, 7, 99, 7, 99]]

    Raises:
        ValueError: on construction, if no Markov chain has these clocks (a rate of (1.1) is
            negative).
    """

    needs_time: ClassVar[bool] = True
    """Whether a network gains from seeing t: False where the visible tokens tell all (absorbing,
    ε-Hybrid).
    """

    def _clock(self, t: Tensor) -> Clock:
        raise NotImplementedError

    def _stay(self, s: Tensor, t: Tensor) -> Tensor:
        """P(MASK at t | MASK at s): 1 without a leak.

        With one it is m_t + (1 - m_s) exp(-∫_s^t (r + v)), for a leaked token may be masked again.
        """
        return torch.ones_like(t)

    def __post_init__(self) -> None:
        t = torch.linspace(0.0, 1.0, 257, dtype=torch.float64)
        clock = self._clock(t)
        rates = self.rates(t[1:-1])
        keep_falls = bool((clock.keep.diff() <= 1e-9).all())
        if not keep_falls or bool((rates.uniform < -1e-9).any()):
            raise ValueError(
                f"{self} is not a Markov process: its uniform clock κ(t) must never rise "
                "(rate u = -κ'/κ - v m/(1-m) >= 0)"
            )
        mask_rises = self.leaks or bool((clock.mask.diff() >= -1e-9).all())
        if not mask_rises or bool((rates.mask < -1e-9).any()):
            raise ValueError(
                f"{self} is not a Markov process: its mask clock m(t) must never fall "
                "(rate r = (m' + v m)/(1-m) >= 0)"
            )

    @property
    def corrupts(self) -> bool:
        """Whether a visible token can be wrong; False only for absorbing noise (κ = 1)."""
        return True

    @property
    def masks(self) -> bool:
        """Whether MASK ever occurs; False only for uniform noise (m = 0)."""
        return True

    @property
    def leaks(self) -> bool:
        """Whether MASK turns into tokens (v > 0), as in GIDD."""
        return False

    @property
    def atom(self) -> float:
        """1 - κ(0+): corruption that happens at t = 0+ in one jump (ε-Hybrid), else 0."""
        return 0.0

    def clock(self, t: Tensor) -> Clock:
        """The clocks at t: [...] in [0, 1].

        Raises:
            ValueError: if a time lies outside [0, 1]; looked for on the CPU only, for a GPU would
                have to be waited for.
        """
        t = t.double()
        if t.numel() and t.device.type == "cpu":
            low, high = t.aminmax()
            if not (low >= 0 and high <= 1):
                raise ValueError(
                    f"times must lie in [0, 1], got values from {float(low):g} to {float(high):g}"
                )
        return self._clock(t)

    def rates(self, t: Tensor) -> Rates:
        """The rates r = (m' + v m)/(1 - m), u = -κ'/κ - v m/(1 - m) and v at t: [...] in (0, 1)
        (1.1).

        >>> from textdiff.process import Absorbing
        >>> float(Absorbing().rates(torch.tensor(0.5)).mask)  # r = 1/(1 - t)
        2.0
        """
        clock = self.clock(t)
        visible = (1 - clock.mask).clamp_min(1e-300)
        leaked = clock.leak * clock.mask / visible
        return Rates(
            uniform=-clock.keep_rate - leaked,
            mask=clock.mask_rate / visible + leaked,
            leak=clock.leak,
        )

    def bridge(self, s: Tensor, t: Tensor) -> Bridge:
        """The kernel from s to t, s <= t, both [...] in [0, 1]; where s = t it is the identity
        (1.2).

        >>> from textdiff.process import Absorbing
        >>> bridge = Absorbing().bridge(torch.tensor(0.5), torch.tensor(0.75))
        >>> float(bridge.keep), float(bridge.to_mask)  # half of what is visible at 0.5 is masked
        (0.5, 0.5)
        """
        cs = self.clock(s)
        ct = self.clock(t)
        same = s.double() == t.double()
        stay = torch.where(same, 1.0, self._stay(s.double(), t.double()))
        visible_s = (1 - cs.mask).clamp_min(1e-300)
        to_mask = torch.where(same, 0.0, ((ct.mask - cs.mask * stay) / visible_s).clamp(0.0, 1.0))
        log_ratio = torch.where(same, 0.0, ct.log_keep - cs.log_keep)
        visible = torch.where(same, 1.0, (1 - ct.mask) / visible_s)
        leaked = cs.mask * (1 - stay) / visible_s
        fresh = (-torch.expm1(log_ratio) * visible - leaked).clamp_min(0.0)
        return Bridge(keep=log_ratio.exp() * visible, to_mask=to_mask, fresh=fresh, stay=stay)

    def moves(self, s: Tensor, t: Tensor) -> Tensor:
        """Where a visible token may change in the reverse step t -> s, [...] bool."""
        return self.bridge(s, t).moves

    def shuffle(self, x: Tensor, t: Tensor, N: int, noise: Noise) -> Tensor:
        """The uniform clock alone: a uniform token with probability 1 - κ(t), else x; x, t [B, L]
        -> [B, L].
        """
        if not self.corrupts:
            return x
        corrupted = noise.positions(x, Stream.CORRUPT) < self.clock(t).log_corrupt.exp()
        token = uniform_token(N, noise.positions(x, Stream.UNIFORM_TOKEN))
        return torch.where(corrupted, token, x)

    def corrupt(self, x: Tensor, t: Tensor, N: int, noise: Noise) -> Tensor:
        """Draw z ~ q_t(. | x); x, t [B, L] -> z [B, L] with MASK = N. Where t = 0 the token stays
        as it is.
        """
        z = self.shuffle(x, t, N, noise)
        return torch.where(noise.positions(x, Stream.MASK) < self.clock(t).mask, N, z)

    @property
    def last(self) -> float:
        """The noisiest time of log-scores: 1, or just below it where nothing is left at 1.

        Where κ(1) = 0 all ratios q_1(y)/q_1(z) are the same whatever the data are, and the clock is
        infinite: the reverse process of log-scores begins at 1 - 1e-3, with that time's prior.

        >>> from textdiff.process import Absorbing, GammaHybrid, Uniform
        >>> Absorbing().last, Uniform().last, GammaHybrid(0.05, tail=5e-3).last
        (1.0, 0.999, 1.0)
        """
        nothing_left = float(self.clock(torch.ones((), dtype=torch.float64)).keep) == 0
        return 1 - 1e-3 if nothing_left else 1.0

    def prior(self, shape: torch.Size, N: int, noise: Noise, t: float = 1.0) -> Tensor:
        """Draw from the prior m(t) MASK + (1 - m(t)) u -> [B, L]."""
        device = noise.example.device
        mask = self.clock(torch.full((), t, dtype=torch.float64, device=device)).mask
        z = torch.empty(shape, dtype=torch.int64, device=device)
        u = uniform_token(N, noise.positions(z, Stream.UNIFORM_TOKEN))
        return torch.where(noise.positions(z, Stream.MASK) < mask, N, u)

    def prior_kl(self, N: int, t: float = 1.0) -> Tensor:
        """KL(q_t(. | x) || prior) in nats per token (1.4); 0 where m(t) = 1 or κ(t) = 0.

        >>> from textdiff.process import GammaHybrid
        >>> round(float(GammaHybrid(0.01, tail=5e-3).prior_kl(50257)), 4)  # as published
        0.0531
        """
        clock = self.clock(torch.full((), t, dtype=torch.float64))
        c = clock.log_corrupt.exp() / N
        own = clock.keep + c
        return (1 - clock.mask) * (torch.xlogy(own, N * own) + (N - 1) * torch.xlogy(c, N * c))


def inside(t: Tensor) -> Tensor:
    """t moved off 0 and 1 by 1e-15, where rates that are infinite at the very ends are finite;
    float64.
    """
    return t.double().clamp(1e-15, 1 - 1e-15)


def check_range(name: str, value: float, low: float, high: float, *, closed: str = "[]") -> None:
    """Raise a ValueError, which names the value, unless it lies in the interval.

    >>> check_range("gamma", 1.5, 0, 1)
    Traceback (most recent call last):
    ValueError: gamma must lie in [0, 1], got 1.5
    """
    above = low <= value if closed[0] == "[" else low < value
    below = value <= high if closed[1] == "]" else value < high
    if not (above and below):
        raise ValueError(
            f"{name} must lie in {closed[0]}{low:g}, {high:g}{closed[1]}, got {value!r}"
        )
