"""The generation loop (maths.md 7: 36, 37): what it draws is the model of the bound; given tokens,
batches and seeds.
"""

import re

import pytest
import torch
from catalogue import PROCESSES, SAMPLERS, SCHEDULES, each, name
from enumeration import chi_square
from toys import calls, joint, law_of, levels, model_law, ordinary, plug_in, prior, states, toy

from textdiff.denoiser.generation_rows import generation_call
from textdiff.denoiser.head import logits_of
from textdiff.generation.engine import check_sampler, denoise
from textdiff.hyperschedule import Block, Flat, Hyperschedule, QuenchedAR, Slide, StartSteps
from textdiff.noise import Noise, Stream
from textdiff.process import (
    GIDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    Process,
    SmoothEpsilonHybrid,
    Uniform,
)
from textdiff.samplers import (
    ACS,
    Ancestral,
    Confidence,
    FirstHitting,
    PublishedACS,
    ReMDM,
    Sampler,
    Where,
    temperature,
)

N = 3
TWO = Flat(2)
each_process = each("process", PROCESSES)
each_schedule = each("schedule", SCHEDULES)


def allowed(sampler: Sampler, process: Process, schedule: Hyperschedule = TWO) -> bool:
    """Whether it is defined; if not, the loop refuses it, with a remedy."""
    try:
        check_sampler(sampler, process, schedule, 3)
    except ValueError as error:
        given = torch.full((1, 3), N)
        with pytest.raises(ValueError, match=re.escape(str(error))):
            denoise(toy(process), process, schedule, sampler, Noise(0, torch.arange(1)), given)
        assert "use " in str(error) or "train with" in str(error)
        return False
    return True


def samplers(process: Process, schedule: Hyperschedule = TWO) -> list[Sampler]:
    return [sampler for sampler in SAMPLERS if allowed(sampler, process, schedule)]


def draw(
    process: Process,
    schedule: Hyperschedule,
    rows: int,
    d: int = 3,
    sampler: Sampler | None = None,
    seed: int = 0,
):
    given = torch.full((rows, d), N)
    return denoise(
        toy(process),
        process,
        schedule,
        sampler or Ancestral(),
        Noise(seed, torch.arange(rows)),
        given,
    ).ids


# -------------------------------------------------------------------------------------------------
# 37: sampler and bound agree

CHAINS = [QuenchedAR(), Flat(2), Slide(2, 1), StartSteps(2, (1, 0))]


@pytest.mark.parametrize("schedule", CHAINS, ids=name)
@pytest.mark.parametrize(
    "process", [Absorbing(), GammaHybrid(0.3), EpsilonHybrid(0.3), GIDD()], ids=name
)
def test_37_product_of_the_samplers_transitions_is_the_model_of_the_bound(process, schedule):
    """Every state through `generation_call` and the sampler's exact one-step law, call by call."""
    d, net = 2, toy(process)
    z = states(N, d)
    p = joint(prior(process, N).expand(d, -1))
    for k in range(calls(schedule, d)):
        t, s = (
            torch.tensor(levels(schedule, at, d)).double().expand(len(z), d) / schedule.T
            for at in (k, k + 1)
        )
        laws = torch.nn.functional.one_hot(z, N + 1).double()
        call, active = generation_call(net, schedule, k, z, t)
        logits = logits_of(net, call.hidden(net))
        reached = p > 0
        for column, i in enumerate(active.tolist()):
            laws[reached, i] = law_of(
                Ancestral(),
                process,
                logits[reached, column],
                z[reached, i],
                s[reached, i],
                t[reached, i],
                grid=65,
            )
        p = p @ joint(laws)
    expected = model_law(net, process, schedule, d)
    torch.testing.assert_close(p, expected, rtol=0, atol=1e-10)
    assert ordinary(p, N, d).sum() == pytest.approx(1, abs=1e-10)


@each_schedule
@each_process
def test_37_samples_follow_the_model_of_the_bound(process, schedule):
    """Chi-square of 20,000 finished sequences of 3 tokens."""
    d, draws = 3, 20_000
    ids = draw(process, schedule, draws)
    counts = torch.bincount(ids @ torch.tensor([N**2, N, 1]), minlength=N**d)
    expected = ordinary(model_law(toy(process), process, schedule, d), N, d)
    assert chi_square(counts, expected * draws) > 1e-4


