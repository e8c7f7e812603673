"""The chain rule: exact -log p of an autoregressive model, or along an order in any-order ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..denoiser.protocol import Denoiser
from ..hyperschedule import Hyperschedule
from ..noise import Noise
from ..process import Absorbing, Process
from .batch import Batch
from .bounds import Bound, Nats
from .orders import Orders


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
        orders = Orders(batch, self.hyperschedule)
        values, t = orders.nats(network, orders.random(noise))
        return Nats(values.sum(), values, t)

    def described(self, L: int) -> str:
        """As for every bound."""
        return "chain rule of random orders, continuous time"
