"""The bounds and their estimates (maths.md 7: 20-24, 26, 27) against enumerated chains, bounds and
randomness.
"""

import math
from dataclasses import dataclass
from itertools import pairwise, permutations, product

import numpy
import pytest
import torch
from catalogue import PROCESSES, SCHEDULES, name
from enumeration import marginals, tanh_sinh
from torch import Tensor
from torch.nn.functional import cross_entropy
from toys import (
    FixedNoise,
    SetNetwork,
    a_bound,
    any_order_law,
    atom_term,
    integrand,
    joint,
    levels,
    model_law,
    noisy_law,
    ordinary,
    plug_in,
    prior,
    random_transformer,
    sequences,
    states,
    step_bound,
    step_laws,
    subset_bound,
    toy,
)

import textdiff.objective.estimators
from textdiff.denoiser.prediction import Prediction
from textdiff.evaluation.perplexity import measure
from textdiff.hyperschedule import Block, Flat, Hyperschedule, QuenchedAR, Slide
from textdiff.model.model import Model
from textdiff.noise import Noise, Stream
from textdiff.objective import (
    Batch,
    MaskCount,
    Nelbo,
    Objective,
    ScoreEntropy,
    Stratified,
    WeightedCrossEntropy,
    least_variance,
)
from textdiff.objective.bounds import bounds
from textdiff.objective.estimators import Draw
from textdiff.process import (
    GIDD,
    SCDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    Process,
    SmoothEpsilonHybrid,
    Uniform,
)

each_process = pytest.mark.parametrize("process", PROCESSES, ids=name)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=name)


def batch_of(ids: Tensor, **fields: Tensor) -> Batch:
    """Rows 0.. in order."""
    index = torch.arange(len(ids))
    return Batch(ids, index, index, **fields)


def objective_bound(
    net: SetNetwork, process: Process, schedule: Hyperschedule, d: int, objective: Objective
) -> Tensor:
    """The T-step bound of every sequence through the code's tiling, call and objective: all
    offsets, all noisy states.
    """
    N = net.num_tokens
    x, z = sequences(N, d), states(N, d)
    every_x, every_z = x.repeat_interleave(len(z), 0), z.repeat(len(x), 1)
    total = torch.full((len(x),), d * float(process.prior_kl(N)), dtype=torch.float64)
    for offset in range(schedule.T):
        tiling = schedule.plan(d).tiling(torch.full((1, 1), float(offset)))
        t = (tiling.level / schedule.T).expand(len(every_x), d)
        draw = Draw(every_z, t, t - 1 / schedule.T, tiling, float(schedule.T))
        drawn = a_bound(process, schedule, objective).at(net, batch_of(every_x), draw)
        summed, table = drawn.total, drawn.values
        assert float(summed) == pytest.approx(float(table.sum()), rel=1e-9)
        values = table.sum(-1).view(len(x), len(z))
        weight = noisy_law(process, x, (tiling.level[0] / schedule.T).tolist(), N)
        total = total + torch.where(weight > 0, weight * values, 0.0).sum(-1) / schedule.T
    return total


# --------------------------------------------------------------------------------------------------
# 20-22: the T-step bound


@each_schedule
@each_process
def test_20_the_model_is_normalised_and_the_code_computes_its_bound(process, schedule):
    d, net = 3, toy(process)
    N = net.num_tokens
    law = model_law(net, process, schedule, d)
    p = ordinary(law, N, d)
    assert p.sum() == pytest.approx(1, abs=1e-10)
    assert law.sum() - p.sum() == pytest.approx(0, abs=1e-14), "a MASK is left"
    exact = step_bound(net, process, schedule, d)
    assert (exact >= -p.log() - 1e-10).all()
    found = objective_bound(net, process, schedule, d, Nelbo())
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-10)


@each_process
def test_20_gap_is_the_divergence_of_the_paths(process):
    """Flat(2), d = 2: Σ_{z_0, z_1} q log(q(z_0, z_1 | x)/p(z_0, z_1, x)) over whole paths is the
    bound, so the gap is a KL.
    """
    d, net, schedule = 2, toy(process), Flat(2)
    N = net.num_tokens
    x, z = sequences(N, d), states(N, d)
    first, last = (joint(step_laws(net, process, schedule, k, d)) for k in range(2))
    start = joint(prior(process, N).expand(d, -1))
    bound = step_bound(net, process, schedule, d)
    for number, tokens in enumerate(x):
        q_0 = noisy_law(process, tokens[None], [1.0] * d, N)[0]
        one_hot = torch.eye(N).double()[tokens]
        steps = [plug_in(process, one_hot[[i] * len(z)], z[:, i], 0.5, 1.0) for i in range(d)]
        q = q_0[:, None] * joint(torch.stack(steps, 1))  # the path z_0, z_1; z_2 = x for certain
        p = start[:, None] * first * last[:, (z == tokens).all(-1)].T
        path = torch.where(q > 0, q * (q.log() - p.log()), 0.0).sum()
        assert float(path) == pytest.approx(float(bound[number]), abs=1e-10)


