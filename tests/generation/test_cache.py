"""The key-value cache (maths.md 6 and 7: 38, 40, 44, 45): cached laws are those of a full
recomputation; the rest is refused.
"""

from dataclasses import dataclass, field, replace

import pytest
import torch
from catalogue import layouts, name
from toys import random_transformer

from textdiff.denoiser.cache import Cache
from textdiff.denoiser.generation_rows import generation_call
from textdiff.generation.engine import check_sampler, denoise
from textdiff.hyperschedule import (
    Block,
    Hyperschedule,
    QuenchedAR,
    Slide,
    StartSteps,
)
from textdiff.noise import Noise
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid, Process
from textdiff.samplers import (
    ACS,
    Ancestral,
    Confidence,
    Count,
    FirstHitting,
    GibbsCorrector,
    InformedACS,
    PosteriorCorrector,
    PredictorCorrector,
    Probability,
    ReMDM,
    Rescaled,
    Sampler,
)

N, L, B = 5, 11, 3
each_case = pytest.mark.parametrize(("layout", "schedule"), layouts(L), ids=name)


@dataclass(frozen=True)
class Recorder(Ancestral):
    """Ancestral, or another sampler, that keeps the logits it is given."""

    inner: Sampler = field(default_factory=Ancestral)
    seen: list = field(default_factory=list)

    def rows(self, step):
        return self.inner.rows(step)

    def move(self, step, rows, logits, filter):
        self.seen.append(logits)
        return self.inner.move(step, rows, logits, filter)


def network(process: Process, layout: str, dtype: torch.dtype = torch.float64):
    return random_transformer(N, process.needs_time, layers=3, layout=layout).to(dtype)


def given(rows: int = B) -> torch.Tensor:
    """Nothing, a prompt and an infill."""
    free = torch.full((rows, L), N)
    free[1::3, :5] = 1
    free[2::3, [3, 9]] = 2
    return free


def run(net, process, schedule, use_cache, sampler=None, seed=0, **options):
    recorder = Recorder(sampler or Ancestral())
    options = {"ids": given(), "use_cache": use_cache} | options
    done = denoise(
        net,
        process,
        schedule,
        recorder,
        Noise(seed, torch.arange(len(options["ids"]))),
        **options,
    )
    return done, recorder.seen


def largest_difference(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if len(x)]
    return max(float((x - y).abs().max()) for x, y in pairs)


@pytest.mark.parametrize("process", [Absorbing(), EpsilonHybrid(0.3), GammaHybrid(0.3)], ids=name)
@each_case
def test_38_cached_is_uncached(layout, schedule, process):
    net = network(process, layout)
    (plain, expected), (cached, found) = (
        run(net, process, schedule, use_cache) for use_cache in (False, True)
    )
    assert largest_difference(expected, found) < 1e-10
    assert torch.equal(plain.ids, cached.ids) and torch.equal(plain.nfe, cached.nfe)
    assert cached.head_rows == plain.head_rows


@each_case
def test_38_in_float32(layout, schedule):
    process = GammaHybrid(0.3)
    net = network(process, layout, torch.float32)
    (_, expected), (_, found) = (
        run(net, process, schedule, use_cache) for use_cache in (False, True)
    )
    assert (
        largest_difference(expected[:1], found[:1]) < 2e-4
    )  # later calls may have drawn another token


@pytest.mark.parametrize("layout", ["aligned", "shifted"])
def test_38_correcting_samplers_too(layout):
    process, schedule = EpsilonHybrid(0.3), Slide(4, 1)
    net = network(process, layout)
    (plain, expected), (cached, found) = (
        run(net, process, schedule, c, ACS(eta=0.9)) for c in (False, True)
    )
    assert largest_difference(expected, found) < 1e-10 and torch.equal(plain.ids, cached.ids)


