"""Unbiased estimates of a bound: which times and which noise are drawn, and the sum over a sequence.

    -log p(x) <= Σ_i KL_prior + E[ factor · Σ_i value(row i) ] + reconstruction of an atom            (2.1), (3.1)

One path for every hyperschedule, the tiling: each position is in one window, all windows are seen in one network call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .call import training_call
from .hyperschedule import Hyperschedule, Tiling
from .network.head import row_values
from .network.protocol import Denoiser
from .noise import Noise, Stream, stratified
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
    """

    ids: Tensor
    example: Tensor
    slot: Tensor
    valid: Tensor | None = None
    document: Tensor | None = None
    key: int = 0

    @property
    def scored(self) -> Tensor:
        """[B] number of tokens that count."""
        return torch.full_like(self.example, self.ids.shape[-1]) if self.valid is None else self.valid.sum(-1)


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
    return int(schedule.start(L).max()) == 0


@dataclass(frozen=True)
class Estimator:
    """Base of the ways to draw noise levels."""

    def __call__(self, batch: Batch, process: Process, schedule: Hyperschedule, N: int, noise: Noise) -> Draw:
        """One noisy version of each sequence."""
        raise NotImplementedError


@dataclass(frozen=True)
class Stratified(Estimator):
    """Offsets stratified over neighbouring slots (`maths.md` 4.5); `discrete` asks for the T-step bound of a flat schedule too."""

    discrete: bool = False

    def __call__(self, batch: Batch, process: Process, schedule: Hyperschedule, N: int, noise: Noise) -> Draw:
        """Draw times from the schedule's tiling, and noise at them."""
        L = batch.ids.shape[-1]
        steps = self.discrete or not continuous(schedule, L)
        offset = stratified(noise.seed, batch.key, batch.slot).unsqueeze(-1) * schedule.T
        tiling = schedule.tiling(offset.floor() if steps else offset, L)
        t = tiling.level / schedule.T
        s = (tiling.level - 1) / schedule.T if steps else None
        if batch.valid is not None:
            t = torch.where(batch.valid, t, 0.0)
            s = None if s is None else torch.where(batch.valid, s, 0.0)
        z = process.corrupt(batch.ids, t, N, noise)
        return Draw(z, t, s, tiling, float(schedule.T) if steps else 1.0)


@dataclass(frozen=True)
class MaskCount(Estimator):
    """Condition on the number of masks: l uniform on {1..d}, a random l-subset masked, weight d/l instead of 1/t (4.6).

    Far less variance than a draw of t. For absorbing and ε-Hybrid noise (m = t, networks that do not see t) and flat schedules.
    With the weighted cross-entropy, the visible terms leave out the count l = 0, a part 1/d of them.
    """

    def __call__(self, batch: Batch, process: Process, schedule: Hyperschedule, N: int, noise: Noise) -> Draw:
        """Draw a mask count and a subset; t = l/d makes the weight m'/m = d/l.

        Raises:
            ValueError: for other processes and schedules.
        """
        L = batch.ids.shape[-1]
        if process.conditioned or not process.masks:
            raise ValueError(f"mask-count conditioning holds for absorbing and ε-Hybrid noise, not for {process}: use Stratified")
        if not continuous(schedule, L):
            raise ValueError(f"mask-count conditioning holds for flat schedules, not for {schedule}: use Stratified")
        valid = torch.ones_like(batch.ids, dtype=torch.bool) if batch.valid is None else batch.valid
        d = valid.sum(-1, keepdim=True).clamp_min(1)
        count = 1 + (stratified(noise.seed, batch.key, batch.slot).unsqueeze(-1) * d).long()
        rank = noise.positions(batch.ids, Stream.ORDER).masked_fill(~valid, 2.0).argsort(-1).argsort(-1)
        t = torch.where(valid, count / d.double(), 0.0)
        z = torch.where(valid & (rank < count), N, process.shuffle(batch.ids, t, N, noise))
        return Draw(z, t, None, schedule.tiling(torch.zeros(1, 1, dtype=torch.float64, device=t.device), L), 1.0)


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
    chosen = rows[bears]
    total, values = row_values(
        network, call.hidden(network)[bears], lambda logits, part: objective(logits, chosen[part], process)
    )
    table = torch.zeros(bears.shape, dtype=torch.float64, device=values.device)
    table[bears] = values * draw.factor
    return total * draw.factor, table


def reconstruction(network: Denoiser, batch: Batch, process: Process, schedule: Hyperschedule, noise: Noise) -> Tensor:
    """-log p(x | z_0) at t = 0+ for a process with an atom, a second network call [B, L], nats (1.5), (4.5)."""
    t = torch.full(batch.ids.shape, JUST_ABOVE_ZERO, dtype=torch.float64, device=batch.ids.device)
    if batch.valid is not None:
        t = torch.where(batch.valid, t, 0.0)
    z = process.shuffle(batch.ids, t, network.num_tokens, noise.at(-1 - noise.step))  # other draws than those at t
    tiling = schedule.tiling(torch.zeros(1, 1, dtype=torch.float64, device=t.device), t.shape[-1])
    draw = Draw(z, t, torch.zeros_like(t), tiling, 1.0)
    return row_sum(network, batch, draw, Nelbo(), process, schedule)[1]


def sequence_nats(
    network: Denoiser,
    batch: Batch,
    process: Process,
    schedule: Hyperschedule,
    objective: Objective,
    estimator: Estimator,
    noise: Noise,
) -> Tensor:
    """One unbiased draw of the bound of each sequence, [B, L] float64 nats: prior + sum over rows + reconstruction.

    For an objective that is not the NELBO (a loss, or B2 of `maths.md` 4.3) the sum over rows alone.
    """
    N = network.num_tokens
    draw = estimator(batch, process, schedule, N, noise)
    nats = row_sum(network, batch, draw, objective, process, schedule)[1]
    if not objective.full:
        return nats
    if process.atom and draw.s is None:
        nats = nats + reconstruction(network, batch, process, schedule, noise)
    prior = process.prior_kl(N).to(nats.device)
    return nats + (prior if batch.valid is None else prior * batch.valid)


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


def least_variance(process: Process, schedule: Hyperschedule, L: int, discrete: bool = False) -> Estimator:
    """Mask-count conditioning where it holds, else stratified offsets; `discrete` asks for the T-step bound."""
    if process.masks and not process.conditioned and continuous(schedule, L) and not discrete:
        return MaskCount()
    return Stratified(discrete)
