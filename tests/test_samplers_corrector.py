"""Exact correctors (maths.md 7: 32) and the alternation of predictor and corrector."""

import pytest
import torch
from driving import Alone, flat_run
from enumeration import chi_square, marginals, random_joint
from toys import joint, law_of, name, ordinary, plug_in, states, toy

from textdiff.noise import Noise
from textdiff.process import GIDD, Absorbing, EpsilonHybrid, GammaHybrid, Process, SmoothEpsilonHybrid, Uniform
from textdiff.samplers import (
    Analytic,
    Ancestral,
    FirstHitting,
    GibbsCorrector,
    PosteriorCorrector,
    PredictorCorrector,
    ReMDM,
)

N, D = 3, 2
CORRUPTING = [EpsilonHybrid(0.3), SmoothEpsilonHybrid(0.3, power=3.0), GammaHybrid(0.3), Uniform(), GIDD()]
CORRECTORS = [GibbsCorrector(), PosteriorCorrector()]
each_corrector = pytest.mark.parametrize("corrector", CORRECTORS, ids=name)


def bayes(process: Process, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Q_t(z) of every state [S], and the true cavity P(x^i | z without i) [S, d, N], of two correlated tokens."""
    p, q, z = random_joint(N, D, seed=0), marginals(process, t, N), states(N, D)
    law = torch.einsum("xy,ax,by->ab", p, q, q).flatten()
    cavity = torch.stack([(p @ q[z[:, 1]].T).T, (p.T @ q[z[:, 0]].T).T], 1)
    total = cavity.sum(-1, keepdim=True)
    return law, torch.where(total > 0, cavity / total, 1 / N)  # next to a MASK where none occurs, anything


@each_corrector
@pytest.mark.parametrize("process", CORRUPTING, ids=name)
def test_32_one_site_at_a_time_leaves_the_marginal_and_is_reversible(process, corrector):
    """Pi P = pi and pi(z) P(z, z') = pi(z') P(z', z), pi = q_t of a correlated pair, P at the true cavity."""
    t = 0.6
    pi, cavity = bayes(process, t)
    z = states(N, D)
    time = torch.full((len(z),), t, dtype=torch.float64)
    P = torch.zeros(len(z), len(z), dtype=torch.float64)
    seen = z < N
    for i in range(D):
        here = seen[:, i].nonzero()[:, 0]
        laws = torch.nn.functional.one_hot(z, N + 1).double()
        logits = cavity[here, i].log()
        laws[here, i] = law_of(Alone(corrector), process, logits, z[here, i], 0 * time[here], time[here])
        P[here] += joint(laws[here]) / seen[here].sum(1, keepdim=True)
    none = ~seen.any(1)
    P[none] = torch.eye(len(z), dtype=torch.float64)[none]
    torch.testing.assert_close(P.sum(1), torch.ones(len(z)).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(pi @ P, pi, rtol=0, atol=1e-12)
    flow = pi[:, None] * P
    torch.testing.assert_close(flow, flow.T, rtol=0, atol=1e-12)
    assert (P - torch.eye(len(z))).abs().max() > 0.01, "it moves"


@each_corrector
def test_32_one_visible_site_of_those_that_move_drawn_uniformly(corrector):
    B = 30_000
    z = torch.tensor([0, N, 1, 2, 2]).expand(B, 5)
    t = torch.tensor([0.5, 0.5, 0.5, 0.0, 0.5]).double().expand(B, 5)
    noise = Noise(2, torch.arange(B))
    rows = corrector.rows(EpsilonHybrid(0.3), z, t, 0.9 * t, N, noise)
    assert (rows.sum(1) == 1).all()
    assert chi_square(rows.sum(0), B * torch.tensor([1, 0, 1, 0, 1]) / 3) > 1e-4
    after, times = corrector.step(EpsilonHybrid(0.3), torch.randn(B, N), rows, z, t, 0.9 * t, noise)
    assert torch.equal(times, t) and torch.equal(after[~rows], z[~rows]) and after.max() <= N
    assert not corrector.rows(EpsilonHybrid(0.3), torch.full_like(z, N), t, 0 * t, N, noise).any()
    assert not corrector.rows(EpsilonHybrid(0.3), z, t, t, N, noise).any(), "nothing moves: nothing is corrected"


@each_corrector
def test_32_correction_does_not_change_the_samples_of_a_bayes_network(corrector):
    """A network that knows the cavity at every time: predictor alone and with corrections draw the same law."""
    process, B, T = EpsilonHybrid(0.3), 40_000, 4

    sampler = PredictorCorrector(Ancestral(), corrector, corrections=2)
    z, t = process.prior(torch.Size([B, D]), N, Noise(0, torch.arange(B), -1)), torch.ones(B, D, dtype=torch.float64)
    index, draws = torch.tensor([N + 1, 1]), 0
    for k in range(T):
        s = torch.full_like(t, (T - 1 - k) / T)
        cavity = bayes(process, float(t[0, 0]))[1]
        for stage in sampler.stages:
            noise = Noise(0, torch.arange(B), draws)
            rows = stage.rows(process, z, t, s, N, noise)
            z, t = stage.step(process, cavity[z @ index][rows].log(), rows, z, t, s, noise)
            draws += 1
    assert draws == 3 * T
    p = torch.nn.functional.one_hot(torch.tensor((N + 1) ** D - 1), (N + 1) ** D).double()
    for k in range(T):
        laws = exact_step(process, (T - 1 - k) / T, (T - k) / T)
        p = p @ joint(laws)
    expected = ordinary(p, N, D)
    assert chi_square(torch.bincount(z @ torch.tensor([N, 1]), minlength=N**D), B * expected) > 1e-4


def exact_step(process: Process, s: float, t: float) -> torch.Tensor:
    cavity, z = bayes(process, t)[1], states(N, D)
    return torch.stack([plug_in(process, cavity[:, i], z[:, i], s, t) for i in range(D)], 1)


def test_predictor_and_corrector_are_stages_of_one_call():
    both = PredictorCorrector(ReMDM(), PosteriorCorrector(), corrections=2)
    assert both.stages == (PosteriorCorrector(), PosteriorCorrector(), ReMDM())
    assert not both.own_times and PredictorCorrector(FirstHitting()).own_times
    process, d = EpsilonHybrid(0.3), 3
    z, asked = flat_run(PredictorCorrector(FirstHitting()), process, toy(process), 5, d)
    assert len(asked) == 2 * (d + 1) and z.max() < N


def test_what_does_not_go_together_is_refused():
    for process in (Absorbing(), EpsilonHybrid(0.0)):
        for sampler in (*CORRECTORS, PredictorCorrector()):
            with pytest.raises(ValueError, match="never wrong"):
                sampler.check(process)
    with pytest.raises(ValueError, match="log-scores"):
        PredictorCorrector(Analytic())
    for options in ({"corrections": 0}, {"corrections": 1.5}, {"corrector": Ancestral()}):
        with pytest.raises(ValueError, match="correct"):
            PredictorCorrector(**options)
    with pytest.raises(ValueError, match="keep changing"):
        PredictorCorrector(FirstHitting()).check(GammaHybrid(0.3))
