"""What a row is worth, against explicit sums, other people's formulas and the entropy itself
(maths.md 7, numbers 7-18).
"""

import math
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from catalogue import (
    ABSORBING,
    ALL,
    CORRUPTING,
    EPSILON,
    GAMMA_SIGMA,
    LEAKING,
    UNIFORM,
    WITHOUT_ATOM,
    each_process,
)
from enumeration import (
    GAMMAS,
    bayes,
    bregman,
    clocks,
    column,
    generator,
    marginals,
    random_joint,
    random_logits,
    rows,
    slopes,
    tanh_sinh,
)
from torch import Tensor

from textdiff.objective import (
    Nelbo,
    Rows,
    ScoreEntropy,
    WeightedCrossEntropy,
    step_kl,
)
from textdiff.objective import nelbo_integrand as integrand
from textdiff.process import (
    GIDD,
    Absorbing,
    Clock,
    EpsilonHybrid,
    GammaHybrid,
    GammaHybridMaskClock,
    Process,
    SmoothEpsilonHybrid,
    Uniform,
)

TIMES = [0.05, 0.4, 0.9]
SCORED = [p for p in WITHOUT_ATOM if p not in LEAKING]  # score entropy is defined for these


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    """Within the tolerance, absolute for small and relative for large values."""
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def table(
    p: Process, t: float, N: int, seed: int, s: float | None = None
) -> tuple[Tensor, Rows, Tensor]:
    """One row for every pair (x, z) that occurs at t: random logits, the rows, and x̂ = softmax of
    the logits.
    """
    pairs = rows(p, t, N)
    R = len(pairs)
    x, z = (torch.tensor(column_) for column_ in zip(*pairs, strict=True))
    logits = random_logits(R, N, seed)
    times, before = (
        None if time is None else torch.full((R,), time, dtype=torch.float64) for time in (t, s)
    )
    return logits, Rows(x, z, times, before), logits.softmax(-1)


def path_space_term(p: Process, t: float, x: int, z: int, xhat: Tensor) -> Tensor:
    """(2.2): ell = Σ_{y≠z} R(y -> z) B(q(y|x)/q(z|x), q(y|x̂)/q(z|x̂)) over all N + 1 states y."""
    N = len(xhat)
    q, R = marginals(p, t, N), generator(p, column([t]), N)[0]
    true, model = q[:, x] / q[z, x], (q @ xhat) / (q @ xhat)[z]
    return sum(
        (R[z, y] * bregman(true[y], model[y]) for y in range(N + 1) if y != z and R[z, y] > 0),
        column(0.0),
    )


# --------------------------------------------------------------------------------------------------
# the bound's integrand


@each_process()
@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("N, seed", [(3, 0), (7, 1)])
def test_08_integrand_is_the_explicit_sum_over_jumps(process, t, N, seed):
    """Any leak: none, GIDD's, and one that is neither."""
    logits, r, xhat = table(process, t, N, seed)
    truth = torch.stack(
        [
            path_space_term(process, t, int(x), int(z), h)
            for x, z, h in zip(r.x, r.z, xhat, strict=True)
        ]
    )
    close(integrand(logits, r.x, r.z, r.t, process), truth, 1e-9)
    close(Nelbo()(logits, r, process), truth, 1e-9)


@each_process()
@pytest.mark.parametrize("t", TIMES)
def test_09_integrand_is_0_at_the_truth_and_nowhere_else(process, t, N=5):
    _, r, _ = table(process, t, N, seed=0)
    perfect = torch.nn.functional.one_hot(r.x, N).double() * 900
    assert integrand(perfect, r.x, r.z, r.t, process).abs().max() < 1e-12
    has_value = Nelbo().has_value(r, N, process)
    for seed in range(5):
        value = integrand(random_logits(len(r.x), N, seed), r.x, r.z, r.t, process)
        assert value.min() >= -1e-12
        assert (value[has_value] > 1e-11).all() and (value[~has_value] == 0).all()


@each_process(ABSORBING)
@pytest.mark.parametrize("t", TIMES)
def test_10_absorbing_is_mdlm(process, t, N=5):
    """MDLM: -α'/(1-α) CE at MASK with α = 1 - m, so CE/t for α = 1 - t; exactly 0 where the token
    is visible.
    """
    logits, r, xhat = table(process, t, N, seed=0)
    value = integrand(logits, r.x, r.z, r.t, process)
    (m, _), (dm, _) = clocks(process, column([t])), slopes(process, column([t]))
    ce = -xhat.gather(1, r.x.unsqueeze(1)).squeeze(1).log()
    masked = r.z == N
    close(value[masked], (ce * dm / m)[masked], 1e-12)
    close(value[masked], (ce / t)[masked], 1e-12)
    assert (value[~masked] == 0).all()


