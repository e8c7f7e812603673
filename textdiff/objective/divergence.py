"""The divergences that bounds are made of, per row of logits: O(N), safe in float32, in nats
(`maths.md` 2.3, 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..process import Clock, Process
from ..process.base import inside


class LogSoftmaxStatistics(torch.autograd.Function):
    """logits [R, N] -> (l_x, l_z, Σ_{y≠x} softplus(L + l_y)) with l = log_softmax(logits); three
    [R] tensors.

    All that the bounds need of a row, so that only this function touches [R, N]. y = x is dropped
    before the sum: taking it off afterwards loses all digits when x̂ is near x. Without L
    (absorbing noise) the sum is skipped.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, x: Tensor, z: Tensor, L: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        top, place = logits.max(-1, keepdim=True)
        e = (logits - top).exp_().scatter_(-1, place, 0.0)
        # Without the largest: log1p keeps the digits of 1 - x̂_x where x̂ is near x.
        rest = e.sum(-1, keepdim=True)
        e.scatter_(-1, place, 1.0)
        mass, log_mass = 1 + rest, rest.log1p()
        l_x, l_z = (
            (logits.gather(-1, i.unsqueeze(-1)) - top - log_mass).squeeze(-1) for i in (x, z)
        )
        odds = None if L is None else L.to(e.dtype).exp().unsqueeze(-1) / mass
        total = torch.zeros_like(l_x)
        # softplus(L + l) = log1p(e^L x̂); where x̂ underflows, c times its share is below e^-87
        if odds is not None:
            total = (e * odds).scatter_(-1, x.unsqueeze(-1), 0.0).log1p_().sum(-1)
        ctx.save_for_backward(e, mass, x, z, odds)
        return l_x, l_z, total

    @staticmethod
    def backward(
        ctx: Any, g_x: Tensor, g_z: Tensor, g_sum: Tensor
    ) -> tuple[Tensor, None, None, None]:
        e, mass, x, z, odds = ctx.saved_tensors
        slopes = (g_x + g_z).unsqueeze(-1)
        if odds is None:
            grad = e * (-slopes / mass)
        else:
            ratio = (e * odds).scatter_(-1, x.unsqueeze(-1), 0.0)
            # ratio/(1 + ratio), in place
            grad = ratio.reciprocal_().add_(1).reciprocal_().mul_(g_sum.unsqueeze(-1))
            slopes = slopes + grad.sum(-1, keepdim=True)
            grad.addcmul_(e, slopes / mass, value=-1)
        grad.scatter_add_(-1, x.unsqueeze(-1), g_x.unsqueeze(-1))
        grad.scatter_add_(-1, z.unsqueeze(-1), g_z.unsqueeze(-1))
        return grad, None, None, None


@dataclass(frozen=True)
class _Divergence:
    """The pieces of (2.5)-(2.7) at one level: KL(D_x || D_x̂) and log d(z | x)/d(z | x̂), float64
    [R].
    """

    kl: Tensor
    log_rho: Tensor


def _log_ratio(L: Tensor, l: Tensor) -> Tensor:
    """F = log d(y | x̂)/(κ + c) from l = log x̂_y (2.5); finite for κ in [0, 1]."""
    return torch.logaddexp(logsigmoid(-L), logsigmoid(L) + l)


