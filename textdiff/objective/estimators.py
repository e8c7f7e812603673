"""Unbiased estimates of a bound: which times and which noise are drawn, and the sum over a
sequence.

    -log p(x) <= Σ_i KL_prior + E[factor · Σ_i value(row i)] + reconstruction      (2.1), (3.1)

One path for every hyperschedule, the tiling: each position is in one window, all windows are seen
in one network call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..hyperschedule import Hyperschedule, Plan, Tiling
from ..noise import RUN, Noise, Stream, stratified
from ..process import Process
from ..process.base import inside
from .batch import Batch


@dataclass(frozen=True)
class Draw:
    """A noisy version of each sequence of a batch.

    Args:
        z: [B, L] in 0..N, MASK = N.
        t: [B, L] in [0, 1], 0 at tokens that are not noised.
        s: [B, L] in [0, 1], the next cleaner time of the T-step chain; None: continuous time.
        tiling: the windows of the schedule.
        factor: of the value of each row: T for the T-step bound (`maths.md` 3.4), [B, L] where t is
            not uniform, else 1.
    """

    z: Tensor
    t: Tensor
    s: Tensor | None
    tiling: Tiling
    factor: float | Tensor


BISECTIONS = 60  # halvings of [0, 1]: as fine as float64 near 1


def continuous(schedule: Hyperschedule, L: int) -> bool:
    """Whether the bound is reported in continuous time: for flat schedules; others have a T-step
    bound of their own.
    """
    return schedule.plan(L).flat


@dataclass(frozen=True)
class Estimator:
    """Base of the ways to draw noise levels."""

    blind: ClassVar[bool] = False
    """Whether it holds only for networks that do not look at t."""

    def __call__(
        self, batch: Batch, process: Process, schedule: Hyperschedule, N: int, noise: Noise
    ) -> Draw:
        """One noisy version of each sequence of a batch, for a network over N tokens."""
        raise NotImplementedError

    def described(self, schedule: Hyperschedule, L: int) -> str:
        """The way of drawing L tokens under a schedule, in words."""
        raise NotImplementedError


def _per_group(batch: Batch, plan: Plan, noise: Noise) -> Tensor:
    """One stratified uniform for each group of a hyperschedule, [B, groups].

    A single group is stratified over neighbouring slots. Several are stratified over a sequence, in
    a run of their own: runs that sequences shared would give the same group of all of them the same
    half of [0, 1).
    """
    run = 1 if plan.groups == 1 else -(-plan.groups // RUN) * RUN
    slot = batch.slot.unsqueeze(-1) * run + torch.arange(plan.groups, device=batch.slot.device)
    return stratified(noise.seed, batch.key, slot)


@dataclass(frozen=True)
class Stratified(Estimator):
    """Offsets stratified over neighbouring slots and over the blocks of a sequence (`maths.md` 3.4,
    4.5).

    `discrete` asks for the T-step bound of a flat schedule too.
    """

    discrete: bool = False

    def __call__(
        self, batch: Batch, process: Process, schedule: Hyperschedule, N: int, noise: Noise
    ) -> Draw:
        """Draw times from the schedule's tiling, and noise at them."""
        L = batch.ids.shape[-1]
        plan = schedule.plan(L, batch.ids.device)
        steps = self.discrete or not plan.flat
        offset = _per_group(batch, plan, noise) * schedule.T
        tiling = plan.tiling(offset.floor() if steps else offset)
        t = tiling.level / schedule.T
        s = (tiling.level - 1) / schedule.T if steps else None
        noised = batch.noised(plan, tiling.call)
        if noised is not None:
            t = torch.where(noised, t, 0.0)
            s = None if s is None else torch.where(noised, s, 0.0)
        z = process.corrupt(batch.ids, t, N, noise)
        return Draw(z, t, s, tiling, factor=float(schedule.T) if steps else 1.0)

    def described(self, schedule: Hyperschedule, L: int) -> str:
        """As for every estimator."""
        steps = self.discrete or not continuous(schedule, L)
        return f"stratified, {schedule.T}-step" if steps else "stratified, continuous time"


@dataclass(frozen=True)
class _Continuous(Estimator):
    """Real offsets under any schedule: the bound of infinitely many steps (`maths.md` 2.1, 3.4).

    Position i walks down its own times t_i = min(τ_i/T, end) while its window sees what has
    settled, so under blocks and slides this is the limit of chains that keep the schedule's lags
    and take ever shorter steps. Where τ_i/T > end it does not move, and its factor is 0.

    `spread` draws t with the density w and gives a row the factor 1/w, for processes whose uniform
    clock Λ = -log κ runs far: each unit of Λ has the weight of all of [0, end].

        w(t) = (1 + Λ'(t)) / (end + Λ(end))        0 < t < end

    Args:
        end: the noisiest time, in (0, 1].
        spread: whether t is drawn with that density; where windows never overlap.
    """

    end: float = 1.0
    spread: bool = False

    def __call__(
        self, batch: Batch, process: Process, schedule: Hyperschedule, N: int, noise: Noise
    ) -> Draw:
        """Draw times, noise at them and factors.

        Raises:
            ValueError: if a schedule that is not flat has a single level.
        """
        plan = schedule.plan(batch.ids.shape[-1], batch.ids.device)
        if schedule.T == 1 and not plan.flat:
            raise ValueError(
                f"{schedule} has a single level, and a bound in continuous time walks down many: "
                "use T > 1"
            )
        u = _per_group(batch, plan, noise)
        if self.spread and plan.apart:
            t, weight = spread(u, process, self.end)
            tiling = plan.tiling_at_zero
            group = plan.by_position(plan.group).expand(batch.ids.shape)
            t = t.gather(-1, group)
            factor = weight.gather(-1, group)
        else:
            tiling = plan.tiling(u * schedule.T)
            level = tiling.level / schedule.T
            t = level.clamp(max=self.end)
            factor = (level <= self.end).double()
        noised = batch.noised(plan, tiling.call)
        if noised is not None:
            t = torch.where(noised, t, 0.0)
        z = process.corrupt(batch.ids, t, N, noise)
        return Draw(z, t, None, tiling, factor)

    def described(self, schedule: Hyperschedule, L: int) -> str:
        """As for every estimator."""
        how = "importance in t" if self.spread and schedule.plan(L).apart else "stratified"
        limit = "continuous time" if schedule.plan(L).flat else "limit of many steps"
        return f"{how}, {limit}"


