"""`Model.stream` and `Model.engine`: what is told, in which order, and that it is `generate`'s
text; stop strings and the filters that look at where a token stands.
"""

import math

import pytest
import tiny
import torch

import textdiff
from textdiff.generation.config import GenerationConfig
from textdiff.generation.events import Provisional
from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide, StartSteps
from textdiff.model.prefix import PARTIAL, Prefix
from textdiff.model.streaming import Committed, Finished
from textdiff.samplers import ACS, FirstHitting

pytestmark = pytest.mark.filterwarnings("ignore:this model was trained under", "ignore:.*settle")
SCHEDULES = [QuenchedAR(), Block(4, 3), Slide(4, 1), Flat(4)]


@pytest.fixture(scope="module")
def model():
    found = textdiff.load(tiny.run())
    found.network.double()
    return found


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """A model of noise that only masks."""
    return textdiff.load(tiny.fit(tmp_path_factory.mktemp("mdlm"), model="mdlm"))


def said(events) -> str:
    return "".join(e.text if isinstance(e, Committed) else e.tail for e in events)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("suffix", ["", " dog"])
def test_a_stream_says_what_generate_says(model, schedule, suffix):
    options = {"max_new_tokens": 10, "hyperschedule": schedule, "seed": 3, "suffix": suffix}
    events = list(model.stream("the ", **options))
    told = model.generate("the ", **options)
    end = events[-1]
    assert isinstance(end, Finished) and end.reason == "length"
    assert torch.equal(end.ids, told.ids[0]) and end.text == told.texts[0]
    assert end.completion == told.completions[0] and end.nfe == told.nfe[0] and end.tokens == 10
    assert said(e for e in events if not isinstance(e, Provisional)) == end.completion
    committed = [e for e in events if isinstance(e, Committed)]
    placed = {p: i for e in committed for p, i in zip(e.position, e.ids, strict=True)}
    assert sorted(placed) == list(range(4, 14))
    assert all(int(end.ids[place]) == token for place, token in placed.items())


def test_the_window_is_told_after_every_call(model):
    events = list(model.stream("the ", max_new_tokens=8, hyperschedule=Block(4, 4), seed=1))
    windows = [e for e in events if isinstance(e, Provisional)]
    assert [e.nfe for e in windows] == list(range(1, events[-1].nfe + 1))
    assert {e.position for e in windows} <= {tuple(range(b, b + 4)) for b in (0, 4, 8)}
    sure = [p for e in windows for p, i in zip(e.confidence, e.ids, strict=True) if i < 27]
    assert any(0 < p < 1 for p in sure)
    quiet = list(model.stream("the ", max_new_tokens=8, seed=1, provisional=False))
    assert not any(isinstance(e, Provisional) for e in quiet)


def test_what_has_settled_behind_a_gap_is_not_text_yet(model):
    order = StartSteps(1, (0, 1, 4, 2, 3))
    events = list(model.stream("th", max_new_tokens=3, hyperschedule=order, provisional=False))
    assert [e.position for e in events[:-1]] == [(3,), (4,), (2,)]
    assert [len(e.text) for e in events[:-1]] == [0, 0, 3]


def test_no_ids_are_an_empty_prompt(model):
    told = model.generate("", max_new_tokens=5, seed=2)
    for prompt in ([], "", None, torch.tensor([], dtype=torch.int64)):
        (*_, end) = model.stream(prompt, max_new_tokens=5, seed=2)
        assert end.text == told.texts[0]


