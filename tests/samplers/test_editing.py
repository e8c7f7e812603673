"""Editing by threshold, against Bayes' rule on two correlated tokens."""

import pytest
import torch
from enumeration import marginals, random_joint
from toys import states

from textdiff.noise import Noise
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid, Uniform
from textdiff.samplers import Confidence, Editing, FirstHitting, PredictorCorrector, Step

N, D, T = 3, 2, 0.6


def truth(process):
    """All states [S, 2]; their cavities [S, 2, N], and P(x^i | z) [S, 2, N] by Bayes."""
    p, q, z = random_joint(N, D, seed=0), marginals(process, T, N), states(N, D)
    q = q.nan_to_num()
    first = torch.einsum("xy,sx,sy->sx", p, q[z[:, 0]], q[z[:, 1]])
    second = torch.einsum("xy,sx,sy->sy", p, q[z[:, 0]], q[z[:, 1]])
    cavity = torch.stack([(p @ q[z[:, 1]].T).T, (p.T @ q[z[:, 0]].T).T], 1)
    believed = torch.stack([first, second], 1)
    return z, cavity, believed / believed.sum(-1, keepdim=True).clamp_min(1e-300)


@pytest.mark.parametrize("remask", [False, True])
@pytest.mark.parametrize("threshold", [0.2, 0.45, 0.7, 1.0])
@pytest.mark.parametrize("process", [EpsilonHybrid(0.3), GammaHybrid(0.5)], ids=str)
def test_what_is_believed_to_be_another_is_edited(process, threshold, remask):
    z, cavity, believed = truth(process)
    t = torch.full(z.shape, T, dtype=torch.float64)
    sampler = Editing(threshold, remask)
    step = Step(process, z, t, t / 2, N, Noise(0, torch.arange(len(z))))
    rows = sampler.rows(step)
    assert torch.equal(rows, z < N)
    y, times = sampler.move(step, rows, cavity[rows].log())
    share, best = believed.max(-1)
    wrong = rows & (best != z) & (share >= threshold)
    other = torch.full_like(z, N) if remask else best
    assert torch.equal(y, torch.where(wrong, other, z))
    assert torch.equal(times, t)
    if threshold == 0.2:
        assert wrong.any() and not wrong[rows].all()


def test_settled_tokens_and_those_at_rest_are_left_alone():
    z = torch.tensor([[0, 1]])
    t = torch.tensor([[0.0, 0.5]], dtype=torch.float64)
    step = Step(EpsilonHybrid(0.3), z, t, torch.zeros_like(t), N, Noise(0, torch.arange(1)))
    assert Editing().rows(step).tolist() == [[False, True]]


def test_where_it_has_no_meaning_it_is_refused():
    with pytest.raises(ValueError, match=r"threshold must lie in \(0, 1\], got 0"):
        Editing(0)
    with pytest.raises(ValueError, match="Absorbing"):
        Editing().check(Absorbing())
    with pytest.raises(ValueError, match="has no MASK: use remask=False"):
        Editing(remask=True).check(Uniform())
    Editing().check(Uniform())
    for predictor in (Confidence(), FirstHitting()):
        with pytest.raises(ValueError, match=r"for ever: use remask=False"):
            PredictorCorrector(predictor, Editing(remask=True))
        PredictorCorrector(predictor, Editing())
