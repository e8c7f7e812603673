"""The sampler interface, and the reverse step of one process that samplers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..denoiser.prediction import Prediction
from ..noise import Noise, Stream, categorical, probability, uniform_token
from ..process import Process
from .filters import Filter, identity


@dataclass(frozen=True)
class Sampler:
    """Base of all samplers: a frozen dataclass of options; the network is never inside it.

    The loop of `generation` asks `rows` where a token may change in the step t -> s, runs the head
    there only, and gives the logits to `step`. It passes the window of the call: columns are the
    active positions, `noise` knows where they are. All times are per position, [B, L]; a position
    with s = t does not move.

    With `own_times` a sampler chooses its times: s = 0 is passed for every position of the window
    that is not settled, `step` returns where each has got to, and the call is repeated until all
    are at 0. The loop refuses these where windows overlap (slide).
    """

    prediction: ClassVar[Prediction] = Prediction.CAVITY
    own_times: ClassVar[bool] = False
    predicts: ClassVar[bool] = True
    """Whether it takes tokens from t to s; a corrector alone does not and finishes nothing."""

    @property
    def stages(self) -> tuple[Sampler, ...]:
        """The samplers whose network calls make up one call of the schedule, in turn; more than one
        for predictor and corrector.
        """
        return (self,)

    def check(self, process: Process) -> None:
        """Raise a ValueError if the sampler is not defined for this process."""

    def rows(
        self, process: Process, z: Tensor, t: Tensor, s: Tensor, N: int, noise: Noise
    ) -> Tensor:
        """Where a token may change, [B, L] bool; drawn before the network's logits are known."""
        raise NotImplementedError

    def step(
        self,
        process: Process,
        logits: Tensor,
        rows: Tensor,
        z: Tensor,
        t: Tensor,
        s: Tensor,
        noise: Noise,
        warp: Filter = identity,
    ) -> tuple[Tensor, Tensor]:
        """The step t -> s.

        Args:
            process: the noising process.
            logits: [R, N] at the R chosen rows.
            rows: [B, L] bool, from `rows`.
            z: [B, L] in 0..N.
            t, s: [B, L] in [0, 1], s <= t.
            noise: the draws of this call.
            warp: filter on the logits of the distribution that is drawn.

        Returns:
            The new tokens and their times, [B, L] both.
        """
        raise NotImplementedError


def unmasks(process: Process, z: Tensor, t: Tensor, s: Tensor, N: int, noise: Noise) -> Tensor:
    """Which masked positions become visible: a coin of probability 1 - m_s stay/m_t (1.3a), [B, L]
    bool.
    """
    ratio = (
        process.clock(s).mask * process.bridge(s, t).stay / process.clock(t).mask.clamp_min(1e-300)
    )
    return (z == N) & (t > s) & (noise.positions(z, Stream.MASK) >= ratio)


def draw_visible(process: Process, logits: Tensor, s: Tensor, noise: Noise, rows: Tensor) -> Tensor:
    """Y ~ d_s(. | x̂) in two stages: x̂ with probability κ_s, else a uniform token; logits [R, N]
    -> [R].
    """
    y = categorical(logits, noise.positions(rows, Stream.TOKEN)[rows])
    if not process.corrupts:
        return y
    corrupted = (
        noise.positions(rows, Stream.CORRUPT)[rows] < process.clock(s[rows]).log_corrupt.exp()
    )
    return torch.where(
        corrupted,
        uniform_token(logits.shape[-1], noise.positions(rows, Stream.UNIFORM_TOKEN)[rows]),
        y,
    )


def reverse_step(
    process: Process, logits: Tensor, rows: Tensor, z: Tensor, t: Tensor, s: Tensor, noise: Noise
) -> Tensor:
    """Draw from the plug-in reverse law (1.3) at the chosen rows, given that chosen masked rows do
    unmask -> [R].

    A visible token z keeps its value with probability (1-m_s) keep d_s(z)/q_t(z), turns to MASK
    (leak only) with m_s (1-stay)/(N q_t(z)), and is drawn from d_s(. | x̂) otherwise, all with x̂
    in place of x.
    """
    N, own = logits.shape[-1], z[rows]
    visible = own < N
    if not process.corrupts or not visible.any():
        return draw_visible(process, logits, s, noise, rows)
    before, after, bridge = (
        process.clock(t[rows]),
        process.clock(s[rows]),
        process.bridge(s[rows], t[rows]),
    )
    believed = probability(logits[visible], own[visible])
    xhat = torch.zeros_like(before.mask).masked_scatter(visible, believed)
    law_t = ((1 - before.mask) * (before.keep * xhat + before.log_corrupt.exp() / N)).clamp_min(
        1e-300
    )
    keeps = (
        (1 - after.mask) * bridge.keep * (after.keep * xhat + after.log_corrupt.exp() / N) / law_t
    )
    masks = after.mask * (1 - bridge.stay) / N / law_t
    u = noise.positions(rows, Stream.ROUTE)[rows]
    drawn = ~visible | (u >= keeps + masks)
    fresh = draw_visible(process, logits[drawn], s, noise, rows.masked_scatter(rows, drawn))
    return torch.where(u < keeps, own, N).masked_scatter(drawn, fresh)


def refuse_moving(sampler: Sampler, process: Process) -> None:
    """Raise a ValueError unless visible tokens rest between their unmasking and the end (absorbing
    noise, ε-Hybrid).
    """
    t = torch.linspace(0.0, 1.0, 17, dtype=torch.float64)[1:-1]
    if not process.masks or process.leaks or bool((process.rates(t).uniform > 0).any()):
        raise ValueError(
            f"{sampler} is defined where visible tokens rest until the end (Absorbing, EpsilonHybrid), but under {process} they "
            "keep changing: use Ancestral"
        )
