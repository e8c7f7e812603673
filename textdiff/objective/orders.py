"""-log p of masking along orders: random ones, a stated one, and all of them together, exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..denoiser.head import row_values
from ..denoiser.protocol import Denoiser
from ..denoiser.training_rows import training_call
from ..hyperschedule import Hyperschedule
from ..hyperschedule.plan import Plan
from ..noise import Noise, Stream
from ..process import Absorbing
from .batch import Batch
from .objectives import Nelbo, Rows

MOST = 8
"""Most tokens of a group whose orders are all summed: 2^n calls."""


@dataclass(frozen=True, eq=False)
class Orders:
    """The tokens of a batch that are revealed one by one, group by group of a schedule whose
    windows never overlap.

    Args:
        batch: known tokens are there from the start; filler that is scored is revealed, too.
        schedule: whose groups.
    """

    batch: Batch
    schedule: Hyperschedule

    @cached_property
    def plan(self) -> Plan:
        """The schedule's facts for the length of the batch."""
        return self.schedule.plan(self.batch.ids.shape[-1], self.batch.ids.device)

    @cached_property
    def revealed(self) -> Tensor:
        """[B, L] bool: which tokens are."""
        noised = self.batch.noised(self.plan)
        return torch.ones_like(self.batch.ids, dtype=torch.bool) if noised is None else noised

    @cached_property
    def together(self) -> Tensor:
        """[B, L, L] bool: which revealed tokens are in the group of each."""
        group = self.plan.by_position(self.plan.group)
        return (group[:, None] == group) & self.revealed[:, None, :]

    @cached_property
    def size(self) -> Tensor:
        """[B, L] revealed tokens in the group of each, at least 1."""
        return self.together.sum(-1).clamp_min(1)

    @property
    def most(self) -> int:
        """The most revealed tokens that a group has."""
        return int(torch.where(self.revealed, self.size, 0).max())

    def by(self, key: Tensor) -> Tensor:
        """[B, L] how many of its group are masked when a token is revealed, itself one: those of
        the greatest key [B, L] go first.
        """
        return 1 + ((key[:, None, :] < key[:, :, None]) & self.together).sum(-1)

    def random(self, noise: Noise) -> Tensor:
        """A random order in each group, as `by` has it."""
        return self.by(noise.positions(self.batch.ids, Stream.ORDER))

    def left_to_right(self) -> Tensor:
        """From left to right, as `by` has it."""
        L = self.batch.ids.shape[-1]
        return self.by(-torch.arange(L, device=self.batch.ids.device).expand_as(self.batch.ids))

    def nats(self, network: Denoiser, masks: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(x) along one order in each group, exactly.

            -log p_σ(x) = -Σ_l log p(x^σ(l) | x^σ(<l))
            E_σ[-log p_σ(x)] = the continuous NELBO of masking         (`maths.md` 5.6, (4.6))

        A token is revealed where l of its group are masked, itself one of them; t = l/d is that
        place in the order.

        Args:
            network: whose p.
            masks: [B, L] the l of each token, from `random` or `left_to_right`.

        Returns:
            Nats and t at every position, [B, L] float64 both.
        """
        nats = torch.zeros(masks.shape, dtype=torch.float64, device=masks.device)
        for count in range(1, int(self.size.max()) + 1):
            chosen = self.revealed & (masks == count)
            if chosen.any():
                nats[chosen] = self._call(network, self.revealed & (masks <= count), chosen)
        return nats, torch.where(self.revealed, masks / self.size.double(), 0.0)

    def mixture(self, network: Denoiser) -> Tensor:
        """-log of the mean over all orders of p_σ(x), exactly, [B] nats.

        p(S) is the probability that the tokens S of a group, still masked, become those of x when
        every order is as likely, p(∅) = 1:

            p(S) = Σ_{i ∈ S} p(x^i | the rest known) p(S - i) / |S|

        in 2^n calls for groups of at most n revealed tokens; groups multiply.

        Raises:
            ValueError: if a group has more than `MOST`.
        """
        n = self.most
        if n > MOST:
            raise ValueError(
                f"all orders of {n} tokens take 2^{n} calls: at most {MOST} are summed"
            )
        bit = (self.together & (self._column[:, None] > self._column)).sum(-1)
        group = self.plan.by_position(self.plan.group).expand_as(bit)
        log_p = torch.zeros(len(bit), self.plan.groups, 2**n, dtype=torch.float64)
        log_p = log_p.to(bit.device)
        for subset in range(1, 2**n):
            masked = self.revealed & (subset >> bit & 1).bool() & (subset < 2**self.size)
            if not masked.any():
                continue
            terms = torch.full_like(log_p[..., :n], -math.inf)
            row, column = masked.nonzero(as_tuple=True)
            where = (row, group[row, column], bit[row, column])
            rest = subset & ~(1 << where[2])
            after = log_p[where[0], where[1], rest]
            terms[where] = after - self._call(network, masked, masked)
            total = terms.logsumexp(-1) - math.log(subset.bit_count())
            log_p[..., subset] = torch.where(total.isfinite(), total, log_p[..., subset])
        whole = (2 ** self._sizes(group) - 1)[..., None]
        return -log_p.gather(-1, whole).squeeze(-1).sum(-1)

    @property
    def _column(self) -> Tensor:
        return torch.arange(self.batch.ids.shape[-1], device=self.batch.ids.device)

    def _sizes(self, group: Tensor) -> Tensor:
        """[B, groups] revealed tokens of each group."""
        sizes = torch.zeros(len(group), self.plan.groups, dtype=torch.int64, device=group.device)
        return sizes.scatter_add(-1, group, self.revealed.long())

    def _call(self, network: Denoiser, masked: Tensor, wanted: Tensor) -> Tensor:
        """-log p(x^i | what is not masked) [R] at the wanted tokens: one network call."""
        ids = self.batch.ids
        z = torch.where(masked, network.num_tokens, ids)
        count = (self.together & masked[:, None, :]).sum(-1)
        t = torch.where(self.revealed, count / self.size.double(), 0.0)
        call = training_call(
            network,
            self.schedule,
            ids,
            z=z,
            t=t,
            tiling=self.plan.tiling_at_zero,
            document=self.batch.document,
            fed=self.batch.fed(self.schedule),
        )
        places = wanted.nonzero(as_tuple=True)
        rows = Rows(ids, z, torch.ones_like(t))[places]
        return _cross_entropy(network, call.hidden(network)[places], rows)


def _cross_entropy(network: Denoiser, hidden: Tensor, rows: Rows) -> Tensor:
    """-log x̂_x [R] at masked rows: the NELBO of masking at t = 1, where its weight is 1."""

    def value(logits: Tensor, part: slice) -> Tensor:
        return Nelbo()(logits, rows[part], Absorbing())

    return row_values(network, hidden, value)[1]
