"""Exact correctors (maths.md 7: 32) and the alternation of predictor and corrector."""

from dataclasses import replace

import pytest
import torch
from catalogue import CORRUPTIBLE, name
from driving import Alone, flat_run
from enumeration import chi_square, marginals, random_joint
from toys import joint, law_of, ordinary, plug_in, states, toy

from textdiff.noise import Noise
from textdiff.process import (
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    Process,
    SmoothEpsilonHybrid,
)
from textdiff.samplers import (
    Analytic,
    Ancestral,
    FirstHitting,
    GibbsCorrector,
    PosteriorCorrector,
    PredictorCorrector,
    ReMDM,
    Step,
)

N, D = 3, 2
CORRECTORS = [GibbsCorrector(), PosteriorCorrector()]
each_corrector = pytest.mark.parametrize("corrector", CORRECTORS, ids=name)


def bayes(process: Process, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Q_t(z) of every state [S], and the true cavity P(x^i | z without i) [S, d, N], of two
    correlated tokens.
    """
    p, q, z = random_joint(N, D, seed=0), marginals(process, t, N), states(N, D)
    law = torch.einsum("xy,ax,by->ab", p, q, q).flatten()
    cavity = torch.stack([(p @ q[z[:, 1]].T).T, (p.T @ q[z[:, 0]].T).T], 1)
    total = cavity.sum(-1, keepdim=True)
    return law, torch.where(
        total > 0, cavity / total, 1 / N
    )  # next to a MASK where none occurs, anything


def transition(corrector: GibbsCorrector, process: Process, t: float) -> torch.Tensor:
    """The corrector's exact matrix P(z, z') at the true cavity, the site drawn uniformly from the
    visible ones.
    """
    cavity, z = bayes(process, t)[1], states(N, D)
    P, seen = torch.zeros(len(z), len(z), dtype=torch.float64), z < N
    for i in range(D):
        here = seen[:, i].nonzero()[:, 0]
        laws, time = (
            torch.nn.functional.one_hot(z, N + 1).double(),
            torch.full((len(here),), t, dtype=torch.float64),
        )
        laws[here, i] = law_of(
            Alone(corrector), process, cavity[here, i].log(), z[here, i], 0 * time, time
        )
        P[here] += joint(laws[here]) / seen[here].sum(1, keepdim=True)
    return P + torch.diag((~seen.any(1)).double())


@each_corrector
@pytest.mark.parametrize("process", CORRUPTIBLE, ids=name)
def test_32_one_site_at_a_time_leaves_the_marginal_and_is_reversible(process, corrector):
    """Pi P = pi and pi(z) P(z, z') = pi(z') P(z', z), pi = q_t of a correlated pair."""
    pi, P = bayes(process, 0.6)[0], transition(corrector, process, 0.6)
    torch.testing.assert_close(P.sum(1), torch.ones(len(P)).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(pi @ P, pi, rtol=0, atol=1e-12)
    flow = pi[:, None] * P
    torch.testing.assert_close(flow, flow.T, rtol=0, atol=1e-12)
    assert (P - torch.eye(len(P))).abs().max() > 0.01, "it moves"


@each_corrector
def test_32_one_visible_site_of_those_that_move_drawn_uniformly(corrector):
    B = 30_000
    z = torch.tensor([0, N, 1, 2, 2]).expand(B, 5)
    t = torch.tensor([0.5, 0.5, 0.5, 0.0, 0.5]).double().expand(B, 5)
    noise = Noise(2, torch.arange(B))
    step = Step(EpsilonHybrid(0.3), z, t, s=0.9 * t, N=N, noise=noise)
    rows = corrector.rows(step)
    assert (rows.sum(1) == 1).all()
    assert chi_square(rows.sum(0), B * torch.tensor([1, 0, 1, 0, 1]) / 3) > 1e-4
    after, times = corrector.move(step, rows, torch.randn(B, N))
    assert torch.equal(times, t) and torch.equal(after[~rows], z[~rows]) and after.max() <= N
    assert not corrector.rows(replace(step, z=torch.full_like(z, N), s=0 * t)).any()
    assert not corrector.rows(step.to(t)).any(), "nothing moves: nothing is corrected"


@each_corrector
def test_32_corrections_mend_what_a_predictor_of_few_steps_draws_together(corrector):
    """A network that knows the cavity: the draws follow the product of both matrices, whose law is
    nearer to the data's.
    """
    process, B, T = SmoothEpsilonHybrid(0.3, power=3.0), 30_000, 3
    sampler = PredictorCorrector(Ancestral(), corrector, corrections=2)
    z, t = (
        process.prior(torch.Size([B, D]), N, Noise(0, torch.arange(B), -1)),
        torch.ones(B, D, dtype=torch.float64),
    )
    index, draws, alone = torch.tensor([N + 1, 1]), 0, (states(N, D) == N).all(1).double()
    both = alone
    for k in range(T):
        now, after = (T - k) / T, (T - 1 - k) / T
        cavity, s = bayes(process, now)[1], torch.full_like(t, after)
        for stage in sampler.stages:
            step = Step(process, z, t, s=s, N=N, noise=Noise(0, torch.arange(B), draws))
            rows = stage.rows(step)
            z, t = stage.move(step, rows, cavity[z @ index][rows].log())
            draws += 1
        predict = joint(
            torch.stack(
                [plug_in(process, cavity[:, i], states(N, D)[:, i], after, now) for i in range(D)],
                1,
            )
        )
        correct = transition(corrector, process, now)
        alone, both = alone @ predict, both @ correct @ correct @ predict
    assert draws == 3 * T
    both, data = ordinary(both, N, D), random_joint(N, D, seed=0).flatten()
    assert chi_square(torch.bincount(z @ torch.tensor([N, 1]), minlength=N**D), B * both) > 1e-4
    assert (both - data).abs().sum() < 0.95 * (ordinary(alone, N, D) - data).abs().sum()


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