def duo_nll_per_token(xhat: Tensor, x: Tensor, z: Tensor, alpha: float, dalpha: float) -> Tensor:
    """`nll_per_token` of Duo (the diffusion loss of UDLM), with its own names."""
    V = xhat.shape[-1]
    x_bar_theta = V * alpha * xhat + 1 - alpha
    coefficient = dalpha / (V * alpha)
    x_eq_xt = (x == z).double()
    xbar_xt = (1 - alpha) + V * alpha * x_eq_xt
    xbar_theta_xt = x_bar_theta.gather(-1, z.unsqueeze(-1)).squeeze(-1)
    xbar_theta_x = x_bar_theta.gather(-1, x.unsqueeze(-1)).squeeze(-1)
    term1 = V * (1 / xbar_xt - 1 / xbar_theta_xt)
    const = (1 - alpha) / (V * alpha + 1 - alpha)
    term2_coefs = x_eq_xt * const + (1 - x_eq_xt)
    term2_offset = ((V - 1) * const * x_eq_xt - (1 / const) * (1 - x_eq_xt)) * math.log(const)
    term2 = -term2_coefs * (x_bar_theta.log().sum(-1) - V * xbar_theta_xt.log())
    term2 = term2 - V * alpha / (1 - alpha) * (xbar_theta_x.log() - xbar_theta_xt.log()) * (
        1 - x_eq_xt
    )
    return coefficient * (term1 - term2 - term2_offset)


def udlm_paper(xhat: Tensor, x: Tensor, z: Tensor, alpha: float, dalpha: float) -> Tensor:
    """UDLM's equation: α'/(Nα) [ N/x̄_i - N/x̄θ_i - Σ_j x̄_j/x̄_i log( x̄θ_i x̄_j / (x̄θ_j x̄_i) )
    ], i the own token.
    """
    N = xhat.shape[-1]
    bar = N * alpha * torch.nn.functional.one_hot(x, N).double() + 1 - alpha
    bar_theta = N * alpha * xhat + 1 - alpha
    i, i_theta = bar.gather(-1, z.unsqueeze(-1)), bar_theta.gather(-1, z.unsqueeze(-1))
    total = (bar / i * (i_theta * bar / (bar_theta * i)).log()).sum(-1)
    return dalpha / (N * alpha) * ((N / i - N / i_theta).squeeze(-1) - total)


@each_process(UNIFORM)
@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("peer", [duo_nll_per_token, udlm_paper])
def test_11_uniform_is_udlm_and_duo(process, t, peer, N=5):
    logits, r, xhat = table(process, t, N, seed=0)
    value = integrand(logits, r.x, r.z, r.t, process)
    close(value, peer(xhat, r.x, r.z, alpha=1 - t, dalpha=-1.0), 1e-10)


def gidd_elbo(p: GIDD, t: float, x: int, z: int, xhat: Tensor) -> Tensor:
    """GIDD's `elbo_weights * (kl_loss + is_loss)`: all N + 1 states, q_t = α x + β π.

    elbo_weights = (1/q_t(z|x)) [ (βπ)' - (α'/α) βπ ]_z;  is_loss = ratio - log ratio - 1, ratio =
    q_t(z|x)/q_t(z|x̂).
    """
    N = len(xhat)
    time = column(t)

    def alpha_and_beta_pi(time: Tensor) -> tuple[Tensor, Tensor]:
        c = 2**p.shape * p.uniform / (1 - p.uniform) * (time * (1 - time)) ** (p.shape / 2)
        uniform = torch.tensor([1 / N] * N + [0.0], dtype=torch.float64)
        mask = torch.tensor([0.0] * N + [1.0], dtype=torch.float64)
        return (1 - time) / (1 + c), (time * mask + c * uniform) / (1 + c)

    (alpha, beta_pi), (dalpha, dbeta_pi) = torch.func.jvp(
        alpha_and_beta_pi, (time,), (torch.ones_like(time),)
    )
    pad = lambda law: torch.cat([law, torch.zeros(1, dtype=torch.float64)])  # noqa: E731
    q = alpha * pad(torch.eye(N, dtype=torch.float64)[x]) + beta_pi
    q_theta = alpha * pad(xhat) + beta_pi
    elbo_weight = (dbeta_pi - dalpha / alpha * beta_pi)[z] / q[z]
    kl_loss = (q * (q.log() - q_theta.log())).sum()
    ratio = q[z] / q_theta[z]
    return elbo_weight * (kl_loss + ratio - ratio.log() - 1)


@pytest.mark.parametrize("process", [GIDD(), GIDD(0.5, 1.5), GIDD(0.01, 0.5)], ids=str)
@pytest.mark.parametrize("t", TIMES)
def test_12_gidd_is_gidd(process, t, N=5):
    logits, r, xhat = table(process, t, N, seed=0)
    truth = torch.stack(
        [gidd_elbo(process, t, int(x), int(z), h) for x, z, h in zip(r.x, r.z, xhat, strict=True)]
    )
    close(integrand(logits, r.x, r.z, r.t, process), truth, 1e-7)


# --------------------------------------------------------------------------------------------------
# score entropy


def raw_outputs(p: Process, t: float, log_s: Tensor, z: Tensor) -> Tensor:
    """The network outputs that mean these log-scores: at MASK less the level's scale log((1-m)/m) -
    log N.
    """
    N = log_s.shape[-1]
    m = float(clocks(p, column(t))[0])
    scale = math.log((1 - m) / m) - math.log(N) if 0 < m < 1 else 0.0
    return log_s - scale * (z == N).double().unsqueeze(-1)