def spread(u: Tensor, process: Process, end: float) -> tuple[Tensor, Tensor]:
    """Times with the density (1 + Λ'(t))/(end + Λ(end)) on (0, end), Λ = -log κ, for uniform u, and
    the factors 1/density; u [...] in [0, 1) -> two [...] float64.

    t solves t + Λ(t) = (1 - u)(end + Λ(end)), by bisection.

    >>> from textdiff.process import Uniform
    >>> t, factor = spread(torch.tensor([0.0, 0.5]).double(), Uniform(tail=0.5), 1.0)
    >>> [round(value, 4) for value in t.tolist()]
    [1.0, 0.5352]
    """

    def covered(t: Tensor) -> Tensor:
        return t - process.clock(t).log_keep

    whole = covered(torch.full((), end, dtype=torch.float64, device=u.device))
    goal = (1 - u.double()) * whole
    low = torch.full_like(goal, 0.0)
    high = torch.full_like(goal, end)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = covered(middle) > goal
        low = torch.where(above, low, middle)
        high = torch.where(above, middle, high)
    t = high
    return t, whole / (1 - process.clock(inside(t)).keep_rate)


@dataclass(frozen=True)
class MaskCount(Estimator):
    """Condition on the number of masks: l uniform on {1..d}, a random l-subset masked, weight d/l
    instead of 1/t (4.6).

    Far less variance than a draw of t. For absorbing and ε-Hybrid noise (m = t, networks that do
    not see t), flat and block schedules (d is a block's length then), in continuous time. With the
    weighted cross-entropy, the visible terms leave out the count l = 0, a part 1/d of them.
    """

    blind: ClassVar[bool] = True

    def __call__(
        self, batch: Batch, process: Process, schedule: Hyperschedule, N: int, noise: Noise
    ) -> Draw:
        """Draw a mask count and a subset per block; t = l/d makes the weight m'/m = d/l.

        Raises:
            ValueError: for other processes and schedules.
        """
        L = batch.ids.shape[-1]
        if process.needs_time or not process.masks:
            raise ValueError(
                "mask-count conditioning holds for absorbing and ε-Hybrid noise, "
                f"not for {process}: use Stratified"
            )
        plan = schedule.plan(L, batch.ids.device)
        group = plan.by_position(plan.group)
        if not plan.apart:
            raise ValueError(
                "mask-count conditioning holds where windows never overlap, "
                f"not for {schedule}: use Stratified"
            )
        noised = batch.noised(plan)
        valid = torch.ones_like(batch.ids, dtype=torch.bool) if noised is None else noised
        members = torch.zeros(len(valid), plan.groups, dtype=torch.int64, device=valid.device)
        d = members.scatter_add(-1, group.expand_as(valid), valid.long())[:, group]
        count = 1 + (_per_group(batch, plan, noise)[:, group] * d).long()
        t = torch.where(valid, count / d.clamp_min(1).double(), 0.0)
        rank = _rank(noise.positions(batch.ids, Stream.ORDER) + (~valid).double(), group)
        z = torch.where(valid & (rank < count), N, process.shuffle(batch.ids, t, N, noise))
        return Draw(z, t, None, plan.tiling_at_zero, factor=1.0)

    def described(self, schedule: Hyperschedule, L: int) -> str:
        """As for every estimator."""
        return "mask count, continuous time"


def _rank(u: Tensor, group: Tensor) -> Tensor:
    """Rank of each u [B, L] in [0, 2) among those of its group [L], from 0."""
    rank = (u + 2 * group).argsort(-1).argsort(-1)
    before = torch.zeros_like(group).scatter_add(0, group, torch.ones_like(group)).cumsum(0)
    return rank - torch.cat([torch.zeros_like(before[:1]), before[:-1]])[group]


def least_variance(
    process: Process,
    schedule: Hyperschedule,
    L: int,
    *,
    discrete: bool = False,
    sees_time: bool = False,
) -> Estimator:
    """Mask-count conditioning where it holds, else stratified offsets.

    >>> from textdiff.hyperschedule import Block, Flat
    >>> from textdiff.process import Absorbing
    >>> least_variance(Absorbing(), Flat(64), L=128)
    MaskCount()
    >>> least_variance(Absorbing(), Block(16, 16), L=128)
    Stratified(discrete=False)

    Args:
        process, schedule: whose bound it is.
        L: tokens of a sequence.
        discrete: the T-step bound of a flat schedule.
        sees_time: whether the network looks at t.
    """
    timeless = not sees_time and not process.needs_time
    if timeless and process.masks and continuous(schedule, L) and not discrete:
        return MaskCount()
    return Stratified(discrete)
