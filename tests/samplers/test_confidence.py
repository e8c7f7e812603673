"""Confidence samplers: scores and selections by brute force, how they end, what they draw from."""

import math

import pytest
import torch
from catalogue import RESTING, name
from driving import Alone, flat_run
from enumeration import random_logits
from toys import law_of, toy

from textdiff.noise import Noise, Stream
from textdiff.process import (
    GIDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    SmoothEpsilonHybrid,
    Uniform,
)
from textdiff.samplers import (
    Confidence,
    Count,
    Entropy,
    EntropyBound,
    Margin,
    Probability,
    Score,
    Selection,
    Step,
    Threshold,
    temperature,
    top_k,
)
from textdiff.samplers.draws import categorical
from textdiff.samplers.selection import rank_of

N = 4
SCORES = [Probability(), Margin(), Entropy()]
SELECTIONS = [
    Count(1),
    Count(3),
    Threshold(0.5),
    Threshold(-1.0),
    EntropyBound(0.0),
    EntropyBound(0.7),
    EntropyBound(1e9),
]


def by_hand(score: Score, p: list[float], token: int) -> float:
    match score:
        case Probability():
            return p[token]
        case Margin():
            first, second = sorted(p, reverse=True)[:2]
            return first - second
    return sum(x * math.log(x) for x in p)


