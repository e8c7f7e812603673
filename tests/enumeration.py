"""Brute-force truth for the property tests of maths.md 7: dense matrices and explicit sums over
tiny vocabularies.

Everything here is written from the formulas of maths.md 1 and 2, in float64, and never calls a
method of the process under
test: a process only supplies its name and its parameters. States 0..N-1 are tokens, N is MASK;
matrices act on columns, K[to, from].
"""

import math
from collections.abc import Callable
from itertools import product

import torch
from catalogue import Leaky
from torch import Tensor

from textdiff.process import (
    GIDD,
    SCDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    GammaHybridMaskClock,
    Process,
    SmoothEpsilonHybrid,
    Uniform,
)

torch.set_num_threads(1)
GAMMAS = (0.0, 0.01, 0.3, 1.0)


# --------------------------------------------------------------------------------------------------
# clocks and generators


def clocks(p: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    """(m, κ) from the table of maths 1.4; differentiable in t."""
    match p:
        case Absorbing():
            return t, torch.ones_like(t)
        case Uniform():
            return torch.zeros_like(t), 1 - t
        case GammaHybrid(gamma=g, tail=tail):
            left = 1 - (1 - tail) * t  # e^-σ
            return 1 - left ** (1 - g), left**g
        case GammaHybridMaskClock(gamma=g):
            return t, (1 - t) ** (g / (1 - g))
        case EpsilonHybrid(epsilon=e):
            return t, torch.where(t > 0, 1 - e + 0 * t, 1.0)
        case SmoothEpsilonHybrid(epsilon=e, power=power):
            return t, 1 - e * (1 - (1 - t) ** power)
        case GIDD(uniform=share, shape=shape):
            c = 2**shape * share / (1 - share) * t ** (shape / 2) * (1 - t) ** (shape / 2)
            return t / (1 + c), (1 - t) / torch.where(t < 1, 1 - t + c, 1.0)  # 0 at t = 1
        case SCDD(uniform=share, shape=shape, t_peak=peak):
            a, b = shape * peak, shape * (1 - peak)
            c = share / (1 - share) * (t / peak) ** a * ((1 - t) / (1 - peak)) ** b
            if b == 1:  # (1-t) cancels
                return t / (1 + c), 1 / (1 + share / (1 - share) * (t / peak) ** a / (1 - peak))
            return t / (1 + c), (1 - t) / torch.where(t < 1, 1 - t + c, 1.0)  # 0 at t = 1
        case Leaky():
            return t, torch.exp(-t)
    raise NotImplementedError(p)


def slopes(p: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    """(m', κ') by autograd."""
    t = t.detach().clone().requires_grad_()
    return tuple(
        torch.autograd.grad(f.sum(), t, retain_graph=True)[0]
        if f.requires_grad
        else torch.zeros_like(t)
        for f in clocks(p, t)
    )


def leak(p: Process, t: Tensor) -> Tensor:
    """v: 0, or u = (1-m)(-κ'/κ) for GIDD (maths 1.1)."""
    m, kappa = clocks(p, t)
    if isinstance(p, GIDD):
        return (1 - m) * (-slopes(p, t)[1] / kappa)
    return p.theta * (1 - t) if isinstance(p, Leaky) else torch.zeros_like(t)


def rates(p: Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(u, r, v) of (1.1)."""
    (m, kappa), (dm, dkappa), v = clocks(p, t), slopes(p, t), leak(p, t)
    return -dkappa / kappa - v * m / (1 - m), (dm + v * m) / (1 - m), v


def generator(p: Process, t: Tensor, N: int) -> Tensor:
    """The rate matrix R[to, from] at t [...] -> [..., N+1, N+1]; columns sum to 0."""
    Qu, Qa, Ql = (torch.zeros(N + 1, N + 1, dtype=torch.float64) for _ in range(3))
    Qu[:N, :N] = 1 / N - torch.eye(N, dtype=torch.float64)
    Qa[:N, :N], Qa[N, :N] = -torch.eye(N, dtype=torch.float64), 1.0
    Ql[:N, N], Ql[N, N] = 1 / N, -1.0
    return sum(rate[..., None, None] * Q for rate, Q in zip(rates(p, t), (Qu, Qa, Ql), strict=True))


def marginals(p: Process, t: float, N: int) -> Tensor:
    """q_t(. | x) as the columns of an [N+1, N] matrix: a x + b u + m MASK."""
    m, kappa = (float(f) for f in clocks(p, torch.tensor(t, dtype=torch.float64)))
    q = torch.full((N + 1, N), (1 - kappa) * (1 - m) / N, dtype=torch.float64)
    q[:N] += kappa * (1 - m) * torch.eye(N, dtype=torch.float64)
    q[N] = m
    return q


def kernel(p: Process, s: float, t: float, N: int) -> Tensor:
    """q(z_t | z_s) as an [N+1, N+1] matrix: (1.2), and GIDD's own form for GIDD."""
    (ms, ks), (mt, kt) = (
        (float(f) for f in clocks(p, torch.tensor(time, dtype=torch.float64))) for time in (s, t)
    )
    eye, K = torch.eye(N, dtype=torch.float64), torch.zeros(N + 1, N + 1, dtype=torch.float64)
    if isinstance(p, GIDD):

        def noise(m: float, k: float) -> Tensor:
            return torch.tensor([(1 - k) * (1 - m) / N] * N + [m], dtype=torch.float64)

        keep = kt * (1 - mt) / (ks * (1 - ms))
        return keep * torch.eye(N + 1, dtype=torch.float64) + (
            noise(mt, kt) - keep * noise(ms, ks)
        ).unsqueeze(1)
    stay = mt + (1 - mt) * math.exp(-p.theta * (t - s)) if isinstance(p, Leaky) else 1.0
    keep, to_mask = kt * (1 - mt) / (ks * (1 - ms)), (mt - ms * stay) / (1 - ms)
    K[:N, :N] = keep * eye + max(1 - keep - to_mask, 0.0) / N
    K[N, :N], K[:N, N], K[N, N] = to_mask, (1 - stay) / N, stay
    return K


def integrated_kernel(p: Process, s: float, t: float, N: int, steps: int = 400) -> Tensor:
    """The solution of dK/dt = R_t K, K = 1 at s, by the fourth-order Runge-Kutta rule."""
    h = (t - s) / steps
    R = generator(p, torch.linspace(s, t, 2 * steps + 1, dtype=torch.float64), N)
    K = torch.eye(N + 1, dtype=torch.float64)
    for i in range(0, 2 * steps, 2):
        a = R[i] @ K
        b = R[i + 1] @ (K + h / 2 * a)
        c = R[i + 1] @ (K + h / 2 * b)
        d = R[i + 2] @ (K + h * c)
        K = K + h / 6 * (a + 2 * b + 2 * c + d)
    return K


def bayes(p: Process, xhat: Tensor, s: float, t: float) -> Tensor:
    """q(z_s = y | z_t = z, x̂) = K[z, y] q_s(y | x̂)/q_t(z | x̂), as [y, z] (NaN where z is
    impossible).
    """
    N = len(xhat)
    return (kernel(p, s, t, N) * (marginals(p, s, N) @ xhat)).T / (marginals(p, t, N) @ xhat)


def bregman(a: Tensor, s: Tensor) -> Tensor:
    """B(a, s) = s - a + a log(a/s)."""
    return s - a + torch.xlogy(a, a) - torch.xlogy(a, s)


# --------------------------------------------------------------------------------------------------
# helpers


def rows(p: Process, t: float, N: int) -> list[tuple[int, int]]:
    """All pairs (x, z) that occur at t."""
    q = marginals(p, t, N)
    return [(x, z) for x, z in product(range(N), range(N + 1)) if q[z, x] > 0]


def column(values: list, dtype: torch.dtype = torch.float64) -> Tensor:
    """A [R] tensor."""
    return torch.tensor(values, dtype=dtype)


def random_logits(R: int, N: int, seed: int, scale: float = 2.0) -> Tensor:
    """Reproducible random logits [R, N], float64."""
    return scale * torch.randn(
        R, N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def random_joint(N: int, d: int, seed: int, mix: float = 3.0) -> Tensor:
    """A strictly positive, correlated law of d tokens, [N] * d."""
    g = torch.Generator().manual_seed(seed)
    return (
        (mix * torch.randn([N] * d, dtype=torch.float64, generator=g))
        .flatten()
        .softmax(0)
        .view([N] * d)
    )


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """p-value of observed counts; a cell of which nothing is expected must be empty."""
    possible = expected > 0
    assert counts[~possible].sum() == 0, "an impossible outcome was drawn"
    counts, expected = counts[possible].double(), expected[possible].double()
    if len(counts) == 1:
        return 1.0
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(
        torch.special.gammaincc(
            torch.tensor((len(counts) - 1) / 2, dtype=torch.float64), statistic / 2
        )
    )


def tanh_sinh(
    f: Callable[[float], Tensor | float], step: float = 1 / 16, reach: float = 3.2
) -> Tensor:
    """∫_0^1 f(t) dt for f with integrable singularities at the ends, by the double-exponential
    rule.
    """
    total = torch.zeros((), dtype=torch.float64)
    for n in range(int(-reach / step), int(reach / step) + 1):
        u = math.pi / 2 * math.sinh(n * step)
        t = 1 / (1 + math.exp(-2 * u))
        if 0 < t < 1:
            total = total + f(t) * (step * math.pi / 4 * math.cosh(n * step) / math.cosh(u) ** 2)
    return total
