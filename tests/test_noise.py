"""Randomness as a pure function: uniforms, strata, permutations, and the categorical draw (maths.md
7, number 35).
"""

import math

import pytest
import torch
from enumeration import chi_square

from textdiff.noise import (
    Noise,
    Stream,
    permutation,
    seed_from,
    stratified,
    uniform,
    uniform_token,
)
from textdiff.samplers.draws import categorical


def many(n: int, seed: int = 0, stream: Stream = Stream.TOKEN) -> torch.Tensor:
    return uniform(seed, 0, 0, torch.arange(n), stream)


# --------------------------------------------------------------------------------------------------
# uniforms


def test_uniforms_are_float64_in_the_open_interval():
    u = many(2 * 10**5)
    assert u.dtype == torch.float64
    assert 0 < u.min() and u.max() < 1
    assert len(u.unique()) == len(u), "a 52-bit draw does not repeat among 2e5"


def test_uniforms_do_not_depend_on_batch_or_row_order():
    example, L = torch.tensor([3, 11, 7, 2**40]), 6
    like = torch.zeros(4, L, dtype=torch.int64)
    whole = Noise(5, example, step=2).positions(like, Stream.MASK)
    for row, name in enumerate(example):
        alone = Noise(5, name.view(1), step=2).positions(like[:1], Stream.MASK)
        assert torch.equal(alone[0], whole[row])
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(Noise(5, example[order], step=2).positions(like, Stream.MASK), whole[order])
    longer = Noise(5, example, step=2).positions(torch.zeros(4, L + 5), Stream.MASK)
    assert torch.equal(longer[:, :L], whole), "padding on the right changes nothing"
    window = torch.tensor([[4, 1]]).expand(4, 2)
    assert torch.equal(Noise(5, example, step=2).uniform(Stream.MASK, window), whole[:, [4, 1]])


def test_a_step_per_row_equals_the_same_step_alone():
    example, step = torch.tensor([4, 4, 9]), torch.tensor([0, 1, 2])
    like = torch.zeros(3, 5)
    u = Noise(0, example).at(step).positions(like, Stream.TOKEN)
    for row in range(3):
        assert torch.equal(
            u[row],
            Noise(0, example[row : row + 1], int(step[row])).positions(like[:1], Stream.TOKEN)[0],
        )