@pytest.mark.parametrize(
    "sampler",
    [
        FirstHitting(),
        Confidence(score=Probability(), select=Count(2)),
        ReMDM(Rescaled(0.5)),
        InformedACS(eta=0.9),
        PredictorCorrector(Ancestral(), PosteriorCorrector(), 2),
        PredictorCorrector(FirstHitting(), GibbsCorrector(), 1),
    ],
    ids=name,
)
@each_case
def test_38_every_sampler(layout, schedule, sampler):
    process = EpsilonHybrid(0.3)
    net = network(process, layout)
    try:
        check_sampler(sampler, process, schedule, L)
    except ValueError as error:
        assert "do not overlap" in str(error) and sampler.own_times
        return
    plain, cached = (
        denoise(
            net, process, schedule, sampler, Noise(5, torch.arange(B)), given(), use_cache=use_cache
        )
        for use_cache in (False, True)
    )
    assert (
        torch.equal(plain.ids, cached.ids)
        and torch.equal(plain.nfe, cached.nfe)
        and int(plain.ids.max()) < N
    )
    alone = denoise(
        net, process, schedule, sampler, Noise(5, torch.tensor([1])), given()[1:2], use_cache=True
    )
    assert torch.equal(alone.ids[0], plain.ids[1]) and alone.nfe[0] == plain.nfe[1]


@each_case
def test_rows_that_are_fed(layout, schedule):
    """Every settled position once, windows once a call; quenched AR in the shifted layout one row a
    call, as GPT.
    """
    process = Absorbing()
    net = network(process, layout)
    free = torch.full((1, L), N)
    windows = sum(int(schedule.window(k, L).sum()) for k in range(schedule.calls(L)))
    gpt = layout == "shifted" and schedule == QuenchedAR()
    trailing = (
        schedule.calls(L)
        if layout == "shifted" and not (schedule.T == 1 and int(schedule.window(0, L).sum()) == 1)
        else 0
    )
    last = int((schedule.settled(schedule.calls(L) - 1, L)).sum())  # settled before the last call
    done = denoise(
        net, process, schedule, Always(), Noise(0, torch.arange(1)), free, use_cache=True
    )
    if gpt:
        assert done.body_rows == L
    elif not schedule.plan(L).flat:
        assert done.body_rows == windows + trailing + last
    assert done.nfe.tolist() == [schedule.calls(L)]


@dataclass(frozen=True)
class Always(Ancestral):
    """Ancestral that asks for the head at the whole window, so that no call is skipped."""

    def rows(self, step):
        return step.moving

    def move(self, step, rows, logits, filter):
        return torch.where(step.s == 0, 0, step.z), step.s


# --- 40: what would be wrong is seen to be wrong


def wrong(net, process, schedule, spoil):
    """The largest difference of logits when the cache is spoilt."""
    _, expected = run(net, process, schedule, False)
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch)
        _, found = run(net, process, schedule, True)
    return largest_difference(expected[: len(found)], found[: len(expected)])


def keeping(also):
    """Spoil the cache: a call keeps `also(plan, k, stored, kept)` rows."""
    original = generation_call

    def spoilt(network, schedule, k, z, t, cache, **others):
        call, active = original(network, schedule, k, z, t, cache=cache, **others)
        stored = 0 if cache is None else cache.length
        return replace(call, kept=also(schedule.plan(L), k, stored, call.kept)), active

    return lambda patch: patch.setattr("textdiff.generation.engine.generation_call", spoilt)


@pytest.mark.parametrize("schedule", [Block(4, 3), Slide(4, 1)], ids=name)
def test_40_keys_of_the_sampling_pass_are_stale(schedule):
    """The rows that settle in a call are kept as they were fed, with what they held before it."""
    process = EpsilonHybrid(0.3)
    spoil = keeping(lambda plan, k, stored, kept: plan.settled(k + 1) - stored)
    assert wrong(network(process, "aligned"), process, schedule, spoil) > 1e-3


@pytest.mark.parametrize("schedule", [Block(4, 3), Slide(4, 1)], ids=name)
def test_40_the_boundary_may_not_be_cached(schedule):
    """The last settled row is kept as it was when it saw active rows."""
    process = EpsilonHybrid(0.3)
    spoil = keeping(lambda plan, k, stored, kept: kept + int(plan.settled(k + 1) > plan.settled(k)))
    assert wrong(network(process, "shifted"), process, schedule, spoil) > 1e-3


@dataclass(frozen=True)
class Ranked(Hyperschedule):
    """Another schedule with a context rule of its own: settled rows see `blocks` of positions, or
    (0) all settled ones.
    """

    base: Hyperschedule
    blocks: int

    @property
    def T(self):
        return self.base.T

    def start(self, L):
        return self.base.start(L)

    def order(self, L):
        return torch.arange(L) // self.blocks if self.blocks else torch.zeros(L, dtype=torch.int64)


