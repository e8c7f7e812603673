"""The bound of masking for every text of an enumerable language, its expectation over all noise."""

from __future__ import annotations

from itertools import product

import torch
from toys import a_bound

from textdiff.network import Transformer
from textdiff.objective import Batch
from textdiff.objective.estimators import Draw
from textdiff.process import Absorbing

N, L, EOS = 2, 4, 0


def network(layout, N=N, sees_time=True):
    """A random network in float64."""
    torch.manual_seed(1)
    shape = Transformer(layers=2, width=16, heads=2, layout=layout)
    found = shape.build(N, sees_time, N - 1).double().eval()
    for parameter in found.parameters():
        parameter.data.normal_(0, 0.4)
    return found


def rows() -> torch.Tensor:
    """Every row of L tokens."""
    return torch.tensor(list(product(range(N), repeat=L)))


def exact(net, schedule, batch: Batch) -> torch.Tensor:
    """The T-step bound of masking for each row, its expectation over all noise, [B] nats."""
    plan = schedule.plan(L)
    bound = a_bound(Absorbing(), schedule)
    found = torch.zeros(len(batch.ids), dtype=torch.float64)
    for offset in range(schedule.T):
        tiling = plan.tiling(torch.tensor([[offset]]))
        t, s = tiling.level / schedule.T, (tiling.level - 1) / schedule.T
        t, s = (x.expand(batch.ids.shape) for x in (t, s))
        noised = batch.noised(plan, tiling.call)
        if noised is not None:
            t, s = torch.where(noised, t, 0.0), torch.where(noised, s, 0.0)
        for pattern in product((False, True), repeat=L):
            masked = torch.tensor(pattern)
            chance = torch.where(masked, t, 1 - t).prod(-1)  # m(t) = t
            if not bool((chance > 0).any()):
                continue
            z = torch.where(masked, N, batch.ids)
            draw = Draw(z, t, s, tiling, factor=1.0)
            with torch.no_grad():
                values = bound.at(net, batch, draw).values.sum(-1)
            found += torch.where(chance > 0, chance * values, 0.0)
    return found


def batch_of(ids: torch.Tensor, **columns) -> Batch:
    index = torch.arange(len(ids))
    return Batch(ids, index, index, **columns)
