"""The chain rule: exact -log p of an autoregressive model, or along an order in any-order ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..denoiser.head import row_values
from ..denoiser.protocol import Denoiser
from ..denoiser.training_rows import training_call
from ..hyperschedule import Hyperschedule
from ..noise import Noise, Stream
from ..process import Absorbing, Process
from .batch import Batch
from .bounds import Bound, Nats
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


@dataclass(frozen=True)
class ChainRule(Bound):
    """-log p(x) itself: -Σ_i log p(x^i | x^(<i)), where `is_exact`; one draw is enough."""

    exact: ClassVar[bool] = True

    @staticmethod
    def of(bound: Bound) -> ChainRule:
        """A NELBO that is exact, under that name."""
        return ChainRule(**vars(bound) | {"name": "exact -log p"})

    def described(self, L: int) -> str:
        """As for every bound."""
        return "exact chain rule"


@dataclass(frozen=True)
class RandomOrders(Bound):
    """The bound of masking as a mean over orders, where `has_orders`: a draw is -log p(x) along one
    random order, exactly, in as many calls as a group of the schedule has tokens.
    """

    @staticmethod
    def of(bound: Bound, name: str) -> RandomOrders:
        """A NELBO of masking, drawn this way, under a name."""
        return RandomOrders(**vars(bound) | {"name": name})

    def nats(self, network: Denoiser, batch: Batch, noise: Noise) -> Nats:
        """As for every bound; without gradient, and t is the place in the order."""
        values, t = order_nats(network, batch, self.hyperschedule, noise)
        return Nats(values.sum(), values, t)

    def described(self, L: int) -> str:
        """As for every bound."""
        return "chain rule of random orders, continuous time"


def order_nats(
    network: Denoiser, batch: Batch, schedule: Hyperschedule, noise: Noise
) -> tuple[Tensor, Tensor]:
    """-log p(x) along one random order σ in each group of the schedule, exactly.

        -log p_σ(x) = -Σ_l log p(x^σ(l) | x^σ(<l))
        E_σ[-log p_σ(x)] = the continuous NELBO of masking             (`maths.md` 5.6, (4.6))

    A token is revealed where l of its group are masked, itself one of them; t = l/d is that place
    in the order.

    Returns:
        Nats and t at every position, [B, L] float64 both.
    """
    ids = batch.ids
    plan = schedule.plan(ids.shape[-1], ids.device)
    group = plan.by_position(plan.group)
    noised = batch.noised(plan)
    valid = torch.ones_like(ids, dtype=torch.bool) if noised is None else noised
    together = (group[:, None] == group) & valid[:, None, :]
    u = noise.positions(ids, Stream.ORDER)
    rank = 1 + ((u[:, None, :] < u[:, :, None]) & together).sum(-1)  # 1 is revealed last
    size = together.sum(-1).clamp_min(1)
    nats = torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)
    for count in range(1, int(size.max()) + 1):
        chosen = valid & (rank == count)
        if not chosen.any():
            continue
        z = torch.where(valid & (rank <= count), network.num_tokens, ids)
        place = torch.minimum(torch.full_like(size, count), size) / size.double()
        t = torch.where(valid, place, 0.0)
        call = training_call(
            network,
            schedule,
            ids,
            z=z,
            t=t,
            tiling=plan.tiling_at_zero,
            document=batch.document,
        )
        hidden = call.hidden(network)[chosen]
        nats[chosen] = _cross_entropy(network, hidden, Rows(ids, z, torch.ones_like(t))[chosen])
    return nats, torch.where(valid, rank / size.double(), 0.0)


def _cross_entropy(network: Denoiser, hidden: Tensor, rows: Rows) -> Tensor:
    """-log x̂_x [R] at masked rows: the NELBO of masking at t = 1, where its weight is 1."""

    def value(logits: Tensor, part: slice) -> Tensor:
        return Nelbo()(logits, rows[part], Absorbing())

    return row_values(network, hidden, value)[1]