def explicit_score_entropy(p: Process, t: float, x: int, z: int, log_s: Tensor) -> Tensor:
    """Σ_{y≠z} R(y -> z) (s_y - r_y log s_y + K(r_y)) with r_y = q(y|x)/q(z|x); y runs over the
    ordinary tokens.
    """
    N = len(log_s)
    q, R = marginals(p, t, N)[:, x], generator(p, column([t]), N)[0]
    r = q / q[z]
    total = column(0.0)
    for y in range(N):
        if y != z:
            total += R[z, y] * (log_s[y].exp() - r[y] * log_s[y] + torch.xlogy(r[y], r[y]) - r[y])
    return total


@each_process(SCORED)
@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("N, seed", [(3, 0), (7, 1)])
def test_13_score_entropy_is_the_explicit_sum(process, t, N, seed):
    log_s, r, _ = table(process, t, N, seed)
    truth = torch.stack(
        [
            explicit_score_entropy(process, t, int(x), int(z), s)
            for x, z, s in zip(r.x, r.z, log_s, strict=True)
        ]
    )
    value = ScoreEntropy()(raw_outputs(process, t, log_s, r.z), r, process)
    has_value = ScoreEntropy().has_value(r, N, process)
    close(value[has_value], truth[has_value], 1e-10)
    assert (value[~has_value] == 0).all() and (truth[~has_value] == 0).all()


@each_process(SCORED)
@pytest.mark.parametrize("t", TIMES)
def test_13_score_entropy_is_0_at_the_exact_ratios_and_positive_elsewhere(process, t, N=5):
    random, r, _ = table(process, t, N, seed=0)
    q = marginals(process, t, N)
    # a ratio of 0 (absorbing noise, y != x) is a score of e^-700
    exact = torch.stack(
        [(q[:N, x] / q[z, x]).log().clamp_min(-700) for x, z in zip(r.x, r.z, strict=True)]
    )
    assert ScoreEntropy()(raw_outputs(process, t, exact, r.z), r, process).abs().max() < 1e-10
    has_value = ScoreEntropy().has_value(r, N, process)
    assert (ScoreEntropy()(random, r, process)[has_value] > 1e-11).all()


@each_process(SCORED)
@pytest.mark.parametrize("t", TIMES)
def test_13_score_entropy_at_plug_in_scores_is_the_integrand(process, t, N=5):
    """s_y = q(y | x̂)/q(z | x̂): one bound in two parametrisations."""
    logits, r, xhat = table(process, t, N, seed=3)
    q = xhat @ marginals(process, t, N).T
    log_s = (q[:, :N] / q.gather(1, r.z.unsqueeze(1))).log()
    value = ScoreEntropy()(raw_outputs(process, t, log_s, r.z), r, process)
    close(value, integrand(logits, r.x, r.z, r.t, process), 1e-10)


def sedd_absorb(log_s: Tensor, sigma: float, x: int, z: int) -> Tensor:
    """`Absorbing.score_entropy` of SEDD: 0 at visible tokens."""
    if z < len(log_s):
        return column(0.0)
    ratio = 1 / math.expm1(sigma)
    return log_s.exp().sum() - ratio * log_s[x] + ratio * (math.log(ratio) - 1)


def sedd_uniform(log_s: Tensor, sigma: float, x: int, z: int) -> Tensor:
    """`Uniform.score_entropy` of SEDD, whose log_s[z] is 0."""
    N, esigm1 = len(log_s), math.expm1(sigma)
    ratio = 1 - N / (esigm1 + N)
    negative = log_s.mean() - log_s[z] / N
    positive = log_s.exp().mean() - log_s[z].exp() / N
    if x == z:
        return positive - ratio * negative + (N - 1) / N * ratio * (math.log(ratio) - 1)
    return (
        positive - (log_s[x] / esigm1 + negative) + ((-math.log(ratio) - 1) / ratio - (N - 2)) / N
    )


@pytest.mark.parametrize(
    "process, sedd", [(GammaHybrid(0.0), sedd_absorb), (GammaHybrid(1.0), sedd_uniform)]
)
@pytest.mark.parametrize("t", TIMES)
def test_13_at_the_ends_of_gamma_score_entropy_is_sedd(process, sedd, t, N=5):
    """σ' times SEDD's own loss, at γ = 0 and 1; there the published γ loss is right too."""
    log_s, r, _ = table(process, t, N, seed=0)
    log_s = log_s.scatter(
        1,
        r.z.clamp(max=N - 1).unsqueeze(1),
        torch.where(r.z < N, 0.0, log_s[:, N - 1]).unsqueeze(1),
    )
    sigma, rate = -math.log(1 - t), 1 / (1 - t)
    truth = torch.stack(
        [rate * sedd(s, sigma, int(x), int(z)) for x, z, s in zip(r.x, r.z, log_s, strict=True)]
    )
    close(ScoreEntropy()(raw_outputs(process, t, log_s, r.z), r, process), truth, 1e-10)


def published(log_s, sigma, gamma, x, z):
    """The γ loss as the paper's code has it (arXiv 2504.06416): both of SEDD's losses at σ, where
    e^{(1-γ)σ} and e^{γσ} belong.
    """
    if z == len(log_s):
        return (1 - gamma) * sedd_absorb(log_s, sigma, x, z)
    return gamma * sedd_uniform(log_s, sigma, x, z)


