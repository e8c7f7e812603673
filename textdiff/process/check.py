"""Whether a process is what it says: its numbers against each other and against `maths.md` 1.

>>> from textdiff.process import GIDD, check
>>> check(GIDD())  # silent: nothing is wrong
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..noise import Noise
from .base import Bridge, Clock, Process, Rates
from .laws import kernel, marginal, posterior

TIMES = torch.linspace(0.0137, 0.9871, 23, dtype=torch.float64)
"""Interior times, none of them a number at which somebody would put a kink."""

STEPS = [(0.0, 0.3, 0.8), (0.0, 0.5, 1.0), (0.1, 0.2, 0.95), (1e-6, 0.5, 1 - 1e-6)]
"""Times s < t < w of two steps, one after the other."""

DRAWS = 20_000


def check(process: Process, N: int = 4) -> None:
    """Hold a process against the laws of the family (`maths.md` 1), on a vocabulary of N tokens.

    >>> from textdiff.process import Absorbing
    >>> class Sloppy(Absorbing):
    ...     def _clock(self, t):
    ...         return super()._clock(t)._replace(mask=t**2)  # and m' is still 1
    >>> check(Sloppy())
    Traceback (most recent call last):
    ValueError: Sloppy(): mask_rate is not the derivative of mask: 1 instead of 0.0274 at t = 0.0137

    Raises:
        ValueError: what is wrong, its value and the value that it should have, and where.
    """
    for part in (_clocks, _slopes, _flags, _kernels, _rates, _reverse, _corruption, _prior):
        part(process, N)


def _equal(process: Process, what: str, values: Tensor, truth: Tensor, **where: Tensor) -> None:
    """Refuse `values` that are not `truth`, to 1e-6 of their size; `where` names the first axis."""
    values, truth = torch.broadcast_tensors(values.double(), truth.double())
    close = (values - truth).abs() <= 1e-6 * (1 + truth.abs())
    wrong = (~(close | (values == truth))).nonzero()  # NaN is wrong, infinity equals itself
    if len(wrong):
        place = tuple(wrong[0].tolist())
        at = ", ".join(f"{name} = {float(time[place[0]]):g}" for name, time in where.items())
        raise ValueError(
            f"{process}: {what}: {float(values[place]):.4g} instead of {float(truth[place]):.4g} "
            f"at {at}"
        )


def _clocks(process: Process, N: int) -> None:
    """Clean at t = 0; each clock is a float64 number per position, in its range."""
    t = torch.cat([TIMES.new_tensor([0.0, 1e-6]), TIMES, TIMES.new_tensor([1 - 1e-6, 1.0])])
    clock = process.clock(t)
    for name, field in zip(Clock._fields, clock, strict=True):
        if field.shape != t.shape or field.dtype != torch.float64:
            raise ValueError(
                f"{process}: {name} must be float64 and of the shape of t, {tuple(t.shape)}, "
                f"got {field.dtype} and {tuple(field.shape)}"
            )
    alone = Clock(*map(torch.stack, zip(*map(process.clock, t), strict=True)))
    for name, field, single in zip(Clock._fields, clock, alone, strict=True):
        _equal(process, f"{name} depends on the other times of the call", field, single, t=t)
    _equal(process, "mask lies outside [0, 1]", clock.mask, clock.mask.clamp(0, 1), t=t)
    _equal(process, "log_keep is positive", clock.log_keep, clock.log_keep.clamp_max(0), t=t)
    whole = clock.keep + clock.log_corrupt.exp()
    _equal(process, "exp(log_keep) + exp(log_corrupt) is not 1", whole, torch.ones(()), t=t)
    _equal(process, "leak is negative", clock.leak, clock.leak.clamp_min(0), t=t)
    _equal(process, "mask is not 0 at the start", clock.mask[:1], torch.zeros(()), t=t)
    _equal(process, "a token is not intact at the start", clock.keep[:1], torch.ones(()), t=t)


def _slopes(process: Process, N: int) -> None:
    """m' and κ'/κ are the derivatives of m and log κ, by central differences."""
    h = 1e-4
    clock = process.clock(TIMES)
    behind, ahead = process.clock(TIMES - h), process.clock(TIMES + h)
    nearer, near = process.clock(TIMES - h / 2), process.clock(TIMES + h / 2)
    for name, rate, of in (("mask_rate", "mask", "mask"), ("keep_rate", "log κ", "log_keep")):
        wide = (getattr(ahead, of) - getattr(behind, of)) / (2 * h)
        narrow = (getattr(near, of) - getattr(nearer, of)) / h
        slope = (4 * narrow - wide) / 3
        known = slope.isfinite()  # not where κ = 0
        _equal(
            process,
            f"{name} is not the derivative of {rate}",
            getattr(clock, name)[known],
            slope[known],
            t=TIMES[known],
        )


def _flags(process: Process, N: int) -> None:
    """`masks`, `corrupts`, `leaks`, `atom` and `needs_time` say what the clocks do."""
    clock = process.clock(torch.cat([TIMES, TIMES.new_ones(1)]))
    seen = {
        "masks": bool((clock.mask > 0).any()),
        "corrupts": bool((clock.log_keep < 0).any()),
        "leaks": bool((clock.leak > 0).any()),
    }
    for name, truth in seen.items():
        if getattr(process, name) != truth:
            raise ValueError(f"{process}: {name} must be {truth}, as its clocks say")
    start = TIMES.new_tensor([1e-300])
    jump = process.clock(start).log_corrupt.exp()
    _equal(process, "atom is not 1 - κ(0+)", start.new_tensor([process.atom]), jump, t=start)
    if not process.needs_time and not torch.allclose(clock.keep, clock.keep[:1]):
        raise ValueError(
            f"{process}: needs_time must be True, for κ changes with t and a network must see t"
        )


def _kernels(process: Process, N: int) -> None:
    """Columns are laws, steps compose (Chapman-Kolmogorov) and carry marginal to marginal (1.2)."""
    s, t, w = TIMES.new_tensor(STEPS).unbind(-1)
    one, zero = torch.ones(()), torch.zeros(())
    for name, number in zip(Bridge._fields, process.bridge(s, t), strict=True):
        what = f"{name} of the bridge is not in [0, 1]"
        _equal(process, what, number, number.clamp(0, 1), s=s, t=t)
    first, second, both = (kernel(process, *pair, N) for pair in ((s, t), (t, w), (s, w)))
    _equal(process, "a column of the kernel does not sum to 1", first.sum(-2), one, s=s, t=t)
    still = kernel(process, t, t, N)
    _equal(process, "the kernel from t to t is not the identity", still, torch.eye(N + 1), t=t)
    what = "K(w | t) K(t | s) is not K(w | s)"
    _equal(process, what, second @ first, both, s=s, t=t, w=w)
    start, end = (_marginals(process, time, N) for time in (s, t))
    _equal(process, "a column of the marginal does not sum to 1", end.sum(-2), one, t=t)
    _equal(process, "the marginal is negative", end.clamp_max(0), zero, t=t)
    _equal(process, "K q_s is not q_t", first @ start, end, s=s, t=t)


def _rates(process: Process, N: int) -> None:
    """The rates of (1.1) are not negative, and they are the derivative of the kernel."""
    t = TIMES[TIMES < 0.9]
    rates = process.rates(t)
    for name, rate in zip(Rates._fields, rates, strict=True):
        _equal(process, f"the rate {name} is negative", rate, rate.clamp_min(-1e-9), t=t)
    u, r, v = (rate[:, None, None] for rate in rates)
    eye = torch.eye(N + 1, dtype=torch.float64)
    tokens = u / N - (u + r) * eye[:N, :N]
    left = torch.cat([tokens, r.expand(-1, 1, N)], 1)
    jump = torch.cat([left, torch.cat([(v / N).expand(-1, N, 1), -v], 1)], 2)
    slope = [(kernel(process, t, t + h, N) - eye) / h for h in (1e-4, 5e-5, 2.5e-5)]
    limit = (8 * slope[2] - 6 * slope[1] + slope[0]) / 3
    _equal(process, "the rates are not the derivative of the kernel", jump, limit, t=t)


def _reverse(process: Process, N: int) -> None:
    """The reverse law is K[z, y] q_s(y | x)/q_t(z | x), a law; what may not move, does not."""
    x, z = torch.cartesian_prod(torch.arange(N), torch.arange(N + 1)).unbind(-1)
    xhat = 0.9 * torch.eye(N, dtype=torch.float64)[x] + 0.1 / N
    for pair in [steps[:2] for steps in STEPS] + [steps[1:] for steps in STEPS]:
        s, t = (torch.full(z.shape, time, dtype=torch.float64) for time in pair)
        law, occurs = posterior(process, xhat, z, s, t), marginal(process, xhat, t)
        evidence = occurs.gather(-1, z[:, None])
        joint = kernel(process, s, t, N)[torch.arange(len(z)), z] * marginal(process, xhat, s)
        possible = evidence.squeeze(-1) > 0
        bayes = (joint / evidence)[possible]
        where = {"s": s[possible], "t": t[possible]}
        _equal(process, "the reverse law is not Bayes'", law[possible], bayes, **where)
        rests = possible & (z < N) & ~process.moves(s, t)
        identity = torch.nn.functional.one_hot(z, N + 1)
        what = "`moves` is False where a visible token may change"
        _equal(process, what, law[rests], identity[rests], s=s[rests], t=t[rests])


def _corruption(process: Process, N: int) -> None:
    """`corrupt` draws from the marginal, and leaves everything at t = 0."""
    x = torch.ones(DRAWS // 100, 100, dtype=torch.int64)
    truth = torch.eye(N, dtype=torch.float64)[1]
    for time in (0.0, 0.03, 0.5, 0.97, 1.0):
        t = TIMES.new_tensor(time)
        z = process.corrupt(x, t.expand(x.shape), N, Noise(int(100 * time), torch.arange(len(x))))
        _drawn(process, "corrupt", z, marginal(process, truth, t), time)


def _prior(process: Process, N: int) -> None:
    """`prior` draws from m(1) MASK + (1 - m(1)) u; `prior_kl` is its distance from q_1 (1.4)."""
    t = TIMES.new_ones(())
    mask = process.clock(t).mask
    law = torch.cat([((1 - mask) / N).expand(N), mask.view(1)])
    shape = torch.Size([DRAWS // 100, 100])
    _drawn(process, "prior", process.prior(shape, N, Noise(1, torch.arange(shape[0]))), law, 1.0)
    q = _marginals(process, t, N)[:, 0]
    explicit = (torch.xlogy(q, q) - torch.xlogy(q, law)).sum()
    what = "prior_kl is not KL(q_1 || prior)"
    _equal(process, what, process.prior_kl(N).view(1), explicit.view(1), t=t.view(1))


def _marginals(process: Process, t: Tensor, N: int) -> Tensor:
    """q_t(. | x) as the columns of matrices, t [...] -> [..., N + 1, N]."""
    x = torch.eye(N, dtype=torch.float64).expand(*t.shape, N, N)
    return marginal(process, x, t.unsqueeze(-1).expand(*t.shape, N)).transpose(-1, -2)


def _drawn(process: Process, what: str, z: Tensor, law: Tensor, t: float) -> None:
    """Refuse draws whose counts lie more than six standard errors from their law."""
    if z.dtype != torch.int64 or z.min() < 0 or z.max() >= len(law):
        raise ValueError(f"{process}: {what} must draw ids 0..{len(law) - 1} (MASK last), int64")
    share = torch.bincount(z.flatten(), minlength=len(law)) / z.numel()
    error = (law * (1 - law) / z.numel()).clamp_min(0).sqrt()
    off = (share - law).abs() > 6 * error + 1e-12
    if off.any():
        state = int(off.nonzero()[0])
        name = "MASK" if state == len(law) - 1 else f"token {state}"
        raise ValueError(
            f"{process}: {what} draws {name} with frequency {float(share[state]):.4g} "
            f"where its law says {float(law[state]):.4g}, at t = {t:g}"
        )
