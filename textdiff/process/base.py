"""The family of noising processes: two clocks and a leak, and all that follows from them.

A process is two clocks and a leak (`maths.md` 0-1, columns are conditional on the cleaner state):

    m(t) = P(z_t = MASK)      κ(t) = P(z_t intact | z_t visible)      v(t) = rate MASK -> uniform token

With N ordinary tokens (MASK is id N), u the uniform law on them and c = (1 - κ)/N:

    d_t(y | x) = κ 1[y = x] + c                     the visible law
    q_t(. | x) = m MASK + (1 - m) d_t(. | x)        the marginal, linear in x                               (0.1)

Everything else (corruption, bridge, posterior, rates, prior) is written once for the family. Times
are `t: [B, L] in [0, 1]`, 0 = data; s < t. Clocks are float64. A process that no Markov chain
realises cannot be constructed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..noise import Noise, Stream, uniform_token


class Clock(NamedTuple):
    """The clocks of a process at times t; every field has the shape of t, float64."""

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


class Rates(NamedTuple):
    """The three jump rates at t (1.1)."""

    uniform: Tensor  # u: visible -> a fresh uniform token
    mask: Tensor  # r: visible -> MASK
    leak: Tensor  # v: MASK -> a uniform token


@dataclass(frozen=True)
class Process:
    """Base of all noising processes: a subclass defines `_clock` and, with a leak, `_stay`.

    Raises:
        ValueError: on construction, if no Markov chain has these clocks (a rate of (1.1) is
            negative).
    """

    conditioned: ClassVar[bool] = True
    """Whether a network gains from seeing t: False where the visible tokens tell all (absorbing,
    ε-Hybrid).
    """

    def _clock(self, t: Tensor) -> Clock:
        raise NotImplementedError

    def _stay(self, s: Tensor, t: Tensor) -> Tensor:
        """P(MASK at t | MASK at s); with a leak m_t + (1 - m_s) exp(-∫ (r + v)), for a leaked token
        may be masked again.
        """
        return torch.ones_like(t)

    def __post_init__(self) -> None:
        t = torch.linspace(0.0, 1.0, 257, dtype=torch.float64)
        clock, rates = self._clock(t), self.rates(t[1:-1])
        keep_falls = bool((clock.keep.diff() <= 1e-9).all())
        if not keep_falls or bool((rates.uniform < -1e-9).any()):
            raise ValueError(
                f"{self} is not a Markov process: its uniform clock κ(t) must never rise (rate u = -κ'/κ - v m/(1-m) >= 0)"
            )
        if bool((rates.mask < -1e-9).any()) or (
            not self.leaks and bool((clock.mask.diff() < -1e-9).any())
        ):
            raise ValueError(
                f"{self} is not a Markov process: its mask clock m(t) must never fall (rate r = (m' + v m)/(1-m) >= 0)"
            )

    @property
    def corrupts(self) -> bool:
        """Whether a visible token can be wrong; False only for absorbing noise (κ = 1 throughout)."""
        return True

    @property
    def masks(self) -> bool:
        """Whether MASK ever occurs; False only for uniform noise (m = 0 throughout)."""
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
        """R = (m' + v m)/(1 - m), u = -κ'/κ - v m/(1 - m)  (1.1); t: [...] in (0, 1)."""
        clock = self.clock(t)
        visible = (1 - clock.mask).clamp_min(1e-300)
        leaked = clock.leak * clock.mask / visible
        return Rates(-clock.keep_rate - leaked, clock.mask_rate / visible + leaked, clock.leak)

    def bridge(self, s: Tensor, t: Tensor) -> Bridge:
        """The kernel from s to t, s <= t, both [...] in [0, 1]; where s = t it is the identity
        (1.2).
        """
        cs, ct = self.clock(s), self.clock(t)
        same = s.double() == t.double()
        stay = torch.where(same, 1.0, self._stay(s.double(), t.double()))
        visible_s = (1 - cs.mask).clamp_min(1e-300)
        to_mask = torch.where(same, 0.0, ((ct.mask - cs.mask * stay) / visible_s).clamp(0.0, 1.0))
        log_ratio = torch.where(same, 0.0, ct.log_keep - cs.log_keep)
        visible = torch.where(same, 1.0, (1 - ct.mask) / visible_s)
        fresh = (-torch.expm1(log_ratio) * visible - cs.mask * (1 - stay) / visible_s).clamp_min(
            0.0
        )
        return Bridge(log_ratio.exp() * visible, to_mask, fresh, stay)

    def moves(self, s: Tensor, t: Tensor) -> Tensor:
        """Where a visible token may change in the reverse step t -> s, [...] bool."""
        bridge = self.bridge(s, t)
        return (bridge.fresh > 0) | (bridge.stay < 1)

    def visible_law(self, xhat: Tensor, t: Tensor) -> Tensor:
        """d_t(. | x̂) = κ x̂ + (1 - κ)/N for probabilities xhat [..., N] and t [...]."""
        clock = self.clock(t)
        N = xhat.shape[-1]
        return clock.keep.unsqueeze(-1) * xhat + (clock.log_corrupt.exp() / N).unsqueeze(-1)

    def marginal(self, xhat: Tensor, t: Tensor) -> Tensor:
        """q_t(. | x̂) over the N + 1 states, MASK last (0.1); xhat [..., N], t [...] -> [..., N +
        1].
        """
        mask = self.clock(t).mask.unsqueeze(-1)
        return torch.cat(
            [(1 - mask) * self.visible_law(xhat, t), mask.expand(*xhat.shape[:-1], 1)], -1
        )

    def transition(self, p: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Push a law p over the N + 1 states from s to t with the bridge: [..., N + 1] -> [..., N +
        1] (1.2).
        """
        N = p.shape[-1] - 1
        b = Bridge(*(field.unsqueeze(-1) for field in self.bridge(s, t)))
        tokens, mask = p[..., :N], p[..., N:]
        seen = tokens.sum(-1, keepdim=True)
        return torch.cat(
            [
                b.keep * tokens + (b.fresh * seen + (1 - b.stay) * mask) / N,
                b.to_mask * seen + b.stay * mask,
            ],
            -1,
        )

    def posterior(self, xhat: Tensor, z: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """The plug-in reverse law q(z_s | z_t, x̂) over the N + 1 states (1.3); exact Bayes for a
        one-hot x̂.

        xhat [..., N] cavity probabilities; z, s, t [...]; s < t (where s = t it is the identity).
        """
        N = xhat.shape[-1]
        b, mask_s = self.bridge(s, t), self.clock(s).mask
        law = self.visible_law(xhat, s)
        token = z.clamp(max=N - 1).unsqueeze(-1)
        own = torch.zeros_like(law).scatter_(-1, token, 1.0)
        from_mask = torch.cat(
            [((1 - mask_s) * b.to_mask).unsqueeze(-1) * law, (mask_s * b.stay).unsqueeze(-1)], -1
        )
        kernel = (b.keep.unsqueeze(-1) * own + b.fresh.unsqueeze(-1) / N) * (1 - mask_s).unsqueeze(
            -1
        )
        from_token = torch.cat([kernel * law, (mask_s * (1 - b.stay) / N).unsqueeze(-1)], -1)
        weights = torch.where((z == N).unsqueeze(-1), from_mask, from_token)
        total = weights.sum(-1, keepdim=True)
        identity = torch.nn.functional.one_hot(z, N + 1).to(weights.dtype)
        stuck = (s.double() == t.double()).unsqueeze(-1) | (total <= 0)
        return torch.where(stuck, identity, weights / total.clamp_min(1e-300))

    def shuffle(self, x: Tensor, t: Tensor, N: int, noise: Noise) -> Tensor:
        """The uniform clock alone: a uniform token with probability 1 - κ(t), else x; x, t [B, L]
        -> [B, L].
        """
        if not self.corrupts:
            return x
        corrupted = noise.positions(x, Stream.CORRUPT) < self.clock(t).log_corrupt.exp()
        return torch.where(corrupted, uniform_token(N, noise.positions(x, Stream.UNIFORM_TOKEN)), x)

    def corrupt(self, x: Tensor, t: Tensor, N: int, noise: Noise) -> Tensor:
        """Draw z ~ q_t(. | x); x, t [B, L] -> z [B, L] with MASK = N. Where t = 0 the token stays
        as it is.
        """
        z = self.shuffle(x, t, N, noise)
        return torch.where(noise.positions(x, Stream.MASK) < self.clock(t).mask, N, z)

    def prior(self, shape: torch.Size, N: int, noise: Noise) -> Tensor:
        """Draw from the prior m(1) MASK + (1 - m(1)) u -> [B, L]."""
        device = noise.example.device
        mask = self.clock(torch.ones((), dtype=torch.float64, device=device)).mask
        z = torch.empty(shape, dtype=torch.int64, device=device)
        u = uniform_token(N, noise.positions(z, Stream.UNIFORM_TOKEN))
        return torch.where(noise.positions(z, Stream.MASK) < mask, N, u)

    def prior_kl(self, N: int) -> Tensor:
        """KL(q_1(. | x) || prior) in nats per token (1.4); 0 where m(1) = 1 or κ(1) = 0."""
        clock = self.clock(torch.ones((), dtype=torch.float64))
        c = clock.log_corrupt.exp() / N
        own = clock.keep + c
        return (1 - clock.mask) * (torch.xlogy(own, N * own) + (N - 1) * torch.xlogy(c, N * c))


def inside(t: Tensor) -> Tensor:
    """t moved off 0 and 1 by 1e-15, where rates that are infinite at the very ends are finite;
    float64.
    """
    return t.double().clamp(1e-15, 1 - 1e-15)


def check_range(name: str, value: float, low: float, high: float, closed: str = "[]") -> None:
    """Raise a ValueError, which names the value, unless it lies in the interval."""
    inside = (low <= value if closed[0] == "[" else low < value) and (
        value <= high if closed[1] == "]" else value < high
    )
    if not inside:
        raise ValueError(
            f"{name} must lie in {closed[0]}{low:g}, {high:g}{closed[1]}, got {value!r}"
        )
