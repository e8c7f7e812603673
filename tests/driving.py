"""Samplers without the generation loop: a flat schedule on toy networks, and adapters for
`toys.law_of`.
"""

import torch
from torch import Tensor
from toys import SetNetwork

from textdiff.noise import Noise
from textdiff.process import Process
from textdiff.samplers import Filter, Sampler, Step
from textdiff.samplers.filters import identity


def allowed(sampler: Sampler, process: Process) -> bool:
    """Whether `check` lets it pass."""
    try:
        sampler.check(process)
    except ValueError:
        return False
    return True


def logits_of(net: SetNetwork, z: Tensor, t: Tensor) -> Tensor:
    """The logits [B, d, N] of a toy network that sees every position."""
    seen = net.embed(z, torch.arange(z.shape[1]), t).sum(1, keepdim=True)
    return torch.sin(seen @ net.mix + net.own[: z.shape[1]]) @ net.weight.T


def flat_run(
    sampler: Sampler,
    process: Process,
    net: SetNetwork,
    B: int,
    d: int,
    T: int = 3,
    filter: Filter = identity,
    example: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """B sequences under Flat(T), or the sampler's own times; z, and which positions each network
    call was asked for.
    """
    N, noise = net.num_tokens, Noise(0, torch.arange(B) if example is None else example)
    begin = sampler.stages[0].begin(process)
    z = process.prior(torch.Size([B, d]), N, noise.at(-1), begin)
    t = torch.full((B, d), begin, dtype=torch.float64)
    asked: list[Tensor] = []
    k = 0
    while bool((t > 0).any()):
        k += 1
        s = torch.zeros_like(t) if sampler.own_times else torch.full_like(t, (T - k) / T)
        for stage in sampler.stages:
            step = Step(process, z, t, s=s, N=N, noise=noise.at(len(asked)))
            rows = stage.rows(step)
            asked.append(rows)
            z, t = stage.move(step, rows, logits_of(net, z, t)[rows], filter)
            assert z.min() >= 0 and z.max() <= N and t.isfinite().all()
        assert k < 100, "it does not end"
    return z, asked


def timed(process: Process, t: list[float], s: list[float], z: Tensor | None = None) -> Step:
    """The step t -> s of one sequence of three kinds of tokens, all MASK by default."""
    before, after = (torch.tensor([times], dtype=torch.float64) for times in (t, s))
    ids = torch.full(before.shape, 3) if z is None else z[None]
    return Step(process, ids, before, s=after, N=3, noise=Noise(0, torch.arange(1)))


class Alone:
    """A sampler whose step goes from t to wherever it likes, for `law_of`, which wants to see s:
    one position, all rows asked for.
    """

    def __init__(self, sampler: Sampler, until_s: bool = True):
        self.sampler, self.until_s = sampler, until_s

    def rows(self, step):
        """Every position."""
        return torch.ones_like(step.z, dtype=torch.bool)

    def move(self, step, rows, logits, filter):
        """The tokens of the sampler's own step, at the time s that `law_of` expects."""
        goal = torch.zeros_like(step.s) if self.until_s else step.s
        return self.sampler.move(step.to(goal), rows, logits, filter)[0], step.s


def joint_states(p: Tensor, laws: Tensor) -> Tensor:
    """One step of a law p [S] of states [S, d] whose positions move independently by laws [S, d,
    N+1].
    """
    total = laws[:, 0]
    for i in range(1, laws.shape[1]):
        total = (total.unsqueeze(-1) * laws[:, i].unsqueeze(-2)).flatten(-2)
    return p @ total
