"""Remasking (ReMDM), for absorbing noise and hybrids."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import Stream
from ..process import Process
from .ancestral import Ancestral
from .base import Step, ancestral_step
from .filters import Filter, identity


@dataclass(frozen=True)
class Remasking:
    """Base of the rules that give σ, the probability that a visible token is masked again, from the
    largest admissible one.
    """

    def __call__(self, bound: Tensor) -> Tensor:
        """σ in [0, bound], the shape of `bound`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Capped(Remasking):
    """σ = min(bound, cap) (ReMDM-cap)."""

    cap: float

    def __post_init__(self) -> None:
        if not 0 <= self.cap <= 1:
            raise ValueError(f"cap must lie in [0, 1], got {self.cap!r}")

    def __call__(self, bound: Tensor) -> Tensor:
        return bound.clamp(max=self.cap)


@dataclass(frozen=True)
class Rescaled(Remasking):
    """σ = eta · bound (ReMDM-rescale); eta = 0 is ancestral."""

    eta: float

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(
                f"eta must lie in [0, 1], got {self.eta!r}: "
                "the probability of remasking may not exceed its bound"
            )

    def __call__(self, bound: Tensor) -> Tensor:
        return self.eta * bound


@dataclass(frozen=True)
class ReMDM(Ancestral):
    """Mask visible tokens again with probability σ and unmask the more (arXiv 2503.00307;
    `maths.md` 5.5).

    In the step t -> s a visible token turns to MASK with probability σ <= min(1, m_s/(1 - m_t)) and
    otherwise takes its ancestral step, which is none under absorbing noise; a MASK stays with
    probability (m_s - σ (1 - m_t))/m_t, else it is drawn from d_s(. | x̂). Times and σ are per
    position, so every hyperschedule will do. At s = 0 the bound is 0: the last step is ancestral.

    Law: that of a non-Markov generative process with the same marginals: given x in place of its
    prediction q_t(. | x) becomes q_s(. | x) exactly. It has a NELBO of its own (absorbing:
    cross-entropies of weight 1 - (m_s - σ (1 - m_t))/m_t >= 1 - m_s/m_t), so the bound of the
    ancestral sampler does not describe its samples.
    """

    sigma: Remasking = Rescaled(0.1)

    def check(self, process: Process) -> None:
        if not process.masks or process.leaks:
            raise ValueError(
                f"{self} is defined for noise that masks and never unmasks, not for {process}: "
                "use Ancestral"
            )

    def probability(self, step: Step) -> Tensor:
        """σ in the step, [B, W] (0 where t = s).

        Raises:
            ValueError: where σ exceeds min(1, m_s/(1 - m_t)).
        """
        bound = torch.where(step.moving, step.over_visible(step.after.mask), 0.0).clamp(max=1.0)
        sigma = self.sigma(bound)
        if bool(((sigma < 0) | (sigma > bound)).any()):
            raise ValueError(
                f"{self.sigma} gives a probability of remasking outside "
                "[0, min(1, m_s/(1 - m_t))]: lower it"
            )
        return sigma

    def _remasked(self, step: Step) -> Tensor:
        return step.visible & (step.draw(Stream.CORRECT) < self.probability(step))

    def rows(self, step: Step) -> Tensor:
        remasked = self.probability(step) * (1 - step.before.mask)
        stays = step.over_mask(step.after.mask - remasked)
        unmasked = step.masked & step.moving & (step.draw(Stream.MASK) >= stays)
        return unmasked | (step.visible & step.loose) | self._remasked(step)

    def move(
        self, step: Step, rows: Tensor, logits: Tensor, filter: Filter = identity
    ) -> tuple[Tensor, Tensor]:
        remasked = self._remasked(step)
        others = rows & ~remasked
        y = ancestral_step(step, others, logits[others[rows]], filter)
        return y.masked_fill(remasked, step.N), step.s
