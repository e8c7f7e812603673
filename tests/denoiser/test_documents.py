"""What a call may see of documents and padding: what has settled, and nothing else (10: 46-48).

That the numbers exp(-nats) of all texts sum to at most one says that nats, averaged over any law of
texts, are at least its entropy (Gibbs).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from masked_bound import EOS, L, N, batch_of, exact, network, rows
from toys import a_bound

from textdiff.denoiser.generation_rows import generation_call
from textdiff.denoiser.training_rows import training_call
from textdiff.denoiser.visibility import ended_before
from textdiff.generation.engine import denoise
from textdiff.hyperschedule import (
    Block,
    Flat,
    OverlapBlock,
    QuenchedAR,
    Slide,
    StartSteps,
    TightBlock,
)
from textdiff.noise import Noise
from textdiff.objective import MaskCount
from textdiff.objective.batch import check_packing
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid
from textdiff.samplers import Ancestral

ONE_STEP = [QuenchedAR(), Block(2, 1), Block(3, 1), StartSteps(1, (0, 0, 1, 2))]
SCHEDULES = [
    *ONE_STEP,
    Block(2, 2),
    Slide(2, 1),
    Slide(3, 2),
    TightBlock(2, 2),
    Block(2, 3),
    OverlapBlock(2, 1, levels=2),
]
BLOCK_CAUSAL = [Block(2, 2, block_causal=True)]
CASES = [(layout, s) for layout in ("aligned", "shifted") for s in SCHEDULES]
CASES += [("aligned", s) for s in BLOCK_CAUSAL]


@pytest.mark.parametrize(("layout", "schedule"), CASES, ids=str)
def test_47_two_stream_rows_are_generations_with_an_eos_at_every_place(layout, schedule):
    net, length = network(layout, N=5), 7
    if isinstance(schedule, StartSteps):
        schedule = StartSteps(1, (0, 0, 1, 2, 2, 2, 3))
    plan = schedule.plan(length)
    generator = torch.Generator().manual_seed(3)
    for places in [(p,) for p in range(length)] + [(0, 1), (1, 4), (2, 3, 5), range(length)]:
        x = torch.randint(1, 5, (1, length), generator=generator)
        x[:, list(places)] = EOS
        for offset in range(schedule.T):
            tiling = plan.tiling(torch.tensor([[offset]]))
            t = tiling.level / schedule.T
            z = torch.where(torch.rand(x.shape, generator=generator) < 0.6, 5, x)
            z = torch.where(t == 1, 5, z)
            with torch.no_grad():
                together = training_call(
                    net, schedule, x, z, t, tiling=tiling, document=ended_before(x, EOS)
                ).hidden(net)
            for k in range(offset, schedule.calls(length), schedule.T):
                settled, window = schedule.settled(k, length), schedule.window(k, length)
                # What has not settled is noise, an EOS or not: no call may know it.
                own = torch.where(settled, x[0], torch.where(window, z[0], 5))[None]
                times = torch.where(settled, 0.0, torch.where(window, t[0], 1.0))[None]
                call, active = generation_call(net, schedule, k, own, times, eos=EOS)
                with torch.no_grad():
                    torch.testing.assert_close(
                        call.hidden(net)[0], together[0, active], atol=1e-10, rtol=0
                    )


@pytest.mark.parametrize(("layout", "schedule"), CASES, ids=str)
@pytest.mark.parametrize("documents", ["joined", "separate"])
def test_46_the_chances_of_all_rows_sum_to_at_most_one(layout, schedule, documents):
    ids = rows()
    document = ended_before(ids, EOS) if documents == "separate" else None
    chances = (-exact(network(layout), schedule, batch_of(ids, document=document))).exp()
    assert chances.sum() <= 1 + 1e-9
    if schedule.T == 1:  # the bound is -log p itself
        assert chances.sum() == pytest.approx(1, abs=1e-9)


def test_46_the_alarm_rings_for_a_mask_that_is_computed_from_what_is_scored():
    """A negative control: documents that are told by tokens that have not settled."""
    ids = rows()
    leak = ended_before(ids.flip(-1), EOS).flip(-1)  # how many end behind each token
    chances = (-exact(network("aligned"), Block(2, 1), batch_of(ids, document=leak))).exp()
    assert abs(chances.sum() - 1) > 1e-3


def documents_of() -> tuple[torch.Tensor, torch.Tensor]:
    """Every document that a row of L can hold, up to its EOS or cut at L, then EOS; and where it
    is filler.
    """
    found = {}
    for ids in rows().tolist():
        end = ids.index(EOS) if EOS in ids else L - 1
        found[tuple(ids[: end + 1])] = end
    ids = [[*text, *[EOS] * (L - len(text))] for text in found]
    valid = [[i <= end for i in range(L)] for end in found.values()]
    return torch.tensor(ids), torch.tensor(valid)


@pytest.mark.parametrize(("layout", "schedule"), CASES, ids=str)
@pytest.mark.parametrize("documents", ["joined", "separate"])
def test_48_ignored_padding_bounds_the_chain_that_stops(layout, schedule, documents):
    """The chance of a document under the chain that stops is that of all rows that begin so."""
    net = network(layout)
    ids, valid = documents_of()
    kept = {"document": ended_before(ids, EOS)} if documents == "separate" else {}
    nats = exact(net, schedule, batch_of(ids, valid=valid, **kept))
    assert (-nats).exp().sum() <= 1 + 1e-9
    if schedule.T > 1:
        return
    every = rows()
    kept = {"document": ended_before(every, EOS)} if documents == "separate" else {}
    p = (-exact(net, schedule, batch_of(every, **kept))).exp()
    for text, mine, bound in zip(ids, valid, nats, strict=True):
        begins = (every[:, mine] == text[mine]).all(-1)
        true = -p[begins].sum().log()
        assert bound >= true - 1e-9
        if schedule == QuenchedAR():
            assert bound == pytest.approx(float(true), abs=1e-9)


@pytest.mark.parametrize("schedule", [Block(2, 2), Slide(2, 1), Slide(3, 2), QuenchedAR()], ids=str)
def test_48_filler_is_noised_until_the_eos_has_settled(schedule):
    """Positions beyond the end are noised in just the calls that the chain still makes."""
    valid = torch.tensor([[True, True, False, False]])
    plan = schedule.plan(L)
    for offset in range(schedule.T):
        tiling = plan.tiling(torch.tensor([[offset]]))
        noised = batch_of(torch.tensor([[1, 0, 0, 0]]), valid=valid).noised(plan, tiling.call)
        last = int(schedule.start(L)[1]) + schedule.T
        assert noised.tolist() == [[bool(call < last) for call in tiling.call[0]]]
        assert noised[:, :2].all()


@pytest.mark.parametrize("layout", ["aligned", "shifted"])
@pytest.mark.parametrize("process", [Absorbing(), EpsilonHybrid(0.2), GammaHybrid(0.3)], ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_cached_calls_draw_what_uncached_ones_draw(layout, process, schedule):
    net = network(layout, sees_time=True)
    given = torch.full((4, L), N)
    given[1, 0] = EOS  # an EOS in a prompt ends a document as well
    given[2, :2] = torch.tensor([1, EOS])
    noise = Noise(5, torch.arange(4))
    one, other = (
        denoise(
            net, process, schedule, Ancestral(), noise, ids=given, use_cache=cached, apart=EOS
        ).ids
        for cached in (False, True)
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("schedule", [Flat(2), Block(8, 2), StartSteps(2, (3, 2, 1, 0))], ids=str)
def test_other_orders_refuse_what_would_show_where_documents_end(schedule):
    with pytest.raises(ValueError, match="set documents: joined"):
        check_packing(schedule, L, "separate")
    with pytest.raises(ValueError, match="set padding: learnt"):
        check_packing(schedule, L, "single", "ignored")
    check_packing(schedule, L, "single", "learnt")
    batch = batch_of(rows(), valid=torch.ones(N**L, L, dtype=torch.bool))
    with pytest.raises(ValueError, match="set padding: learnt"):
        a_bound(Absorbing(), schedule).nats(network("aligned"), batch, Noise(0, batch.example))


def test_filler_is_noised_by_every_estimator():
    net = network("aligned", sees_time=False)
    ids, valid = documents_of()
    batch = batch_of(ids, valid=valid)
    bound = a_bound(Absorbing(), Block(2, 4), estimator=MaskCount())
    with torch.no_grad():
        values = bound.nats(net, batch, Noise(0, batch.example)).values
    alive = batch.noised(Block(2, 4).plan(L))
    assert (values[~alive] == 0).all() and alive[valid].all() and bool((alive & ~valid).any())


def test_filler_that_is_learnt_belongs_to_the_sum_and_not_to_the_count():
    ids, real = documents_of()
    batch = batch_of(ids, counted=real)
    assert batch.scored.tolist() == real.sum(-1).tolist()
    assert batch.noised(Flat(2).plan(L)) is None


@pytest.mark.parametrize(("layout", "schedule"), CASES, ids=str)
@pytest.mark.parametrize("documents", ["joined", "separate"])
def test_filler_of_calls_after_the_end_is_not_fed(layout, schedule, documents):
    """A short row by itself costs the calls that it needs, and has the nats that it has beside a
    long one."""
    net = network(layout)
    ids, valid = documents_of()
    batch = batch_of(ids, valid=valid).apart(EOS if documents == "separate" else None)
    assert batch.fed(schedule) == L
    bound = a_bound(Absorbing(), schedule)
    with torch.no_grad():
        together = bound.nats(net, batch, Noise(0, batch.example)).values
        for row in range(len(ids)):
            alone = replace(
                batch,
                **{
                    name: value[row : row + 1]
                    for name, value in vars(batch).items()
                    if isinstance(value, torch.Tensor)
                },
            )
            plan = schedule.plan(L)
            end = int(valid[row].sum()) - 1
            needed = sum(s < plan.starts[end] + plan.T for s in plan.starts)
            cut = not isinstance(schedule, StartSteps)  # whose steps are those of one length
            assert alone.fed(schedule) == (needed if cut else L)
            values = bound.nats(net, alone, Noise(0, alone.example)).values
            torch.testing.assert_close(values[0], together[row], rtol=1e-9, atol=1e-12)
