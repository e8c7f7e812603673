"""Every sampler with every process (maths.md 7: 36): it works, or `check` says why not; and draws
at full vocabulary (35).
"""

import pytest
import torch
from catalogue import LIMITS, OF_SCORES, PROCESSES, SAMPLERS, each, name
from driving import allowed, flat_run
from enumeration import chi_square
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toys import toy

from textdiff import spec
from textdiff.denoiser.prediction import Prediction
from textdiff.noise import Noise, Stream, below, uniform
from textdiff.process import (
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    Process,
    laws,
)
from textdiff.samplers import (
    Ancestral,
    FirstHitting,
    GibbsCorrector,
    ReMDM,
    Sampler,
    Step,
    base,
    draws,
    score,
    temperature,
    top_p,
)
from textdiff.samplers.draws import categorical, probability, tree_of
from textdiff.samplers.filters import identity

EVERY = [*SAMPLERS, *OF_SCORES]
each_process = each("process", PROCESSES + LIMITS)
each_sampler = each("sampler", EVERY)


@each_process
@each_sampler
def test_36_every_sampler_with_every_process(sampler, process):
    """No MASK is left, tokens are ordinary, draws differ; a refusal names the process and a way
    out.
    """
    if not allowed(sampler, process):
        with pytest.raises(ValueError) as refusal:
            sampler.check(process)
        assert (
            repr(process) in str(refusal.value) and "use " in str(refusal.value)
        ) or "tail=" in str(refusal.value)
        return
    B, d, net = 40, 4, toy(process)
    scored = sampler.prediction == Prediction.LOG_SCORE
    for filter in [identity] if scored else [identity, temperature(0.5), top_p(0.8)]:
        z, _ = flat_run(sampler, process, net, B, d, T=5, filter=filter)
        assert z.max() < net.num_tokens and z.min() >= 0
        assert (z != z[:1]).any(), "sequences differ"


def test_every_sampler_is_in_the_matrix_and_is_written_as_text():
    inside = {type(stage).__name__ for sampler in EVERY for stage in (sampler, *sampler.stages)}
    loops = {"SelfSpeculative"}  # a loop of its own: tests/generation/test_speculative.py
    assert inside == set(spec.names(Sampler)) - loops and GibbsCorrector().stages == (
        GibbsCorrector(),
    )
    for sampler in EVERY:
        assert spec.parse(str(sampler), Sampler) == sampler


@each_process
@each_sampler
def test_what_does_not_move_stays(sampler, process):
    """Positions with s = t, and those that `rows` leaves out, keep their tokens; MASK comes from a
    visible token by leak or ReMDM.
    """
    if not allowed(sampler, process):
        return
    B, d, net = 200, 6, toy(process)
    N, noise = net.num_tokens, Noise(3, torch.arange(B))
    t = torch.tensor([1.0, 0.7, 0.7, 0.4, 0.4, 0.0]).double().expand(B, d)
    s = torch.tensor([1.0, 0.7, 0.3, 0.3, 0.4, 0.0]).double().expand(B, d)
    z = process.corrupt((noise.positions(t, Stream.ORDER) * N).long(), t, N, noise)
    for stage in sampler.stages:
        step = Step(process, z, t, s=s, N=N, noise=noise.at(1))
        rows = stage.rows(step)
        assert not rows[:, [0, 1, 4, 5]].any()
        logits = torch.randn(int(rows.sum()), N, generator=torch.Generator().manual_seed(0))
        after, times = stage.move(step, rows, logits)
        assert torch.equal(after[~rows], z[~rows])
        assert (
            torch.equal(times[:, [0, 1, 4, 5]], t[:, [0, 1, 4, 5]])
            and (times <= t).all()
            and (times >= 0).all()
        )
        masked_again = ((z < N) & (after == N)).any()
        assert not masked_again or process.leaks or isinstance(stage, ReMDM)


