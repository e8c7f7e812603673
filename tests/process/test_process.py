"""Kernels, rates, posteriors, corruption and prior of every process against brute force (maths.md
7, numbers 1-7 and 25).
"""

from dataclasses import dataclass

import pytest
import torch
from catalogue import (
    ABSORBING,
    ALL,
    EPSILON,
    LEAKING,
    UNIFORM,
    WITHOUT_ATOM,
    WITHOUT_LEAK,
    each_process,
)
from enumeration import (
    GAMMAS,
    bayes,
    chi_square,
    clocks,
    column,
    generator,
    integrated_kernel,
    kernel,
    leak,
    marginals,
    random_logits,
    rates,
    rows,
    slopes,
)
from torch import Tensor

from textdiff.noise import Noise
from textdiff.process import (
    GIDD,
    SCDD,
    Absorbing,
    Clock,
    EpsilonHybrid,
    GammaHybrid,
    GammaHybridMaskClock,
    Process,
    SmoothEpsilonHybrid,
    Uniform,
    laws,
)

TRIPLES = [(0.0, 0.3, 0.8), (0.0, 0.5, 1.0), (0.1, 0.2, 0.95), (1e-6, 0.5, 1 - 1e-6)]
PAIRS = [(0.0, 0.4), (0.1, 0.5), (0.3, 0.9), (0.6, 1.0), (0.0, 1.0)]


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    assert a.shape == b.shape
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def code_kernel(p: Process, s: float, t: float, N: int) -> Tensor:
    """K[to, from] of the oracle, which reads it off the process' bridge."""
    return laws.kernel(p, column(s), column(t), N)


def code_marginals(p: Process, t: float, N: int) -> Tensor:
    """q_t(. | x) of the oracle, which reads it off the process' clock, as columns."""
    return laws.marginal(p, torch.eye(N, dtype=torch.float64), column([t]).expand(N)).T


# --------------------------------------------------------------------------------------------------
# kernels


@each_process()
@pytest.mark.parametrize("s, t, w", TRIPLES)
@pytest.mark.parametrize("N", [3, 7])
def test_01_kernels_are_stochastic_and_compose(process, s, t, w, N):
    """Columns are laws, and K(w|t) K(t|s) = K(w|s) (Chapman-Kolmogorov)."""
    st, tw, sw = (code_kernel(process, *pair, N) for pair in ((s, t), (t, w), (s, w)))
    for K in (st, tw, sw):
        assert K.min() >= 0
        close(K.sum(0), torch.ones(N + 1, dtype=torch.float64), 1e-12)
    close(tw @ st, sw, 1e-12)


@each_process()
@pytest.mark.parametrize("s, t", PAIRS)
def test_01_kernel_and_marginal_equal_the_formulas(process, s, t, N=5):
    close(code_kernel(process, s, t, N), kernel(process, s, t, N), 1e-12)
    close(code_marginals(process, t, N), marginals(process, t, N), 1e-12)


@each_process()
def test_01_the_kernel_from_t_to_t_is_the_identity(process, N=4):
    for t in (0.0, 0.3, 1.0):
        assert torch.equal(code_kernel(process, t, t, N), torch.eye(N + 1, dtype=torch.float64))


@each_process()
def test_01_the_kernel_solves_the_master_equation(process, N=4):
    """dK/dt = R K with the generator from (1.1) and the autograd slopes of the clocks, integrated
    numerically.
    """
    close(code_kernel(process, 0.2, 0.7, N), integrated_kernel(process, 0.2, 0.7, N), 1e-9)


