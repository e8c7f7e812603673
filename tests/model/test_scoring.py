"""`Model.score` and `Model.decide` against enumeration: what is called exact adds up to one."""

import math
from itertools import permutations, product

import pytest
import torch
from catalogue import each
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from toys import random_transformer
from transformers import PreTrainedTokenizerFast

from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide
from textdiff.model import scoring
from textdiff.model.model import Model
from textdiff.process import Absorbing, EpsilonHybrid

LETTERS = "abc"
N = len(LETTERS) + 1


def letters() -> PreTrainedTokenizerFast:
    """A token for each of three letters, and an end of text."""
    words = Tokenizer(models.WordLevel({**{c: i for i, c in enumerate(LETTERS)}, "<eos>": 3}))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")


def model(process=Absorbing(), schedule=Flat(4), layout="aligned") -> Model:  # noqa: B008
    """A random network in float64."""
    network = random_transformer(N, process.needs_time, layout=layout)
    return Model(network, process, schedule, letters(), length=8)


def total(scores) -> float:
    """The probabilities of all completions together."""
    return sum(math.exp(-one.nats) for one in scores)


def completions(n: int) -> list[list[int]]:
    """Every completion of n tokens."""
    return [list(ids) for ids in product(range(N), repeat=n)]


@each("schedule", [QuenchedAR(), Flat(4), Block(2, 3), Block(3, 2)])
@pytest.mark.parametrize("order", ["left to right", None])
@pytest.mark.parametrize("layout", ["aligned", "shifted"])
def test_50_all_completions_add_up_to_one(schedule, order, layout):
    scores = model(schedule=schedule, layout=layout).score("ab", completions(3), order=order)
    assert all(one.exact and one.standard_error is None for one in scores)
    assert total(scores) == pytest.approx(1, abs=1e-9)


def by_hand(network, ids, places, order):
    """Log p of the tokens at `places`, revealed in this order, the others known."""
    z = torch.tensor([ids])
    z[0, places] = N
    log_p = 0.0
    for place in order:
        log_p += float(network(z)[0, place].log_softmax(-1)[ids[place]].detach())
        z[0, place] = ids[place]
    return log_p


@pytest.mark.parametrize("ids", [[0, 1, 2, 0, 3, 1], [2, 2, 1, 0, 0, 0]], ids=str)
def test_flat_between_prompt_and_suffix_by_hand(ids):
    scored = model()
    before, middle, after = ids[:1], ids[1:4], ids[4:]
    (one,) = scored.score([before], [middle], suffix=[after])
    expected = by_hand(scored.network, ids, [1, 2, 3], [1, 2, 3])
    assert one.nats == pytest.approx(-expected, abs=1e-10) and one.calls == 3
    (mixed,) = scored.score([before], [middle], suffix=[after], order=None)
    each_order = [by_hand(scored.network, ids, [1, 2, 3], o) for o in permutations([1, 2, 3])]
    mean = torch.tensor(each_order, dtype=torch.float64).logsumexp(0) - math.log(6)
    assert mixed.nats == pytest.approx(-float(mean), abs=1e-10) and mixed.calls == 7
    assert "all orders alike" in mixed.law and "suffix clamped" in mixed.law


def test_many_tokens_get_the_mean_over_orders_which_is_a_bound(monkeypatch):
    scored = model()
    exact = scored.score("a", [[1, 2, 0, 3]], order=None)[0].nats
    orders = [
        -by_hand(scored.network, [0, 1, 2, 0, 3], [1, 2, 3, 4], o)
        for o in permutations([1, 2, 3, 4])
    ]
    monkeypatch.setattr(scoring, "MOST", 3)
    (bound,) = scored.score("a", [[1, 2, 0, 3]], order=None, draws=64)
    assert not bound.exact and "bound" in bound.law
    assert bound.nats == pytest.approx(sum(orders) / 24, abs=5 * bound.standard_error + 0.05)
    assert sum(orders) / 24 > exact


@each("schedule", [QuenchedAR(), Block(2, 3)])
def test_a_suffix_that_is_not_seen_is_scored_too(schedule):
    scored = model(schedule=schedule)
    pairs = [(list(a), list(b)) for a in completions(1) for b in completions(2)]
    scores = scored.score("ab", [a for a, _ in pairs], suffix=[b for _, b in pairs])
    assert total(scores) == pytest.approx(1, abs=1e-9)
    assert all("prompt clamped" in one.law for one in scores)