@pytest.mark.parametrize("field", ["seed", "example", "step", "position", "stream"])
def test_uniforms_are_uniform_and_serially_uncorrelated_along_every_key(field):
    n = 10**5 if field != "seed" else 4000
    index = torch.arange(n)
    match field:
        case "seed":
            u = torch.stack(
                [uniform(seed, 1, 2, torch.tensor(3), Stream.TIME) for seed in range(n)]
            )
        case "example":
            u = uniform(1, index, 2, 3, Stream.TIME)
        case "step":
            u = uniform(1, 2, index, 3, Stream.TIME)
        case "position":
            u = uniform(1, 2, 3, index, Stream.TIME)
        case "stream":
            u = torch.cat([uniform(1, 2, 3, torch.arange(n // 9), stream) for stream in Stream])
    n = len(u)
    for power in (1, 2, 3, 4):
        error = math.sqrt(1 / (2 * power + 1) - 1 / (power + 1) ** 2) / math.sqrt(n)
        assert abs(u.pow(power).mean() - 1 / (power + 1)) < 4.5 * error
    centred = (u - 0.5) * math.sqrt(12)
    for lag in (1, 2, 3, 8, 1024):
        assert abs((centred[lag:] * centred[:-lag]).mean()) < 4.5 / math.sqrt(n - lag)
    counts = torch.bincount((u * 1000).long(), minlength=1000)
    assert chi_square(counts, torch.full((1000,), n / 1000)) > 1e-4
    low_bits = torch.bincount(((u * 2**52).long() & 255), minlength=256)
    assert chi_square(low_bits, torch.full((256,), n / 256)) > 1e-4


def test_streams_and_seeds_are_independent():
    n = 3 * 10**4
    draws = [many(n, stream=stream) for stream in Stream] + [
        many(n, seed=1),
        many(n, seed=-1),
        many(n, seed=2**40),
    ]
    table = torch.stack(draws).sub(0.5).mul(math.sqrt(12))
    correlation = table @ table.T / n - torch.eye(len(draws))
    assert correlation.abs().max() < 5 / math.sqrt(n) * 1.5
    for a in range(len(draws)):
        for b in range(a):
            counts = torch.bincount((draws[a] * 8).long() * 8 + (draws[b] * 8).long(), minlength=64)
            assert chi_square(counts, torch.full((64,), n / 64)) > 1e-5


def test_swapped_keys_give_other_draws():
    assert uniform(0, 1, 2, torch.tensor(3), Stream.TIME) != uniform(
        0, 2, 1, torch.tensor(3), Stream.TIME
    )
    assert uniform(0, 1, 2, torch.tensor(3), Stream.TIME) != uniform(
        0, 1, 3, torch.tensor(2), Stream.TIME
    )


def test_a_generator_only_supplies_the_key():
    a, b = (seed_from(torch.Generator().manual_seed(7)) for _ in range(2))
    assert a == b and seed_from(7) == 7
    generator = torch.Generator().manual_seed(7)
    assert seed_from(generator) != seed_from(generator), "a generator moves on"


# --------------------------------------------------------------------------------------------------
# strata, permutations


@pytest.mark.parametrize("n", [1, 2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("seed", range(3))
def test_stratified_has_one_value_in_every_stratum_of_an_aligned_run(n, seed):
    slots = torch.arange(256)
    u = stratified(seed, 5, slots)
    assert 0 < u.min() and u.max() < 1
    for run in u.view(-1, n):
        assert sorted((run * n).long().tolist()) == list(range(n))


def test_stratified_values_alone_are_uniform_and_depend_on_their_slot_only():
    for slot in (0, 1, 37, 64, 100):
        u = torch.cat([stratified(seed, torch.arange(1000), slot) for seed in range(20)])
        assert (
            chi_square(
                torch.bincount((u * 256).long(), minlength=256), torch.full((256,), len(u) / 256)
            )
            > 1e-4
        )
        assert abs(u.mean() - 0.5) < 4.5 / math.sqrt(12 * len(u))
    whole = stratified(3, 8, torch.arange(128))
    assert torch.equal(whole[[90, 17]], stratified(3, 8, torch.tensor([90, 17])))


def test_stratified_runs_are_independent_of_one_another():
    u = (
        torch.stack([stratified(0, torch.arange(4000), slot) for slot in (3, 67, 131)])
        .sub(0.5)
        .mul(math.sqrt(12))
    )
    correlation = u @ u.T / u.shape[1] - torch.eye(3)
    assert correlation.abs().max() < 5 / math.sqrt(u.shape[1]) * 1.5


def test_permutation_is_a_permutation_and_a_function_of_seed_and_epoch():
    first = permutation(0, 0, 1000)
    assert torch.equal(first.sort().values, torch.arange(1000))
    assert torch.equal(first, permutation(0, 0, 1000))
    assert not torch.equal(first, permutation(0, 1, 1000)) and not torch.equal(
        first, permutation(1, 0, 1000)
    )
    orders = torch.stack([permutation(0, epoch, 4) for epoch in range(4800)])
    code = (orders * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(code) == 24 and chi_square(code, torch.full((24,), 200.0)) > 1e-4


# --------------------------------------------------------------------------------------------------
# categorical


def test_35_categorical_draws_a_rare_token_within_5_standard_errors():
    p, n, rare = torch.tensor([1 - 1e-5, 1e-5], dtype=torch.float64), 10**7, 0
    for chunk in range(0, n, 10**5):  # small chunks: the memory of one is used by the next
        u = uniform(0, 0, 0, torch.arange(chunk, chunk + 10**5), Stream.TOKEN)
        rare += int(categorical(p.log().expand(len(u), 2), u).sum())
    assert abs(rare - n * 1e-5) < 5 * math.sqrt(n * 1e-5)


def test_35_the_levels_of_the_tree_are_independent():
    """4,096 tokens alike: all three digits of a token together are uniform, by chi-square."""
    n = 4096 * 20
    drawn = torch.cat(
        [categorical(torch.zeros(1, 4096).expand(len(u), -1), u) for u in many(n).split(64)]
    )
    counts = torch.bincount(drawn, minlength=4096)
    assert chi_square(counts, torch.full((4096,), n / 4096)) > 1e-4


def test_35_rounding_of_the_logits_moves_few_draws():
    """Logits that differ as much as float32 results of another batch do: the draws that move are of
    the order of the total variation. An inverse CDF over the vocabulary moves 300 times as many.
    """
    n, V = 6000, 50257
    draw = torch.Generator().manual_seed(0)
    moved = plain = 0
    variation = 0.0
    for u in many(n).split(50):
        logits = 2 * torch.randn(len(u), V, generator=draw)
        rounded = logits * (1 + 1e-7 * torch.randn(len(u), V, generator=draw))
        moved += int((categorical(logits, u) != categorical(rounded, u)).sum())
        p, q = (x.double().softmax(-1) for x in (logits, rounded))
        variation += float((p - q).abs().sum()) / 2
        over_all = [torch.searchsorted(x.cumsum(-1), u[:, None]) for x in (p, q)]
        plain += int((over_all[0] != over_all[1]).sum())
    assert variation < 0.01 and moved <= 1 and plain >= 1


def test_35_rare_tokens_at_full_vocabulary_have_the_right_frequency():
    """A tenth of the mass on 50000 tokens of 2e-6 each: the draws of each rank class, by
    chi-square.
    """
    V, n = 50258, 3000
    p = torch.cat([torch.full((258,), 0.9 / 258), torch.full((50000,), 0.1 / 50000)]).double()
    drawn = torch.cat([categorical(p.log().expand(len(u), V), u) for u in many(n, seed=4).split(4)])
    edges = torch.tensor([0, 86, 172, 258, 10258, 20258, 30258, 40258, 50258])
    expected = n * torch.stack([p[a:b].sum() for a, b in edges.unfold(0, 2, 1)])
    counts = torch.stack([((a <= drawn) & (drawn < b)).sum() for a, b in edges.unfold(0, 2, 1)])
    assert chi_square(counts, expected) > 1e-4


def test_35_two_stage_and_one_shot_agree():
    """Unmask with probability q, then draw the token, against one draw over {MASK, tokens}."""
    N, n, q = 6, 10**5, 0.02
    p = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.009, 0.001], dtype=torch.float64)
    token = categorical(p.log().expand(n, N), many(n, seed=1))
    two_stage = torch.where(many(n, seed=2, stream=Stream.ROUTE) < q, token, N)
    law = torch.cat([q * p, torch.tensor([1 - q], dtype=torch.float64)])
    one_shot = categorical(law.log().expand(n, N + 1), many(n, seed=3))
    for drawn in (two_stage, one_shot):
        assert chi_square(torch.bincount(drawn, minlength=N + 1), n * law) > 1e-4


def test_35_a_token_of_probability_0_is_never_drawn_whatever_u_is():
    tiny, top = 2.0**-53, 1 - 2.0**-53
    u = torch.tensor([tiny, 0.25, 0.5, 0.75, top], dtype=torch.float64)
    for pattern in ([0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]):
        logits = torch.tensor(pattern, dtype=torch.float64).log().expand(len(u), 3)
        drawn = categorical(logits, u)
        assert all(pattern[int(y)] for y in drawn)
    with_extremes = torch.tensor([-1e9, 0.0, -1e9], dtype=torch.float32).expand(len(u), 3)
    assert (categorical(with_extremes, u) == 1).all()


def test_35_the_token_is_the_first_whose_cumulative_probability_exceeds_u():
    logits = torch.zeros(4, 4)
    assert categorical(
        logits, torch.tensor([0.2499, 0.25, 0.5, 0.75], dtype=torch.float64)
    ).tolist() == [0, 1, 2, 3]


def test_35_float32_uniforms_are_refused():
    with pytest.raises(ValueError, match="float64"):
        categorical(torch.zeros(2, 3), torch.rand(2))


@pytest.mark.parametrize("N", [1, 3, 7, 50257])
def test_uniform_token_is_ordinary_and_uniform(N):
    u = torch.cat([many(10**5), torch.tensor([2.0**-53, 1 - 2.0**-53], dtype=torch.float64)])
    token = uniform_token(N, u)
    assert token.min() == 0 and token.max() == N - 1
    classes = min(N, 7)
    counts = torch.bincount(token * classes // N, minlength=classes)
    share = torch.bincount(torch.arange(N) * classes // N, minlength=classes) / N
    assert chi_square(counts, len(u) * share) > 1e-4
