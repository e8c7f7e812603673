"""Drafts change nothing: whatever drafts, the tokens are those of quenched AR (`maths.md` 10.6)."""

from __future__ import annotations

from itertools import pairwise

import pytest
import tiny
import torch
from toys import random_transformer

import textdiff
from textdiff.generation.engine import denoise
from textdiff.hyperschedule import Block, QuenchedAR
from textdiff.noise import Noise
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid, Uniform
from textdiff.samplers import (
    ACS,
    Ancestral,
    Confidence,
    Count,
    FirstHitting,
    SelfSpeculative,
    temperature,
    top_k,
)

N, L, B = 5, 11, 6
EOS = 2
DRAFTS = [
    SelfSpeculative(width=3),
    SelfSpeculative(width=1),
    SelfSpeculative(width=20, levels=2),
    SelfSpeculative(FirstHitting(), width=4),
    SelfSpeculative(Confidence(select=Count(2)), width=5),
]


def network(layout: str, sees_time: bool = False):
    return random_transformer(N, sees_time, layout=layout, layers=2).double().eval()


def both(net, process, sampler, ids, **options):
    """The same draws by quenched AR one by one, and by drafts."""
    noise = Noise(7, torch.arange(len(ids)))
    given = (net, process, QuenchedAR())
    return [
        denoise(*given, how, noise, ids=ids.clone(), **options) for how in (Ancestral(), sampler)
    ]


def unknown(rows: int = B) -> torch.Tensor:
    return torch.full((rows, L), N)


@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("layout", ["aligned", "shifted"])
@pytest.mark.parametrize("sampler", DRAFTS, ids=str)
def test_50_any_draft_gives_the_tokens_of_quenched_ar(sampler, layout, use_cache):
    expected, found = both(network(layout), Absorbing(), sampler, unknown(), use_cache=use_cache)
    assert found.ids.equal(expected.ids)
    assert (found.nfe > 0).all()


@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("layout", ["aligned", "shifted"])
@pytest.mark.parametrize(
    ("process", "sampler"),
    [
        (EpsilonHybrid(0.2), SelfSpeculative(ACS(eta=0.3), width=4, levels=3)),
        (EpsilonHybrid(0.2), SelfSpeculative(width=4, levels=2)),
        (GammaHybrid(0.4), SelfSpeculative(width=3, levels=2)),
        (Uniform(), SelfSpeculative(width=3, levels=2)),
    ],
    ids=str,
)
def test_under_every_noise(process, sampler, layout, use_cache):
    net = network(layout, sees_time=process.needs_time)
    expected, found = both(net, process, sampler, unknown(), use_cache=use_cache)
    assert found.ids.equal(expected.ids)


@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("layout", ["aligned", "shifted"])
@pytest.mark.parametrize("apart", [None, EOS])
def test_with_prompts_gaps_ends_filters_and_documents(layout, use_cache, apart):
    ids = unknown()
    ids[:, :2] = 1
    ids[1, 5] = 3  # gaps
    ids[2, 7:] = 4
    ids[3] = torch.arange(L) % N  # nothing to draw
    ids[4, 3:9] = EOS
    end = torch.tensor([L, L, L, L, L, 6])
    ids[5, 6:] = 0
    for options in (
        {"filter": top_k(2)},
        {"filter": temperature(0.7), "eos": EOS},
        {"filter": last_is_rare, "end": end},
    ):
        expected, found = both(
            network(layout),
            Absorbing(),
            SelfSpeculative(width=4),
            ids,
            use_cache=use_cache,
            apart=apart,
            **options,
        )
        assert found.ids.equal(expected.ids), options


def last_is_rare(logits, where):
    """A filter that looks at the tokens before: not the one that stands there twice."""
    ids = torch.nn.functional.pad(where.ids, (2, 0), value=-1)
    row = where.sequence
    one, two = (ids[row, where.position + n] for n in (0, 1))
    again = (one == two) & (two >= 0) & (two < N)
    ban = torch.nn.functional.one_hot(two.clamp(0, N - 1), N).bool() & again[:, None]
    return logits.masked_fill(ban, -torch.inf)


def test_a_draft_that_is_right_settles_all_that_it_drafts_and_one_more():
    """A network that looks at nothing has the same laws in a draft and alone."""
    net = network("aligned")
    for block in net.blocks:
        block.out.weight.data.zero_()
    sampler = SelfSpeculative(width=4)
    expected, found = both(net, Absorbing(), sampler, unknown(), use_cache=True)
    assert found.ids.equal(expected.ids)
    assert found.nfe.tolist() == [2 * 2 + 1] * B  # 5 + 5 + 1 tokens, the last without a draft
    assert expected.nfe.tolist() == [L] * B


def test_frames_are_told_and_tokens_settle_from_left_to_right():
    frames = []
    noise = Noise(7, torch.arange(2))
    drawn = denoise(
        network("shifted"),
        Absorbing(),
        QuenchedAR(),
        SelfSpeculative(width=3),
        noise,
        ids=unknown(2),
        on_call=lambda frame: frames.append((frame.call, frame.ids.clone(), frame.t.clone())),
    )
    assert [frame[0] for frame in frames].count(0) == 1
    assert frames[0][0] == 0 and frames[-1][0] == int(drawn.nfe.sum())
    assert (frames[-1][2] == 0).all() and frames[-1][1].equal(drawn.ids)
    for (_, ids, t), (_, later, _) in pairwise(frames):
        assert later[t == 0].equal(ids[t == 0])


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"eos_token_id": None}])
def test_generate_tells_the_same_of_it(options):
    """Texts and log-probabilities."""
    model = textdiff.load(tiny.run("ar"))
    model.network.double()
    asked = {"hyperschedule": QuenchedAR(), "seed": 3, "logprobs": True, "max_new_tokens": 12}
    asked |= options
    expected = model.generate("the ", sampler=Ancestral(), num_return_sequences=3, **asked)
    found = model.generate(
        "the ", sampler=SelfSpeculative(width=3), num_return_sequences=3, **asked
    )
    assert found.texts == expected.texts
    for one, other in zip(found.logprobs, expected.logprobs, strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="one sequence at a time, in `generate`: here use"):
        list(model.stream("the ", sampler=SelfSpeculative(width=3), **asked))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="use hyperschedule QuenchedAR"):
        denoise(
            network("aligned"),
            Absorbing(),
            Block(4, 4),
            SelfSpeculative(),
            Noise(0, torch.arange(1)),
            ids=unknown(1),
        )
    with pytest.raises(ValueError, match="width must be"):
        SelfSpeculative(width=0)
    with pytest.raises(ValueError, match="name the sampler of the draft"):
        SelfSpeculative(SelfSpeculative())