@pytest.mark.parametrize("score", SCORES, ids=name)
def test_scores(score):
    logits, token = random_logits(20, N, 0), torch.arange(20) % N
    expected = [
        by_hand(score, row.softmax(0).tolist(), y)
        for row, y in zip(logits, token.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        score(logits, token), torch.tensor(expected).double(), rtol=0, atol=1e-6
    )
    assert score(logits.float(), token).dtype == torch.float64
    one = score(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    assert (
        one.tolist() == [0.0, 0.0] if isinstance(score, Entropy) else one.tolist() == [1.0, 1.0]
    ), "a single token is certain"


def chosen_by_hand(select: Selection, score: list[float], H: list[float]) -> set[int]:
    order = sorted(range(len(score)), key=lambda i: (-score[i], i))
    match select:
        case Count(n=n):
            return set(order[:n])
        case Threshold(value=value):
            return {i for i in order if score[i] >= value} | set(order[:1])
    best = 1
    for k in range(1, len(order) + 1):
        some = [H[i] for i in order[:k]]
        if sum(some) - max(some) <= select.bound:
            best = k
    return set(order[:best])


@pytest.mark.parametrize("score", SCORES, ids=name)
@pytest.mark.parametrize("select", SELECTIONS, ids=name)
def test_a_step_unmasks_what_score_and_selection_say(score, select):
    B, d = 12, 5
    z = torch.full((B, d), N)
    z[::2, 1], z[1::3, 3] = 2, 0
    z[0, :4] = 1
    t = torch.where(z == N, 1.0, 0.0).double()
    logits = random_logits(B * d, N, 1).view(B, d, N)
    sampler, noise = Confidence(score, select), Noise(0, torch.arange(B))
    step = Step(Absorbing(), z, t, s=0 * t, N=N, noise=noise)
    rows = sampler.rows(step)
    assert torch.equal(rows, z == N)
    after, times = sampler.move(step, rows, logits[rows])
    drawn = categorical(logits, noise.positions(z, Stream.TOKEN))
    for b in range(B):
        places = rows[b].nonzero()[:, 0].tolist()
        p = [logits[b, i].softmax(0).tolist() for i in places]
        scores = [by_hand(score, row, int(drawn[b, i])) for row, i in zip(p, places, strict=True)]
        H = [-by_hand(Entropy(), row, 0) for row in p]
        kept = {places[i] for i in chosen_by_hand(select, scores, H)}
        expected = [int(drawn[b, i]) if i in kept else int(z[b, i]) for i in range(d)]
        assert after[b].tolist() == expected
        left = (len(places) - len(kept)) / len(places)
        torch.testing.assert_close(times[b], left * (z[b] == N).double(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("process", RESTING, ids=name)
@pytest.mark.parametrize("select", SELECTIONS, ids=name)
def test_every_call_unmasks_at_least_one_token_and_it_ends(process, select):
    B, d, net = 30, 5, toy(process)
    for score in SCORES:
        z, asked = flat_run(Confidence(score, select), process, net, B, d)
        assert z.max() < net.num_tokens
        masked = torch.stack([rows.sum(1) for rows in asked[: len(asked) - process.corrupts]])
        assert ((masked.diff(dim=0) < 0) | (masked[1:] == 0) | (masked[1:] == d)).all()
        assert len(asked) <= d + process.corrupts
        if select == Count(1):
            assert len(asked) == d + process.corrupts
        if select == EntropyBound(1e9):
            assert len(asked) == 1 + process.corrupts


def test_one_sequence_is_drawn_the_same_in_any_batch():
    process, example = EpsilonHybrid(0.3), torch.tensor([3, 8, 5])
    sampler, net = Confidence(Margin(), Threshold(0.3)), toy(process)
    whole, _ = flat_run(sampler, process, net, 3, 4, example=example)
    for row in range(3):
        assert torch.equal(
            flat_run(sampler, process, net, 1, 4, example=example[row : row + 1])[0][0], whole[row]
        )


@pytest.mark.parametrize("filter", [temperature(0.5), top_k(2)])
def test_a_token_is_drawn_from_the_filtered_prediction_then_noised(filter):
    """One position alone: d_t(. | x̂) where an atom waits, x̂ where none does; at the atom the
    posterior.
    """
    z, logits = torch.tensor([N, N, 1]), random_logits(3, N, 2)
    half, p = torch.full((3,), 0.5, dtype=torch.float64), filter(logits).softmax(-1)
    for process in RESTING:
        epsilon = getattr(process, "epsilon", 0.0)
        rows = slice(None) if process.corrupts else slice(2)
        law = law_of(
            Alone(Confidence()), process, logits[rows], z[rows], 0 * half[rows], half[rows], filter
        )
        torch.testing.assert_close(
            law[:2, :N], (1 - epsilon) * p[:2] + epsilon / N, rtol=0, atol=1e-12
        )
        if process.corrupts:
            posterior = p[2] * ((1 - epsilon) * torch.eye(N).double()[1] + epsilon / N)
            torch.testing.assert_close(law[2, :N], posterior / posterior.sum(), rtol=0, atol=1e-12)


def test_a_very_low_temperature_is_greedy():
    net, process = toy(Absorbing()), Absorbing()
    a, _ = flat_run(Confidence(), process, net, 50, 5, filter=temperature(1e-6))
    assert (a == a[:1]).all(), "every sequence is the same"


def test_of_equally_sure_positions_the_left_one_goes_first():
    """All masked positions may see the same; what rounding adds depends on the batch."""
    score = 0.7 + 1e-7 * torch.tensor([[0.0, 1.0, 2.0], [2.0, 0.0, 1.0], [1.0, 2.0, 0.0]]).double()
    masked, logits = torch.ones(3, 3, dtype=torch.bool), torch.zeros(9, N)
    for kind in (Probability(), Margin(), Entropy()):
        sign = -1 if kind == Entropy() else 1
        for select in (Count(1), Threshold(0.9), EntropyBound(0.1)):
            assert select(sign * score, masked, logits).tolist() == [[True, False, False]] * 3


def test_small_and_large_scores_are_told_apart():
    """At a large vocabulary every probability may be below 1e-4, and with few calls left above
    1 - 1e-9.
    """
    small = torch.tensor([[2e-6, 3e-6, 1e-6, 0.0]]).double()
    masked = torch.ones(1, 4, dtype=torch.bool)
    assert rank_of(small, masked).tolist() == [[1, 0, 2, 3]]
    assert rank_of(1 - 1e-4 * small, masked).tolist() == [[2, 3, 1, 0]]
    assert rank_of(-small, masked).tolist() == [[2, 3, 1, 0]]
    score = torch.tensor([[-torch.inf, 0.0, 0.0]]).double()
    masked = torch.tensor([[False, True, True]])
    for select in (Count(1), Threshold(0.9), EntropyBound(0.0)):
        # a call unmasks a token, though none is sure at all
        assert select(score, masked, torch.zeros(2, N))[0, :2].tolist() == [False, True]


def test_what_is_not_defined_is_refused():
    for process in (Uniform(), GammaHybrid(0.3), SmoothEpsilonHybrid(0.1), GIDD()):
        with pytest.raises(ValueError, match="use Ancestral"):
            Confidence().check(process)
    for process in (*RESTING, GammaHybrid(0.0)):
        Confidence().check(process)
    for make in (
        lambda: Count(0),
        lambda: Count(1.5),
        lambda: Threshold(float("nan")),
        lambda: EntropyBound(-0.1),
    ):
        with pytest.raises(ValueError, match="must be"):
            make()
