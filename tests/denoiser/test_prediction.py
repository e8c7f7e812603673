"""Cavity and posterior predictions are one model under an exact shift; log-scores (maths.md 2.2 and
7, numbers 14 and 17).
"""

import math

import pytest
import torch
from catalogue import ALL, CORRUPTING, each_process
from enumeration import bayes, clocks, column, marginals, random_joint, random_logits

from textdiff.denoiser.prediction import (
    Prediction,
    add_at_own,
    cavity_logits,
    log_score,
    own_token_shift,
    posterior_logits,
    require,
)
from textdiff.process import laws


def close(a, b, tolerance):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def to_posterior(process, logits, z, t):
    clock = process.clock(torch.full(z.shape, t, dtype=torch.float64))
    return posterior_logits(logits, z, clock.log_keep, clock.log_corrupt).softmax(-1)


@each_process()
@pytest.mark.parametrize("t", [0.1, 0.6, 0.95])
@pytest.mark.parametrize("N", [3, 6])
def test_17_the_posterior_made_of_the_cavity_is_bayes(process, t, N):
    """For a correlated pair: P(x1 | z1, z2) by summing the joint equals the shifted P(x1 | z2)."""
    q, joint = marginals(process, t, N), random_joint(N, 2, seed=N)
    for z1 in range(N + 1):
        for z2 in range(N + 1):
            with_z2 = (joint * q[z2]).sum(1)  # P(x1, z2)
            with_both = with_z2 * q[z1]
            if with_both.sum() == 0:
                continue
            cavity = (with_z2 / with_z2.sum()).log().unsqueeze(0)
            posterior = to_posterior(process, cavity, torch.tensor([z1]), t)[0]
            close(posterior, with_both / with_both.sum(), 1e-12)


@each_process()
@pytest.mark.parametrize("s, t", [(0.0, 0.5), (0.2, 0.7), (0.5, 0.99)])
@pytest.mark.parametrize("seed", range(3))
def test_17_mixture_step_of_the_posterior_is_plug_in_step_of_the_cavity(process, s, t, seed, N=4):
    """Σ_x P(x | z) q(z_s | z_t, x) = q(z_s | z_t, x̂_cavity), the reverse step taken both ways."""
    logits = random_logits(1, N, seed)
    for z in range(N + 1):
        if z == N and not process.masks:
            continue
        here = torch.tensor([z])
        posterior = to_posterior(process, logits, here, t)[0]
        steps = torch.stack(
            [bayes(process, x, s, t)[:, z] for x in torch.eye(N, dtype=torch.float64)]
        )
        mixture = (posterior.unsqueeze(1) * steps.nan_to_num()).sum(
            0
        )  # NaN: x and z exclude each other, P(x | z) = 0
        xhat = logits.softmax(-1)
        plug_in = laws.posterior(process, xhat, here, column([s]), column([t]))[0]
        close(plug_in, mixture, 1e-12)


@each_process(CORRUPTING)
def test_17_the_shift_is_the_own_token_log_odds(process, N=5, t=0.4):
    """Only the own token of a visible position moves, by log(1 + κN/(1-κ)); a masked position not
    at all.
    """
    kappa = float(clocks(process, column(t))[1])
    logits, z = random_logits(3, N, 1), torch.tensor([2, 0, N])
    clock = process.clock(torch.full((3,), t, dtype=torch.float64))
    moved = posterior_logits(logits, z, clock.log_keep, clock.log_corrupt) - logits
    expected = torch.zeros(3, N, dtype=torch.float64)
    expected[0, 2] = expected[1, 0] = math.log(1 + kappa * N / (1 - kappa))
    close(moved, expected, 1e-12)


