"""One step of each sampler as exact probabilities (maths.md 7: 28, 31, 36): `law_of` reads them off
the sampler itself.
"""

import math

import pytest
import torch
from catalogue import HYBRIDS, PROCESSES, name
from driving import timed
from enumeration import chi_square, marginals
from torch import Tensor
from toys import law_of, plug_in

from textdiff.noise import Noise
from textdiff.process import (
    GIDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    Process,
    Uniform,
)
from textdiff.samplers import ACS, Ancestral, PublishedACS, Sampler, Step, temperature

N = 3
STEPS = [(0.3, 0.7), (0.0, 0.4), (0.5, 1.0)]  # (s, t)
each_process = pytest.mark.parametrize("process", PROCESSES, ids=name)
each_hybrid = pytest.mark.parametrize("process", HYBRIDS, ids=name)
each_step = pytest.mark.parametrize(("s", "t"), STEPS)


def possible(process: Process, t: float) -> Tensor:
    """The values z that occur at t."""
    return (marginals(process, t, N).sum(-1) > 0).nonzero()[:, 0]


def problems(process: Process, s: float, t: float, seed: int = 0) -> tuple[Tensor, ...]:
    """Every z with two random rows of logits: (logits, z, s, t)."""
    z = possible(process, t).repeat(2)
    logits = 1.5 * torch.randn(
        len(z), N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return (
        logits,
        z,
        torch.full(z.shape, s, dtype=torch.float64),
        torch.full(z.shape, t, dtype=torch.float64),
    )


def oracle(sampler: Sampler, process: Process, s: float, t: float, x: int) -> tuple[Tensor, Tensor]:
    """The values z at t and the sampler's transition [z, z_s] when the network knows x."""
    z = possible(process, t)
    logits = torch.full((len(z), N), -1e3, dtype=torch.float64)
    logits[:, x] = 0.0
    return z, law_of(
        sampler,
        process,
        logits,
        z,
        torch.full(z.shape, s, dtype=torch.float64),
        torch.full(z.shape, t, dtype=torch.float64),
    )


# -------------------------------------------------------------------------------------------------
# ancestral


@each_step
@each_process
def test_28_ancestral_step_is_the_bayes_mixture(process, s, t):
    logits, z, *times = problems(process, s, t)
    law = law_of(Ancestral(), process, logits, z, *times)
    assert (law >= 0).all()
    torch.testing.assert_close(law.sum(-1), torch.ones(len(z)).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        law, plug_in(process, logits.softmax(-1), z, s, t), rtol=0, atol=1e-12
    )
    if s == 0:
        assert (law[:, N] == 0).all(), "the last step leaves a MASK"


@each_step
@each_process
def test_28_real_draws_follow_the_law(process, s, t):
    """Chi-square of 50,000 draws with the hashed uniforms, for every z."""
    logits, z, *_ = problems(process, s, t)
    draws = 50_000
    for row in range(len(z) // 2):
        noise = Noise(row, torch.arange(draws))
        state = z[row].expand(draws, 1)
        before, after = (torch.full((draws, 1), time, dtype=torch.float64) for time in (t, s))
        step = Step(process, state, before, s=after, N=N, noise=noise)
        rows = Ancestral().rows(step)
        moved, _ = Ancestral().move(step, rows, logits[row].expand(int(rows.sum()), N))
        expected = plug_in(process, logits[row : row + 1].softmax(-1), z[row : row + 1], s, t)[0]
        counts = torch.bincount(moved[:, 0], minlength=N + 1)
        assert chi_square(counts, expected.where(expected > 1e-15, 0.0) * draws) > 1e-4


# -------------------------------------------------------------------------------------------------
# ACS


def acs(process: Process) -> list[ACS]:
    rates = [ACS(rate=0.5), ACS(rate=4.0)]
    return (
        rates
        if isinstance(process, Uniform)
        else [ACS(eta=0.0), ACS(eta=0.3), ACS(eta=1.0), *rates]
    )


@each_step
@pytest.mark.parametrize("process", [*HYBRIDS, Uniform()], ids=name)
def test_31_acs_keeps_every_marginal_with_the_oracle(process, s, t):
    x = 1
    for sampler in acs(process):
        z, law = oracle(sampler, process, s, t, x)
        pushed = marginals(process, t, N)[z, x] @ law
        torch.testing.assert_close(
            pushed, marginals(process, s, N)[:, x], rtol=0, atol=1e-12, msg=str(sampler)
        )


def probability(sampler: ACS, process: Process, s: float, t: float) -> float:
    """E by maths 5.4."""
    m = [float(marginals(process, time, N)[N, 0]) for time in (s, t)]
    ratio = m[0] / m[1] if m[1] else s / t
    return ratio * (
        sampler.eta if sampler.eta is not None else 1 - math.exp(-sampler.rate * (t - s))
    )


@each_step
@pytest.mark.parametrize("process", [*HYBRIDS, Uniform()], ids=name)
def test_31_acs_mixes_the_bridge_and_a_redraw_over_the_posterior(process, s, t):
    """Any logits: visible z -> (1-e) bridge + e D_s, both over x ~ P(x | z); masked positions are
    ancestral.
    """
    logits, z, *times = problems(process, s, t)
    bridge = plug_in(process, logits.softmax(-1), z, s, t)
    visible = z < N
    posterior = logits.softmax(-1) * marginals(process, t, N)[z]
    posterior = posterior / posterior.sum(-1, keepdim=True)
    D = marginals(process, s, N)[:N] / (1 - marginals(process, s, N)[N])
    redraw = torch.nn.functional.pad(posterior @ D.T, (0, 1))
    for sampler in acs(process):
        e = probability(sampler, process, s, t) * visible.double()[:, None]
        law = law_of(sampler, process, logits, z, *times)
        torch.testing.assert_close(
            law, (1 - e) * bridge + e * redraw, rtol=0, atol=1e-12, msg=str(sampler)
        )


@each_hybrid
def test_31_eta_zero_is_ancestral(process):
    logits, z, *times = problems(process, 0.3, 0.7)
    a, b = (law_of(sampler, process, logits, z, *times) for sampler in (ACS(eta=0.0), Ancestral()))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_31_acs_refuses_what_is_not_defined():
    step = timed(EpsilonHybrid(0.3), [1.0], [0.9])
    with pytest.raises(ValueError, match="exceeds 1"):
        ACS(eta=1.2).probability(step)
    assert float(ACS(eta=1.1).probability(step)) == pytest.approx(0.99)
    for sampler in (ACS(eta=0.1), ACS(rate=1.0), PublishedACS()):
        for absorbing in (Absorbing(), EpsilonHybrid(0.0), GammaHybrid(0.0)):
            with pytest.raises(ValueError, match="never wrong"):
                sampler.check(absorbing)
    with pytest.raises(ValueError, match="rate"):
        ACS(eta=0.1).check(Uniform())
    for options in ({}, {"eta": 0.1, "rate": 1.0}, {"eta": -0.1}, {"rate": -1.0}):
        with pytest.raises(ValueError, match="eta"):
            ACS(**options)


def test_31_eta_above_one_is_judged_at_moving_positions_only():
    """A position that waits at full noise (s = t = 1) is not redrawn: eta = 1.2 is admissible in a
    step from 1 to 1/2.
    """
    e = ACS(eta=1.2).probability(timed(EpsilonHybrid(0.3), [1.0, 1.0], [0.5, 1.0]))
    torch.testing.assert_close(e, torch.tensor([[0.6, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("sampler", [ACS(eta=0.3), ACS(rate=1.0)], ids=name)
def test_31_acs_keeps_the_marginals_of_a_leaking_process_or_refuses_it(sampler):
    """A visible token of GIDD turns to MASK backwards at a rate that a redraw would leave out."""
    process, s, t, x = GIDD(), 0.3, 0.7, 1
    try:
        sampler.check(process)
    except ValueError:
        return
    z, law = oracle(sampler, process, s, t, x)
    torch.testing.assert_close(
        marginals(process, t, N)[z, x] @ law, marginals(process, s, N)[:, x], rtol=0, atol=1e-12
    )


def test_31_published_acs_loses_the_noise_that_the_network_was_trained_on():
    """[v:5.6] With the oracle, visible tokens are wrong at a rate 0 instead of ε (1 - 1/N): not a
    sample of q_s.
    """
    process, x, T = EpsilonHybrid(0.3), 1, 4
    for sampler, wrong in ((PublishedACS(1.0), 0.0), (ACS(eta=1.0), 0.3 * (1 - 1 / N))):
        p = torch.zeros(N + 1, dtype=torch.float64)
        p[N] = 1.0
        for level in range(T, 1, -1):
            s, t = (level - 1) / T, level / T
            z, law = oracle(sampler, process, s, t, x)
            after = torch.zeros_like(p).index_add(0, torch.arange(N + 1), p[z] @ law)
            visible = after[:N] / after[:N].sum()
            assert float(1 - visible[x]) == pytest.approx(wrong, abs=1e-12)
            assert float(after[N]) == pytest.approx(s, abs=1e-12)
            p = after


@each_step
@each_hybrid
def test_31_published_acs_step(process, s, t):
    """Masked: stay with m_s/m_t, else softmax(logits); visible: with eta m_s/m_t the posterior for
    self-noise 1/2, else as it is.
    """
    logits, z, *times = problems(process, s, t)
    ratio = float(marginals(process, s, N)[N, 0] / marginals(process, t, N)[N, 0])
    stay = torch.nn.functional.one_hot(z, N + 1).double()
    p = logits.softmax(-1)
    doubting = p * (0.5 * stay[:, :N] + 0.5 / N)
    drawn = torch.where((z == N)[:, None], p, doubting / doubting.sum(-1, keepdim=True))
    masked = (z == N).double()[:, None]
    move = masked * (1 - ratio) + (1 - masked) * 0.6 * ratio
    expected = (1 - move) * stay + move * torch.nn.functional.pad(drawn, (0, 1))
    torch.testing.assert_close(
        law_of(PublishedACS(0.6), process, logits, z, *times), expected, rtol=0, atol=1e-12
    )


def test_31_published_acs_refuses_leaks_and_no_mask():
    for process in (GIDD(), Uniform()):
        with pytest.raises(ValueError, match="rate"):
            PublishedACS().check(process)


# -------------------------------------------------------------------------------------------------
# temperature


@pytest.mark.parametrize("T", [0.5, 2.0])
@each_process
def test_36_temperature_is_applied_exactly_once(process, T):
    """Ancestral: the step of a network with logits l/T; from MASK to clean that is softmax(l/T)."""
    for s, t in STEPS:
        logits, z, *times = problems(process, s, t)
        law = law_of(Ancestral(), process, logits, z, *times, filter=temperature(T))
        torch.testing.assert_close(
            law, plug_in(process, (logits / T).softmax(-1), z, s, t), rtol=0, atol=1e-12
        )
        if s == 0:
            masked = z == N
            torch.testing.assert_close(
                law[masked, :N], (logits / T).softmax(-1)[masked], rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("T", [0.5, 2.0])
@each_hybrid
def test_36_temperature_of_a_redraw_is_that_of_its_posterior(process, T):
    """ACS: x ~ softmax(posterior logits/T), then the noise of level s; both samplers once."""
    s, t = 0.3, 0.7
    logits, z, *times = problems(process, s, t)
    visible, q = z < N, marginals(process, t, N)
    e = probability(ACS(eta=0.8), process, s, t)
    posterior = ((logits.log_softmax(-1) + q[z].where(visible[:, None], 1.0).log()) / T).softmax(-1)
    D = marginals(process, s, N)[:N] / (1 - marginals(process, s, N)[N])
    bridge = plug_in(process, (logits / T).softmax(-1), z, s, t)
    expected = (1 - e) * bridge + e * torch.nn.functional.pad(posterior @ D.T, (0, 1))
    law = law_of(ACS(eta=0.8), process, logits, z, *times, filter=temperature(T))
    torch.testing.assert_close(law[visible], expected[visible], rtol=0, atol=1e-12)
    torch.testing.assert_close(law[~visible], bridge[~visible], rtol=0, atol=1e-12)

    published = law_of(PublishedACS(1.0), process, logits, z, *times, filter=temperature(T))
    own = torch.nn.functional.one_hot(z, N + 1)[:, :N].double() * math.log(1 + N)
    ratio = float(marginals(process, s, N)[N, 0] / q[N, 0])
    drawn = ((logits + own) / T).softmax(-1)
    seen = visible.double()[:, None]
    move = seen * ratio + (1 - seen) * (1 - ratio)
    expected = move * torch.nn.functional.pad(drawn, (0, 1)) + (
        1 - move
    ) * torch.nn.functional.one_hot(z, N + 1)
    torch.testing.assert_close(published, expected, rtol=0, atol=1e-12)


def test_36_temperature_must_be_positive_and_one_is_no_filter():
    logits = torch.tensor([[0.3, -1.0]])
    assert temperature(1.0)(logits) is logits
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature"):
            temperature(value)