# -------------------------------------------------------------------------------------------------
# 36: masks and prompts


@each_schedule
@each_process
def test_36_no_mask_is_left_and_given_tokens_stay(process, schedule):
    """Every sampler: it works, or is refused. Nothing, a prompt, an infill, an end and all given,
    in one batch.
    """
    d, rows = 3, 100
    given = torch.full((rows, d), N)
    given[1::5, 0], given[2::5, 1], given[3::5, 2], given[4::5] = 2, 1, 0, torch.arange(d)
    for sampler in samplers(process, schedule):
        done = denoise(
            toy(process), process, schedule, sampler, Noise(0, torch.arange(rows)), given
        )
        assert ((done.ids >= 0) & (done.ids < N)).all(), sampler
        kept = given < N
        assert torch.equal(done.ids[kept], given[kept]), sampler
        assert (done.nfe <= len(sampler.stages) * (schedule.calls(d) + d)).all()
        assert (done.nfe[4::5] == 0).all(), "given tokens cost a call"


@pytest.mark.parametrize("schedule", [QuenchedAR(), Flat(2), Slide(2, 1)], ids=name)
@pytest.mark.parametrize(
    "process", [Absorbing(), GammaHybrid(0.3), EpsilonHybrid(0.3), GIDD()], ids=name
)
def test_36_given_tokens_are_seen_and_the_rest_follows_the_conditional_chain(process, schedule):
    """Infilling: the chain with the given position at t = 0 throughout, enumerated."""
    d, draws, net, i, token = 3, 20_000, toy(process), 1, 2
    z, T = states(N, d), schedule.T
    start = [prior(process, N) for _ in range(d)]
    start[i] = torch.nn.functional.one_hot(torch.tensor(token), N + 1).double()
    p = joint(torch.stack(start))
    for k in range(calls(schedule, d)):
        before, after = levels(schedule, k, d), levels(schedule, k + 1, d)
        fed = [j for j in range(d) if before[j] == 0 or after[j] < T]
        t = [0.0 if j == i else before[j] / T for j in range(d)]
        laws = torch.nn.functional.one_hot(z, N + 1).double()
        for j in range(d):
            if j != i and after[j] < before[j]:
                laws[:, j] = plug_in(process, net.cavity(z, t, fed, j), z[:, j], after[j] / T, t[j])
        p = p @ joint(laws)
    given = torch.full((draws, d), N)
    given[:, i] = token
    ids = denoise(net, process, schedule, Ancestral(), Noise(0, torch.arange(draws)), given).ids
    counts = torch.bincount(ids @ torch.tensor([N**2, N, 1]), minlength=N**d)
    assert chi_square(counts, ordinary(p, N, d) * draws) > 1e-4


def test_36_temperature_reaches_the_drawn_law_once():
    """Quenched AR at T = 1/2: the first token of 50,000 sequences follows softmax(l/T)."""
    process, net, rows = Absorbing(), toy(Absorbing()), 50_000
    logits = net.cavity(torch.full((1, 3), N), [1.0] * 3, [0], 0).log()
    given = torch.full((rows, 3), N)
    done = denoise(
        net,
        process,
        QuenchedAR(),
        Ancestral(),
        Noise(0, torch.arange(rows)),
        given,
        filter=temperature(0.5),
    )
    assert (
        chi_square(
            torch.bincount(done.ids[:, 0], minlength=N), (logits / 0.5).softmax(-1)[0] * rows
        )
        > 1e-4
    )


def copied(logits: torch.Tensor, where: Where) -> torch.Tensor:
    """A filter that leaves one token: the first of its sequence plus its position, modulo N."""
    token = (where.ids[where.sequence, 0] + where.position) % N
    return torch.zeros_like(logits).scatter(-1, token[:, None], 1e9)


