"""Analytic and Euler steps of log-score networks (maths.md 7: 14, 28, 29, 30)."""

import math
from functools import partial

import pytest
import torch
from catalogue import name
from driving import flat_run
from enumeration import clocks, generator, marginals
from toys import law_of as law_of_any
from toys import plug_in, toy

from textdiff.generation.engine import denoise
from textdiff.hyperschedule import Block, Flat, Slide
from textdiff.noise import Noise
from textdiff.process import (
    GIDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    GammaHybridMaskClock,
    Process,
    SmoothEpsilonHybrid,
    Uniform,
)
from textdiff.samplers import Analytic, Euler, temperature
from textdiff.samplers.filters import identity

N = 3
STEPS = [(0.3, 0.7), (0.0, 0.4), (0.5, 1.0)]  # (s, t)
GAMMA = [GammaHybrid(g, tail=0.1) for g in (0.0, 0.3, 1.0)]
SCORED = [
    *GAMMA,
    Absorbing(),
    GammaHybrid(0.0),
    GammaHybridMaskClock(0.0),
    SmoothEpsilonHybrid(0.3, power=3.0),
]
ENDLESS = [Uniform(), GammaHybrid(0.3), GammaHybridMaskClock(0.3)]  # κ(1) = 0
law_of = partial(law_of_any, filter=identity)
each_step = pytest.mark.parametrize(("s", "t"), STEPS)
each_scored = pytest.mark.parametrize("process", SCORED, ids=name)


def possible(process: Process, t: float) -> torch.Tensor:
    return (marginals(process, t, N).sum(-1) > 0).nonzero()[:, 0]


