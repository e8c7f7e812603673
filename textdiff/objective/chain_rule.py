"""The chain rule: exact -log p, of an autoregressive model or along an order of an any-order one."""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoiser.head import row_values
from ..denoiser.protocol import Denoiser
from ..denoiser.training_rows import training_call
from ..hyperschedule import Hyperschedule
from ..noise import Noise, Stream
from ..process import Absorbing, Process
from .batch import Batch
from .objectives import Nelbo, Rows


def is_exact(network: Denoiser, process: Process, schedule: Hyperschedule, L: int) -> bool:
    """Whether the bound is -log p(x) itself, without noise: one token per call, each from a prior
    that tells nothing.
    """
    prior = process.clock(torch.ones((), dtype=torch.float64))
    nothing_left = prior.mask == 1 or (network.shifted and prior.keep == 0)
    return schedule.T == 1 and schedule.plan(L).groups == L and bool(nothing_left)


def has_orders(network: Denoiser, process: Process, schedule: Hyperschedule, L: int) -> bool:
    """Whether the bound of `process` is a mean over orders: masking alone, a network that does not
    see t, windows that never overlap.
    """
    apart = schedule.plan(L).apart
    return isinstance(process, Absorbing) and not network.sees_time and apart and schedule.T > 1


def order_nats(
    network: Denoiser, batch: Batch, schedule: Hyperschedule, noise: Noise
) -> tuple[Tensor, Tensor]:
    """-log p(x) along one random order σ in each group of the schedule, exactly, in as many calls
    as a group has tokens.

        -log p_σ(x) = -Σ_l log p(x^σ(l) | x^σ(<l))
        E_σ[-log p_σ(x)] = the continuous NELBO of masking             (`maths.md` 5.6, (4.6))

    A token is revealed where l of its group are masked, itself one of them; t = l/d is that place
    in the order.

    Returns:
        Nats and t at every position, [B, L] float64 both.
    """
    ids, L, N = batch.ids, batch.ids.shape[-1], network.num_tokens
    plan = schedule.plan(L, ids.device)
    group, tiling = plan.by_position(plan.group), plan.tiling_at_zero
    valid = torch.ones_like(ids, dtype=torch.bool) if batch.valid is None else batch.valid
    together = (group[:, None] == group) & valid[:, None, :]
    u = noise.positions(ids, Stream.ORDER)
    rank = 1 + ((u[:, None, :] < u[:, :, None]) & together).sum(-1)  # 1 is revealed last
    size = together.sum(-1).clamp_min(1)
    nats = torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)
    for count in range(1, int(size.max()) + 1):
        chosen = valid & (rank == count)
        if not chosen.any():
            continue
        z = torch.where(valid & (rank <= count), N, ids)
        t = torch.where(
            valid, torch.minimum(torch.full_like(size, count), size) / size.double(), 0.0
        )
        call = training_call(
            network,
            schedule,
            ids,
            z,
            t,
            tiling=tiling,
            document=batch.document,
            valid=batch.valid,
        )
        rows = Rows(ids, z, torch.ones_like(t))[
            chosen
        ]  # at t = 1 a masked token bears its cross-entropy, with weight 1
        nats[chosen] = row_values(
            network,
            call.hidden(network)[chosen],
            lambda logits, part, rows=rows: Nelbo()(logits, rows[part], Absorbing()),
        )[1]
    return nats, torch.where(valid, rank / size.double(), 0.0)
