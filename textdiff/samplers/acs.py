"""The Adaptive Correction Sampler, exact and as published."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser.prediction import add_at_own, own_token_shift, posterior_logits
from ..noise import Stream
from ..process import Process
from .ancestral import Ancestral
from .base import Sampler, Step, ancestral_step, draw_visible, parts, unmasked
from .draws import categorical
from .filters import Filter, identity


def refuse_absorbing(sampler: Sampler, process: Process) -> None:
    """Raise a ValueError for noise under which a visible token is never wrong."""
    if not process.corrupts:
        raise ValueError(
            f"{sampler} redraws visible tokens, but under {process} a visible token is never wrong"
            ", so a network learns nothing there: use Ancestral, or train with a hybrid process"
        )


def posterior(step: Step, rows: Tensor, logits: Tensor) -> Tensor:
    """Cavity logits [R, N] of visible tokens -> those of P(x | z_t) (2.3), [R, N]."""
    clock = step.before
    return posterior_logits(logits, step.z[rows], clock.log_keep[rows], clock.log_corrupt[rows])


@dataclass(frozen=True, repr=False)
class ACS(Ancestral):
    """Correct visible tokens while unmasking the others, exactly (`maths.md` 5.4).

    In the step t -> s a visible token is redrawn with probability e: x ~ P(x | z) from the
    posterior, then z_s ~ D_s of that x (the noise is put back); otherwise, and at masked positions,
    the step is ancestral. Given x in place of its prediction this maps q_t(. | x) to q_s(. | x)
    exactly, for every e in [0, 1]. With the true posterior one redrawn position at a time keeps
    q_s; positions redrawn together err at O(e^2) of their correlations.

    e = eta m_s/m_t, or with the step-invariant `rate` C: e = (m_s/m_t)(1 - exp(-C (t - s))), whose
    number of redraws per token does not grow with the number of calls (where nothing masks, s/t
    stands for m_s/m_t and only `rate` is defined).

    Law: that of a non-Markov generative process with a NELBO of its own. For ε-Hybrid that is the
    ancestral one plus Σ KL((1-e)δ_z + e D_x || (1-e)δ_z + e D_x̂) over visible tokens, so no
    reported bound describes its samples. The last step is ancestral.
    """

    eta: float | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if (self.eta is None) == (self.rate is None):
            raise ValueError(
                "ACS takes either eta, a share of m_s/m_t such as 0.01, or rate, corrections per "
                "token such as 1.0"
            )
        value = self.eta if self.eta is not None else self.rate
        if value is None or not value >= 0:
            raise ValueError(f"eta and rate must be >= 0, got {value!r}")

    def __repr__(self) -> str:
        chosen = f"eta={self.eta!r}" if self.eta is not None else f"rate={self.rate!r}"
        return f"{type(self).__name__}({chosen})"

    def check(self, process: Process) -> None:
        refuse_absorbing(self, process)
        if process.leaks:
            raise ValueError(
                f"{self} keeps the marginals of processes without leak, not of {process}: "
                "use Ancestral"
            )
        if self.eta is not None and not process.masks:
            raise ValueError(f"eta scales m_s/m_t, and {process} never masks: use ACS(rate=...)")

    def probability(self, step: Step) -> Tensor:
        """e, the probability of a redraw in the step, [B, W] in [0, 1] (0 where t = s).

        Raises:
            ValueError: where eta m_s/m_t > 1.
        """
        masks = step.process.masks
        ratio = step.over_mask(step.after.mask) if masks else step.s / step.t
        if self.eta is None:
            return torch.where(step.moving, ratio * self._corrected(step), 0.0)
        e = torch.where(step.moving, ratio * self.eta, 0.0)
        if e.numel() and e.max() > 1:
            most = float(e.max())
            raise ValueError(
                f"eta m_s/m_t = {most:g} exceeds 1 in a step: choose eta <= {self.eta / most:g}"
            )
        return e

    def _corrected(self, step: Step) -> Tensor:
        """1 - exp(-C (t - s)): at a rate C some correction falls into the step; [B, W]."""
        return -torch.expm1(-(self.rate or 0.0) * (step.t - step.s))

    def candidates(self, step: Step) -> Tensor:
        """The visible tokens whose logits a redraw may need, [B, W] bool: here those redrawn."""
        return step.visible & (step.draw(Stream.CORRECT) < self.probability(step))

    def redrawn(self, step: Step, rows: Tensor, logits: Tensor) -> Tensor:
        """Which visible tokens are redrawn, [B, W] bool, all among `rows`."""
        return self.candidates(step)

    def rows(self, step: Step) -> Tensor:
        return super().rows(step) | self.candidates(step)

    def move(
        self, step: Step, rows: Tensor, logits: Tensor, filter: Filter = identity
    ) -> tuple[Tensor, Tensor]:
        redrawn = self.redrawn(step, rows, logits)
        others = rows & ~redrawn
        y = ancestral_step(step, others, logits[others[rows]], filter)
        for some, part in parts(redrawn, logits[redrawn[rows]]):
            doubted = filter(posterior(step, some, part), step.where(some))
            y = y.masked_scatter(some, draw_visible(step, some, doubted))
        return y, step.s


@dataclass(frozen=True)
class PublishedACS(Sampler):
    """ACS as the paper's code has it: new values are drawn from softmax(logits) and not noised
    again.

    Masked positions unmask with probability 1 - m_s/m_t; visible ones are redrawn with probability
    eta m_s/m_t from the posterior for self-noise 1/2, which is what the published loss trains
    (cavity + log(1 + N) at the own token). The last step corrects nothing. (The MASK logit that the
    code leaves in does not exist here.)

    Law: none that is known in closed form. Redrawing without noise sharpens: at a fixed context the
    chain settles near p(p + 1/N), about temperature 1/2 (`maths.md` 5.4), so generative perplexity
    and entropy both fall. No bound describes its samples.
    """

    eta: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta!r}")

    def check(self, process: Process) -> None:
        refuse_absorbing(self, process)
        if not process.masks or process.leaks:
            raise ValueError(
                f"the published ACS is defined for MASK-and-uniform noise without leak, not for "
                f"{process}: use ACS(rate=...)"
            )

    def rows(self, step: Step) -> Tensor:
        e = self.eta * step.over_mask(step.after.mask)
        redrawn = step.visible & step.moving & (step.draw(Stream.CORRECT) < e)
        return unmasked(step) | redrawn

    def move(
        self, step: Step, rows: Tensor, logits: Tensor, filter: Filter = identity
    ) -> tuple[Tensor, Tensor]:
        y, u = step.z, step.draw(Stream.TOKEN)
        for some, part in parts(rows, logits):
            published = add_at_own(part.double(), step.z[some], own_token_shift(0.5, step.N))
            drawn = categorical(filter(published, step.where(some)), u[some])
            y = y.masked_scatter(some, drawn)
        return y, step.s