@pytest.mark.parametrize(
    "schedule", [Ranked(Slide(4, 1), 4), Ranked(Slide(4, 1), 0), Ranked(Block(4, 3), 0)], ids=name
)
def test_40_block_causal_slide_and_full_context_are_refused_and_wrong(schedule):
    process = EpsilonHybrid(0.3)
    net = network(process, "aligned")
    with pytest.raises(ValueError, match="settle later"):
        run(net, process, schedule, True)
    assert (
        wrong(
            net,
            process,
            schedule,
            lambda patch: patch.setattr("textdiff.generation.engine.check_cache", lambda *_: None),
        )
        > 1e-3
    )


def test_a_network_with_one_time_for_all_rows_is_refused():
    net = network(GammaHybrid(0.3), "aligned")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match="use_cache=False"):
        patch.setattr(type(net), "cacheable", False)
        run(net, GammaHybrid(0.3), Slide(4, 1), True)


# --- 44, 45


@pytest.mark.parametrize("layout", ["aligned", "shifted"])
def test_44_levels_of_later_tokens_change_no_settled_keys(layout):
    process, schedule = GammaHybrid(0.3), Slide(4, 1)
    net, stored = network(process, layout), []
    for seed in range(2):
        z = torch.arange(L).expand(1, L) % N
        k, cache = 7, Cache(L + 1)
        settled = schedule.settled(k, L)
        t = torch.where(
            settled,
            0.0,
            torch.rand(1, L, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)),
        )
        call, _ = generation_call(net, schedule, k, z, t, cache=cache)
        call.hidden(net, cache)
        assert cache.length == int(settled.sum())
        stored.append(
            [x[:, :, : cache.length].clone() for pair in cache._layers.values() for x in pair]
        )
    assert all(torch.equal(a, b) for a, b in zip(*stored, strict=True))


def test_45_shifted_quenched_is_greedy_gpt_step_by_step():
    process = Absorbing()
    net = network(process, "shifted")
    ids = torch.tensor([[0]])  # BOS
    for _ in range(L):
        ids = torch.cat([ids, net(ids)[:, -1].argmax(-1, keepdim=True)], -1)
    done = denoise(
        net,
        process,
        QuenchedAR(),
        Ancestral(),
        Noise(0, torch.arange(1)),
        torch.full((1, L), N),
        filter=lambda x, where: x * 1e6,
        use_cache=True,
    )
    assert torch.equal(done.ids, ids[:, 1:])


# --- batches: lengths, order, end of text


@pytest.mark.parametrize("use_cache", [False, True])
@each_case
def test_lengths_rows_and_order_change_nothing(layout, schedule, use_cache):
    if isinstance(schedule, StartSteps):
        pytest.skip("start steps are for one length")
    process = EpsilonHybrid(0.3)
    net, lengths = network(process, layout), torch.tensor([L, 7, 9, 2])
    whole = given(4)
    whole[torch.arange(L) >= lengths[:, None]] = 0
    together = denoise(
        net,
        process,
        schedule,
        ACS(eta=0.5),
        Noise(3, torch.arange(4)),
        whole,
        use_cache=use_cache,
        end=lengths,
    )
    for row, length in enumerate(lengths.tolist()):
        alone = denoise(
            net,
            process,
            schedule,
            ACS(eta=0.5),
            Noise(3, torch.tensor([row])),
            whole[[row], :length],
            use_cache=use_cache,
        )
        assert torch.equal(alone.ids[0], together.ids[row, :length])
        assert alone.nfe[0] == together.nfe[row]


@pytest.mark.parametrize("layout", ["aligned", "shifted"])
@pytest.mark.parametrize("schedule", [QuenchedAR(), Block(4, 3), Slide(4, 1)], ids=name)
def test_an_end_of_text_ends_the_row_and_no_other(layout, schedule):
    process, eos = EpsilonHybrid(0.3), 2
    net, free = network(process, layout), torch.full((8, L), N)
    plain = denoise(
        net, process, schedule, Ancestral(), Noise(1, torch.arange(8)), free, use_cache=True
    )
    ended = denoise(
        net,
        process,
        schedule,
        Ancestral(),
        Noise(1, torch.arange(8)),
        free,
        use_cache=True,
        eos=eos,
    )
    cut = [row.tolist().index(eos) + 1 if eos in row else L for row in plain.ids]
    assert min(cut) < L, "the toy never ends"
    for row, length in enumerate(cut):
        assert torch.equal(plain.ids[row, :length], ended.ids[row, :length])
    assert ended.body_rows < plain.body_rows