def test_13_the_published_gamma_loss_is_not_0_at_the_exact_score(N=5, sigma=0.1, gamma=0.01):
    """maths 8.1: up to 9.45 nats per unit σ (z != x), where the exact score entropy is 0."""
    process, t = GammaHybrid(gamma), -math.expm1(-sigma)
    _, r, _ = table(process, t, N, seed=0)
    q = marginals(process, t, N)
    exact = torch.stack([(q[:N, x] / q[z, x]).log() for x, z in zip(r.x, r.z, strict=True)])
    found = torch.stack(
        [
            published(log_s, sigma, gamma, int(x), int(z))
            for x, z, log_s in zip(r.x, r.z, exact, strict=True)
        ]
    )
    assert found.max() == pytest.approx(9.45, abs=5e-3)
    assert (r.z[found > 9] != r.x[found > 9]).all()
    raw = raw_outputs(process, t, exact, r.z)
    assert ScoreEntropy()(raw, r, process).abs().max() < 1e-10


@each_process(SCORED)
def test_14_the_self_score_has_no_gradient_and_no_effect(process, N=5, t=0.4):
    """Exactly 0; MASK has no entry at all in the [.., N] outputs."""
    raw, r, _ = table(process, t, N, seed=0)
    raw.requires_grad_()
    value = ScoreEntropy()(raw, r, process)
    (gradient,) = torch.autograd.grad(value.sum(), raw)
    own = torch.zeros_like(gradient, dtype=torch.bool)
    own[r.z < N, r.z[r.z < N]] = True
    assert (gradient[own] == 0).all()
    assert torch.equal(ScoreEntropy()(raw.detach() + 5 * own, r, process), value.detach())
    if process.corrupts:
        assert (gradient[~own] != 0).any()


@each_process([*LEAKING, *EPSILON])
def test_score_entropy_refuses_leaks_and_atoms(process, N=4):
    logits, r, _ = table(process, 0.5, N, seed=0)
    with pytest.raises(ValueError, match="score entropy"):
        ScoreEntropy()(logits, r, process)


def test_score_entropy_refuses_steps(N=4):
    logits, r, _ = table(GammaHybrid(0.3), 0.5, N, seed=0, s=0.2)
    with pytest.raises(ValueError, match="score entropy"):
        ScoreEntropy()(logits, r, GammaHybrid(0.3))


# --------------------------------------------------------------------------------------------------
# discrete steps


def explicit_step(p: Process, s: float, t: float, x: int, z: int, xhat: Tensor) -> Tensor:
    """KL of the two Bayes laws over z_s, state by state."""
    onehot = torch.eye(len(xhat), dtype=torch.float64)[x]
    true, model = bayes(p, onehot, s, t)[:, z], bayes(p, xhat, s, t)[:, z]
    return (torch.xlogy(true, true) - torch.xlogy(true, model)).sum()


@each_process()
@pytest.mark.parametrize(
    "s, t", [(0.1, 0.5), (0.0, 0.5), (0.5, 0.9), (0.3, 1.0), (0.0, 1.0), (0.6, 0.61)]
)
@pytest.mark.parametrize("N, seed", [(3, 0), (6, 1)])
def test_15_step_is_the_kl_of_the_bayes_laws(process, s, t, N, seed):
    """(3.3)-(3.5), any leak, clean and full-noise ends included; s = 0 is the reconstruction."""
    logits, r, xhat = table(process, t, N, seed, s)
    truth = torch.stack(
        [
            explicit_step(process, s, t, int(x), int(z), h)
            for x, z, h in zip(r.x, r.z, xhat, strict=True)
        ]
    )
    close(Nelbo()(logits, r, process), truth, 1e-10)
    has_value = Nelbo().has_value(r, N, process)
    assert (truth[~has_value].abs() < 1e-12).all() and (
        Nelbo()(logits, r, process)[~has_value] == 0
    ).all()


@each_process()
@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_15_steps_converge_to_the_integrand(process, t, N=5):
    """step(t-h -> t)/h -> ell as h -> 0; the O(h) error is removed by Richardson extrapolation."""
    logits, r, _ = table(process, t, N, seed=0)
    rate = lambda h: step_kl(logits, r.x, r.z, r.t - h, r.t, process) / h  # noqa: E731
    ell = integrand(logits, r.x, r.z, r.t, process)
    h = 5e-4
    extrapolated = (8 * rate(h / 4) - 6 * rate(h / 2) + rate(h)) / 3
    close(extrapolated, ell, 5e-5)


@each_process([*EPSILON, *CORRUPTING])
@pytest.mark.parametrize("t", [1e-3, 0.1, 0.7])
def test_07_reconstruction_is_the_step_to_level_0(process, t, N=5):
    """-log p(x | z_t) with p(x | z) = x̂_x d_t(z|x)/d_t(z|x̂) for visible z and x̂_x for MASK
    (1.5).
    """
    logits, r, xhat = table(process, t, N, seed=2, s=0.0)
    kappa = float(clocks(process, column(t))[1])
    own = xhat.gather(1, r.z.clamp(max=N - 1).unsqueeze(1)).squeeze(1)
    c = (1 - kappa) / N
    visible = (kappa * (r.x == r.z).double() + c) / (kappa * own + c)
    p = xhat.gather(1, r.x.unsqueeze(1)).squeeze(1) * torch.where(r.z < N, visible, 1.0)
    close(Nelbo()(logits, r, process), -p.log(), 1e-12)


