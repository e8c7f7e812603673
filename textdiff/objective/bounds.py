"""What is estimated, under its name.

One recipe serves training, validation, the reference bound, perplexity and the harness:

    draw noise  ->  one network call  ->  head and objective at the rows that have a value
                ->  an atom's reconstruction, a second call  ->  the prior term
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..denoiser.head import row_values, to_cavity
from ..denoiser.prediction import Prediction
from ..denoiser.protocol import Denoiser
from ..denoiser.training_rows import training_call
from ..hyperschedule import Hyperschedule
from ..noise import Noise
from ..process import Absorbing, EpsilonHybrid, Process
from .batch import Batch
from .estimators import Draw, Estimator, least_variance
from .objectives import Nelbo, Objective, Rows, ScoreEntropy, WeightedCrossEntropy

JUST_ABOVE_ZERO = 1e-12  # t = 0+, where the atom of ε-Hybrid stands


@dataclass(frozen=True)
class Nats:
    """One draw of a bound on a batch.

    Args:
        total: [] nats, differentiable: the sum of all that depends on the network, so of all but
            the prior term. What training minimises.
        values: [B, L] float64 nats at every position, prior term included, without gradient.
        t: [B, L] in [0, 1], the times at which they were drawn.
    """

    total: Tensor
    values: Tensor
    t: Tensor


@dataclass(frozen=True)
class Bound:
    """A bound on -log p(x), or a loss, and how it is drawn.

        -log p(x) <= Σ_i KL_prior + E[factor · Σ_i value(row i)] + reconstruction of an atom

    by (2.1) in continuous time, (3.1) of the T-step chain and (1.5), (4.5) for the last term. If
    the objective is not that of a bound (`Objective.is_bound`: a loss, or B2 of `maths.md` 4.3), it
    is the middle term alone.

    Args:
        name: what it is called.
        process: whose bound it is.
        hyperschedule: under which schedule.
        objective: what a row of logits is worth.
        estimator: how times and noise are drawn; another one changes the variance, not the mean.
    """

    name: str
    process: Process
    hyperschedule: Hyperschedule
    objective: Objective
    estimator: Estimator

    exact: ClassVar[bool] = False
    """Whether every draw is -log p(x) itself."""

    @property
    def drawn(self) -> Estimator:
        """The estimator, as this objective can be estimated."""
        return self.objective.drawn(self.estimator, self.process)

    def nats(self, network: Denoiser, batch: Batch, noise: Noise) -> Nats:
        """One unbiased draw, at every position.

        Raises:
            ValueError: if the estimator does not hold for the process, the schedule or the network.
        """
        if self.estimator.blind and network.sees_time:
            raise ValueError(
                f"{self.estimator} holds for networks that do not look at t, this one does: "
                "use Stratified"
            )
        N = network.num_tokens
        draw = self.drawn(batch, self.process, self.hyperschedule, N, noise)
        rows = self.at(network, batch, draw)
        if not self.objective.is_bound:
            return rows
        total, values = rows.total, rows.values
        if self.process.atom and draw.s is None:
            last = self.reconstruction(network, batch, noise)
            total, values = total + last.total, values + last.values
        prior = float(self.process.prior_kl(N, self.objective.end(self.process)))
        noised = batch.noised(self.hyperschedule.plan(batch.ids.shape[-1], batch.ids.device))
        priors = prior if noised is None else prior * noised.double()
        return Nats(total, values + priors, draw.t)

    def at(self, network: Denoiser, batch: Batch, draw: Draw) -> Nats:
        """The rows alone, Σ_i factor · value(row i), at a given draw: one network call, and the
        head at the rows that have a value.
        """
        call = training_call(
            network,
            self.hyperschedule,
            batch.ids,
            z=draw.z,
            t=draw.t,
            tiling=draw.tiling,
            document=batch.document,
            fed=batch.fed(self.hyperschedule),
        )
        rows = Rows(batch.ids, draw.z, draw.t, draw.s)
        has_value = self.objective.has_value(rows, network.num_tokens, self.process) & (draw.t > 0)
        places = has_value.nonzero(as_tuple=True)  # once: on a GPU each boolean index waits for it
        chosen = rows[places]
        factor = (torch.ones_like(draw.t) * draw.factor)[places]

        def value(logits: Tensor, part: slice) -> Tensor:
            cavity = to_cavity(network, logits, chosen[part].z)
            return factor[part] * self.objective(cavity, chosen[part], self.process)

        total, values = row_values(network, call.hidden(network)[places], value)
        table = torch.zeros(has_value.shape, dtype=torch.float64, device=values.device)
        table[places] = values
        return Nats(total, table, draw.t)

    def reconstruction(self, network: Denoiser, batch: Batch, noise: Noise) -> Nats:
        """-log p(x | z_0) at t = 0+ for a process with an atom, in continuous time (1.5), (4.5).

        Its draws are not those of the rows.
        """
        t = torch.full_like(batch.ids, JUST_ABOVE_ZERO, dtype=torch.float64)
        plan = self.hyperschedule.plan(t.shape[-1], t.device)
        noised = batch.noised(plan)
        if noised is not None:
            t = torch.where(noised, t, 0.0)
        elsewhere = noise.at(-1 - noise.step)
        z = self.process.shuffle(batch.ids, t, network.num_tokens, elsewhere)
        draw = Draw(z, t, torch.zeros_like(t), plan.tiling_at_zero, factor=1.0)
        return replace(self, objective=Nelbo()).at(network, batch, draw)

    def described(self, L: int) -> str:
        """How it is estimated on L tokens, in words."""
        return self.drawn.described(self.hyperschedule, L)


def bounds(
    process: Process,
    hyperschedule: Hyperschedule,
    L: int,
    *,
    prediction: Prediction = Prediction.CAVITY,
    sees_time: bool = False,
    discrete: bool = False,
) -> dict[str, Bound]:
    """The bounds that can be stated for a network trained under `process`, by name, each with its
    estimator of least variance.

    `nelbo` is the bound of the process that is sampled. An ε-Hybrid network has two more readings
    (`maths.md` 4.3): `b1`, masking only with a clean context (MDLM's bound of the same network),
    and `b2`, unmasking with a noisy display of the context.

    >>> from textdiff.hyperschedule import Block, Flat
    >>> from textdiff.process import EpsilonHybrid, GammaHybrid
    >>> list(bounds(EpsilonHybrid(0.01), Flat(64), L=128))
    ['nelbo', 'b1', 'b2']
    >>> bounds(GammaHybrid(0.3), Block(16, 16), L=128)["nelbo"].described(L=128)
    'stratified, 16-step'

    Args:
        process: the process of training.
        hyperschedule: the schedule whose bounds they are.
        L: tokens of a sequence.
        prediction: what the network predicts.
        sees_time: whether the network looks at t.
        discrete: the T-step bound of a flat schedule instead of continuous time.
    """
    readings: dict[str, tuple[Process, Objective]] = {"nelbo": (process, Nelbo())}
    if prediction == Prediction.LOG_SCORE:
        readings = {"nelbo": (process, ScoreEntropy())}
    elif isinstance(process, EpsilonHybrid):
        readings["b1"] = (Absorbing(), Nelbo())
        readings["b2"] = (process, WeightedCrossEntropy(0.0))
    by_name = {}
    for name, (whose, objective) in readings.items():
        estimator = least_variance(whose, hyperschedule, L, discrete=discrete, sees_time=sees_time)
        if isinstance(objective, ScoreEntropy) and not discrete:
            estimator = objective.reported(whose)
        by_name[name] = Bound(name, whose, hyperschedule, objective, estimator)
    return by_name


def bounds_of_each(
    process: Process, hyperschedule: Hyperschedule, L: int, **options: Any
) -> dict[str, Bound]:
    """The `bounds` of every schedule of a mixture; those of its later ones have its name, too.

    >>> from textdiff.hyperschedule import Flat, Mixture, QuenchedAR
    >>> list(bounds_of_each(Absorbing(), Mixture((QuenchedAR(), Flat(4))), L=8))
    ['nelbo', 'nelbo Flat(levels=4)']
    """
    first, *others = hyperschedule.members
    found = bounds(process, first, L, **options)
    for one in others:
        found |= {
            f"{name} {one}": bound for name, bound in bounds(process, one, L, **options).items()
        }
    return found
