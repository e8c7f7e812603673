"""Logit filters (maths.md 7: 36): against brute force and transformers; ties, bad values, never
everything removed.
"""

import math
import pickle

import pytest
import torch
from enumeration import random_logits
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from textdiff.samplers import banned, compose, min_p, temperature, top_k, top_p
from textdiff.samplers.filters import identity

LOGITS = random_logits(50, 40, 0)


def kept(logits: torch.Tensor) -> torch.Tensor:
    return logits > -math.inf


@pytest.mark.parametrize("k", [1, 2, 7, 40, 99])
def test_top_k_agrees_with_transformers(k):
    assert torch.equal(top_k(k)(LOGITS), TopKLogitsWarper(k)(None, LOGITS))


@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.9, 0.999])
def test_top_p_agrees_with_transformers(p):
    assert torch.equal(top_p(p)(LOGITS), TopPLogitsWarper(p)(None, LOGITS))


@pytest.mark.parametrize("p", [0.01, 0.3, 0.99, 1.0])
def test_min_p_agrees_with_transformers(p):
    assert torch.equal(min_p(p)(LOGITS), MinPLogitsWarper(p)(None, LOGITS))


def test_the_token_that_reaches_p_is_kept():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).double().log()
    for p, count in ((0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (0.951, 4), (1.0, 4)):
        assert int(kept(top_p(p)(logits)).sum()) == count, p


@pytest.mark.parametrize("spread", [0.0, 0.001, 1.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_top_p_over_a_full_vocabulary_is_that_of_a_full_sort(spread, dtype):
    logits = (spread * random_logits(3, 20_000, 1, scale=1.0)).to(dtype)
    for p in (0.3, 0.95):
        ordered = logits.double().softmax(-1).sort(-1, descending=True)
        before = ordered.values.cumsum(-1) - ordered.values
        least = (
            logits.gather(-1, ordered.indices)
            .masked_fill(before >= p - 1e-13, math.inf)
            .amin(-1, keepdim=True)
        )
        ours = kept(top_p(p)(logits))
        assert torch.equal(ours, logits >= least) and ours.any(-1).all()
        assert torch.equal(ours[:1], kept(top_p(p)(logits[:1]))), (
            "a row does not depend on the others"
        )


def test_ties_are_kept_or_removed_together():
    logits = torch.tensor([[1.0, 3.0, 1.0, 1.0, 0.0]])
    assert kept(top_k(2)(logits)).tolist() == [[True, True, True, True, False]]
    assert kept(top_p(0.75)(logits)).tolist() == [[True, True, True, True, False]]
    assert kept(min_p(math.exp(-2.0) * 0.999)(logits)).tolist() == [[True, True, True, True, False]]


@pytest.mark.parametrize("one", [top_k(1), top_p(1e-12), min_p(1.0), temperature(1e-9)])
def test_never_everything_is_removed(one):
    for logits in (
        LOGITS,
        torch.full((2, 5), -1e30),
        torch.tensor([[-math.inf, -3.0, -math.inf]]),
        LOGITS.bfloat16(),
    ):
        out = one(logits)
        assert out.shape == logits.shape and kept(out).any(-1).all()
        assert (out.double().softmax(-1).argmax(-1) == logits.argmax(-1)).all()


def test_banned_tokens_are_never_drawn():
    out = banned(0, 7)(LOGITS)
    assert not kept(out)[:, [0, 7]].any() and torch.equal(out[:, 1:7], LOGITS[:, 1:7])
    assert banned() is identity
    with pytest.raises(ValueError, match="ordinary tokens 0 to 39"):
        banned(40)(LOGITS)
    with pytest.raises(ValueError, match="ban before"):
        compose(top_k(1), banned(int(LOGITS[0].argmax())))(LOGITS[:1])
    with pytest.raises(ValueError, match="not every token"):
        banned(*range(40))(LOGITS)


def test_compose_applies_each_once_in_order():
    both = compose(temperature(0.5), top_k(3), identity, min_p(0.2))
    assert torch.equal(both(LOGITS), min_p(0.2)(top_k(3)(LOGITS / 0.5)))
    assert (
        compose() is identity
        and compose(identity, temperature(1.0), top_p(1.0), min_p(0.0)) is identity
    )
    assert torch.equal(compose(top_k(2))(LOGITS), top_k(2)(LOGITS))
    assert torch.equal(pickle.loads(pickle.dumps(both))(LOGITS), both(LOGITS)), (
        "a filter travels to other processes"
    )
    assert torch.equal(compose(banned(3), top_k(1))(LOGITS), top_k(1)(banned(3)(LOGITS)))


@pytest.mark.parametrize(
    "make, values",
    [
        (temperature, (0.0, -1.0, math.nan)),
        (top_k, (0, -1, 1.5)),
        (top_p, (0.0, -0.1, 1.1, math.nan)),
        (min_p, (-0.1, 1.1, math.nan)),
        (banned, (-1, 0.5)),
    ],
)
def test_bad_values_are_refused(make, values):
    for value in values:
        with pytest.raises(ValueError, match=f"got {value!r}"):
            make(value)