def test_22_absorbing_steps_are_mdlm_and_ar(N=5):
    """T-step MDLM: (m_t - m_s)/m_t CE. One level, T = 1: weight 1, the AR chain rule."""
    for s, t in [(0.25, 0.5), (0.5, 1.0), (0.0, 1.0), (0.0, 0.25)]:
        logits, r, xhat = table(Absorbing(), t, N, seed=0, s=s)
        ce = -xhat.gather(1, r.x.unsqueeze(1)).squeeze(1).log()
        close(Nelbo()(logits, r, Absorbing()), (t - s) / t * ce * (r.z == N), 1e-12)


@each_process([p for p in ALL if p.masks and float(clocks(p, column(1.0))[0]) == 1])
def test_21_one_level_is_the_ar_chain_rule_for_every_process_that_ends_in_mask(process, N=3, d=3):
    """Quenched, T = 1: each token falls from MASK to clean, so Σ_i of the steps = -log p(x) of the
    chain rule.
    """
    logits = [random_logits(N**i, N, seed=i) for i in range(d)]  # one row per prefix
    for x in product(range(N), repeat=d):
        log_p, bound = column(0.0), column(0.0)
        for i in range(d):
            prefix = sum(token * N**j for j, token in enumerate(x[:i]))
            row = logits[i][prefix : prefix + 1]
            log_p += row.log_softmax(-1)[0, x[i]]
            r = Rows(torch.tensor([x[i]]), torch.tensor([N]), column([1.0]), column([0.0]))
            bound += Nelbo()(row, r, process)[0]
        close(bound, -log_p, 1e-12)


# --------------------------------------------------------------------------------------------------
# float32, extremes


@dataclass(frozen=True)
class Frozen(Process):
    """Any clock values at all, the same at every t; not a Markov process, and not checked to be
    one.
    """

    mask: float = 0.5
    mask_rate: float = 0.5
    keep: float = 0.5
    corrupt: float = 0.5  # 1 - κ, kept apart so that κ = 1 - 1e-7 has all its digits
    leak: float = 0.0

    def __post_init__(self) -> None:
        """Nothing is refused."""

    def _clock(self, t: Tensor) -> Clock:
        full = lambda value: torch.full_like(t, value)  # noqa: E731
        log = lambda value: full(math.log(value) if value > 0 else -math.inf)  # noqa: E731
        return Clock(
            mask=full(self.mask),
            mask_rate=full(self.mask_rate),
            log_keep=log(self.keep),
            log_corrupt=log(self.corrupt),
            keep_rate=full(-1.0),
            leak=full(self.leak),
        )


KEEPS = [
    (0.0, 1.0),
    (1e-30, 1.0),
    (1e-3, 1 - 1e-3),
    (0.5, 0.5),
    (1 - 1e-7, 1e-7),
    (1 - 1e-12, 1e-12),
    (1.0, 0.0),
]
VOCABULARY = 50257


def float32_rows(R: int = 8, N: int = VOCABULARY) -> tuple[Tensor, Tensor]:
    """Float32 logits whose mass off x runs from 1e-6 to 0.9, and x."""
    x = torch.arange(R) * 6000 + 5
    logits = random_logits(R, N, seed=0, scale=2.0)
    rest = logits.scatter(1, x.unsqueeze(1), -math.inf).logsumexp(1)
    off = torch.logspace(-6, math.log10(0.9), R, dtype=torch.float64)
    return logits.scatter(
        1, x.unsqueeze(1), (rest + (1 - off).log() - off.log()).unsqueeze(1)
    ).float(), x