def test_requests_mix_and_each_gets_its_own_text(model):
    asked = [
        {"prompt": "the ", "max_new_tokens": 9, "hyperschedule": QuenchedAR(), "seed": 1},
        {"prompt": "quick", "max_new_tokens": 5, "hyperschedule": Block(4, 3), "seed": 2},
        {"prompt": "", "max_new_tokens": 12, "hyperschedule": Flat(6), "sampler": ACS(rate=4.0)},
        {"prompt": "a", "max_new_tokens": 7, "temperature": 0.5, "top_k": 3},
        {"prompt": "fox [MASK][MASK]mps", "hyperschedule": Flat(3), "seed": 9},
        {"prompt": [1, 2], "max_new_tokens": 4, "suffix": "og", "hyperschedule": Flat(3)},
    ]
    engine = model.engine(max_sequences=3, max_length=32)
    handles = {engine.submit(**one, number=n): n for n, one in enumerate(asked)}
    dropped = engine.submit("the ", max_new_tokens=20)
    assert engine.waiting == 7 and engine.cancel(dropped) and not engine.cancel(dropped)
    ends = {}
    while engine.busy:
        ends |= {e.handle: e for e in engine.step() if isinstance(e, Finished)}
    assert ends.keys() == handles.keys()
    for handle, n in handles.items():
        one = dict(asked[n])
        alone = model.generate(one.pop("prompt"), first=n, **one)
        assert ends[handle].text == alone.texts[0] and ends[handle].nfe == alone.nfe[0]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_text_ends_before_a_stop_string(model, schedule):
    options = {"max_new_tokens": 24, "hyperschedule": schedule, "seed": 5}
    free = model.generate("the ", **options)
    completion = free.completions[0]
    stop = completion[11:14]
    first = completion.index(stop)
    cut = model.generate("the ", stop=["never this", stop], **options)
    assert cut.completions[0] == completion[:first] and cut.texts[0] == "the " + completion[:first]
    assert len(cut.ids[0]) == 4 + first  # characters
    *others, end = model.stream("the ", stop=stop, provisional=False, **options)
    assert end.reason == "stop" and end.completion == completion[:first]
    assert said([*others, end]) == completion[:first] and torch.equal(end.ids, cut.ids[0])
    assert end.nfe <= free.nfe[0]
    if schedule == QuenchedAR():
        assert end.nfe == first + 3  # the call that drew the last of the string's characters


def test_what_may_become_a_stop_string_is_held_back(model):
    text = "the quick"
    ids = model.encode(text).tolist()
    parts = [(None, [model.mask_id] * len(ids))]
    prefix = Prefix(model.tokenizer, parts, [True] * len(ids), stop=["he end", "uib"])
    new = [prefix.put([place], [token]) for place, token in enumerate(ids)]
    assert new == ["t", "", "", "", "he q", "", "", "uic", "k"]


class Bytes:
    """A tokenizer of bytes: id b is the byte b."""

    eos_token_id, eos_token = None, None

    def decode(self, ids, skip_special_tokens=False):
        return bytes(ids).decode("utf-8", errors="replace")

    def encode(self, text, **_):
        return list(text.encode())


def test_half_a_character_is_held_back():
    ids = list("a€b".encode())
    prefix = Prefix(Bytes(), [(None, [256] * 5)], [True] * 5)
    assert [prefix.put([i], [token]) for i, token in enumerate(ids)] == ["a", "", "", "€", "b"]
    broken = Prefix(Bytes(), [(None, [256] * 2)], [True] * 2)
    assert broken.put([0, 1], list("€".encode())[:2]) == ""
    assert set(broken.say(broken.text(2))) == {PARTIAL}  # the end comes, and it never was whole


def test_log_probabilities_are_those_of_the_chain_rule(masks):
    """One token a call, temperature 1: their sum is -log p."""
    options = {"max_new_tokens": 6, "hyperschedule": QuenchedAR(), "logprobs": True}
    told = masks.generate(["the ", "a"], **options)
    drawn = told.ids[0][4:].tolist()
    score = masks.score("the ", [drawn], hyperschedule=QuenchedAR())[0]
    assert score.exact and -float(told.logprobs[0].sum()) == pytest.approx(score.nats, abs=1e-4)
    *events, _ = masks.stream("the ", provisional=False, **options)
    assert [e.logprobs[0] for e in events] == pytest.approx(told.logprobs[0].tolist(), abs=1e-5)
    assert masks.generate("a", max_new_tokens=2).logprobs is None


