"""Remasking (maths.md 7: 33): one step as exact probabilities."""

from dataclasses import dataclass

import pytest
import torch
from catalogue import MASKING, name
from driving import timed
from enumeration import marginals
from toys import law_of, plug_in

from textdiff.process import (
    GIDD,
    Absorbing,
    GammaHybrid,
    Process,
    Uniform,
)
from textdiff.samplers import Ancestral, Capped, Remasking, ReMDM, Rescaled

N = 3
STEPS = [(0.3, 0.7), (0.0, 0.4), (0.5, 1.0), (0.1, 0.95)]  # (s, t)
SAMPLERS = [
    ReMDM(Rescaled(0.0)),
    ReMDM(Rescaled(0.4)),
    ReMDM(Rescaled(1.0)),
    ReMDM(Capped(0.1)),
    ReMDM(Capped(1.0)),
]
each_process = pytest.mark.parametrize("process", MASKING, ids=name)
each_step = pytest.mark.parametrize(("s", "t"), STEPS)


def sigma(sampler: ReMDM, process: Process, s: float, t: float) -> float:
    m_s, m_t = (float(marginals(process, time, N)[N, 0]) for time in (s, t))
    bound = min(1.0, m_s / (1 - m_t)) if m_t < 1 else float(m_s > 0)
    return (
        min(bound, sampler.sigma.cap)
        if isinstance(sampler.sigma, Capped)
        else sampler.sigma.eta * bound
    )


def problems(
    process: Process, s: float, t: float, x: int | None = None
) -> tuple[torch.Tensor, ...]:
    z = (marginals(process, t, N).sum(-1) > 0).nonzero()[:, 0]
    logits = 1.5 * torch.randn(
        len(z), N, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    if x is not None:
        logits = torch.full((len(z), N), -1e3, dtype=torch.float64)
        logits[:, x] = 0.0
    return (
        logits,
        z,
        torch.full(z.shape, s, dtype=torch.float64),
        torch.full(z.shape, t, dtype=torch.float64),
    )


@each_step
@each_process
def test_33_the_oracle_keeps_every_marginal(process, s, t):
    x = 1
    for sampler in SAMPLERS:
        logits, z, *times = problems(process, s, t, x)
        law = law_of(sampler, process, logits, z, *times)
        pushed = marginals(process, t, N)[z, x] @ law
        torch.testing.assert_close(
            pushed, marginals(process, s, N)[:, x], rtol=0, atol=1e-12, msg=str(sampler)
        )


@each_step
@each_process
def test_33_the_step_for_any_logits(process, s, t):
    """Visible: MASK with σ, else the ancestral step; MASK: stays with (m_s - σ (1-m_t))/m_t, else
    d_s(. | x̂).
    """
    logits, z, *times = problems(process, s, t)
    q = marginals(process, s, N)
    m_s, m_t = float(q[N, 0]), float(marginals(process, t, N)[N, 0])
    bridge = plug_in(process, logits.softmax(-1), z, s, t)
    D = logits.softmax(-1) @ q[:N].T / (1 - m_s)
    for sampler in SAMPLERS:
        sg = sigma(sampler, process, s, t)
        stay = (m_s - sg * (1 - m_t)) / m_t
        masked = torch.cat([(1 - stay) * D, torch.full((len(z), 1), stay, dtype=torch.float64)], 1)
        mask = torch.nn.functional.one_hot(torch.full_like(z, N), N + 1).double()
        expected = torch.where((z == N)[:, None], masked, sg * mask + (1 - sg) * bridge)
        torch.testing.assert_close(
            law_of(sampler, process, logits, z, *times),
            expected,
            rtol=0,
            atol=1e-12,
            msg=str(sampler),
        )


def test_33_remasking_differs_from_the_ancestral_step_and_eta_zero_does_not():
    logits, z, *times = problems(Absorbing(), 0.3, 0.7)
    a, b, c = (
        law_of(x, Absorbing(), logits, z, *times)
        for x in (Ancestral(), ReMDM(Rescaled(0.0)), ReMDM(Rescaled(0.5)))
    )
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert (a - c).abs().max() > 0.1


@dataclass(frozen=True)
class Fixed(Remasking):
    """A rule that does not look at the bound."""

    value: float

    def __call__(self, bound):
        return torch.full_like(bound, self.value)


def test_33_a_probability_above_the_bound_is_refused():
    step = timed(Absorbing(), [0.8, 0.5], [0.1, 0.4])
    torch.testing.assert_close(
        ReMDM(Fixed(0.5)).probability(step)[0, 0], torch.tensor(0.5).double()
    )
    for value in (0.51, -0.1):
        with pytest.raises(ValueError, match="outside"):
            ReMDM(Fixed(value)).probability(step)
    for rule in (Capped, Rescaled):
        for value in (-0.1, 1.1, float("nan")):
            with pytest.raises(ValueError, match="must lie in"):
                rule(value)


def test_33_times_are_per_position_and_what_waits_is_not_remasked():
    step = timed(Absorbing(), [0.8, 0.5, 0.5, 0.0], [0.1, 0.5, 0.4, 0.0])
    expected = torch.tensor([[0.5, 0.0, 0.8, 0.0]]).double()
    torch.testing.assert_close(ReMDM(Rescaled(1.0)).probability(step), expected)


def test_33_undefined_processes_are_refused():
    for process in (Uniform(), GIDD(), GammaHybrid(1.0)):
        with pytest.raises(ValueError, match="Ancestral"):
            ReMDM().check(process)