def float64_truth(p: Frozen, logits: Tensor, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The integrand of (2.4) in probability space, and the factor in front of its KL;
    differentiable.
    """
    N = logits.shape[-1]
    xhat, c = logits.softmax(-1), p.corrupt / N
    d, law = p.keep * torch.nn.functional.one_hot(x, N).double() + c, p.keep * xhat + c
    kl = (torch.xlogy(d, d) - torch.xlogy(d, law.clamp_min(1e-300))).sum(-1)
    if (z == N).all():
        return p.mask_rate / p.mask * kl, torch.full_like(kl, p.mask_rate / p.mask)
    own = z.unsqueeze(-1)
    rho = (d.gather(1, own) / law.gather(1, own).clamp_min(1e-300)).squeeze(1)
    weight = 1 / (N * d.gather(1, own).squeeze(1))
    return weight * (kl + rho - 1 - rho.log()), weight


@pytest.mark.parametrize(
    "keep, corrupt, state",
    [
        (*pair, state)
        for pair in KEEPS
        for state in ("mask", "kept", "shuffled")
        if pair[1] > 0 or state != "shuffled"
    ],
)
def test_16_float32_value_and_gradient_equal_float64(keep, corrupt, state):
    """N = 50257: |error| <= 1e-5 (KL + 1e-4), times the row's weight; the gradient to 1e-5."""
    process = Frozen(keep=keep, corrupt=corrupt)
    logits, x = float32_rows()
    z = {"mask": torch.full_like(x, VOCABULARY), "kept": x, "shuffled": (x + 77) % VOCABULARY}[
        state
    ]
    t = torch.full(x.shape, 0.5)
    narrow, wide = logits.clone().requires_grad_(), logits.double().requires_grad_()
    value = integrand(narrow, x, z, t, process)
    truth, weight = float64_truth(process, wide, x, z)
    assert value.dtype == torch.float64
    assert ((value - truth).abs() <= 1e-5 * (truth.abs() + 1e-4 * weight)).all()
    (g,), (g_truth,) = (
        torch.autograd.grad(value.sum(), narrow),
        torch.autograd.grad(truth.sum(), wide),
    )
    assert g.dtype == torch.float32 and g.isfinite().all()
    assert ((g.double() - g_truth).norm(dim=1) <= 1e-5 * (g_truth.norm(dim=1) + weight)).all()


@pytest.mark.parametrize("keep, corrupt", KEEPS)
@pytest.mark.parametrize(
    "mask, leak",
    [(0.0, 0.0), (1e-6, 0.0), (0.5, 0.0), (1.0, 0.0), (0.0, 1.0), (1e-6, 1.0), (0.5, 1.0)],
)
def test_16_no_clock_value_makes_a_nan(keep, corrupt, mask, leak, N=50):
    """Every κ, m and own state, possible or not, with logits up to ±1e4: value and gradient are
    finite.
    """
    process = Frozen(mask, 1.0, keep, corrupt, leak)
    for scale in (0.0, 3.0, 1e4):
        logits = random_logits(3, N, 0, scale).float().requires_grad_()
        r = Rows(torch.tensor([1, 1, 1]), torch.tensor([N, 1, 2]), torch.full((3,), 0.5))
        for objective in (Nelbo(), WeightedCrossEntropy()):
            value = objective(logits, r, process)
            (g,) = torch.autograd.grad(value.sum(), logits)
            assert value.isfinite().all() and g.isfinite().all(), objective


@each_process()
@pytest.mark.parametrize("t", [0.0, 1e-18, 1e-12, 1 - 1e-12, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_16_both_ends_of_time_are_finite(process, t, dtype, N=50):
    logits = random_logits(3, N, 0).to(dtype).requires_grad_()
    x, z = torch.tensor([1, 1, 1]), torch.tensor([N, 1, 2])
    times = torch.full((3,), t, dtype=torch.float64)
    objectives = [Nelbo(), WeightedCrossEntropy()] + ([ScoreEntropy()] if process in SCORED else [])
    for objective in objectives:
        steps = [None] if isinstance(objective, ScoreEntropy) else [None, 0.0, t / 2]
        for s in steps:
            if s is not None and not s < t:
                continue
            value = objective(
                logits,
                Rows(x, z, times, None if s is None else torch.full((3,), s, dtype=torch.float64)),
                process,
            )
            (g,) = torch.autograd.grad(value.sum(), logits)
            assert value.isfinite().all() and g.isfinite().all(), (objective, s, value, g)


@each_process()
def test_16_bfloat16_logits_are_upcast_first(process, N=50):
    logits, r, _ = table(process, 0.4, 5, seed=0)
    low = logits.bfloat16()
    for objective in [Nelbo(), WeightedCrossEntropy()] + (
        [ScoreEntropy()] if process in SCORED else []
    ):
        assert torch.equal(objective(low, r, process), objective(low.float(), r, process))
        leaf = low.clone().requires_grad_()
        (g,) = torch.autograd.grad(objective(leaf, r, process).sum(), leaf)
        assert g.dtype == torch.bfloat16 and g.isfinite().all()


@each_process()
@pytest.mark.parametrize("s", [None, 0.0, 0.2])
def test_16_rows_that_do_not_bear_are_worth_exactly_0(process, s, N=5, t=0.5):
    """Value 0 and gradient 0, so that leaving them out of the head changes nothing; the others do
    have a gradient.
    """
    logits, r, _ = table(process, t, N, seed=0, s=s)
    objectives = [Nelbo()]
    if process.masks:
        objectives += [WeightedCrossEntropy(1.0), WeightedCrossEntropy(0.0)]
    if process in SCORED and s is None:
        objectives.append(ScoreEntropy())
    for objective in objectives:
        leaf = logits.clone().requires_grad_()
        value = objective(leaf, r, process)
        (g,) = torch.autograd.grad(value.sum(), leaf)
        has_value = objective.has_value(r, N, process)
        assert has_value.dtype == torch.bool and has_value.shape == r.x.shape
        assert (value[~has_value] == 0).all() and (g[~has_value] == 0).all(), objective
        assert (g[has_value].abs().sum(1) > 0).all(), objective
        part = objective(logits[has_value], r[has_value], process)
        assert torch.equal(part, value.detach()[has_value]), (
            "a row's value does not depend on the rows beside it"
        )


@each_process()
@pytest.mark.parametrize("s", [None, 0.0, 0.2])
def test_16_the_hand_written_gradient_is_the_derivative(process, s, N=4, t=0.5):
    """Central differences in float64, every objective."""
    logits, r, _ = table(process, t, N, seed=0, s=s)
    objectives = [Nelbo(), WeightedCrossEntropy()] + (
        [ScoreEntropy()] if process in SCORED and s is None else []
    )
    for objective in objectives:
        assert torch.autograd.gradcheck(
            lambda l, o=objective: o(l, r, process), logits.requires_grad_(), atol=1e-6
        )


# --------------------------------------------------------------------------------------------- the
# paper's cross-entropy


@each_process(EPSILON)
@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0, 100.0])
@pytest.mark.parametrize("t", TIMES)
def test_17_weighted_cross_entropy_is_the_papers(process, lambda_, t, N=5):
    """(4.1), event by event: masked CE/t, shuffled λ(1-ε)/(1-t) CE, kept λε/(1-t) CE, of the
    posterior for ε' = 1/2.

    A shuffle may draw the token itself, which the value of a row z = x cannot tell from a kept
    token: it is the mean of both.
    """
    e = process.epsilon
    logits, r, _ = table(process, t, N, seed=0)
    value = WeightedCrossEntropy(lambda_)(logits, r, process)
    for row, (x, z) in enumerate(zip(r.x.tolist(), r.z.tolist(), strict=True)):
        shifted = logits[row] + (
            math.log(1 + N) * torch.eye(N, dtype=torch.float64)[z] if z < N else 0
        )
        ce = -shifted.log_softmax(0)[x]
        if z == N:
            weight = 1 / t
        else:
            shuffled, kept = e / N, (1 - e if x == z else 0.0)  # P(the event and z | x, visible)
            weight = lambda_ / (1 - t) * (shuffled * (1 - e) + kept * e) / (shuffled + kept)
        close(value[row], weight * ce, 1e-12)


@each_process(EPSILON)
def test_17_weighted_cross_entropy_of_a_step_has_the_steps_share_of_mask(process, N=4):
    """With s given the factor m' dt becomes m_t - m_s, so the steps of a ladder add up to an
    estimate of (4.1).
    """
    logits, r, _ = table(process, 0.6, N, seed=0, s=0.35)
    step = WeightedCrossEntropy()(logits, r, process)
    close(step, 0.25 * WeightedCrossEntropy()(logits, Rows(r.x, r.z, r.t), process), 1e-12)


@each_process(EPSILON)
@pytest.mark.parametrize("t", [0.2, 0.7])
@pytest.mark.parametrize("lambda_", [0.1, 1.0, 30.0])
def test_17_the_minimiser_is_the_posterior_for_self_noise_one_half_for_every_lambda(
    process, t, lambda_, N=4
):
    """On an enumerated pair the population loss of a table of logits is least at cavity logits,
    i.e. at ε' = 1/2.

    The loss is Σ_x P(x1, z) w(x1, z) CE(x1), with w read off the objective (value / CE), so the
    minimising law is P w normalised.
    """
    joint, q = random_joint(N, 2, seed=1), marginals(process, t, N)
    for z1, z2 in product(range(N + 1), repeat=2):
        with_z2 = (joint * q[z2]).sum(1)  # P(x1, z2)
        logits = random_logits(1, N, 5).expand(N, N)
        r = Rows(torch.arange(N), torch.full((N,), z1), torch.full((N,), t, dtype=torch.float64))
        own = (torch.arange(N) == z1).double()
        ce = -(logits + math.log(1 + N) * own).log_softmax(-1).diagonal()
        weight = WeightedCrossEntropy(lambda_)(logits, r, process) / ce
        minimiser = with_z2 * q[z1] * weight
        minimiser = minimiser / minimiser.sum()
        half = (
            with_z2 * (0.5 * own + 0.5 / N) if z1 < N else with_z2
        )  # P(x | z2) (1/2 1[x=z] + 1/(2N))
        close(minimiser, half / half.sum(), 1e-12)

        # The network is trained on cavity + log(1 + N): its minimum is the Bayes cavity itself,
        # where the gradient is 0.
        cavity = with_z2.log().expand(N, N).clone().requires_grad_()
        loss = (with_z2 * q[z1] * WeightedCrossEntropy(lambda_)(cavity, r, process)).sum()
        (gradient,) = torch.autograd.grad(loss, cavity)
        assert gradient.sum(0).abs().max() < 1e-12 * max(1.0, lambda_)

        # and recalibrated to the true self-noise it is the Bayes posterior
        bayes_posterior = with_z2 * q[z1]
        e = process.epsilon
        shift = math.log((1 + (1 - e) * N / e) / (1 + N)) if z1 < N else 0.0
        close(
            (minimiser.log() + shift * own).softmax(0),
            bayes_posterior / bayes_posterior.sum(),
            1e-12,
        )


@pytest.mark.parametrize("lambda_", [-1.0, float("nan")])
def test_17_a_negative_lambda_is_refused(lambda_):
    with pytest.raises(ValueError, match="lambda_ must be >= 0"):
        WeightedCrossEntropy(lambda_)


# ----------------------------------------------------------------------------------------- the
# bound reaches the entropy


def continuous_bound(p: Process, joint: Tensor, posterior: bool = False) -> Tensor:
    """∫ dt E Σ_i ell of a pair of tokens under the Bayes cavity table (or, wrongly, the posterior),
    by quadrature.
    """
    N = joint.shape[0]

    def at(t: float) -> Tensor:
        q, total = marginals(p, t, N), column(0.0)
        for law in (joint, joint.T):  # token 1, then token 2, as the first of the pair
            with_z2 = torch.einsum("ab,zb->az", law, q)  # P(x1, z2)
            weight = torch.einsum("az,ya->ayz", with_z2, q)  # P(x1, z1, z2)
            x, z1, z2 = (weight > 1e-200).nonzero().T
            logits = with_z2.T[z2] * (q[z1] if posterior else 1.0)
            r = Rows(x, z1, torch.full(x.shape, t, dtype=torch.float64))
            total = total + (weight[x, z1, z2] * Nelbo()(logits.log().clamp_min(-700), r, p)).sum()
        return total

    return tanh_sinh(at)


CURVED = [
    Absorbing(),
    Uniform(),
    GammaHybrid(0.3),
    GammaHybrid(0.01),
    GammaHybridMaskClock(0.3),
    SmoothEpsilonHybrid(0.2, power=6.0),
    SmoothEpsilonHybrid(0.01),
    GIDD(0.3),
]


def entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p).sum()