def test_no_end_of_text_before_its_time(masks):
    eos = 5
    options = {"max_new_tokens": 12, "seed": 4, "num_return_sequences": 16, "eos_token_id": eos}
    free = masks.generate(["the ", ""], **options)
    assert min(len(ids) for ids in free.ids[16:]) < 6
    held = masks.generate(["the ", ""], min_new_tokens=6, **options)
    for ids, given in zip(held.ids, [4] * 16 + [0] * 16, strict=True):
        assert eos not in ids[given : given + 6].tolist()
    with pytest.raises(ValueError, match="min_new_tokens=6 needs eos_token_id or stop"):
        GenerationConfig(min_new_tokens=6)


def test_repetition_penalty_is_of_log_probabilities(masks):
    """exp(penalty log p) of a token that stands there, normalised with the others."""
    from textdiff.samplers.filters import Where, repetition_penalty

    logits = torch.tensor([[2.0, 1.0, 0.5], [0.0, 0.0, 3.0]])
    where = Where(torch.tensor([[True], [True]]), None, torch.tensor([[3, 0], [3, 3]]))
    p = logits.double().softmax(-1)
    law = repetition_penalty(2.0)(logits, where).softmax(-1)
    first = torch.stack([p[0, 0] ** 2, p[0, 1], p[0, 2]])
    assert torch.allclose(law, torch.stack([first / first.sum(), p[1]]))
    moved = repetition_penalty(2.0)(logits + 7, where).softmax(-1)
    assert torch.allclose(law, moved)  # whatever constant the logits have

    options = {"max_new_tokens": 24, "hyperschedule": QuenchedAR(), "seed": 1}
    told = masks.generate("", repetition_penalty=1e4, **options).ids[0]
    assert len(set(told.tolist())) == 24  # 28 characters: none comes twice
    assert len(set(masks.generate("", **options).ids[0].tolist())) < 24


def test_a_penalty_needs_noise_that_masks(model):
    with pytest.raises(ValueError, match="repetition_penalty=2 needs noise that only masks"):
        model.generate("", repetition_penalty=2)


def test_a_processor_constrains_what_is_drawn(model):
    """Only the next letter of a circle of three, whatever has settled before."""

    def circle(logits, where):
        wanted = where.position % 3
        return logits.masked_fill(torch.arange(logits.shape[-1]) != wanted[:, None], -math.inf)

    for schedule in SCHEDULES:
        told = model.generate(
            ["", "the "], max_new_tokens=8, hyperschedule=schedule, logits_processor=circle
        )
        for ids, given in zip(told.ids, (0, 4), strict=True):
            assert ids[given:].tolist() == [place % 3 for place in range(given, given + 8)]
    with pytest.raises(ValueError, match="cannot be written down"):
        GenerationConfig(logits_processor=circle).as_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_return_sequences": 2}, "submit each sample"),
        ({"output_trajectory": True}, "take provisional=True"),
        ({"max_new_tokens": 40}, "engine takes 1 to 32"),
        ({"stop": [""]}, "stop must be strings"),
        ({"stop": 3}, "stop must be strings"),
        ({"logits_processor": 3}, "logits_processor must be functions"),
        ({"logprobs": 1}, "logprobs must be True or False"),
        ({"repetition_penalty": 0}, "repetition_penalty must be > 0"),
        ({"sampler": FirstHitting(), "hyperschedule": Slide(4, 2)}, "do not overlap"),
        ({"tempo": 1}, "takes no option tempo"),
    ],
)
def test_what_cannot_be_drawn_is_refused(model, options, message):
    engine = model.engine(max_sequences=1, max_length=32)
    with pytest.raises(ValueError, match=message):
        engine.submit("the ", **options)
    with pytest.raises(ValueError, match="takes one prompt, not 2"):
        engine.submit(["a", "b"])
    assert not engine.busy
