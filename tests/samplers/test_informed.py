"""ACS with an informed choice: how redraws are shared out, and what holds of its law."""

import pytest
import torch
from catalogue import HYBRIDS, name
from driving import timed
from enumeration import marginals
from toys import law_of

from textdiff.noise import Noise
from textdiff.process import (
    GIDD,
    Absorbing,
    EpsilonHybrid,
    Uniform,
)
from textdiff.samplers import ACS, InformedACS, Step
from textdiff.samplers.informed import doubt, share

N = 3
each_hybrid = pytest.mark.parametrize("process", HYBRIDS, ids=name)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_share_keeps_the_sum_and_the_proportions():
    e, w = draw(200, 6), draw(200, 6, seed=1) ** 6
    e[:, 0], w[:50, 1] = 0, 0
    out = share(e, w)
    assert (
        (out >= 0).all()
        and (out <= 1).all()
        and (out[:, 0] == 0).all()
        and (out[:50, 1] == 0).all()
    )
    enough = e.sum(1) < ((e * w) > 0).sum(1)
    torch.testing.assert_close(out.sum(1)[enough], e.sum(1)[enough], rtol=0, atol=1e-12)
    assert (out.sum(1) <= e.sum(1) + 1e-12).all()
    for row in range(200):
        ratio = (out[row] / (e[row] * w[row]))[(out[row] < 1) & (out[row] > 0)]
        assert len(ratio) < 2 or float(ratio.max() / ratio.min()) == pytest.approx(1, abs=1e-9)
    assert (out == 1).any() and ((out > 0) & (out < 1)).any()


def test_share_at_its_ends():
    one = torch.tensor([[0.4, 0.4, 0.0]]).double()
    assert share(0 * one, one).tolist() == [[0, 0, 0]] and share(one, 0 * one).tolist() == [
        [0, 0, 0]
    ]
    torch.testing.assert_close(share(one, torch.ones(1, 3).double()), one)
    few = torch.tensor([[0.9, 0.9, 0.9]]).double()
    assert share(few, torch.tensor([[0.0, 1e-9, 0.0]]).double()).tolist() == [[0, 1, 0]], (
        "E = 2.7, and one token in doubt"
    )


@each_hybrid
def test_doubt_is_one_minus_the_posterior(process):
    logits, z = (
        1.5 * torch.randn(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        torch.arange(N),
    )
    posterior = logits.softmax(-1) * marginals(process, 0.6, N)[z]
    expected = 1 - (posterior / posterior.sum(-1, keepdim=True)).diagonal()
    step = timed(process, [0.6] * N, [0.3] * N, z)
    torch.testing.assert_close(doubt(step, step.visible, logits), expected, rtol=0, atol=1e-12)


@each_hybrid
@pytest.mark.parametrize(("s", "t"), [(0.3, 0.7), (0.0, 0.4)])
def test_one_token_alone_is_redrawn_as_in_acs(process, s, t):
    z = torch.arange(N + 1)
    logits = 1.5 * torch.randn(
        N + 1, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    times = (
        torch.full((N + 1,), s, dtype=torch.float64),
        torch.full((N + 1,), t, dtype=torch.float64),
    )
    laws = [
        law_of(sampler, process, logits, z, *times)
        for sampler in (InformedACS(rate=2.0), ACS(rate=2.0))
    ]
    torch.testing.assert_close(*laws, rtol=0, atol=1e-12)


def test_redraws_go_where_the_posterior_doubts():
    B, process = 20_000, EpsilonHybrid(0.3)
    z, t = torch.tensor([0, 1, 2, N]).expand(B, 4), torch.full((B, 4), 0.8, dtype=torch.float64)
    step = Step(process, z, t, s=t / 2, N=N, noise=Noise(0, torch.arange(B)))
    sampler = InformedACS(eta=0.6)
    rows = sampler.rows(step)
    assert rows[:, :3].all(), "every visible token needs its posterior"
    logits = torch.tensor([[2.0, 0, 0], [0, 0, 0], [0, 0, -3], [0, 0, 0]]).double().expand(B, 4, N)
    redrawn = sampler.redrawn(step, rows, logits[rows])
    first = timed(process, [0.8] * 3, [0.4] * 3, z[0, :3])
    doubts = doubt(first, first.visible, logits[0, :3])
    expected = share(torch.full((1, 3), 0.3).double(), doubts[None])[0]
    assert not redrawn[:, 3].any() and float(expected.sum()) == pytest.approx(0.9)
    assert (redrawn[:, :3].double().mean(0) - expected).abs().max() < 5 * (0.25 / B) ** 0.5
    assert expected[0] < 0.3 < expected[2]


def test_at_a_fixed_context_it_settles_at_a_sharper_law():
    """A chain of redraws left with probability λ w(z): p(z)/w(z) is stationary, p is not."""
    process = EpsilonHybrid(0.3)
    step = timed(process, [0.6] * N, [0.3] * N, torch.arange(N))
    logits = torch.tensor([1.0, 0.3, -1.0]).double().expand(N, N)
    D = marginals(process, 0.6, N)[:N] / 0.4  # [z, x]
    joint = D * logits[0].softmax(0)
    p = joint.sum(1)
    redraw = (joint / p[:, None]) @ D.T
    w = doubt(step, step.visible, logits)
    leave = 0.5 * w / w.max()
    P = torch.diag(1 - leave) + leave[:, None] * redraw
    nu = p / w / (p / w).sum()
    torch.testing.assert_close(nu @ P, nu, rtol=0, atol=1e-12)
    assert (p @ P - p).abs().max() > 1e-3
    assert torch.special.entr(nu).sum() < torch.special.entr(p).sum()


def test_it_is_refused_where_acs_is():
    for process in (Absorbing(), GIDD()):
        with pytest.raises(ValueError, match="Ancestral"):
            InformedACS(rate=1.0).check(process)
    InformedACS(rate=1.0).check(Uniform())
    with pytest.raises(ValueError, match="either eta"):
        InformedACS()