@each_process()
@pytest.mark.parametrize("s, t", PAIRS)
@pytest.mark.parametrize("N", [3, 6])
def test_02_the_kernel_carries_marginal_to_marginal(process, s, t, N):
    close(code_kernel(process, s, t, N) @ marginals(process, s, N), marginals(process, t, N), 1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("sigma", [0.05, 1.0, 4.0])
@pytest.mark.parametrize("N", [3, 7])
def test_03_gamma_kernel_is_the_matrix_exponential(gamma, sigma, N):
    """K = exp(σ Q_γ), Q_γ = (1-γ) Q_absorb + γ Q_uniform, in both clocks."""
    Q = torch.zeros(N + 1, N + 1, dtype=torch.float64)
    Q[:N, :N] = gamma / N - torch.eye(N, dtype=torch.float64)
    Q[N, :N] = 1 - gamma
    truth = torch.matrix_exp(sigma * Q)
    t = 1 - torch.exp(column([-sigma])).item()
    close(code_kernel(GammaHybrid(gamma), 0.0, t, N), truth, 1e-10)
    tail_t = t / (1 - 5e-3)
    if tail_t <= 1:
        close(code_kernel(GammaHybrid(gamma, tail=5e-3), 0.0, tail_t, N), truth, 1e-10)
    if gamma < 1:
        mask_t = 1 - torch.exp(column([-(1 - gamma) * sigma])).item()
        close(code_kernel(GammaHybridMaskClock(gamma), 0.0, mask_t, N), truth, 1e-10)


# --------------------------------------------------------------------------------------------------
# clocks and rates


@each_process()
def test_04_clocks_and_their_derivatives(process):
    """m, log κ and log(1-κ) are the table's; m' and κ'/κ are their autograd derivatives; v is the
    leak of the theory.
    """
    t = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    clock, (m, kappa), (dm, dkappa) = process.clock(t), clocks(process, t), slopes(process, t)
    close(clock.mask, m, 1e-13)
    close(clock.log_keep, kappa.log(), 1e-12)
    close(clock.log_corrupt.exp(), 1 - kappa, 1e-13)
    close(clock.keep, kappa, 1e-13)
    torch.testing.assert_close(clock.mask_rate, dm, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(clock.keep_rate, dkappa / kappa, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(clock.leak, leak(process, t), atol=1e-11, rtol=1e-11)


@each_process()
def test_04_log_corrupt_keeps_its_digits_where_kappa_is_almost_1(process):
    """1 - κ is stored by itself: at small t it is -κ'(0) t to first order (GIDD and
    SCDD: c)."""
    t = column([1e-9])
    corrupt = process.clock(t).log_corrupt.exp()
    if isinstance(process, GIDD):
        scale = 2**process.shape * process.uniform / (1 - process.uniform)
        expected = scale * t ** (process.shape / 2)
        expected = expected / (1 + expected)
    elif isinstance(process, SCDD):
        odds = process.uniform / (1 - process.uniform)
        a = process.shape * process.t_peak
        b = process.shape - a
        expected = odds * (t / process.t_peak) ** a / (1 - process.t_peak) ** b
        expected = expected / (1 + expected)
    elif process.atom:
        expected = t * 0 + process.epsilon
    else:
        expected = -slopes(process, column([1e-12]))[1] * t
    torch.testing.assert_close(corrupt, expected, atol=0, rtol=1e-7)


@each_process()
@pytest.mark.parametrize("t", [0.05, 0.3, 0.6, 0.9])
def test_04_rates_equal_the_short_time_kernel(process, t, N=4):
    """(K(t+h|t) - 1)/h -> R, with the O(h) error extrapolated away; R from the code's rates."""
    u, r, v = (float(rate) for rate in process.rates(column([t])))
    R = torch.zeros(N + 1, N + 1, dtype=torch.float64)
    R[:N, :N] = u / N - (u + r) * torch.eye(N, dtype=torch.float64)
    R[N, :N], R[:N, N], R[N, N] = r, v / N, -v
    close(R, generator(process, column([t]), N)[0], 1e-10)
    eye, h = torch.eye(N + 1, dtype=torch.float64), 1e-4
    slope = lambda h: (code_kernel(process, t, t + h, N) - eye) / h  # noqa: E731
    close(2 * slope(h / 2) - slope(h), R, 1e-5)


@each_process()
def test_04_rates_are_never_negative(process):
    t = torch.linspace(1e-4, 1 - 1e-4, 2001, dtype=torch.float64)
    for rate, truth in zip(process.rates(t), rates(process, t), strict=True):
        assert rate.min() >= -1e-9
        torch.testing.assert_close(rate, truth, atol=1e-9, rtol=1e-6)


@dataclass(frozen=True)
class Made(Process):
    """A process of given formulas, to be refused or not."""

    mask: float = 1.0  # m = mask t (or 1 - t, if negative)
    keep: float = -1.0  # κ = e^{keep t}, or 0.6 + keep' t where it should rise
    leaking: float = 0.0

    @property
    def leaks(self) -> bool:
        return self.leaking > 0

    def _clock(self, t: Tensor) -> Clock:
        one = torch.ones_like(t)
        m, rate = (
            (self.mask * t, self.mask * one) if self.mask >= 0 else (0.9 - 0.5 * t, -0.5 * one)
        )
        log_keep = self.keep * t if self.keep <= 0 else -self.keep * (1 - t)
        return Clock(
            mask=m,
            mask_rate=rate,
            log_keep=log_keep,
            log_corrupt=(-torch.expm1(log_keep)).log(),
            keep_rate=self.keep * one,
            leak=self.leaking * one,
        )


def test_04_a_realisable_process_is_constructed():
    Made()
    Made(mask=0.5, leaking=0.5)  # u = 1 - 0.5 · 0.5 t/(1 - 0.5 t) >= 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(keep=0.5), "κ"),  # the uniform clock rises
        (dict(mask=-1.0), "m"),  # the mask clock falls, and nothing leaks
        (dict(mask=0.5, leaking=3.0), "κ"),  # v m > (1-m)(-κ'/κ): u would be negative
        (
            dict(mask=0.5, keep=0.0, leaking=0.1),
            "κ",
        ),  # a leak without uniform noise cannot be hidden
        (dict(mask=-1.0, leaking=0.1), "m"),  # m falls faster than the leak lets it: r < 0
    ],
)
def test_04_a_process_that_no_markov_chain_realises_cannot_be_constructed(options, message):
    with pytest.raises(ValueError, match=f"not a Markov process.*{message}"):
        Made(**options)


@dataclass(frozen=True)
class Mended(Process):
    """κ jumps back up at t = 1/2, which its derivative does not tell."""

    def _clock(self, t: Tensor) -> Clock:
        zero, keep = torch.zeros_like(t), torch.where(t < 0.5, 0.6, 0.8).double()
        return Clock(
            mask=t,
            mask_rate=zero + 1,
            log_keep=keep.log(),
            log_corrupt=(1 - keep).log(),
            keep_rate=zero,
            leak=zero,
        )


def test_04_an_upward_jump_of_kappa_is_refused_too():
    with pytest.raises(ValueError, match="κ"):
        Mended()


@pytest.mark.parametrize(
    "make",
    [
        lambda: GammaHybrid(-0.1),
        lambda: GammaHybrid(1.1),
        lambda: GammaHybrid(float("nan")),
        lambda: GammaHybrid(0.1, tail=1.0),
        lambda: GammaHybridMaskClock(1.0),
        lambda: EpsilonHybrid(1.0),
        lambda: EpsilonHybrid(-1e-9),
        lambda: SmoothEpsilonHybrid(1.0),
        lambda: SmoothEpsilonHybrid(0.1, power=0.5),
        lambda: GIDD(uniform=1.0),
        lambda: GIDD(shape=2.0),
        lambda: SCDD(uniform=1.0),
        lambda: SCDD(t_peak=0.0),
        lambda: SCDD(shape=1.5, t_peak=0.9),
        lambda: SCDD(shape=1.5, t_peak=0.1),
    ],
)
def test_parameters_outside_their_range_are_refused(make):
    with pytest.raises(ValueError, match="must lie in"):
        make()


@each_process()
@pytest.mark.parametrize("t", [-1e-9, 1 + 1e-9, float("nan"), -1.0, float("inf")])
def test_times_outside_0_1_are_refused(process, t):
    times = column([0.5, t])
    x = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"times must lie in \[0, 1\]"):
        process.clock(times)
    with pytest.raises(ValueError, match=r"times must lie in \[0, 1\]"):
        process.corrupt(x, times.view(1, 2), 5, Noise(0, torch.zeros(1, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"times must lie in \[0, 1\]"):
        process.bridge(times, column([1.0, 1.0]))


# --------------------------------------------------------------------------------------------------
# posterior


@each_process()
@pytest.mark.parametrize("s, t", PAIRS)
@pytest.mark.parametrize("seed", [0, 1])
def test_05_posterior_is_bayes(process, s, t, seed, N=5):
    """q(z_s | z_t, x) = K[z, y] q_s(y | x)/q_t(z | x) for every data token, and the same expression
    for a prediction x̂.
    """
    predictions = torch.cat(
        [torch.eye(N, dtype=torch.float64), random_logits(3, N, seed).softmax(-1)]
    )
    for xhat in predictions:
        truth, q = bayes(process, xhat, s, t), marginals(process, t, N) @ xhat
        for z in range(N + 1):
            if q[z] == 0:
                continue
            law = laws.posterior(process, xhat, torch.tensor(z), column(s), column(t))
            close(law, truth[:, z], 1e-12)
            assert law.min() >= 0 and abs(law.sum() - 1) < 1e-12
            if z < N and process in WITHOUT_LEAK:
                assert law[N] == 0, "a visible token never turns back into MASK"


@each_process()
def test_05_posterior_and_marginal_broadcast_over_batch_and_position(process, B=2, L=3, N=4):
    xhat = random_logits(B * L, N, 0).softmax(-1).view(B, L, N)
    z = (
        torch.tensor([[0, 4, 2], [3, 4, 0]])
        if process.masks
        else torch.tensor([[0, 1, 2], [3, 3, 0]])
    )
    s, t = column([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]]), column([[0.2, 0.4, 0.6], [0.8, 0.9, 1.0]])
    law, marginal = laws.posterior(process, xhat, z, s, t), laws.marginal(process, xhat, t)
    for b in range(B):
        for i in range(L):
            q = marginals(process, float(t[b, i]), N) @ xhat[b, i]
            close(marginal[b, i], q, 1e-12)
            if q[z[b, i]] > 0:
                close(
                    law[b, i],
                    bayes(process, xhat[b, i], float(s[b, i]), float(t[b, i]))[:, z[b, i]],
                    1e-12,
                )


@each_process()
def test_05_the_posterior_at_s_equal_t_is_the_identity(process, N=3):
    for z in range(N + 1):
        xhat = torch.full((N,), 1 / N).double()
        law = laws.posterior(process, xhat, torch.tensor(z), column(0.5), column(0.5))
        assert torch.equal(law, torch.eye(N + 1, dtype=torch.float64)[z])


@each_process(EPSILON)
def test_07_visible_tokens_of_epsilon_hybrid_do_not_move_in_flight(process, N=4):
    """All its uniform noise lies at t = 0+, so for 0 < s < t the posterior of a visible token is
    the identity, exactly.
    """
    for xhat in torch.cat([random_logits(4, N, 0).softmax(-1), torch.eye(N, dtype=torch.float64)]):
        for z in range(N):
            law = laws.posterior(process, xhat, torch.tensor(z), column(0.2), column(0.7))
            assert torch.equal(law, torch.eye(N + 1, dtype=torch.float64)[z])


# --------------------------------------------------------------------------------------------------
# corruption


def draws(
    p: Process, t: float, N: int, seed: int, x: int = 1, B: int = 2000, L: int = 100
) -> Tensor:
    """2e5 draws of `corrupt` for one data token."""
    noise = Noise(seed, torch.arange(B))
    return p.corrupt(torch.full((B, L), x), torch.full((B, L), t), N, noise)


@each_process()
@pytest.mark.parametrize("t", [0.03, 0.5, 0.97])
def test_06_corrupt_draws_from_the_marginal(process, t, N=4):
    counts = torch.bincount(draws(process, t, N, seed=int(100 * t)).flatten(), minlength=N + 1)
    assert chi_square(counts, 2e5 * marginals(process, t, N)[:, 1]) > 1e-4


@each_process()
def test_06_corrupt_is_exact_at_both_ends(process, N=4):
    """t = 0 leaves every token (also past an atom); at t = 1 what is left is the prior, whatever
    the token was.
    """
    assert (draws(process, 0.0, N, seed=0, B=20) == 1).all()
    z = draws(process, 1.0, N, seed=0)
    assert (
        chi_square(
            torch.bincount(z.flatten(), minlength=N + 1), 2e5 * marginals(process, 1.0, N)[:, 1]
        )
        > 1e-4
    )


@each_process()
def test_06_corrupt_takes_one_time_per_position_and_ignores_the_other_rows(process, N=6):
    x = torch.randint(N, (4, 50), generator=torch.Generator().manual_seed(0))
    t = torch.rand(4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t[:, ::5] = 0.0
    example = torch.tensor([9, 4, 7, 1])
    z = process.corrupt(x, t, N, Noise(3, example))
    assert torch.equal(z[:, ::5], x[:, ::5]), "given tokens (t = 0) stay"
    assert torch.equal(process.corrupt(x[2:3], t[2:3], N, Noise(3, example[2:3]))[0], z[2])
    assert z.dtype == torch.int64 and z.min() >= 0 and z.max() <= N


@pytest.mark.parametrize("t", [0.2, 0.9])
def test_06_special_cases_draw_the_very_same_tokens(t, N=5):
    """γ = 0 and ε = 0 are absorbing noise, γ = 1 is uniform noise: equal draws from equal noise."""
    for family, limit in ((ABSORBING, Absorbing()), (UNIFORM, Uniform())):
        truth = draws(limit, t, N, seed=8)
        for process in family:
            assert torch.equal(draws(process, t, N, seed=8), truth), process


# --------------------------------------------------------------------------------------------------
# prior


@each_process()
@pytest.mark.parametrize("N", [3, 7, 50257])
def test_25_prior_term_is_the_explicit_kl(process, N):
    """KL(q_1(. | x) || m MASK + (1-m) u) summed over the states; 0 for every process that ends in
    full noise.
    """
    m, kappa = (float(f) for f in clocks(process, column(1.0)))
    q = torch.full((N + 1,), (1 - m) * (1 - kappa) / N, dtype=torch.float64)
    q[0] += (1 - m) * kappa
    q[N] = m
    prior = torch.full((N + 1,), (1 - m) / N, dtype=torch.float64)
    prior[N] = m
    explicit = (torch.xlogy(q, q) - torch.xlogy(q, prior)).sum()
    close(process.prior_kl(N), explicit, 1e-12)
    if m == 1 or kappa == 0:
        assert process.prior_kl(N) == 0


@pytest.mark.parametrize(
    "gamma, tail, nats",
    [(0.0, 5e-3, 0.0541), (0.01, 5e-3, 0.0531), (0.5, 5e-3, 0.0361), (0.0, 1e-3, 0.0108)],
)
def test_25_prior_term_of_the_published_schedules(gamma, tail, nats):
    assert abs(float(GammaHybrid(gamma, tail).prior_kl(50257)) - nats) < 1e-4


@each_process([*WITHOUT_ATOM, GammaHybrid(0.5, tail=0.3)])
def test_25_prior_draws_have_the_prior_law(process, N=4):
    z = process.prior(torch.Size((2000, 100)), N, Noise(1, torch.arange(2000)))
    m = float(clocks(process, column(1.0))[0])
    law = torch.tensor([(1 - m) / N] * N + [m], dtype=torch.float64)
    assert chi_square(torch.bincount(z.flatten(), minlength=N + 1), 2e5 * law) > 1e-4


# --------------------------------------------------------------------------------------------------
# what a process is


@each_process()
def test_a_process_says_truly_whether_it_masks_corrupts_and_leaks(process, N=4):
    t = [0.01, 0.3, 0.9]
    q = torch.stack([marginals(process, time, N) for time in t])
    assert process.masks == bool((q[:, N] > 0).any())
    assert process.corrupts == bool((q[:, 1, 0] > 0).any())
    assert process.leaks == bool((leak(process, column(t)) > 0).any()) == (process in LEAKING)
    jump = float(1 - clocks(process, column(1e-40))[1])
    assert process.atom == pytest.approx(jump, abs=1e-5)
    assert {z for _, z in rows(process, 0.5, N)} == set(range(N)) | (
        {N} if process.masks else set()
    )


def test_every_process_is_covered():
    named = {type(p) for p in ALL}
    ours = {p for p in _subclasses(Process) if p.__module__.startswith("textdiff.process.")}
    assert GIDD in ours and ours <= named, f"no property test for {ours - named}"


def _subclasses(cls: type) -> set[type]:
    return {c for sub in cls.__subclasses__() for c in {sub} | _subclasses(sub)}


def test_scdd_is_absorbing_without_uniform_noise_and_has_gidds_marginals_at_half():
    t = torch.linspace(0, 1, 33).double()
    none, absorbing = SCDD(uniform=0.0).clock(t), Absorbing().clock(t)
    assert all(torch.equal(a, b) for a, b in zip(none, absorbing, strict=True))
    assert not SCDD(uniform=0.0).corrupts and SCDD(uniform=0.1).corrupts
    for uniform, shape in ((0.1, 0.5), (0.3, 1.3), (0.8, 1.9)):
        mine, theirs = SCDD(uniform, shape).clock(t), GIDD(uniform, shape).clock(t)
        torch.testing.assert_close(mine.mask, theirs.mask, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mine.keep, theirs.keep, rtol=1e-12, atol=1e-12)
    # b = 1: κ(1) = 1/(1 + B), B = r/(1-r) / t_peak^a
    process = SCDD(0.3, shape=1.25, t_peak=0.2)
    B = 0.3 / 0.7 / (0.2**0.25 * 0.8)
    assert float(process.clock(torch.ones(())).keep) == pytest.approx(1 / (1 + B))
    peak = process.clock(torch.linspace(0, 1, 2001).double())
    share = (1 - peak.mask) * (1 - peak.keep)
    assert float(share.max()) >= 0.3 - 1e-9  # at t_peak it is the stated one
    assert float(process.clock(torch.tensor(0.2).double()).mask) == pytest.approx(0.2 * 0.7)