def as_float(logits: Tensor) -> Tensor:
    """At least float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _divergence(
    process: Process, clock: Clock, logits: Tensor, x: Tensor, z: Tensor
) -> tuple[_Divergence, Tensor, Tensor]:
    """The divergence at `clock`, and log x̂_x and log x̂_z (z = x where z is MASK)."""
    N = logits.shape[-1]
    own = torch.where(z < N, z, x)
    L, c = clock.log_odds(N), clock.log_corrupt.exp() / N
    l_x, l_z, rest = (
        value.double()
        for value in LogSoftmaxStatistics.apply(
            as_float(logits), x, own, L if process.corrupts else None
        )
    )
    kl = -(clock.keep + c) * _log_ratio(L, l_x) - c * rest
    same = torch.where(own == x, torch.zeros_like(L), logsigmoid(-L))
    return _Divergence(kl, same - _log_ratio(L, l_z)), l_x, l_z


def nelbo_integrand(logits: Tensor, x: Tensor, z: Tensor, t: Tensor, process: Process) -> Tensor:
    """The continuous-time NELBO integrand per unit of t, in nats (2.4).

    z = MASK:    (m'/m + v) KL
    z ordinary:  [u (KL + IS) + v m/(1-m) IS] / (N d_t(z | x))
                 IS = ρ - 1 - log ρ,    ρ = d_t(z | x)/d_t(z | x̂)

    Args:
        logits: cavity logits [R, N].
        x, z: [R]; z = N is MASK.
        t: [R] in (0, 1].
        process: the noising process.

    Returns:
        [R] float64, >= 0 up to rounding.
    """
    N = logits.shape[-1]
    clock = process.clock(inside(t))
    d, _, _ = _divergence(process, clock, logits, x, z)
    masked = (clock.mask_rate / clock.mask.clamp_min(1e-30) + clock.leak) * d.kl
    if not process.corrupts:
        return torch.where(z == N, masked, 0.0)
    odds = clock.leak * clock.mask / (1 - clock.mask).clamp_min(1e-30)
    rate = (-clock.keep_rate - odds).clamp(0.0, 1e30)
    corrupt = clock.log_corrupt.exp()
    weight = torch.where(z == x, N * clock.keep + corrupt, corrupt.clamp_min(1e-30))
    log_rho = torch.where(z < N, d.log_rho, 0.0)
    itakura_saito = torch.expm1(log_rho) - log_rho
    visible = (rate * (d.kl + itakura_saito) + odds.clamp(max=1e30) * itakura_saito) / weight
    possible = (z == x) | (corrupt > 0)
    return torch.where(z == N, masked, torch.where(possible, visible, 0.0))


def step_kl(logits: Tensor, x: Tensor, z: Tensor, s: Tensor, t: Tensor, process: Process) -> Tensor:
    """KL(q(z_s | z_t, x) || q(z_s | z_t, x̂)) of one reverse step t -> s, in nats (3.3)-(3.5), any
    leak.

    z = MASK:    (1 - m_s stay/m_t) KL_s
    z ordinary:  A KL_s - B λ + log1p(B expm1(λ)),     λ = log d_s(z | x)/d_s(z | x̂)
                 A = (1-m_s) fresh/(N q_t(z | x)),     B = A + m_s (1-stay)/(N q_t(z | x))
    s = 0:       -log p(x | z_t), the reconstruction (1.5)

    Args:
        logits: cavity logits [R, N].
        x, z: [R]; z = N is MASK.
        s, t: [R], 0 <= s < t <= 1.
        process: the noising process.

    Returns:
        [R] float64, >= 0 up to rounding.
    """
    N = logits.shape[-1]
    before, after, bridge = process.clock(t), process.clock(s), process.bridge(s, t)
    d, l_x, l_z = _divergence(process, after, logits, x, z)
    clean = s <= 0
    kl = torch.where(clean, -l_x, d.kl)
    masked = (1 - after.mask * bridge.stay / before.mask.clamp_min(1e-300)) * kl
    if not process.corrupts:
        return torch.where(z == N, masked, 0.0)
    corrupt = before.log_corrupt.exp()
    law = torch.where(z == x, N * before.keep + corrupt, corrupt).clamp_min(1e-30) * (
        1 - before.mask
    ).clamp_min(1e-30)
    a = ((1 - after.mask) * bridge.fresh / law).clamp(0.0, 1.0)
    b = (a + after.mask * (1 - bridge.stay) / law).clamp(0.0, 1.0)
    lam = torch.where(clean | (z == N), 0.0, d.log_rho)
    visible = a * kl - b * lam + torch.log1p(b * torch.expm1(lam))
    L = before.log_odds(N)
    log_rho = torch.where(z == x, torch.zeros_like(L), logsigmoid(-L)) - _log_ratio(L, l_z)
    visible = torch.where(clean, -l_x - log_rho, visible)
    possible = (z == x) | (corrupt > 0)
    return torch.where(z == N, masked, torch.where(possible, visible, 0.0))