@pytest.mark.parametrize("epsilon", [0.5, 0.01, 0.9])
@pytest.mark.parametrize("N", [4, 50257])
def test_17_import_of_a_posterior_checkpoint_is_the_inverse_shift(epsilon, N):
    """posterior(ε) -> cavity -> posterior(ε) is the identity; ε = 1/2 shifts by log(1 + N) = 10.825
    for GPT-2's vocabulary.
    """
    logits, z = random_logits(3, N, 0), torch.tensor([1, 3, N])
    back = add_at_own(cavity_logits(logits, z, epsilon), z, own_token_shift(epsilon, N))
    close(back, logits, 1e-12)
    log_keep, log_corrupt = (
        torch.full((3,), math.log(p), dtype=torch.float64) for p in (1 - epsilon, epsilon)
    )
    close(
        posterior_logits(cavity_logits(logits, z, epsilon), z, log_keep, log_corrupt), logits, 1e-12
    )
    assert own_token_shift(0.5, 50257) == pytest.approx(10.825, abs=5e-4)
    assert own_token_shift(epsilon, N) == pytest.approx(
        math.log(1 + (1 - epsilon) * N / epsilon), abs=1e-12
    )


def test_17_the_paper_understates_the_own_token_99_fold():
    """ε = 0.01, N = 50257 (maths 4.2): recalibration from ε' = 1/2 to ε adds 4.595 nats."""
    assert own_token_shift(0.01, 50257) - own_token_shift(0.5, 50257) == pytest.approx(
        math.log(99.0), abs=1e-3
    )


def test_17_without_corruption_a_visible_token_is_its_own_posterior(N=4):
    logits, z = random_logits(2, N, 0), torch.tensor([1, N])
    zero, never = (
        torch.zeros(2, dtype=torch.float64),
        torch.full((2,), -math.inf, dtype=torch.float64),
    )
    law = posterior_logits(logits, z, zero, never).softmax(-1)
    assert torch.equal(law[0], torch.eye(N, dtype=torch.float64)[1])
    assert torch.equal(law[1], logits[1].softmax(-1))


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_an_impossible_self_noise_is_refused(epsilon):
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\)"):
        own_token_shift(epsilon, 5)


def test_shifts_take_any_leading_shape_and_keep_the_dtype(N=4):
    logits = torch.randn(2, 3, N, dtype=torch.bfloat16)
    z = torch.tensor([[0, 4, 2], [4, 1, 3]])
    shifted = add_at_own(logits, z, 2.0)
    assert shifted.dtype == torch.bfloat16 and shifted.shape == logits.shape
    for b in range(2):
        for i in range(3):
            assert torch.equal(
                add_at_own(logits[b, i : i + 1], z[b, i : i + 1], 2.0)[0], shifted[b, i]
            )


# ------------------------------------------------------------------------------
# log-scores


@each_process(ALL)
def test_13_a_network_that_outputs_0_scores_like_the_uniform_guess_at_mask(process, N=5, t=0.3):
    """At MASK the level's scale log((1-m)/m) - log N makes 0 the exact score of x̂ = u; at visible
    tokens the score is 1.
    """
    m = clocks(process, column([t]))[0]
    z = torch.tensor([N, 2])
    scores = log_score(torch.zeros(2, N, dtype=torch.float64), z, m.expand(2)).exp()
    if process.masks:
        exact = marginals(process, t, N).mean(1)
        close(scores[0], exact[:N] / exact[N], 1e-12)
    assert torch.equal(scores[1], torch.ones(N, dtype=torch.float64))


def test_14_the_self_score_is_fixed_to_1_and_gets_no_gradient(N=4):
    raw, z = random_logits(3, N, 0).requires_grad_(), torch.tensor([1, 3, N])
    scores = log_score(raw, z, torch.full((3,), 0.5, dtype=torch.float64))
    assert scores[0, 1] == scores[1, 3] == 0
    (gradient,) = torch.autograd.grad(scores.sum(), raw)
    own = torch.zeros(3, N, dtype=torch.bool)
    own[0, 1] = own[1, 3] = True
    assert (gradient[own] == 0).all() and (gradient[~own] == 1).all()
    perturbed = raw.detach() + 7 * own
    assert torch.equal(log_score(perturbed, z, torch.full((3,), 0.5, dtype=torch.float64)), scores)


def test_a_network_of_the_wrong_kind_is_refused():
    require(Prediction.CAVITY, Prediction.CAVITY, "the sampler")
    with pytest.raises(ValueError, match=r"the sampler needs .*'cavity'.* predicts 'log_score'"):
        require(Prediction.LOG_SCORE, Prediction.CAVITY, "the sampler")
