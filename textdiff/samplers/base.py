"""The sampler interface: one step of a window, and what a sampler makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from ..denoiser.prediction import Prediction
from ..noise import Noise, Stream, uniform_token
from ..process import Process
from ..process.base import Bridge, Clock
from .draws import categorical, probability
from .filters import Filter, Where, identity

PART = 2**22
"""Float64 numbers of a table [rows, N] that a sampler holds at once: 32 MiB."""

TINY = 1e-300  # divides what is 0 or is not looked at


@dataclass(frozen=True, eq=False)
class Step:
    """One step t -> s of the window [B, W] of some sequences; a position with s = t does not move.

    Clocks and bridge are made once, when they are first asked for.

        >>> from textdiff.process import Absorbing
        >>> z, t = torch.tensor([[0, 3, 3]]), torch.tensor([[0.0, 0.8, 0.8]])
        >>> step = Step(Absorbing(), z, t, s=t / 2, N=3, noise=Noise(0, torch.arange(1)))
        >>> step.masked.tolist(), step.moving.tolist()
        ([[False, True, True]], [[False, True, True]])
        >>> step.over_mask(step.after.mask).tolist()  # m_s/m_t, at which a MASK stays
        [[0.0, 0.5, 0.5]]

    Args:
        process: the noising process.
        z: [B, W] tokens in 0..N, N = MASK.
        t: [B, W] in [0, 1], the times of the tokens.
        s: [B, W] in [0, 1], s <= t, the times they go to.
        N: number of ordinary tokens.
        noise: the draws of this step; it knows the positions of the columns.
        ids: [B, L] the whole sequences, for filters; default: the window is all there is.
    """

    process: Process
    z: Tensor
    t: Tensor
    s: Tensor
    N: int
    noise: Noise
    ids: Tensor | None = None

    @cached_property
    def before(self) -> Clock:
        """The clocks at t, [B, W]."""
        return self.process.clock(self.t)

    @cached_property
    def after(self) -> Clock:
        """The clocks at s, [B, W]."""
        return self.process.clock(self.s)

    @cached_property
    def bridge(self) -> Bridge:
        """The kernel q(z_t | z_s) (1.2), [B, W]."""
        return self.process.bridge(self.s, self.t)

    @cached_property
    def masked(self) -> Tensor:
        """Where the token is MASK, [B, W] bool."""
        return self.z == self.N

    @cached_property
    def visible(self) -> Tensor:
        """Where it is an ordinary token, [B, W] bool."""
        return self.z < self.N

    @cached_property
    def moving(self) -> Tensor:
        """Where t > s, [B, W] bool."""
        return self.t > self.s

    @property
    def loose(self) -> Tensor:
        """Where an ordinary token, if there is one, may change on the way to s, [B, W] bool."""
        return self.moving & self.bridge.moves

    def over_mask(self, x: Tensor) -> Tensor:
        """x / m_t, [B, W]; of no meaning, but finite, where m_t = 0: no token is MASK there."""
        return x / self.before.mask.clamp_min(TINY)

    def over_visible(self, x: Tensor) -> Tensor:
        """x / (1 - m_t), [B, W]; finite where m_t = 1, though no token is visible there."""
        return x / (1 - self.before.mask).clamp_min(TINY)

    def draw(self, stream: Stream) -> Tensor:
        """Uniforms in (0, 1) of one stream, [B, W] float64; the same whenever they are drawn."""
        return self.noise.positions(self.z, stream)

    def to(self, s: Tensor) -> Step:
        """The same step to other times s [B, W]."""
        return replace(self, s=s)

    def where(self, rows: Tensor) -> Where:
        """Whose logits a filter is passed: those of the rows [B, W] bool."""
        if self.ids is None:
            return Where(rows, None, self.z)
        return Where(rows, self.noise.place, self.ids)


@dataclass(frozen=True)
class Sampler:
    """Base of all samplers: a frozen dataclass of options; the network is never inside it.

    The loop of `generation` asks `rows` where a token may change in a step, runs the head there
    only, and gives the logits to `move`. One that unmasks greedily:

        >>> class Greedy(Sampler):
        ...     def rows(self, step):
        ...         return unmasked(step)
        ...
        ...     def move(self, step, rows, logits, filter=identity):
        ...         token = filter(logits, step.where(rows)).argmax(-1)
        ...         return step.z.masked_scatter(rows, token), step.s

    With `own_times` a sampler chooses its times: s = 0 is passed for every position of the window
    that is not settled, `move` returns where each has got to, and the call is repeated until all
    are at 0. The loop refuses these where windows overlap (slide).
    """

    prediction: ClassVar[Prediction] = Prediction.CAVITY
    own_times: ClassVar[bool] = False
    predicts: ClassVar[bool] = True
    """Whether it takes tokens from t to s; a corrector alone does not and finishes nothing."""

    alone: ClassVar[bool] = False
    """Whether it draws one sequence at a time, in `generate`, and shares no call of an engine."""

    @property
    def stages(self) -> tuple[Sampler, ...]:
        """The samplers whose network calls make up one call of the schedule, in turn; more than one
        for predictor and corrector.
        """
        return (self,)

    def check(self, process: Process) -> None:
        """Raise a ValueError if the sampler is not defined for this process."""

    def begin(self, process: Process) -> float:
        """The time at which it begins, in (0, 1]: at the prior of that time."""
        return 1.0

    def rows(self, step: Step) -> Tensor:
        """Where a token may change, [B, W] bool; drawn before the network's logits are known."""
        raise NotImplementedError

    def move(
        self, step: Step, rows: Tensor, logits: Tensor, filter: Filter = identity
    ) -> tuple[Tensor, Tensor]:
        """Take the step.

        Args:
            step: the step that `rows` was asked about.
            rows: [B, W] bool, what `rows` answered.
            logits: [R, N] at these R rows.
            filter: on the logits of the distribution that is drawn.

        Returns:
            The new tokens and their times, [B, W] both.
        """
        raise NotImplementedError