@pytest.mark.parametrize("schedule", [QuenchedAR(), Flat(4), Slide(2, 1), Block(2, 3)], ids=name)
@pytest.mark.parametrize(
    "sampler", [Ancestral(), ReMDM(), PublishedACS(0.9), FirstHitting(), Confidence()], ids=name
)
def test_36_a_filter_knows_sequence_position_and_tokens(schedule, sampler):
    """In windows, of sequences of which some have ended: every token is the one its filter left."""
    process = EpsilonHybrid(0.3) if isinstance(sampler, PublishedACS) else Absorbing()
    if not allowed(sampler, process, schedule):
        return
    rows, d = 9, 6
    given = torch.full((rows, d), N)
    given[:, 0] = torch.arange(rows) % N
    given[::2, 4] = 0
    ids = denoise(
        toy(process),
        process,
        schedule,
        sampler,
        Noise(0, torch.arange(rows)),
        ids=given,
        filter=copied,
        eos=N - 1,
    ).ids
    expected = torch.where(given < N, given, (given[:, :1] + torch.arange(d)) % N)
    ended = ((expected == N - 1) & (given == N)).cumsum(-1) - (expected == N - 1).long() > 0
    ended[::2] = False  # an infill goes on
    assert torch.equal(ids[~ended], expected[~ended]) and ended.any()


# -------------------------------------------------------------------------------------------------
# the loop's own


@pytest.mark.parametrize("schedule", [QuenchedAR(), Flat(4), Slide(2, 1)], ids=name)
@pytest.mark.parametrize(
    "process", [Uniform(), GammaHybrid(0.3), EpsilonHybrid(0.3), GIDD()], ids=name
)
def test_a_rows_sample_knows_neither_batch_nor_order(process, schedule):
    net, rows = toy(process), 12
    given = torch.full((rows, 5), N)
    given[::3, 2] = 1
    for sampler in samplers(process, schedule):

        def ids(order: list[int], sampler=sampler):
            index = torch.tensor(order)
            return denoise(net, process, schedule, sampler, Noise(7, index), given[index]).ids

        together = ids(list(range(rows)))
        shuffled = [5, 2, 11, 0, 7]
        assert torch.equal(ids(shuffled), together[shuffled])
        assert torch.equal(torch.cat([ids([i]) for i in range(rows)]), together)
        other = denoise(net, process, schedule, sampler, Noise(8, torch.arange(rows)), given).ids
        assert not torch.equal(other, together)


def test_noise_at_names_another_step_of_the_same_rows():
    like, noise = torch.zeros(4, 6), Noise(0, torch.arange(4))
    first, second = (noise.at(step).positions(like, Stream.TOKEN) for step in (0, 1))
    assert (first != second).all()
    assert torch.equal(noise.at(3).at(0).positions(like, Stream.TOKEN), first)
    by_row = noise.at(torch.tensor([0, 1, 0, 1])).positions(like, Stream.TOKEN)
    assert torch.equal(by_row[0], first[0])
    assert torch.equal(by_row[1], second[1])


def test_calls_are_counted_and_reported():
    seen = []
    given = torch.full((2, 3), N)
    schedule, process = Slide(2, 1), SmoothEpsilonHybrid(0.3)
    done = denoise(
        toy(process),
        process,
        schedule,
        Ancestral(),
        Noise(0, torch.arange(2)),
        given,
        on_call=lambda state: seen.append(state.ids.clone()),
    )
    assert 3 <= len(seen) <= 6  # the noise, at most K = 4 calls, the end
    assert torch.equal(seen[-1], done.ids)
    assert 1 <= done.nfe.max() <= len(seen) - 2


def test_unusable_choices_are_refused():
    process, given = Absorbing(), torch.full((1, 3), N)
    with pytest.raises(ValueError, match="never wrong"):
        denoise(toy(process), process, Flat(2), ACS(eta=0.1), Noise(0, torch.arange(1)), given)
    shifted = toy(process)
    shifted.shifted = True
    with pytest.raises(ValueError, match="left to right"):
        denoise(
            shifted,
            process,
            StartSteps(1, (2, 0, 1)),
            Ancestral(),
            Noise(0, torch.arange(1)),
            given,
        )
