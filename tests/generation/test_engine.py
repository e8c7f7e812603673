"""The engine: each sequence of any mix gets the very ids that it has alone."""

import random

import pytest
import torch
from toys import random_transformer, toy

from textdiff.generation import Committed, Engine, Finished, Provisional, Request, denoise
from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide, StartSteps
from textdiff.noise import Noise, Stream
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid
from textdiff.samplers import (
    ACS,
    Ancestral,
    Confidence,
    Count,
    FirstHitting,
    GibbsCorrector,
    InformedACS,
    PredictorCorrector,
    ReMDM,
    Rescaled,
    temperature,
)

N, MOST = 5, 12
SHARE = 6  # requests in each of twelve mixes; more take longer than a test should
WARM = temperature(0.7)
SAMPLERS = [
    Ancestral(),
    ACS(eta=0.4),
    InformedACS(eta=0.4),
    ReMDM(Rescaled(0.5)),
    Confidence(select=Count(2)),
    FirstHitting(),
    PredictorCorrector(Ancestral(), GibbsCorrector(), 1),
    PredictorCorrector(FirstHitting(), GibbsCorrector(), 1),
]


def schedules(shifted: bool, L: int):
    chosen = [QuenchedAR(), Flat(3), Block(3, 4), Block(2, 2), Slide(4, 2), Slide(3, 1)]
    if not shifted:
        chosen.append(StartSteps(2, tuple((5 * i) % L for i in range(L))))
    return chosen


def some_request(draw: random.Random, shifted: bool, example: int, samplers=None) -> Request:
    """Nothing, a prompt or an infill, under any schedule and a sampler that goes with it."""
    L = draw.randint(1, MOST)
    schedule = draw.choice(schedules(shifted, L))
    sampler = draw.choice(SAMPLERS if samplers is None else samplers)
    if sampler.own_times and not schedule.plan(L).apart:
        sampler = Ancestral()
    ids = torch.full((L,), N)
    kind = draw.randrange(3)
    if kind == 1:
        ids[: draw.randint(0, L)] = draw.randrange(N)
    if kind == 2:
        ids[torch.tensor([draw.random() < 0.4 for _ in range(L)])] = draw.randrange(N)
    eos = draw.choice([(), (2,), (0, 3)])
    options = {"filter": WARM} if draw.random() < 0.3 else {}
    return Request(
        ids, schedule, sampler, draw.randrange(3), example, eos=eos, provisional=True, **options
    )


def alone(network, process, request: Request, apart=None) -> tuple[torch.Tensor, int]:
    """Ids up to the end, and nfe, of the request by itself."""
    done = denoise(
        network,
        process,
        request.schedule,
        request.sampler,
        Noise(request.seed, torch.tensor([request.example])),
        request.ids[None],
        filter=request.filter,
        eos=request.eos or None,
        apart=apart,
    )
    ids, free = done.ids[0], request.ids == N
    is_tail = bool(free.any()) and bool(free[int(free.long().argmax()) :].all())
    ends = (free & torch.isin(ids, torch.tensor(request.eos or (-1,)))).nonzero()
    if is_tail and len(ends):
        ids = ids[: int(ends[0]) + 1]
    return ids, int(done.nfe[0])


def run(engine: Engine, wanted: list[Request], draw: random.Random):
    """Every request at a step of its own, some cancelled on their way; what came of each."""
    queue, events, cancelled = list(wanted), {}, set()
    handles = {}
    while queue or engine.busy:
        while queue and draw.random() < 0.5:
            request = queue.pop(0)
            handles[engine.submit(request)] = request
        for event in engine.step():
            events.setdefault(event.handle, []).append(event)
        if handles and draw.random() < 0.03:
            handle = draw.choice(list(handles))
            if engine.cancel(handle):
                cancelled.add(handle)
    assert engine.running == 0 and engine.waiting == 0
    return {h: (handles[h], events.get(h, [])) for h in handles if h not in cancelled}


def check(network, process, requests, engine, draw, apart=None):
    for request, events in run(engine, requests, draw).values():
        ids, nfe = alone(network, process, request, apart)
        *others, last = events
        assert isinstance(last, Finished)
        assert torch.equal(last.ids, ids), (request, last.ids, ids)
        assert last.nfe == nfe
        committed = [e for e in others if isinstance(e, Committed)]
        places = [p for e in committed for p in e.position if p < len(ids)]
        tokens = [
            t for e in committed for p, t in zip(e.position, e.ids, strict=True) if p < len(ids)
        ]
        assert sorted(places) == (request.ids[: len(ids)] == N).nonzero()[:, 0].tolist()
        assert ids[places].tolist() == tokens
        assert sum(isinstance(e, Provisional) for e in others) == nfe


