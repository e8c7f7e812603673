"""The laws of a process as whole tables, on a tiny vocabulary: what its numbers stand for.

The product never builds these tables; it works with a few numbers per position. They are the oracle
of `check` and of the property tests. States 0..N-1 are tokens, N is MASK; matrices act on columns,
K[..., to, from].
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Bridge, Process


def visible_law(process: Process, xhat: Tensor, t: Tensor) -> Tensor:
    """d_t(. | x̂) = κ x̂ + (1 - κ)/N for probabilities xhat [..., N] and t [...] (0.1)."""
    clock = process.clock(t)
    N = xhat.shape[-1]
    return clock.keep.unsqueeze(-1) * xhat + (clock.log_corrupt.exp() / N).unsqueeze(-1)


def marginal(process: Process, xhat: Tensor, t: Tensor) -> Tensor:
    """q_t(. | x̂) over the N + 1 states, MASK last; xhat [..., N], t [...] -> [..., N + 1] (0.1).

    >>> from textdiff.process import EpsilonHybrid
    >>> law = marginal(EpsilonHybrid(0.3), torch.eye(3)[1].double(), torch.tensor(0.5))
    >>> [round(p, 2) for p in law.tolist()]
    [0.05, 0.4, 0.05, 0.5]
    """
    mask = process.clock(t).mask.unsqueeze(-1)
    tokens = (1 - mask) * visible_law(process, xhat, t)
    return torch.cat([tokens, mask.expand(*tokens.shape[:-1], 1)], -1)


def kernel(process: Process, s: Tensor, t: Tensor, N: int) -> Tensor:
    """q(z_t | z_s) as matrices K[..., to, from], s, t [...] -> [..., N + 1, N + 1] (1.2).

    >>> from textdiff.process import Absorbing
    >>> half = torch.tensor(0.5, dtype=torch.float64)
    >>> kernel(Absorbing(), half * 0, half, N=2)
    tensor([[0.5000, 0.0000, 0.0000],
            [0.0000, 0.5000, 0.0000],
            [0.5000, 0.5000, 1.0000]], dtype=torch.float64)
    """
    bridge = Bridge(*(number[..., None, None] for number in process.bridge(s, t)))
    tokens = bridge.keep * torch.eye(N, dtype=torch.float64) + bridge.fresh / N
    to_mask = bridge.to_mask.expand(*tokens.shape[:-2], 1, N)
    from_mask = ((1 - bridge.stay) / N).expand(*tokens.shape[:-1], 1)
    left = torch.cat([tokens, to_mask], -2)
    return torch.cat([left, torch.cat([from_mask, bridge.stay], -2)], -1)


def posterior(process: Process, xhat: Tensor, z: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The plug-in reverse law q(z_s | z_t, x̂) over the N + 1 states (1.3); Bayes for a one-hot x̂.

    xhat [..., N] cavity probabilities; z, s, t [...]; s < t (where s = t it is the identity, and
    where z is impossible too).
    """
    N = xhat.shape[-1]
    likelihood = kernel(process, s, t, N).transpose(-1, -2)  # [..., from, to]
    index = z[..., None, None].expand(*z.shape, N + 1, 1)
    weights = likelihood.gather(-1, index).squeeze(-1) * marginal(process, xhat, s)
    total = weights.sum(-1, keepdim=True)
    identity = torch.nn.functional.one_hot(z, N + 1).to(weights.dtype)
    stuck = (s.double() == t.double()).unsqueeze(-1) | (total <= 0)
    return torch.where(stuck, identity, weights / total.clamp_min(1e-300))