def test_no_step_without_rows_fails():
    for sampler in EVERY:
        for process in (p for p in PROCESSES + LIMITS if allowed(sampler, p)):
            z, t = torch.tensor([[0, 1]]), torch.zeros(1, 2, dtype=torch.float64)
            step = Step(process, z, t, s=t, N=3, noise=Noise(0, torch.arange(1)))
            for stage in sampler.stages:
                rows = stage.rows(step)
                after, times = stage.move(step, rows, torch.empty(0, 3))
                assert not rows.any() and torch.equal(after, z) and torch.equal(times, t)


# -------------------------------------------------------------------------------------------------
# 35: at full vocabulary

V = 50_258
RARE = torch.cat([torch.full((258,), 0.9 / 258), torch.full((V - 258,), 0.1 / (V - 258))]).double()
EDGES = torch.tensor([0, 86, 172, 258, 10_258, 20_258, 30_258, 40_258, V])


def classes(tokens: torch.Tensor) -> torch.Tensor:
    return torch.bincount(torch.bucketize(tokens, EDGES[1:], right=True), minlength=len(EDGES))


@pytest.mark.parametrize("process", [Absorbing(), EpsilonHybrid(0.2)], ids=name)
def test_35_a_full_step_draws_rare_tokens_as_often_as_it_should(process: Process):
    """A step t -> s from MASK in two stages, against the law of one draw over the V + 1 states;
    2e-6 a rare token.
    """
    B, L, t, s = 40, 400, 1.0, 0.75
    before, after = (torch.full((B, L), time, dtype=torch.float64) for time in (t, s))
    z, noise = torch.full((B, L), V), Noise(0, torch.arange(B), 3)
    step = Step(process, z, before, s=after, N=V, noise=noise)
    rows = Ancestral().rows(step)
    logits = RARE.log().expand(int(rows.sum()), V)
    moved, _ = Ancestral().move(step, rows, logits)
    law = laws.marginal(process, RARE, torch.tensor(s, dtype=torch.float64))
    expected = torch.tensor([*(law[a:b].sum() for a, b in EDGES.unfold(0, 2, 1)), law[V]])
    assert chi_square(classes(moved.flatten()), B * L * expected) > 1e-4


def by_hand(p, u):
    """A token [R] by plain sums: its last digit first, then the one before, and so on; and whether
    each choice was clear of rounding.
    """
    R, n = p.shape
    base, highest = tree_of(n)
    token = torch.arange(n)
    drawn, clear = torch.zeros(R, dtype=torch.int64), torch.ones(R, dtype=torch.bool)
    alive, stride, depth = torch.ones(R, n, dtype=torch.bool), 1, 0
    while True:
        last = stride == highest
        digit = token // stride if last else token // stride % base
        chances = torch.zeros(R, 16, dtype=torch.float64)
        chances.scatter_add_(1, digit.expand(R, n), p * alive)
        cdf = chances.cumsum(1)
        place = below(u, depth + 1)[:, depth]
        target = place * cdf[:, -1]
        clear &= ((cdf - target[:, None]).abs() > 1e-12 * cdf[:, -1:]).all(1)
        choice = torch.searchsorted(cdf, target[:, None], right=True)
        drawn += choice[:, 0] * stride
        alive &= digit == choice
        if last:
            return drawn, clear
        stride, depth = base * stride, depth + 1