@pytest.mark.parametrize("process", [Absorbing(), EpsilonHybrid(0.3), GammaHybrid(0.3)])
@pytest.mark.parametrize("layout", ["aligned", "shifted"])
@pytest.mark.parametrize("use_cache", [True, "copied", False])
def test_a_mix_gives_each_the_ids_it_has_alone(process, layout, use_cache):
    draw = random.Random(f"{process} {layout}")
    network = random_transformer(N, process.needs_time, layout=layout)
    samplers = SAMPLERS
    if not process.corrupts:
        samplers = [Ancestral(), ReMDM(Rescaled(0.5)), Confidence(select=Count(2)), FirstHitting()]
    if isinstance(process, GammaHybrid):
        samplers = [Ancestral(), ACS(eta=0.4), InformedACS(eta=0.4), ReMDM(Rescaled(0.5))]
    requests = [some_request(draw, layout == "shifted", n, samplers) for n in range(SHARE)]
    options = {"max_sequences": 6, "max_length": MOST, "prefill_chunk": 2}
    engine = Engine(network, process, use_cache=bool(use_cache), **options)
    engine.calls.copies = use_cache == "copied"  # as on a GPU
    check(network, process, requests, engine, draw)


def test_columns_that_pad_are_fed_at_other_places_than_kept_rows():
    """A row that stays and is a window's stands behind the columns that pad the context."""
    process = EpsilonHybrid(0.3)
    network = random_transformer(N, process.needs_time, layout="shifted")
    engine = Engine(network, process, max_sequences=2, max_length=MOST)
    given = torch.full((MOST,), N)
    behind = given.clone()
    behind[0:MOST:2] = 1
    wanted = [
        Request(ids, QuenchedAR(), Ancestral(), 2, n) for n, ids in enumerate((given, behind))
    ]
    for request in wanted:
        engine.submit(request)
    done = {}
    while engine.busy:
        done |= {e.handle: e.ids for e in engine.step() if isinstance(e, Finished)}
    for handle, request in enumerate(wanted):
        assert torch.equal(done[handle], alone(network, process, request)[0])


def test_noise_of_each_sequence():
    """(v): seeds, steps and places of each sequence name what they name alone."""
    example, place = torch.tensor([4, 9]), torch.tensor([[3, 4], [0, 7]])
    seeds, steps = torch.tensor([1, 2]), torch.tensor([5, 6])
    together = Noise(seeds, example, steps, place).positions(torch.zeros(2, 2), Stream.TOKEN)
    for b in range(2):
        noise = Noise(int(seeds[b]), example[b : b + 1], int(steps[b]), place[b])
        assert torch.equal(noise.positions(torch.zeros(1, 2), Stream.TOKEN)[0], together[b])


def test_what_does_not_fit_is_refused():
    network = random_transformer(N, False)
    engine = Engine(network, Absorbing(), max_sequences=1, max_length=3)
    with pytest.raises(ValueError, match="max_length"):
        engine.submit(Request(torch.full((4,), N), Flat(2), Ancestral()))
    with pytest.raises(ValueError, match="max_sequences"):
        Engine(network, Absorbing(), max_sequences=0, max_length=3)
    with pytest.raises(ValueError, match="own times"):
        engine.submit(Request(torch.full((3,), N), Slide(2, 1), FirstHitting()))
    assert not engine.cancel(7) and not engine.busy


def test_networks_that_cannot_be_cached():
    process, draw = EpsilonHybrid(0.3), random.Random(1)
    network = toy(process, N=N)
    network.code = network.code.repeat(2, 1, 1)
    network.slope = network.slope.repeat(2, 1, 1)
    network.own = torch.randn(16, 5, dtype=torch.float64)
    requests = [some_request(draw, False, n) for n in range(8)]
    engine = Engine(network, process, max_sequences=5, max_length=MOST)
    check(network, process, requests, engine, draw)
    with pytest.raises(ValueError, match="use_cache=False"):
        Engine(network, process, max_sequences=5, max_length=MOST, use_cache=True)


@pytest.mark.parametrize("layout", ["aligned", "shifted"])
@pytest.mark.parametrize("use_cache", [True, "copied", False])
def test_documents_apart(layout, use_cache):
    process, draw = EpsilonHybrid(0.3), random.Random(2)
    network = random_transformer(N, process.needs_time, layout=layout)
    requests = [some_request(draw, True, n) for n in range(8)]
    options = {"max_sequences": 6, "max_length": MOST, "prefill_chunk": 3}
    engine = Engine(network, process, apart=2, use_cache=bool(use_cache), **options)
    engine.calls.copies = use_cache == "copied"
    check(network, process, requests, engine, draw, apart=2)
