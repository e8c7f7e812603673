"""Unbiased estimates of a bound: which times and which noise are drawn, and the sum over a sequence.

    -log p(x) <= Σ_i KL_prior + E[ factor · Σ_i value(row i) ] + reconstruction of an atom            (2.1), (3.1)

One path for every hyperschedule, the tiling: each position is in one window, all windows are seen in one network call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .call import training_call
from .constants import Constants, constants
from .hyperschedule import Hyperschedule, Tiling, tile
from .network.head import row_values, to_cavity
from .network.protocol import Denoiser
from .noise import RUN, Noise, Stream, stratified
from .objective import Nelbo, Objective, Rows, ScoreEntropy, WeightedCrossEntropy
from .prediction import Prediction
from .process import Absorbing, EpsilonHybrid, Process

JUST_ABOVE_ZERO = 1e-12  # t = 0+, where the atom of ε-Hybrid stands


@dataclass(frozen=True)
class Batch:
    """Sequences to be scored.

    Args:
        ids: [B, L] in 0..N-1.
        example: [B] names each row for the noise.
        slot: [B] running number in the order of the data; neighbours are stratified.
        valid: [B, L] False at ignored padding, or None.
        document: [B, L] attention stays inside a document, or None.
        key: times of different keys are independent.
        given: [B, L] True at known tokens: seen at t = 0 and not scored, so that the bound is one of the others given them; or None.
    """

    ids: Tensor
    example: Tensor
    slot: Tensor
    valid: Tensor | None = None
    document: Tensor | None = None
    key: int = 0
    given: Tensor | None = None

    @property
    def counts(self) -> Tensor | None:
        """[B, L] True at tokens that are noised and scored; None: all."""
        if self.given is None:
            return self.valid
        return ~self.given if self.valid is None else self.valid & ~self.given

    @property
    def scored(self) -> Tensor:
        """[B] number of tokens that count."""
        return torch.full_like(self.example, self.ids.shape[-1]) if self.counts is None else self.counts.sum(-1)


@dataclass(frozen=True)
class Draw:
    """Noisy sequences: z [B, L]; t and s [B, L] (s None: continuous time); their tiling; the factor of the sum."""

    z: Tensor
    t: Tensor
    s: Tensor | None
    tiling: Tiling
    factor: float


def continuous(schedule: Hyperschedule, L: int) -> bool:
    """Whether the bound is reported in continuous time: for flat schedules; others have a T-step bound of their own."""
    return constants(schedule, L, torch.device("cpu")).flat


@dataclass(frozen=True)
class Estimator:
    """Base of the ways to draw noise levels."""

    blind: ClassVar[bool] = False
    """Whether it holds only for networks that do not look at t."""

    def __call__(self, batch: Batch, process: Process, schedule: Hyperschedule, N: int, noise: Noise) -> Draw:
        """One noisy version of each sequence."""
        raise NotImplementedError


def _per_group(batch: Batch, fixed: Constants, noise: Noise) -> Tensor:
    """One stratified uniform for each group of a hyperschedule, [B, L].

    A single group is stratified over neighbouring slots. Several are stratified over a sequence, in a run of their own: runs that
    sequences shared would give the same group of all of them the same half of [0, 1).
    """
    run = 1 if fixed.groups == 1 else -(-fixed.groups // RUN) * RUN
    slot = batch.slot.unsqueeze(-1) * run + torch.arange(fixed.groups, device=batch.slot.device)
    return stratified(noise.seed, batch.key, slot)[:, fixed.group]


@dataclass(frozen=True)
class Stratified(Estimator):
    """Offsets stratified over neighbouring slots and over the blocks of a sequence (`maths.md` 3.4, 4.5).

    `discrete` asks for the T-step bound of a flat schedule too.
    """

    discrete: bool = False

    def __call__(self, batch: Batch, process: Process, schedule: Hyperschedule, N: int, noise: Noise) -> Draw:
        """Draw times from the schedule's tiling, and noise at them."""
        L = batch.ids.shape[-1]
        steps = self.discrete or not continuous(schedule, L)
        fixed = constants(schedule, L, batch.ids.device)
        offset = _per_group(batch, fixed, noise) * schedule.T
        tiling = tile(fixed.start, schedule.T, offset.floor() if steps else offset)
        level, tiling = tiling.level, fixed.tiling if fixed.apart else tiling
        t = level / schedule.T
        s = (level - 1) / schedule.T if steps else None
        if batch.counts is not None:
            t = torch.where(batch.counts, t, 0.0)
            s = None if s is None else torch.where(batch.counts, s, 0.0)
        z = process.corrupt(batch.ids, t, N, noise)
        return Draw(z, t, s, tiling, float(schedule.T) if steps else 1.0)


