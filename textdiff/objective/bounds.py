"""What is estimated, under its name: one draw of a bound on a batch."""

from __future__ import annotations

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
from .estimators import Draw, Estimator
from .objectives import Nelbo, Objective, Rows, ScoreEntropy, WeightedCrossEntropy

JUST_ABOVE_ZERO = 1e-12  # t = 0+, where the atom of ε-Hybrid stands


def row_sum(
    network: Denoiser,
    batch: Batch,
    draw: Draw,
    objective: Objective,
    process: Process,
    schedule: Hyperschedule,
) -> tuple[Tensor, Tensor]:
    """One network call and the head at the rows that have a value.

    Returns:
        The differentiable sum of factor · value over the batch, and the values [B, L] float64 in
        nats (without gradient).
    """
    call = training_call(
        network,
        schedule,
        batch.ids,
        draw.z,
        draw.t,
        tiling=draw.tiling,
        document=batch.document,
        valid=batch.valid,
    )
    rows = Rows(batch.ids, draw.z, draw.t, draw.s)
    has_value = objective.has_value(rows, network.num_tokens, process) & (draw.t > 0)
    places = has_value.nonzero(as_tuple=True)  # once: on a GPU each boolean index waits for it
    chosen = rows[places]

    def value(logits: Tensor, part: slice) -> Tensor:
        return draw.factor * objective(
            to_cavity(network, logits, chosen[part].z), chosen[part], process
        )

    total, values = row_values(network, call.hidden(network)[places], value)
    table = torch.zeros(has_value.shape, dtype=torch.float64, device=values.device)
    table[places] = values
    return total, table


def reconstruction(
    network: Denoiser, batch: Batch, process: Process, schedule: Hyperschedule, noise: Noise
) -> tuple[Tensor, Tensor]:
    """-log p(x | z_0) at t = 0+ for a process with an atom, a second network call (1.5), (4.5); as
    `row_sum`.
    """
    t = torch.full(batch.ids.shape, JUST_ABOVE_ZERO, dtype=torch.float64, device=batch.ids.device)
    if batch.counts is not None:
        t = torch.where(batch.counts, t, 0.0)
    z = process.shuffle(
        batch.ids, t, network.num_tokens, noise.at(-1 - noise.step)
    )  # other draws than those at t
    tiling = schedule.plan(t.shape[-1], t.device).tiling_at_zero
    draw = Draw(z, t, torch.zeros_like(t), tiling, 1.0)
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
    """One draw of the objective: the rows and, for the bound of a process with an atom in
    continuous time, its reconstruction.

    Returns:
        The differentiable sum over the batch, and the values [B, L] float64 in nats (without
        gradient).
    """
    if estimator.blind and network.sees_time:
        raise ValueError(
            f"{estimator} holds for networks that do not look at t, this one does: use Stratified"
        )
    draw = estimator(batch, process, schedule, network.num_tokens, noise)
    total, nats = row_sum(network, batch, draw, objective, process, schedule)
    if objective.is_bound and process.atom and draw.s is None:
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
    """One unbiased draw of the bound at every position, [B, L] float64 nats: `estimate` and the
    prior term.

    For an objective that is not the NELBO (a loss, or B2 of `maths.md` 4.3) without prior term.
    """
    nats = estimate(network, batch, process, schedule, objective, estimator, noise)[1]
    if not objective.is_bound:
        return nats
    prior = process.prior_kl(network.num_tokens).to(nats.device)
    return nats + (prior if batch.counts is None else prior * batch.counts)


def bounds(
    process: Process, prediction: Prediction = Prediction.CAVITY
) -> dict[str, tuple[Process, Objective]]:
    """The bounds that can be stated for a network trained under `process`, each as (process,
    objective).

    `nelbo` is the bound of the process that is sampled. An ε-Hybrid network has two more readings
    (`maths.md` 4.3): `b1`, masking only with a clean context (MDLM's bound of the same network),
    and `b2`, unmasking with a noisy display of the context.
    """
    if prediction == Prediction.LOG_SCORE:
        return {"nelbo": (process, ScoreEntropy())}
    found: dict[str, tuple[Process, Objective]] = {"nelbo": (process, Nelbo())}
    if isinstance(process, EpsilonHybrid):
        found |= {"b1": (Absorbing(), Nelbo()), "b2": (process, WeightedCrossEntropy(0.0))}
    return found