def random(R: int, seed: int = 0, scale: float = 1.5) -> torch.Tensor:
    return scale * torch.randn(
        R, N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def raw_of(process: Process, xhat: torch.Tensor, z: torch.Tensor, t: float) -> torch.Tensor:
    """A network's raw outputs for the scores q(y | x̂)/q(z | x̂): without log((1-m)/m) - log
    N at MASK.
    """
    m = float(marginals(process, t, N)[N, 0])
    d = xhat @ marginals(process, t, N)[:N].T / max(1 - m, 1e-300)
    if m == 1:
        kappa = float(clocks(process, torch.tensor(t, dtype=torch.float64))[1])
        d = kappa * xhat + (1 - kappa) / N
    own = torch.where(z < N, d.gather(1, z.clamp(max=N - 1)[:, None])[:, 0], 1 / N)
    return (d / own[:, None]).log()


def times(z: torch.Tensor, s: float, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full(z.shape, s, dtype=torch.float64), torch.full(z.shape, t, dtype=torch.float64)


@each_step
@each_scored
def test_28_analytic_is_ancestral_at_consistent_scores(process, s, t):
    z = possible(process, t).repeat(2)
    xhat = random(len(z)).softmax(-1)
    law = law_of(Analytic(), process, raw_of(process, xhat, z, t), z, *times(z, s, t))
    torch.testing.assert_close(law, plug_in(process, xhat, z, s, t), rtol=0, atol=1e-10)
    assert s > 0 or (law[:, N] == 0).all()


@pytest.mark.parametrize("process", GAMMA, ids=name)
def test_29_the_staggered_scores_are_those_of_the_matrix_exponential(process):
    """P(y) = (exp(-DQ) s)_y exp(DQ)_{z y} for scores of any kind, negative entries set to 0 and the
    rest normalised.
    """
    s, t, g = 0.3, 0.7, process.gamma
    Qu, Qa = (
        torch.zeros(N + 1, N + 1, dtype=torch.float64),
        torch.zeros(N + 1, N + 1, dtype=torch.float64),
    )
    Qu[:N, :N], Qa[:N, :N], Qa[N, :N] = 1 / N - torch.eye(N).double(), -torch.eye(N).double(), 1.0
    sigma = [-math.log(1 - (1 - process.tail) * time) for time in (s, t)]
    DQ = (sigma[1] - sigma[0]) * ((1 - g) * Qa + g * Qu)
    z = possible(process, t).repeat(8)
    raw = random(len(z), seed=1)
    m = float(marginals(process, t, N)[N, 0])
    scores = torch.zeros(len(z), N + 1, dtype=torch.float64)
    for row, own in enumerate(z.tolist()):
        scores[row, :N] = raw[row].exp() * ((1 - m) / m / N if own == N else 1.0)
        scores[row, own] = 1.0
    staggered = scores @ torch.matrix_exp(-DQ).T
    expected = (staggered * torch.matrix_exp(DQ)[z]).clamp_min(0)
    expected = expected / expected.sum(1, keepdim=True)
    law = law_of(Analytic(), process, raw, z, *times(z, s, t))
    torch.testing.assert_close(law, expected, rtol=0, atol=1e-10)
    if 0 < g:
        assert (staggered[:, :N] < 0).any(), "some scores are inconsistent"


@each_scored
def test_30_euler_has_a_local_error_of_second_order(process):
    t, h = 0.6, 1e-3
    z = possible(process, t)
    xhat = random(len(z), seed=2).softmax(-1)
    raw = raw_of(process, xhat, z, t)

    def error(h: float) -> float:
        law = law_of(Euler(), process, raw, z, *times(z, t - h, t), grid=3)
        return float((law - plug_in(process, xhat, z, t - h, t)).abs().sum())

    if not process.corrupts:
        assert error(h) < 1e-12, (
            "where m is linear in t and nothing is corrupted an Euler step is exact"
        )
    else:
        assert 3.7 < error(h) / error(h / 2) < 4.3


@pytest.mark.parametrize("process", GAMMA, ids=name)
def test_30_euler_step_is_the_rate_times_the_score(process):
    t, h = 0.6, 0.1
    z = possible(process, t)
    raw, m = random(len(z), seed=3, scale=0.3), float(marginals(process, t, N)[N, 0])
    R = generator(process, torch.tensor(t, dtype=torch.float64), N)
    expected = torch.zeros(len(z), N + 1, dtype=torch.float64)
    for row, own in enumerate(z.tolist()):
        for y in range(N):
            if y != own:
                expected[row, y] = (
                    h * R[own, y] * raw[row, y].exp() * ((1 - m) / m / N if own == N else 1.0)
                )
        expected[row, own] = 1 - expected[row].sum()
    torch.testing.assert_close(
        law_of(Euler(), process, raw, z, *times(z, t - h, t)), expected, rtol=0, atol=1e-12
    )


@each_scored
def test_30_euler_ends_with_the_analytic_step(process):
    z = possible(process, 0.4)
    raw = random(len(z), seed=4)
    a, b = (
        law_of(sampler, process, raw, z, *times(z, 0.0, 0.4)) for sampler in (Euler(), Analytic())
    )
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", [Analytic(), Euler()], ids=name)
def test_14_the_self_score_is_1_whatever_the_network_says(sampler):
    process, z = GammaHybrid(0.3, tail=0.1), torch.arange(N)
    raw = random(N, seed=5)
    wild = raw + 7 * torch.eye(N).double()
    laws = [law_of(sampler, process, logits, z, *times(z, 0.3, 0.7)) for logits in (raw, wild)]
    assert torch.equal(*laws)


@pytest.mark.parametrize("sampler", [Analytic(), Euler()], ids=name)
@pytest.mark.parametrize("process", [*ENDLESS, Uniform(tail=5e-3), GAMMA[1]], ids=name)
@pytest.mark.parametrize("schedule", [Flat(4), Block(2, 4), Slide(2, 1)], ids=name)
def test_every_process_can_be_sampled(sampler, process, schedule):
    """Where κ(1) = 0 the times begin at 0.999, with the prior of that time."""
    noise = Noise(0, torch.arange(2000))
    ids, begun = torch.full((2000, 4), N), []
    found = denoise(
        toy(process),
        process,
        schedule,
        sampler,
        noise,
        ids,
        on_call=lambda frame: begun.append((frame.ids.clone(), frame.t.clone())),
    )
    end = 0.999 if process in ENDLESS else 1.0
    z, t = begun[0]
    assert (t == end).all() and (found.ids < N).all()
    mask = float(process.clock(torch.tensor(end)).mask)
    share = (z == N).double().mean()
    assert abs(float(share) - mask) < 1e-12 + 5 * math.sqrt(mask * (1 - mask) / z.numel())


@each_step
@pytest.mark.parametrize("process", ENDLESS, ids=name)
def test_28_below_the_end_analytic_is_ancestral_without_a_tail_too(process, s, t):
    t = min(t, process.last)
    z = possible(process, t).repeat(2)
    xhat = random(len(z)).softmax(-1)
    law = law_of(Analytic(), process, raw_of(process, xhat, z, t), z, *times(z, s, t))
    torch.testing.assert_close(law, plug_in(process, xhat, z, s, t), rtol=0, atol=1e-10)


@pytest.mark.parametrize("sampler", [Analytic(), Euler()], ids=name)
def test_what_is_not_defined_is_refused(sampler):
    for process in (GIDD(), EpsilonHybrid(0.1)):
        with pytest.raises(ValueError, match="leak or atom"):
            sampler.check(process)
    for process in [*SCORED, *ENDLESS]:
        sampler.check(process)
    with pytest.raises(ValueError, match="no meaning there"):
        flat_run(sampler, GAMMA[1], toy(GAMMA[1]), 2, 2, filter=temperature(0.5))