@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 17, 255, 257, 4097, 50_257, 65_537])
def test_35_a_draw_goes_down_the_tree_whatever_the_vocabulary(n):
    """Against plain sums; alone and in a batch; up to 16 tokens it is the inverse CDF, at uniforms
    on either side of a threshold.
    """
    R = 40 if n < 10_000 else 12
    logits = 3 * torch.randn(R, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    logits[:, n // 2 :: 5] = -torch.inf
    logits[:, 0] = 0.0
    law = logits.softmax(-1)
    cdf = law.cumsum(-1)
    y = torch.randint(n, (R,), generator=torch.Generator().manual_seed(1)).where(
        torch.arange(R) % 2 == 0, n - 1
    )
    edge = cdf.gather(1, y[:, None])[:, 0]
    for u in (edge - 1e-11, edge + 1e-11, uniform(0, 0, 0, torch.arange(R), Stream.TOKEN)):
        u = u.clamp(2.0**-53, 1 - 2.0**-53)
        drawn = categorical(logits, u)
        expected, clear = by_hand(law, u)
        assert torch.equal(drawn[clear], expected[clear]) and (drawn < n).all()
        assert clear.float().mean() > 0.2 or n < 3
        if n <= 16:
            clear = ((cdf - u[:, None]).abs() > 1e-13).all(1) & (u < 1 - 1e-12)
            plain = torch.searchsorted(cdf, u[:, None], right=True)[:, 0]
            assert torch.equal(drawn[clear], plain[clear])
        assert (logits.gather(1, drawn[:, None]) > -torch.inf).all()
        assert torch.equal(
            torch.cat([categorical(logits[i : i + 1], u[i : i + 1]) for i in range(R)]), drawn
        )
    own = probability(logits, y)
    torch.testing.assert_close(
        own, logits.softmax(-1).gather(1, y[:, None])[:, 0], rtol=1e-13, atol=0
    )
    assert torch.equal(
        torch.cat([probability(logits[i : i + 1], y[i : i + 1]) for i in range(R)]), own
    )


def test_35_shapes_and_types_of_draws():
    assert categorical(torch.empty(0, 5), torch.empty(0, dtype=torch.float64)).shape == (0,)
    assert probability(torch.empty(0, 5), torch.empty(0, dtype=torch.int64)).shape == (0,)
    logits, u = torch.randn(2, 3, 7), uniform(0, 0, 0, torch.arange(6), Stream.TOKEN).view(2, 3)
    drawn = categorical(logits, u)
    assert drawn.shape == (2, 3) and drawn.dtype == torch.int64
    assert torch.equal(drawn.flatten(), categorical(logits.view(6, 7).double(), u.flatten()))
    shifted = categorical(logits.double() + 800, u)
    assert torch.equal(shifted, drawn), "large logits do not overflow"
    half = categorical(logits.bfloat16(), u)
    assert torch.equal(half, categorical(logits.bfloat16().double(), u))


class Largest(TorchDispatchMode):
    """The most float64 numbers of a tensor that was made."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for x in made if isinstance(made, tuple | list) else [made]:
            if isinstance(x, Tensor) and x.dtype == torch.float64:
                self.numbers = max(self.numbers, x.numel())
        return made


@pytest.mark.parametrize(
    "sampler", [stage for s in [*SAMPLERS, *OF_SCORES] for stage in s.stages], ids=name
)
@pytest.mark.parametrize("filter", [identity, top_p(0.9)], ids=["plain", "top_p"])
def test_float64_tables_are_made_some_rows_at_a_time(sampler, filter, monkeypatch):
    """The same tokens and times, and nothing of the size of all rows."""
    if filter is not identity and sampler in OF_SCORES:
        return
    N, B, W, most = 257, 4, 24, 1000
    process = GammaHybrid(0.3, tail=0.1) if sampler in OF_SCORES else EpsilonHybrid(0.3)
    z = torch.where(torch.arange(B * W).view(B, W) % 2 == 0, N, 5)
    if isinstance(sampler, GibbsCorrector | FirstHitting):
        z = torch.full_like(z.repeat(16, 1), 5)  # one row of each sequence
    if sampler.own_times:
        z = torch.full_like(z, N)
    t = torch.full(z.shape, 0.9, dtype=torch.float64)
    noise = Noise(0, torch.arange(len(z)))
    step = Step(process, z, t, s=0.2 * t, N=N, noise=noise)
    rows = sampler.rows(step)
    logits = torch.randn(int(rows.sum()), N, generator=torch.Generator().manual_seed(0))
    whole = sampler.move(step, rows, logits, filter)
    for module in (base, score):
        monkeypatch.setattr(module, "PART", most)
    monkeypatch.setattr(draws, "_CACHED", most)
    step = Step(process, z, t, s=0.2 * t, N=N, noise=noise)
    with Largest() as largest:
        in_parts = sampler.move(step, rows, logits, filter)
    assert torch.equal(whole[0], in_parts[0]) and torch.equal(whole[1], in_parts[1])
    assert len(logits) * N > 4 * most >= largest.numbers