@each("schedule", [Flat(4), Block(2, 3), Slide(2, 1)])
def test_a_hybrid_has_a_bound_with_an_error(schedule):
    scored = model(EpsilonHybrid(0.1), schedule)
    one, other = scored.score("ab", ["ca", "ca"])
    assert one == other and not one.exact and one.standard_error > 0 and "bound" in one.law
    others = scored.score("ab", ["cb", "ca", "c", "ba"], batch_size=3)[1]  # nor on the others
    assert (others.nats, others.law) == (pytest.approx(one.nats, abs=1e-9), one.law)


def test_an_end_of_text_is_scored_if_asked_for():
    scored = model(schedule=QuenchedAR())
    without, ends = scored.score("ab", ["c"])[0], scored.score("ab", ["c"], eos=True)[0]
    assert (without.tokens, ends.tokens) == (1, 2)
    assert ends.nats == pytest.approx(scored.score("ab", [[2, 3]])[0].nats, abs=1e-12)
    assert ends.text_bytes == 1
    assert without.bits_per_byte == pytest.approx(without.nats / math.log(2))


def test_what_score_refuses():
    scored = model()
    for words, options in (
        ("no tokens", {"completions": [""]}),
        ("order must be", {"completions": ["a"], "order": "random"}),
        ("prompts has 2 entries for 3", {"prompts": ["a", "b"], "completions": ["a", "b", "c"]}),
        ("suffix has 2 entries for 1", {"completions": ["a"], "suffix": ["a", "b"]}),
        ("draws must be", {"completions": ["a"], "draws": 3}),
        ("ordinary tokens", {"completions": [[N]]}),
    ):
        with pytest.raises(ValueError, match=words):
            scored.score(**{"prompts": "a"} | options)


def test_decide_is_the_conditional_law_of_an_autoregressive_model():
    """Options of different lengths, a suffix: p(option, suffix | prefix), by the chain rule."""
    scored = model(schedule=QuenchedAR(), layout="shifted")
    options = ["a", "bc", "cab"]
    chosen = scored.decide("ab[GAP]c", options)
    nats = [scored.score("ab", [option + "c"])[0].nats for option in options]
    expected = torch.tensor([-x for x in nats], dtype=torch.float64).softmax(-1).tolist()
    assert chosen.probabilities == pytest.approx(expected, abs=1e-12)
    assert chosen.best == options[max(range(3), key=expected.__getitem__)] and not chosen.note


def test_decisions_are_calibrated_where_the_truth_is_enumerated():
    """Over all texts of the model's own law, among those decided with confidence p the option is
    right in a share p: the expected calibration error is 0.
    """
    scored = model(schedule=QuenchedAR(), layout="shifted")
    options = ["a", "b", "c"]
    confidence: dict[float, list[float]] = {}
    for before, after in product(LETTERS, repeat=2):
        chosen = scored.decide(f"{before}[GAP]{after}", options)
        whole = [scored.score("", [before + option + after])[0].nats for option in options]
        truth = torch.tensor([-x for x in whole], dtype=torch.float64).exp()
        for p, weight in zip(chosen.probabilities, truth.tolist(), strict=True):
            mass = confidence.setdefault(round(p, 9), [0.0, 0.0])
            mass[0] += weight
            mass[1] += float(truth.sum())
    error = sum(abs(right - p * whole) for p, (right, whole) in confidence.items())
    assert len(confidence) > 20 and error < 1e-6


def test_a_flat_model_wants_a_prior_over_lengths():
    scored = model()
    with pytest.raises(ValueError, match="say how likely each number is"):
        scored.decide("ab[GAP]c", ["a", "bc"])
    chosen = scored.decide("ab[GAP]c", ["a", "bc"], lengths={1: 0.25, 2: 0.75})
    nats = [one.nats for one in chosen.scores]
    ratio = math.exp(nats[1] - nats[0]) * 0.25 / 0.75
    assert chosen.probabilities[0] == pytest.approx(ratio / (1 + ratio))
    for words, text, options in (
        ("one \\[GAP\\]", "abc", {}),
        ("nothing|says nothing", "ab[GAP]c", {"lengths": {1: 1.0}}),
        ("must be probabilities", "ab[GAP]c", {"lengths": {1: -1.0, 2: 1.0}}),
    ):
        with pytest.raises(ValueError, match=words):
            scored.decide(text, ["a", "bc"], **options)
    with pytest.raises(ValueError, match="two or more different"):
        scored.decide("[GAP]", ["a", "a"])
    with pytest.raises(ValueError, match="weighs texts of any length"):
        model(schedule=QuenchedAR()).decide("[GAP]", ["a", "b"], lengths={1: 1.0})


def test_bounds_that_cannot_tell_options_apart_say_so():
    chosen = model(EpsilonHybrid(0.5)).decide("ab[GAP]", ["aab", "aac"], draws=2)
    assert ("cannot tell them apart" in chosen.note) or ("from bounds" in chosen.note)