@dataclass(frozen=True)
class MaskCount(Estimator):
    """Condition on the number of masks: l uniform on {1..d}, a random l-subset masked, weight d/l instead of 1/t (4.6).

    Far less variance than a draw of t. For absorbing and ε-Hybrid noise (m = t, networks that do not see t), flat and block schedules
    (d is a block's length then), in continuous time. With the weighted cross-entropy, the visible terms leave out the count l = 0, a
    part 1/d of them.
    """

    blind: ClassVar[bool] = True

    def __call__(self, batch: Batch, process: Process, schedule: Hyperschedule, N: int, noise: Noise) -> Draw:
        """Draw a mask count and a subset per block; t = l/d makes the weight m'/m = d/l.

        Raises:
            ValueError: for other processes and schedules.
        """
        L = batch.ids.shape[-1]
        if process.conditioned or not process.masks:
            raise ValueError(f"mask-count conditioning holds for absorbing and ε-Hybrid noise, not for {process}: use Stratified")
        fixed = constants(schedule, L, batch.ids.device)
        group = fixed.group
        if not fixed.apart:
            raise ValueError(f"mask-count conditioning holds where windows never overlap, not for {schedule}: use Stratified")
        valid = torch.ones_like(batch.ids, dtype=torch.bool) if batch.counts is None else batch.counts
        members = torch.zeros(len(valid), fixed.groups, dtype=torch.int64, device=valid.device)
        d = members.scatter_add(-1, group.expand_as(valid), valid.long())[:, group]
        count = 1 + (_per_group(batch, fixed, noise) * d).long()
        t = torch.where(valid, count / d.clamp_min(1).double(), 0.0)
        rank = _rank(noise.positions(batch.ids, Stream.ORDER) + (~valid).double(), group)
        z = torch.where(valid & (rank < count), N, process.shuffle(batch.ids, t, N, noise))
        return Draw(z, t, None, fixed.tiling, 1.0)


def _rank(u: Tensor, group: Tensor) -> Tensor:
    """Rank of each u [B, L] in [0, 2) among those of its group [L], from 0."""
    rank = (u + 2 * group).argsort(-1).argsort(-1)
    before = torch.zeros_like(group).scatter_add(0, group, torch.ones_like(group)).cumsum(0)
    return rank - torch.cat([torch.zeros_like(before[:1]), before[:-1]])[group]


def row_sum(
    network: Denoiser, batch: Batch, draw: Draw, objective: Objective, process: Process, schedule: Hyperschedule
) -> tuple[Tensor, Tensor]:
    """One network call and the head at the rows that have a value.

    Returns:
        The differentiable sum of factor · value over the batch, and the values [B, L] float64 in nats (without gradient).
    """
    call = training_call(network, schedule, batch.ids, draw.z, draw.t, draw.tiling, batch.document, batch.valid)
    rows = Rows(batch.ids, draw.z, draw.t, draw.s)
    bears = objective.bears(rows, network.num_tokens, process) & (draw.t > 0)
    places = bears.nonzero(as_tuple=True)  # once: on a GPU each boolean index waits for it
    chosen = rows[places]

    def value(logits: Tensor, part: slice) -> Tensor:
        return draw.factor * objective(to_cavity(network, logits, chosen[part].z), chosen[part], process)

    total, values = row_values(network, call.hidden(network)[places], value)
    table = torch.zeros(bears.shape, dtype=torch.float64, device=values.device)
    table[places] = values
    return total, table


