"""Random process, schedule, layout, documents, padding and sampler against enumeration.

Every run draws other cases. What fails is found again with the seed that it prints:
TEXTDIFF_SEED=... python -m pytest tests/test_fuzz.py; TEXTDIFF_FUZZ=1000 tries more.
"""

import os
import random

import pytest
import torch
from masked_bound import EOS, batch_of, exact, network, rows
from toys import SetNetwork, a_bound, model_law, ordinary, random_transformer, step_bound

from textdiff.denoiser.call import check_layout
from textdiff.denoiser.visibility import ended_before
from textdiff.generation import Engine, Finished, Request
from textdiff.generation.engine import check_sampler, denoise
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
from textdiff.objective import Batch, Stratified
from textdiff.objective.batch import check_packing
from textdiff.process import (
    GIDD,
    SCDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    GammaHybridMaskClock,
    SmoothEpsilonHybrid,
    Uniform,
)
from textdiff.samplers import (
    ACS,
    Ancestral,
    Capped,
    Confidence,
    Count,
    Editing,
    EntropyBound,
    FirstHitting,
    GibbsCorrector,
    InformedACS,
    Margin,
    PosteriorCorrector,
    PredictorCorrector,
    PublishedACS,
    ReMDM,
    Rescaled,
    Threshold,
)

COUNT = int(os.environ.get("TEXTDIFF_FUZZ", "600"))
FAR = 6.0  # standard errors: some 1e-8 a comparison


@pytest.fixture
def drawn():
    """A random generator whose seed is printed."""
    seed = int(os.environ.get("TEXTDIFF_SEED", random.randrange(2**32)))
    print(f"TEXTDIFF_SEED={seed} TEXTDIFF_FUZZ={COUNT}")
    return random.Random(seed)


def some_process(drawn: random.Random):
    """Any process, any strength."""
    p = drawn.uniform(0.01, 0.9)
    return drawn.choice(
        [
            Absorbing(),
            Uniform(),
            GammaHybrid(p, tail=drawn.choice([0.0, 0.1])) if p < 0.8 else GammaHybrid(p),
            GammaHybridMaskClock(p),
            EpsilonHybrid(p),
            SmoothEpsilonHybrid(p, power=drawn.uniform(1, 4)),
            GIDD(uniform=p, shape=drawn.uniform(0.5, 1.99)),
            SCDD(uniform=p, shape=drawn.uniform(0.5, 1.2), t_peak=drawn.uniform(0.2, 0.8)),
        ]
    )


def some_schedule(drawn: random.Random, d: int, is_flat: bool = True):
    """Any hyperschedule of few levels."""
    width, T = drawn.randint(1, d), drawn.randint(1, 3)
    choices = [
        QuenchedAR(),
        Block(width, T, block_causal=drawn.random() < 0.3),
        Slide(width, drawn.choice([1, 2, "1/2", "3/2"])),
        TightBlock(width, T + 1),
        OverlapBlock(width, drawn.randint(1, T), T, block_causal=drawn.random() < 0.3),
    ]
    if is_flat:
        steps = tuple(drawn.randint(0, 3) for _ in range(d))
        choices += [Flat(T), StartSteps(T, steps)]
    return drawn.choice(choices)


def some_sampler(drawn: random.Random):
    """Any sampler of cavity predictions."""
    select = [Count(drawn.randint(1, 3)), Threshold(drawn.uniform(0.3, 0.9)), EntropyBound(0.4)]
    eta = drawn.uniform(0.01, 1)
    return drawn.choice(
        [
            Ancestral(),
            ACS(eta=eta),
            ACS(rate=drawn.uniform(0.1, 8)),
            InformedACS(eta=eta),
            PublishedACS(eta),
            ReMDM(Rescaled(eta)),
            ReMDM(Capped(eta)),
            FirstHitting(),
            Confidence(score=Margin(), select=drawn.choice(select)),
            Confidence(select=drawn.choice(select)),
            PredictorCorrector(corrector=GibbsCorrector()),
            PredictorCorrector(corrector=Editing(0.5)),
            PredictorCorrector(corrector=Editing(0.5, remask=True)),
            PredictorCorrector(corrector=PosteriorCorrector(), corrections=2),
        ]
    )