def test_21_quenched_absorbing_is_the_chain_rule():
    d, net = 3, SetNetwork()
    exact = -ordinary(model_law(net, Absorbing(), QuenchedAR(), d), net.num_tokens, d).log()
    chain = torch.zeros(len(exact), dtype=torch.float64)
    x, N = sequences(net.num_tokens, d), net.num_tokens
    for i in range(d):
        z = torch.cat([x[:, :i], torch.full((len(x), 1), N)], 1)
        chain -= (
            net.cavity(z, [0.0] * i + [1.0], list(range(i + 1)), i)
            .gather(1, x[:, i : i + 1])[:, 0]
            .log()
        )
    torch.testing.assert_close(chain, exact, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        objective_bound(net, Absorbing(), QuenchedAR(), d, Nelbo()), exact, rtol=0, atol=1e-12
    )
    one_draw = (
        a_bound(Absorbing(), QuenchedAR())
        .nats(net, batch_of(x), Noise(0, torch.arange(len(x))))
        .values
    )
    torch.testing.assert_close(one_draw.sum(-1), exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "process", [Absorbing(), EpsilonHybrid(0.3), Uniform(), SmoothEpsilonHybrid(0.3)], ids=name
)
def test_21_shifted_layout_is_a_plain_causal_language_model(process):
    """BOS x_0 .. x_{L-2} through a plain causal forward and cross-entropy, whatever the noise: no
    row sees a noisy token.
    """
    net = random_transformer(5, process.needs_time, layout="shifted")
    x = torch.randint(5, (6, 7), generator=torch.Generator().manual_seed(0))
    inputs = torch.cat([torch.full((6, 1), net.bos), x[:, :-1]], 1)
    expected = cross_entropy(net(inputs).transpose(1, 2), x, reduction="none")
    noise = Noise(0, torch.arange(6))
    found = a_bound(process, QuenchedAR()).nats(net, batch_of(x), noise).values
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("T", [1, 2, 5])
def test_22_flat_absorbing_is_the_t_step_bound_of_mdlm(T):
    """L_T = Σ_τ E_{z_τ} Σ_{masked} (t_τ - t_{τ-1})/t_τ (-log x̂_x), MDLM's eq. 8 with α = 1 - t."""
    d, net = 3, SetNetwork()
    N = net.num_tokens
    x, z = sequences(N, d), states(N, d)
    expected = torch.zeros(len(x), dtype=torch.float64)
    for level in range(1, T + 1):
        t = level / T
        keeps = ((z[None] == x[:, None]).double() * (1 - t) + (z[None] == N).double() * t).prod(-1)
        for i in range(d):
            ce = -net.cavity(z, [t] * d, list(range(d)), i).log()[:, x[:, i]].T
            expected += (keeps * (z[:, i] == N) * ce).sum(-1) * (1 / T) / t
    torch.testing.assert_close(
        objective_bound(net, Absorbing(), Flat(T), d, Nelbo()), expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("process", [Absorbing(), EpsilonHybrid(0.3), GammaHybrid(0.3)], ids=name)
def test_22_block_is_the_sum_of_conditional_block_bounds(process):
    """Block(2, T) on d = 4: each block's flat bound with the clean blocks before it as context."""
    d, width, T, net = 4, 2, 2, toy(process, N=2)
    N = net.num_tokens
    x = sequences(N, d)
    expected = torch.zeros(len(x), dtype=torch.float64)
    for number, tokens in enumerate(x):
        for first in range(0, d, width):

            class Conditioned(SetNetwork):
                """The same network with x^{<first} in its context and the block's places."""

                def cavity(self, z, t, fed, i, first=first, tokens=tokens):
                    full = torch.cat([tokens[:first].expand(len(z), -1), z], 1)
                    return net.cavity(
                        full, [0.0] * first + t, list(range(first + width)), first + i
                    )

            block = step_bound(Conditioned(N), process, Flat(T), width)
            expected[number] += block[
                (sequences(N, width) == tokens[first : first + width]).all(-1)
            ][0]
    found = objective_bound(net, process, Block(width, T), d, Nelbo())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@each_process
def test_22_one_block_is_flat_and_unit_blocks_are_quenched(process):
    d, net = 3, toy(process)
    for one, other in (
        (Block(d, 3), Flat(3)),
        (Block(1, 1), QuenchedAR()),
        (Slide(1, 1), QuenchedAR()),
    ):
        a, b = (objective_bound(net, process, schedule, d, Nelbo()) for schedule in (one, other))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


# --------------------------------------------------------------------------------------------------
# 23: the estimators


@dataclass
class Enumerated:
    """Rows with every outcome of the noise of one sequence: uniforms [R, d] per stream, weights
    [R].
    """

    tables: dict[Stream, Tensor]
    weight: Tensor


def enumerate_noise(process: Process, t: list[float], N: int, end: float) -> Enumerated:
    """All cells of the MASK, CORRUPT and UNIFORM_TOKEN uniforms at the times t; a cell is
    represented near its lower or upper end.
    """
    per_position = []
    for time in t:
        q = marginals(process, time, N)
        m = float(q[N, 0])
        corrupt = float(N * q[1, 0] / (1 - m)) if m < 1 else 1.0
        cells = [
            list(pairwise(cuts))
            for cuts in ([0, m, 1], [0, corrupt, 1], [i / N for i in range(N + 1)])
        ]
        per_position.append(
            [
                ([a + (b - a) * end for a, b in triple], math.prod(b - a for a, b in triple))
                for triple in product(*cells)
                if all(b > a for a, b in triple)
            ]
        )
    combinations = list(product(*per_position))
    u = torch.tensor([[place for place, _ in row] for row in combinations], dtype=torch.float64)
    streams = (Stream.MASK, Stream.CORRUPT, Stream.UNIFORM_TOKEN)
    weight = torch.tensor(
        [math.prod(w for _, w in row) for row in combinations], dtype=torch.float64
    )
    return Enumerated({stream: u[..., i] for i, stream in enumerate(streams)}, weight)


@pytest.mark.parametrize("end", [1e-6, 1 - 1e-6])
@pytest.mark.parametrize("schedule", [QuenchedAR(), Flat(3), Block(1, 2), Slide(2, 1)], ids=name)
@pytest.mark.parametrize("process", [p for p in PROCESSES if not p.leaks], ids=name)
def test_23_stratified_t_step_draws_average_to_the_bound(process, schedule, end, monkeypatch):
    d, net = 2, toy(process)
    N = net.num_tokens
    exact = step_bound(net, process, schedule, d)[5]
    x, found = sequences(N, d)[5], 0.0
    for offset in range(schedule.T):
        t = [
            (schedule.T - (offset - s) % schedule.T) / schedule.T
            for s in schedule.start(d).tolist()
        ]
        noise = enumerate_noise(process, t, N, end)
        rows = len(noise.weight)
        u = torch.full((rows,), (offset + end) / schedule.T, dtype=torch.float64)
        monkeypatch.setattr(
            textdiff.objective.estimators,
            "stratified",
            lambda _seed, _key, slot, u=u: u.unsqueeze(-1).expand(slot.shape),
        )
        batch = batch_of(x.expand(rows, -1))
        nats = (
            a_bound(process, schedule, Nelbo(), Stratified(True))
            .nats(net, batch, FixedNoise(noise.tables))
            .values.sum(-1)
        )
        found += float((noise.weight * nats).sum()) / schedule.T
    assert found == pytest.approx(float(exact), abs=1e-12)


def mask_count_expectation(net, process, objective: Objective, x: Tensor, monkeypatch) -> float:
    """E of a mask-count draw: counts, orders of the positions and the visible noise, all
    enumerated.
    """
    N, d = net.num_tokens, len(x)
    e = process.atom
    single = [
        (u, v, w * 1 / N)
        for u, w in ((e / 2, e), (1 - (1 - e) / 2, 1 - e))
        if w
        for v in [(i + 0.5) / N for i in range(N)]
    ]
    corner = list(product(single, repeat=d))
    orders = list(permutations([(i + 0.5) / d for i in range(d)]))
    count, order, noise = zip(*product(range(d), orders, corner), strict=True)

    def column(i):
        return torch.tensor([[cell[i] for cell in row] for row in noise], dtype=torch.float64)

    weight = column(2).prod(-1) / (d * len(orders))
    tables = {
        Stream.ORDER: torch.tensor(order, dtype=torch.float64),
        Stream.CORRUPT: column(0),
        Stream.UNIFORM_TOKEN: column(1),
    }
    u = (torch.tensor(count).double() + 0.5) / d
    monkeypatch.setattr(
        textdiff.objective.estimators,
        "stratified",
        lambda _seed, _key, slot: u.unsqueeze(-1).expand(slot.shape),
    )
    batch = batch_of(x.expand(len(u), -1))
    nats = (
        a_bound(process, Flat(), objective, MaskCount())
        .nats(net, batch, FixedNoise(tables))
        .values.sum(-1)
    )
    assert weight.sum() == pytest.approx(1, abs=1e-12)
    return float((weight * nats).sum())


@pytest.mark.parametrize("x", [(0, 0, 0), (2, 0, 1)], ids=str)
@pytest.mark.parametrize("process", [Absorbing(), EpsilonHybrid(0.3)], ids=name)
def test_23_mask_count_draws_average_to_the_bound(process, x, monkeypatch):
    """(4.6), with the reconstruction of (4.5): exact by subsets, and the same as the quadrature of
    (2.1).
    """
    net, x = SetNetwork(), torch.tensor(x)
    exact = subset_bound(net, process.atom, x, "kl")
    assert float(exact) == pytest.approx(
        float(tanh_sinh(lambda t: integrand(net, process, x, t))), abs=1e-8
    )
    if process.atom:
        exact = exact + atom_term(net, process, x)
    found = mask_count_expectation(net, process, Nelbo(), x, monkeypatch)
    assert found == pytest.approx(float(exact), abs=1e-11)
    if process.atom:
        b2 = mask_count_expectation(net, process, WeightedCrossEntropy(0.0), x, monkeypatch)
        assert b2 == pytest.approx(float(subset_bound(net, process.atom, x, "ce")), abs=1e-12)


def monte_carlo(
    net, process, schedule, objective, estimator, x: Tensor, rows: int = 200_000
) -> tuple[float, float]:
    """Mean and standard error; the 64 slots of a stratum are one sample."""
    batch = batch_of(x.expand(rows // 64 * 64, -1))
    nats = (
        a_bound(process, schedule, objective, estimator)
        .nats(net, batch, Noise(1, batch.example))
        .values.sum(-1)
    )
    groups = nats.view(-1, 64).mean(-1)
    return float(groups.mean()), float(groups.std() / math.sqrt(len(groups)))


@each_process
def test_23_continuous_draws_average_to_the_quadrature(process):
    net, x = toy(process), torch.tensor([0, 2])
    exact = tanh_sinh(lambda t: integrand(net, process, x, t)) + 2 * process.prior_kl(3)
    exact = float(exact + atom_term(net, process, x) if process.atom else exact)
    estimators = [Stratified()] if process.needs_time else [Stratified(), MaskCount()]
    for estimator in estimators:
        mean, error = monte_carlo(net, process, Flat(), Nelbo(), estimator, x)
        assert abs(mean - exact) < 5 * error, estimator
        assert error < 0.02 * exact, estimator


@pytest.mark.parametrize("process", [GammaHybrid(0.3), EpsilonHybrid(0.3), GIDD()], ids=name)
@pytest.mark.parametrize("schedule", [Slide(2, 1), Slide(3, "1/2"), Block(2, 2)], ids=name)
def test_23_tiling_draws_average_to_the_schedules_own_bound(process, schedule):
    net = toy(process)
    exact = float(step_bound(net, process, schedule, 3)[7])
    mean, error = monte_carlo(
        net, process, schedule, Nelbo(), Stratified(), sequences(3, 3)[7], 100_000
    )
    assert abs(mean - exact) < 5 * error


CASES = [
    (Absorbing(), Flat(4), None, "aligned"),
    (EpsilonHybrid(0.3), Flat(4), None, "aligned"),
    (GammaHybrid(0.3), Flat(4), None, "aligned"),
    (GIDD(), Flat(4), Stratified(True), "aligned"),
    (EpsilonHybrid(0.3), Block(3, 4), None, "aligned"),
    (SmoothEpsilonHybrid(0.3), Slide(4, 2), None, "aligned"),
    (Absorbing(), QuenchedAR(), None, "shifted"),
    (GammaHybrid(0.3), QuenchedAR(), None, "shifted"),
]


@pytest.mark.parametrize(("process", "schedule", "estimator", "layout"), CASES, ids=name)
def test_23_a_sequences_value_knows_neither_batch_nor_order_nor_padding(
    process, schedule, estimator, layout
):
    L, B = 7, 5
    net = random_transformer(6, process.needs_time, layout=layout)
    estimator = estimator or least_variance(process, schedule, L)
    x = torch.randint(6, (B, L), generator=torch.Generator().manual_seed(1))

    def nats(rows: list[int], padding: int = 0) -> Tensor:
        index = torch.tensor(rows)
        ids = torch.nn.functional.pad(x[index], (0, padding), value=3)
        valid = (torch.arange(L + padding) < L).expand(len(rows), -1) if padding else None
        batch = Batch(ids, index, index, valid)
        values = (
            a_bound(process, schedule, Nelbo(), estimator).nats(net, batch, Noise(3, index)).values
        )
        assert (values[:, L:] == 0).all(), "padding has a value"
        return values[:, :L]

    together = nats([0, 1, 2, 3, 4])
    assert (together.sum(-1) > 0).all()
    torch.testing.assert_close(nats([3, 1, 4, 0, 2]), together[[3, 1, 4, 0, 2]], rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.cat([nats([i]) for i in range(B)]), together, rtol=0, atol=1e-12
    )
    if isinstance(schedule, QuenchedAR):  # elsewhere filler is seen until the row has ended
        torch.testing.assert_close(nats([0, 1, 2, 3, 4], padding=3), together, rtol=0, atol=1e-12)


def test_23_ignored_padding_behind_the_last_block_has_no_value_and_no_gradient():
    process, schedule = SmoothEpsilonHybrid(0.3), Block(3, 4)
    net = random_transformer(6, process.needs_time)
    x = torch.randint(6, (3, 9), generator=torch.Generator().manual_seed(1))
    gradients = []
    for filler in (0, 5):
        ids = torch.cat([x[:, :6], torch.full((3, 3), filler)], 1)
        batch = batch_of(ids, valid=(torch.arange(9) < 5).expand(3, -1))
        draw = Stratified()(batch, process, schedule, 6, Noise(0, batch.example))
        total = a_bound(process, schedule).at(net, batch, draw).total
        gradients.append(torch.autograd.grad(total, net.blocks[0].qkv.weight)[0])
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_23_reconstruction_is_drawn_anew_with_every_draw():
    """B3's reconstruction is a second draw: it must enter the standard error (maths.md 9)."""
    process, net = EpsilonHybrid(0.3), SetNetwork()
    batch = batch_of(torch.zeros(64, 4, dtype=torch.int64))
    draws = [
        a_bound(process, Flat())
        .reconstruction(net, batch, Noise(0, batch.example, step=step))
        .values
        for step in range(2)
    ]
    assert not torch.equal(*draws)


@pytest.mark.parametrize("process", [p for p in PROCESSES if not p.atom], ids=name)
def test_24_t_doubling_extrapolates_to_continuous_time(process):
    d, net, x = 2, toy(process), torch.tensor([0, 2])
    exact = float(tanh_sinh(lambda t: integrand(net, process, x, t)) + d * process.prior_kl(3))
    coarse, fine = (t_step_bound(net, process, x, T) for T in (128, 256))
    # SCDD's clock goes as t^a at 0: the error falls by less than half
    far = 3e-3 if isinstance(process, SCDD) else 1e-3
    assert 2 * fine - coarse == pytest.approx(exact, abs=far)
    assert abs(fine - exact) < 0.8 * abs(coarse - exact)


def test_24_t_doubling_of_the_atom_extrapolates_to_b3():
    net, process, x = SetNetwork(), EpsilonHybrid(0.3), torch.tensor([0, 2])
    exact = float(subset_bound(net, 0.3, x, "kl") + atom_term(net, process, x))
    coarse, fine = (t_step_bound(net, process, x, T) for T in (128, 256))
    assert 2 * fine - coarse == pytest.approx(exact, abs=1e-3)


def t_step_bound(net: SetNetwork, process: Process, x: Tensor, T: int) -> float:
    """The flat T-step bound of one sequence through the code: every level and every noisy state."""
    N, d = net.num_tokens, len(x)
    z = states(N, d)
    t = torch.arange(1, T + 1).double().repeat_interleave(len(z))[:, None].expand(-1, d) / T
    batch = batch_of(x.expand(len(t), -1))
    draw = Draw(z.repeat(T, 1), t, t - 1 / T, Flat(T).plan(d).tiling(torch.zeros(1, 1)), float(T))
    values = a_bound(process, Flat(T)).at(net, batch, draw).values.sum(-1).view(T, -1)
    weight = torch.cat(
        [noisy_law(process, x[None], [level / T] * d, N) for level in range(1, T + 1)]
    )
    return float(torch.where(weight > 0, weight * values, 0.0).sum() / T + d * process.prior_kl(N))


# --------------------------------------------------------------------------------------------------
# 26, 27: honest bounds


@pytest.mark.parametrize("seed", range(3))
def test_26_b2_and_b3_bound_their_processes(seed, monkeypatch):
    d, process, net = 3, EpsilonHybrid(0.3), SetNetwork(seed=seed)
    p_b2, p_b3 = any_order_law(net, 0.3, d)
    assert p_b2.sum() == pytest.approx(1, abs=1e-12)
    assert p_b3.sum() == pytest.approx(1, abs=1e-12)
    found = bounds(process, Flat(), d)
    for number in (0, 5, 10, 19):
        x = sequences(3, d)[number]
        nats = {
            key: mask_count_expectation(net, bound.process, bound.objective, x, monkeypatch)
            for key, bound in found.items()
        }
        assert nats["b2"] >= -float(p_b2[number].log()) - 1e-12
        assert nats["nelbo"] >= -float(p_b3[number].log()) - 1e-12


class Stubborn:
    """Knows x at masked positions; at visible ones its cavity logits are `own` at the token seen
    and 0 elsewhere.
    """

    shifted, bos, sees_time, num_tokens, self_noise = False, 0, False, 3, None

    def __init__(self, x: Tensor, own: float):
        self.x, self.own = x, own

    def logits(self, z: Tensor, positions: Tensor) -> Tensor:
        certain = 1e3 * torch.nn.functional.one_hot(self.x[positions], 3).double().expand(
            *z.shape, 3
        )
        doubting = self.own * torch.nn.functional.one_hot(z.clamp(max=2), 3).double()
        return torch.where((z == 3).unsqueeze(-1), certain, doubting)

    def body(self, ids, positions, t, visibility):
        return self.logits(ids, positions)

    def head_parameters(self):
        return torch.eye(3).double(), None

    def cavity(self, z, t, fed, i):
        return self.logits(z[:, i], torch.tensor(i)).softmax(-1)


def test_26_the_papers_loss_is_no_bound_of_the_correcting_process():
    """[v:4.7] d = 2, N = 3, ε = 0.01: masked positions solved, visible posterior uniform: L(λ=1) =
    0.044 < log 9 = 2.197.
    """
    x, epsilon, process = torch.tensor([1, 1]), 0.01, EpsilonHybrid(0.01)
    number = 4  # of (1, 1)

    def loss(net: Stubborn, lambda_: float) -> float:
        """(4.1) by all states; the integrand does not depend on t, so one level is the integral."""
        z, t = states(3, 2), torch.full((16, 2), 0.5, dtype=torch.float64)
        draw = Draw(z, t, None, Flat().plan(2).tiling(torch.zeros(1, 1)), 1.0)
        values = (
            a_bound(process, Flat(), WeightedCrossEntropy(lambda_))
            .at(net, batch_of(x.expand(16, -1)), draw)
            .values.sum(-1)
        )
        weight = noisy_law(process, x[None], [0.5, 0.5], 3)[0]
        return float((weight * values).sum())

    uniform = Stubborn(
        x, -math.log(1 + 3)
    )  # the posterior that the loss reads (self-noise 1/2) is uniform
    assert loss(uniform, 1.0) == pytest.approx(0.044, abs=1e-3)
    assert loss(uniform, 1.0) < -float(any_order_law(uniform, epsilon, 2)[1][number].log())
    doubting = Stubborn(
        x, -math.log1p((1 - epsilon) * 3 / epsilon)
    )  # the calibrated posterior is uniform
    truth = -float(any_order_law(doubting, epsilon, 2)[1][number].log())
    assert truth == pytest.approx(2.197, abs=1e-3)
    assert loss(doubting, 1.0) < 0.2
    assert loss(doubting, 100.0) >= truth


class Tokens:
    """A tokenizer that is nothing but its ids."""

    def __init__(self, N: int):
        self.N = N

    def __len__(self):
        return self.N

    def get_vocab(self):
        return {str(token): token for token in range(self.N)}


def model(process: Process, schedule: Hyperschedule, layout: str = "aligned") -> Model:
    return Model(
        random_transformer(6, process.needs_time, layout=layout), process, schedule, Tokens(6), 7
    )


NAMED = [
    (Absorbing(), Flat(4), "aligned", {"NELBO": "mask count, continuous time"}),
    (GammaHybrid(0.3), Flat(4), "aligned", {"NELBO": "stratified, continuous time"}),
    (Uniform(), Slide(2, 1), "aligned", {"NELBO": "stratified, 2-step"}),
    (Absorbing(), QuenchedAR(), "shifted", {"exact -log p": "exact chain rule"}),
    (
        EpsilonHybrid(0.3),
        Flat(4),
        "aligned",
        {
            "B3: NELBO with correction": "mask count, continuous time",
            "B1: NELBO of masking alone, clean context": "mask count, continuous time",
            "B2: bound of unmasking with noisy display": "mask count, continuous time",
        },
    ),
]


def corpus(rows: int, size: int, L: int = 7, N: int = 6):
    ids = torch.randint(N, (rows, L), generator=torch.Generator().manual_seed(0))
    index = torch.arange(rows)
    return lambda: [Batch(ids[part], index[part], index[part]) for part in index.split(size)]


@pytest.mark.parametrize(("process", "schedule", "layout", "expected"), NAMED, ids=name)
def test_27_every_bound_names_its_process_schedule_and_estimator(
    process, schedule, layout, expected
):
    found = measure(model(process, schedule, layout), corpus(4, 2))
    assert {bound.name: bound.estimator for bound in found} == expected
    for bound in found:
        named = Absorbing() if bound.name.startswith("B1") else process
        assert (bound.process, bound.hyperschedule) == (str(named), str(schedule))
        assert (bound.sequences, bound.tokens) == (4, 28)
        assert (bound.standard_error == 0) == (bound.name == "exact -log p")
        assert {
            "name",
            "process",
            "hyperschedule",
            "estimator",
            "nats",
            "bits",
            "perplexity",
        } <= bound.as_dict().keys()


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("process", [EpsilonHybrid(0.3), GammaHybrid(0.3)], ids=name)
def test_27_measured_numbers_do_not_depend_on_the_batch_size(process, discrete):
    runs = [
        measure(model(process, Flat(4)), corpus(6, size), discrete=discrete) for size in (1, 4, 6)
    ]
    for run in runs[1:]:
        for bound, reference in zip(run, runs[0], strict=True):
            assert bound.nats == pytest.approx(reference.nats, rel=1e-12)
            assert bound.standard_error == pytest.approx(reference.standard_error, rel=1e-9)


def test_27_standard_error_is_that_of_repeated_measurements():
    """Over seeds: the spread of the bound is the reported standard error, the reconstruction's
    share included.
    """
    toy_model = model(EpsilonHybrid(0.3), Flat(4))
    found = [measure(toy_model, corpus(16, 16), draws=4, seed=seed)[0] for seed in range(60)]
    spread = torch.tensor([b.nats for b in found]).std()
    reported = torch.tensor([b.standard_error for b in found]).square().mean().sqrt()
    assert float(reported / spread) == pytest.approx(
        1, abs=0.4
    )  # a standard deviation of 60 samples is known to 9 %


def test_a_process_that_masks_away_everything_in_one_step_is_reported_as_exact():
    """With one token per call and m_1 = 1 the bound is the chain rule, for every process."""
    for process in (EpsilonHybrid(0.3), SmoothEpsilonHybrid(0.3), GammaHybrid(0.3)):
        (bound,) = measure(model(process, QuenchedAR()), corpus(2, 2))
        assert bound.estimator == "exact chain rule"


def test_a_chain_rule_is_claimed_only_where_it_holds():
    """Under a process that keeps tokens at t = 1 the shifted bound has a prior term and draws: it
    is not -log p.
    """
    (bound,) = measure(model(GammaHybrid(0.5, tail=0.1), QuenchedAR(), "shifted"), corpus(2, 2))
    assert bound.estimator != "exact chain rule"


def test_estimators_refuse_what_they_are_not_defined_for():
    noise, batch = Noise(0, torch.arange(1)), batch_of(torch.zeros(1, 4, dtype=torch.int64))
    for process, schedule in (
        (GammaHybrid(0.3), Flat(4)),
        (Uniform(), Flat(4)),
        (Absorbing(), Slide(2, 1)),
    ):
        with pytest.raises(ValueError, match="use Stratified"):
            MaskCount()(batch, process, schedule, 3, noise)


def test_levels_of_the_toys_are_those_of_the_schedule():
    for schedule in SCHEDULES:
        for k in range(schedule.calls(3) + 1):
            assert levels(schedule, k, 3) == schedule.level(k, 3).tolist()


def test_the_loss_of_the_nelbo_is_the_whole_bound_of_a_process_with_an_atom():
    """Training adds the reconstruction at t = 0+ too: without it nothing teaches visible positions
    (1.5).
    """
    process, schedule = EpsilonHybrid(0.3), Flat(4)
    net = random_transformer(3, False)
    batch = batch_of(torch.randint(3, (16, 4), generator=torch.Generator().manual_seed(0)))
    bound = a_bound(process, schedule, Nelbo(), MaskCount())
    drawn = bound.nats(net, batch, Noise(0, batch.example))
    total, nats = drawn.total, drawn.values
    assert total.item() == pytest.approx(float(nats.sum()), rel=1e-12)
    draw = MaskCount()(batch, process, schedule, 3, Noise(0, batch.example))
    rows = a_bound(process, schedule).at(net, batch, draw).total
    assert total.item() > rows.item() + 1 and (nats > 0).all()
    weight = net.head_parameters()[0]
    (whole,), (part,) = torch.autograd.grad(total, weight), torch.autograd.grad(rows, weight)
    assert (whole - part).norm() > 0.1 * part.norm()


def test_mask_count_refuses_a_network_that_looks_at_t():
    net = random_transformer(3, True)
    batch = Batch(torch.zeros(1, 4, dtype=torch.int64), torch.arange(1), torch.arange(1))
    with pytest.raises(ValueError, match="networks that do not look at t"):
        bound = a_bound(Absorbing(), Flat(), Nelbo(), MaskCount())
        bound.nats(net, batch, Noise(0, batch.example))
    assert least_variance(Absorbing(), Flat(), 4, sees_time=True) == Stratified()
    assert least_variance(Absorbing(), Flat(), 4) == MaskCount()


# --------------------------------------------------------------------------------------------------
# log-scores: continuous time under every schedule, ends of time, importance


def score_integral(net: SetNetwork, process: Process, schedule: Hyperschedule, x: Tensor) -> float:
    """The bound of log-scores by quadrature over the offset and enumeration of z: each position at
    its own time, seen as its window sees it; the prior term by hand.
    """
    N, d = net.num_tokens, len(x)
    z = states(N, d)
    batch = batch_of(x.expand(len(z), -1))
    end = 0.999 if float(process.clock(torch.ones(()).double()).keep) == 0 else 1.0

    def at(offset: float) -> float:
        tiling = schedule.plan(d).tiling(torch.full((1, 1), offset, dtype=torch.float64))
        level = tiling.level[0] / schedule.T
        t = level.clamp(max=end)
        draw = Draw(z, t.expand(len(z), d), None, tiling, 1.0)
        values = a_bound(process, schedule, ScoreEntropy()).at(net, batch, draw).values
        weight = noisy_law(process, x[None], t.tolist(), N)[0]
        moving = torch.where(weight[:, None] > 0, weight[:, None] * values, 0.0)[:, level <= end]
        return float(moving.sum())

    nodes, weights = map(torch.from_numpy, numpy.polynomial.legendre.leggauss(24))
    total = 0.0
    for edge in range(schedule.T):  # denser towards the least offset, where clocks run fast
        begin = edge + (1 - end) * schedule.T
        ladder = [begin, *(begin + (edge + 1 - begin) * 4.0**-k for k in range(8, -1, -1))]
        for low, high in pairwise(ladder):
            points = (low + high) / 2 + (high - low) / 2 * nodes
            values = torch.tensor([at(float(point)) for point in points], dtype=torch.float64)
            total += (high - low) / 2 * float(weights @ values)
        if edge > 0 or not schedule.plan(d).flat:
            total += (begin - edge) * at((begin + edge) / 2)  # all but those that rest
    q, pi = marginals(process, end, N)[:, 0], marginals(process, end, N)[:N].sum() / N / N
    mask = marginals(process, end, N)[N, 0]
    prior = torch.cat([pi.expand(N), mask[None]])
    kl = (torch.xlogy(q, q) - torch.xlogy(q, prior)).sum()
    return total / schedule.T + d * float(kl)


@pytest.mark.parametrize("schedule", [Flat(2), Block(1, 2), Slide(2, 1)], ids=name)
@pytest.mark.parametrize("process", [GammaHybrid(0.3, tail=5e-3), GammaHybrid(0.3)], ids=name)
def test_log_scores_are_bounded_under_every_schedule(process, schedule):
    net, x = toy(process), torch.tensor([0, 2])
    exact = score_integral(net, process, schedule, x)
    bound = bounds(process, schedule, 2, prediction=Prediction.LOG_SCORE)["nelbo"]
    mean, error = monte_carlo(net, process, schedule, ScoreEntropy(), bound.estimator, x)
    assert abs(mean - exact) < 5 * error and error < 0.02 * exact