def reconstruction(
    network: Denoiser, batch: Batch, process: Process, schedule: Hyperschedule, noise: Noise
) -> tuple[Tensor, Tensor]:
    """-log p(x | z_0) at t = 0+ for a process with an atom, a second network call (1.5), (4.5); as `row_sum`."""
    t = torch.full(batch.ids.shape, JUST_ABOVE_ZERO, dtype=torch.float64, device=batch.ids.device)
    if batch.counts is not None:
        t = torch.where(batch.counts, t, 0.0)
    z = process.shuffle(batch.ids, t, network.num_tokens, noise.at(-1 - noise.step))  # other draws than those at t
    draw = Draw(z, t, torch.zeros_like(t), constants(schedule, t.shape[-1], t.device).tiling, 1.0)
    return row_sum(network, batch, draw, Nelbo(), process, schedule)


def estimate(
    network: Denoiser,
    batch: Batch,
    process: Process,
    schedule: Hyperschedule,
    objective: Objective,
    estimator: Estimator,
    noise: Noise,
) -> tuple[Tensor, Tensor]:
    """One draw of the objective: the rows and, for the bound of a process with an atom in continuous time, its reconstruction.

    Returns:
        The differentiable sum over the batch, and the values [B, L] float64 in nats (without gradient).
    """
    if estimator.blind and network.conditioned:
        raise ValueError(f"{estimator} holds for networks that do not look at t, this one does: use Stratified")
    draw = estimator(batch, process, schedule, network.num_tokens, noise)
    total, nats = row_sum(network, batch, draw, objective, process, schedule)
    if objective.full and process.atom and draw.s is None:
        more, added = reconstruction(network, batch, process, schedule, noise)
        total, nats = total + more, nats + added
    return total, nats


def sequence_nats(
    network: Denoiser,
    batch: Batch,
    process: Process,
    schedule: Hyperschedule,
    objective: Objective,
    estimator: Estimator,
    noise: Noise,
) -> Tensor:
    """One unbiased draw of the bound at every position, [B, L] float64 nats: `estimate` and the prior term.

    For an objective that is not the NELBO (a loss, or B2 of `maths.md` 4.3) without prior term.
    """
    nats = estimate(network, batch, process, schedule, objective, estimator, noise)[1]
    if not objective.full:
        return nats
    prior = process.prior_kl(network.num_tokens).to(nats.device)
    return nats + (prior if batch.counts is None else prior * batch.counts)


def bounds(process: Process, prediction: Prediction = Prediction.CAVITY) -> dict[str, tuple[Process, Objective]]:
    """The bounds that can be stated for a network trained under `process`, each as (process, objective).

    `nelbo` is the bound of the process that is sampled. An ε-Hybrid network has two more readings (`maths.md` 4.3): `b1`, masking
    only with a clean context (MDLM's bound of the same network), and `b2`, unmasking with a noisy display of the context.
    """
    if prediction == Prediction.LOG_SCORE:
        return {"nelbo": (process, ScoreEntropy())}
    found: dict[str, tuple[Process, Objective]] = {"nelbo": (process, Nelbo())}
    if isinstance(process, EpsilonHybrid):
        found |= {"b1": (Absorbing(), Nelbo()), "b2": (process, WeightedCrossEntropy(0.0))}
    return found


def least_variance(
    process: Process, schedule: Hyperschedule, L: int, discrete: bool = False, conditioned: bool = False
) -> Estimator:
    """Mask-count conditioning where it holds, else stratified offsets.

    `discrete` asks for the T-step bound; `conditioned` says that the network looks at t.
    """
    if not conditioned and process.masks and not process.conditioned and continuous(schedule, L) and not discrete:
        return MaskCount()
    return Stratified(discrete)