def test_samples_follow_the_law_and_draws_the_bound(drawn):
    """Ancestral samples against the enumerated chain, draws of the bound against the enumerated
    one, and no number below the entropy: Σ exp(-bound) <= 1.
    """
    N, many = 2, 3000
    for _ in range(COUNT):
        d = drawn.choice([2, 3])
        process, schedule = some_process(drawn), some_schedule(drawn, d)
        net = SetNetwork(N, process.needs_time, drawn.randrange(99), drawn.uniform(0.3, 2))
        case = f"{process} under {schedule}, {d} tokens"
        law = ordinary(model_law(net, process, schedule, d), N, d)
        noise = Noise(drawn.randrange(2**31), torch.arange(many))
        found = denoise(net, process, schedule, Ancestral(), noise, torch.full((many, d), N)).ids
        code = found @ torch.tensor([N**i for i in reversed(range(d))])
        counts = torch.bincount(code, minlength=N**d)
        far = (counts - many * law) / (many * law * (1 - law) + 1).sqrt()
        assert far.abs().max() < FAR, case

        wanted = step_bound(net, process, schedule, d)
        assert (-wanted).exp().sum() <= 1 + 1e-9, case
        x = torch.randint(N, (d,), generator=torch.Generator().manual_seed(drawn.randrange(99)))
        row = torch.arange(many)
        batch = Batch(x.expand(many, d), row, row)
        bound = a_bound(process, schedule, estimator=Stratified(discrete=True))
        nats = bound.nats(net, batch, noise).values.sum(-1)
        truth = wanted[int(x @ torch.tensor([N**i for i in reversed(range(d))]))]
        error = float(nats.std()) / many**0.5 + 1e-9
        assert abs(float(nats.mean()) - float(truth)) < FAR * error + 1e-6, case


def test_no_number_lies_below_the_entropy(drawn):
    """Whatever documents, padding, layout and schedule are taken: the chances of all texts, exp of
    minus their nats, sum to at most one.
    """
    for _ in range(COUNT):
        layout = drawn.choice(["aligned", "shifted"])
        documents = drawn.choice(["joined", "separate"])
        padding = drawn.choice(["learnt", "ignored"])
        schedule = some_schedule(drawn, 4)
        case = f"{layout}, {documents}, {padding}, {schedule}"
        try:
            check_packing(schedule, 4, documents, padding)
            check_layout(network(layout), schedule, 4)
        except ValueError:
            continue
        ids = rows()
        fields = {"document": ended_before(ids, EOS)} if documents == "separate" else {}
        if padding == "ignored":  # a text is a row up to its first EOS, filled with EOS
            ended = (ids == EOS).cumsum(-1)
            ids = torch.where(ended > 0, EOS, ids).unique(dim=0)
            ended = (ids == EOS).long().cumsum(-1)
            fields = {"valid": ended <= 1}
            if documents == "separate":
                fields["document"] = ended_before(ids, EOS)
        chances = (-exact(network(layout), schedule, batch_of(ids, **fields))).exp()
        assert chances.sum() <= 1 + 1e-9, case


def test_whoever_shares_a_call_changes_nothing(drawn):
    """Any mix in an engine, cached or not, copied or not, gives each the ids it has alone."""
    N, most = 4, 9
    for _ in range(max(COUNT // 5, 2)):
        process, layout = some_process(drawn), drawn.choice(["aligned", "shifted"])
        net = random_transformer(N, process.needs_time, layout=layout)
        wanted = []
        while len(wanted) < 6:
            d = drawn.randint(1, most)
            schedule, sampler = some_schedule(drawn, d), some_sampler(drawn)
            ids = torch.tensor(
                [N if drawn.random() < 0.7 else drawn.randrange(N) for _ in range(d)]
            )
            try:
                check_sampler(sampler, process, schedule, d)
                check_layout(net, schedule, d)
            except ValueError:
                continue
            wanted.append(Request(ids, schedule, sampler, drawn.randrange(9), len(wanted)))
        options = {"max_sequences": drawn.randint(1, 6), "prefill_chunk": drawn.randint(1, 4)}
        cached = drawn.random() < 0.7
        engine = Engine(net, process, max_length=most, use_cache=cached, **options)
        engine.calls.copies = drawn.random() < 0.5
        handles, ends = {}, {}
        for request in wanted:
            handles[engine.submit(request)] = request
            for event in engine.step() if drawn.random() < 0.5 else ():
                ends |= {event.handle: event} if isinstance(event, Finished) else {}
        while engine.busy:
            ends |= {e.handle: e for e in engine.step() if isinstance(e, Finished)}
        for handle, one in handles.items():
            noise = Noise(one.seed, torch.tensor([one.example]))
            alone = denoise(net, process, one.schedule, one.sampler, noise, one.ids[None])
            assert torch.equal(ends[handle].ids, alone.ids[0]), (process, layout, one)
            assert ends[handle].nfe == int(alone.nfe[0]), (process, layout, one)