@each_process(CURVED)
def test_18_the_bayes_cavity_reaches_the_entropy(process):
    """The continuous NELBO of the Bayes-optimal cavity table is H(x) itself, to 1e-5."""
    joint = random_joint(3, 2, seed=2)
    assert abs(continuous_bound(process, joint) - entropy(joint)) < 1e-5


@each_process(
    [
        Uniform(),
        GammaHybrid(0.3),
        GammaHybridMaskClock(0.3),
        SmoothEpsilonHybrid(0.2, power=6.0),
        GIDD(0.3),
    ]
)
def test_18_a_posterior_in_place_of_the_cavity_costs_nats(process):
    joint = random_joint(3, 2, seed=2)
    assert continuous_bound(process, joint, posterior=True) > entropy(joint) + 1e-2


@each_process([EpsilonHybrid(0.2), EpsilonHybrid(0.05)])
def test_18_the_atom_of_epsilon_hybrid_costs_the_total_correlation(process, N=3):
    """Its best bound is H(x) + TC(x | z_0), the reconstruction being the step from 0+ to 0 (maths
    1.5).
    """
    joint, zero = random_joint(N, 2, seed=2), 1e-300
    q = marginals(process, zero, N)[:N]
    with_z = torch.einsum("ab,ya,zb->abyz", joint, q, q)  # P(x1, x2, z1, z2)
    reconstruction = column(0.0)
    for law in (joint, joint.T):
        with_z2 = torch.einsum("ab,zb->az", law, q)
        weight = torch.einsum("az,ya->ayz", with_z2, q)
        x, z1, z2 = (weight >= 0).nonzero().T
        r = Rows(
            x,
            z1,
            torch.full(x.shape, zero, dtype=torch.float64),
            torch.zeros(x.shape, dtype=torch.float64),
        )
        reconstruction += (weight[x, z1, z2] * Nelbo()(with_z2.T[z2].log(), r, process)).sum()
    H_z = entropy(with_z.sum((0, 1)))
    each = entropy(with_z.sum(1)) + entropy(with_z.sum(0)) - 2 * H_z  # Σ_i H(x_i | z_0)
    total_correlation = each - (entropy(with_z) - H_z)
    assert total_correlation > 1e-3
    bound = continuous_bound(process, joint) + reconstruction
    assert abs(bound - entropy(joint) - total_correlation) < 1e-5