def unmasked(step: Step) -> Tensor:
    """Which masked positions become visible: a coin of probability 1 - m_s stay/m_t (1.3a), [B, W]
    bool.
    """
    stays = step.over_mask(step.after.mask * step.bridge.stay)
    return step.masked & step.moving & (step.draw(Stream.MASK) >= stays)


def parts(rows: Tensor, logits: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows [B, W] bool and their logits [R, N], some rows at a time, so that what is made of
    the logits in float64 stays small.

    >>> rows = torch.tensor([[True, False, True]])
    >>> [(some.tolist(), part.shape[0]) for some, part in parts(rows, torch.zeros(2, PART))]
    [([[True, False, False]], 1), ([[False, False, True]], 1)]
    """
    most = max(1, PART // max(logits.shape[-1], 1))
    if len(logits) <= most:
        yield rows, logits
        return
    number = rows.flatten().cumsum(0).view(rows.shape)
    for begin in range(0, len(logits), most):
        some = rows & (number > begin) & (number <= begin + most)
        yield some, logits[begin : begin + most]


def draw_visible(step: Step, rows: Tensor, logits: Tensor) -> Tensor:
    """Y ~ d_s(. | x̂) in two stages: x̂ with probability κ_s, else a uniform token; logits [R, N]
    -> [R].
    """
    y = categorical(logits, step.draw(Stream.TOKEN)[rows])
    if not step.process.corrupts:
        return y
    corrupted = step.draw(Stream.CORRUPT)[rows] < step.after.log_corrupt[rows].exp()
    other = uniform_token(step.N, step.draw(Stream.UNIFORM_TOKEN)[rows])
    return torch.where(corrupted, other, y)


def ancestral_step(step: Step, rows: Tensor, logits: Tensor, filter: Filter) -> Tensor:
    """The tokens [B, W] after the plug-in reverse law (1.3) was drawn at the chosen rows, given
    that chosen masked rows do unmask.

    A visible token z keeps its value with probability (1-m_s) keep d_s(z)/q_t(z), turns to MASK
    (leak only) with m_s (1-stay)/(N q_t(z)), and is drawn from d_s(. | x̂) otherwise, all with x̂
    in place of x. logits [R, N] are those of the rows.
    """
    y = step.z
    for some, part in parts(rows, logits):
        y = torch.where(some, _ancestral_part(step, some, part, filter), y)
    return y


def _ancestral_part(step: Step, rows: Tensor, logits: Tensor, filter: Filter) -> Tensor:
    """`ancestral_step` of some rows."""
    logits = filter(logits, step.where(rows))
    visible = rows & step.visible
    if not step.process.corrupts or not visible.any():
        return step.z.masked_scatter(rows, draw_visible(step, rows, logits))
    keeps, masks = _own_token(step, visible, logits[visible[rows]])
    route = step.draw(Stream.ROUTE)
    drawn = rows & (step.masked | (route >= keeps + masks))
    remasked = visible & ~drawn & (route >= keeps)
    fresh = draw_visible(step, drawn, logits[drawn[rows]])
    return step.z.masked_fill(remasked, step.N).masked_scatter(drawn, fresh)


def _own_token(step: Step, visible: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The probabilities that a visible token keeps its value without a draw, and that it turns to
    MASK, [B, W] each; logits [R, N] are those of `visible`.
    """
    before, after, bridge, N = step.before, step.after, step.bridge, step.N
    believed = probability(logits, step.z[visible])
    xhat = torch.zeros_like(before.mask).masked_scatter(visible, believed)
    law_s = (1 - after.mask) * bridge.keep * (after.keep * xhat + after.log_corrupt.exp() / N)
    law_t = (1 - before.mask) * (before.keep * xhat + before.log_corrupt.exp() / N)
    law_t = law_t.clamp_min(TINY)
    return law_s / law_t, after.mask * (1 - bridge.stay) / N / law_t


def refuse_moving(sampler: Sampler, process: Process) -> None:
    """Raise a ValueError unless visible tokens rest between their unmasking and the end (absorbing
    noise, ε-Hybrid).
    """
    t = torch.linspace(0.0, 1.0, 17, dtype=torch.float64)[1:-1]
    if not process.masks or process.leaks or bool((process.rates(t).uniform > 0).any()):
        raise ValueError(
            f"{sampler} is defined where visible tokens rest until the end (Absorbing, "
            f"EpsilonHybrid), but under {process} they keep changing: use Ancestral"
        )
