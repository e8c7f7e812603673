"""`Model.generate`: three lines of Python, prompts, infilling, seeds and refusals."""

import dataclasses

import pytest
import tiny
import torch

import textdiff
from textdiff.denoiser.prediction import Prediction
from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide, StartSteps, TightBlock
from textdiff.model.model import Model
from textdiff.network import TransformerConfig, TransformerDenoiser
from textdiff.process import Absorbing, GammaHybrid
from textdiff.samplers import ACS, PublishedACS


@pytest.fixture(scope="module")
def model():
    return textdiff.load(tiny.run())


def made(model, process=Absorbing(), schedule=Flat(4), **options):  # noqa: B008
    """A small random network with the toy's tokenizer."""
    torch.manual_seed(0)
    N = model.network.num_tokens
    config = TransformerConfig(
        num_tokens=N, layers=1, width=16, heads=2, conditioned=process.needs_time, **options
    )
    network = TransformerDenoiser(config).eval()
    if network.output is not None:
        torch.nn.init.normal_(network.output.weight)
    return Model(network, process, schedule, model.tokenizer, 16)


def test_three_lines():
    import textdiff

    model = textdiff.load(tiny.run())
    samples = model.generate("the ", num_return_sequences=3)
    assert len(samples.texts) == len(set(samples.texts)) == 3 and all(
        text.startswith("the ") for text in samples.texts
    )
    assert (
        samples.tokens == 3 * 12
        and samples.tokens_per_second > 0
        and all(0 < nfe <= 64 for nfe in samples.nfe)
    )
    assert all(len(ids) == 16 and int(ids.max()) < model.network.num_tokens for ids in samples.ids)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hyperschedule": Block(4, 3)},
        {"hyperschedule": TightBlock(4, 3)},
        {"hyperschedule": Slide(5, "3/2")},
        {"hyperschedule": QuenchedAR()},
        {"hyperschedule": StartSteps(2, tuple(range(15, -1, -1)))},
        {"sampler": ACS(rate=3.0)},
        {"sampler": PublishedACS(0.5)},
        {"temperature": 0.5},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:this model was trained under")
def test_a_sample_depends_on_its_seed_and_number_only(model, options):
    prompts = ["the ", "five [MASK][MASK][MASK]zen", "q"]
    one, five = (
        model.generate(
            prompts, num_return_sequences=2, max_length=16, seed=3, batch_size=size, **options
        )
        for size in (1, 5)
    )
    assert one.texts == five.texts and len(one.texts) == 6
    assert all(int(ids.max()) < model.network.num_tokens for ids in one.ids)  # no MASK is left
    assert one.texts[2].startswith("five ") and one.texts[2][8:11] == "zen"
    assert (
        model.generate(prompts, num_return_sequences=2, max_length=16, seed=4, **options).texts
        != one.texts
    )
    assert (
        model.generate(prompts[1:], max_length=16, seed=3, first=2, **options).texts[0]
        == one.texts[2]
    )


def test_a_generator_is_a_seed(model):
    def generator(seed):
        return torch.Generator().manual_seed(seed)

    assert model.generate(seed=generator(1)).texts == model.generate(seed=generator(1)).texts
    same = generator(1)
    assert model.generate(seed=same).texts != model.generate(seed=same).texts
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model.generate()
    assert torch.equal(torch.get_rng_state(), state)


def test_infilling_keeps_what_is_given(model):
    text = "the [MASK][MASK][MASK][MASK]k brown"
    given, ids = model.encode(text), model.generate(text, seed=2).ids[0]
    kept = given < model.network.num_tokens
    assert (
        len(ids) == len(given) == 15
        and torch.equal(ids[kept], given[kept])
        and int((~kept).sum()) == 4
    )
    assert model.generate("the quick", max_length=9).texts == ["the quick"]
    assert model.generate("the quick", max_length=9).nfe == [0]


def test_encode_and_decode(model):
    N, text = model.network.num_tokens, "the [MASK]x[MASK]"
    ids = model.encode(text)
    assert len(ids) == 7 and (ids == N).nonzero().flatten().tolist() == [4, 6]
    assert model.decode(ids) == text and model.encode("").shape == (0,)


def test_the_greedy_limit_is_the_argmax(model):
    toy = made(model, schedule=QuenchedAR(), shifted=True)
    text = toy.generate("the", temperature=1e-6, max_length=8).ids[0]
    ids = torch.cat([torch.tensor([0]), text])[None]
    greedy = toy.network(ids)[0].argmax(-1)
    assert torch.equal(text[3:], greedy[3:8])


def test_progress_is_told(model):
    calls = []
    model.generate(on_call=lambda state: calls.append(int((state.ids == model.mask_id).sum())))
    masked = calls
    assert 2 < len(calls) <= 65 and masked[0] == 16
    assert masked == sorted(masked, reverse=True) and masked[-1] == 0


def test_another_visibility_is_warned_of(model):
    with pytest.warns(
        UserWarning, match=r"trained under Flat.* under Block.* other contexts and windows"
    ):
        model.generate(hyperschedule=Block(4, 4))


def test_other_levels_are_not(model, recwarn):
    model.generate(hyperschedule=Flat(7))
    assert not recwarn.list


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prompts": "the quick", "max_length": 4}, "have 9 tokens but max_length is 4"),
        ({"max_length": 0}, "max_length must be an integer >= 1, got 0"),
        ({"temperature": 0.0}, "temperature must be > 0"),
        ({"temperature": -1.0}, "temperature must be > 0"),
        ({"sampler": ACS(eta=50.0)}, "exceeds 1 in a step: choose eta"),
        ({"hyperschedule": StartSteps(2, (0, 1))}, "has 2 start steps but the sequence has 16"),
    ],
)
@pytest.mark.filterwarnings("ignore:this model was trained under")
def test_refusals(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**options)


def test_what_does_not_go_together(model):
    with pytest.raises(ValueError, match="a visible token is never wrong"):
        made(model).generate(sampler=ACS(rate=1.0))
    with pytest.raises(ValueError, match="a visible token is never wrong"):
        made(model).generate(sampler=PublishedACS())
    scores = dataclasses.replace(made(model, GammaHybrid(0.3)), prediction=Prediction.LOG_SCORE)
    with pytest.raises(
        ValueError,
        match=r"Ancestral\(\) needs a network that predicts 'cavity', but this one predicts "
        "'log_score'",
    ):
        scores.generate()
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match="shifted layout needs a hyperschedule from left to right"),
    ):
        made(model, schedule=QuenchedAR(), shifted=True).generate(
            hyperschedule=StartSteps(1, (3, 2, 1, 0)), max_length=4
        )