@each_process(GAMMA_SIGMA + [GammaHybrid(g) for g in GAMMAS])
def test_18_gamma_integrand_per_unit_sigma(process, N=5, t=0.6):
    """(2.8): (1-γ)/(e^{(1-γ)σ}-1) KL at MASK and γ/(N d(z|x)) (KL + IS) at visible tokens, κ =
    e^{-γσ}.
    """
    g, left = process.gamma, 1 - (1 - process.tail) * t
    sigma, rate = -math.log(left), (1 - process.tail) / left
    kappa = math.exp(-g * sigma)
    logits, r, xhat = table(process, t, N, seed=0)
    d = kappa * torch.nn.functional.one_hot(r.x, N).double() + (1 - kappa) / N
    law = kappa * xhat + (1 - kappa) / N
    kl = (torch.xlogy(d, d) - torch.xlogy(d, law)).sum(-1)
    own = r.z.clamp(max=N - 1).unsqueeze(1)
    rho = (d.gather(1, own) / law.gather(1, own)).squeeze(1)
    masked = (1 - g) / math.expm1((1 - g) * sigma) * kl if g < 1 else kl
    visible = (
        g / (N * d.gather(1, own).squeeze(1)) * (kl + rho - 1 - rho.log()) if g > 0 else 0 * kl
    )
    close(
        integrand(logits, r.x, r.z, r.t, process),
        rate * torch.where(r.z == N, masked, visible),
        1e-10,
    )
