"""Hyperschedules and their tiling (maths.md 7, number 19; the closed forms of
arXiv 2504.06416).
"""

from dataclasses import replace
from fractions import Fraction
from math import ceil, floor

import pytest
import torch

from textdiff.hyperschedule import (
    Block,
    Flat,
    Hyperschedule,
    OverlapBlock,
    QuenchedAR,
    Slide,
    StartSteps,
    TightBlock,
)

L = 12
SCHEDULES = [
    QuenchedAR(),
    Flat(1),
    Flat(5),
    Block(4, 4),
    Block(5, 3),  # the last block is short
    Block(1, 1),
    Block(1, 3),
    Block(4, 3, block_causal=True),
    TightBlock(4, 4),
    TightBlock(5, 2),
    OverlapBlock(3, 2, levels=5),
    OverlapBlock(2, 1, levels=3, block_causal=True),
    Slide(4, 4),
    Slide(4, 1),
    Slide(3, "1/2"),
    Slide(5, "3/2"),
    Slide(1, 1),
    Slide(5, 2),
    Slide(30, 1),  # wider than the sequence
    StartSteps(1, (3, 1, 4, 11, 5, 9, 2, 6, 10, 0, 7, 8)),  # random order
    StartSteps(3, (0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9)),  # diagonal within blocks
    StartSteps(4, (7, 7, 0, 2, 2, 19, 0, 3, 3, 3, 1, 40)),  # calls in between touch nothing
]
each_schedule = pytest.mark.parametrize("h", SCHEDULES, ids=lambda h: repr(h).replace(" ", ""))


def matrix(h: Hyperschedule, length: int = L) -> torch.Tensor:
    """τ_k(i), [K+1, L]."""
    return torch.stack([h.level(k, length) for k in range(h.calls(length) + 1)])


def newly_settled(h: Hyperschedule, length: int = L) -> list[int]:
    """How many tokens each call settles."""
    plan = h.plan(length)
    return [plan.settled(k + 1) - plan.settled(k) for k in range(plan.calls)]


def grid(rows: str) -> torch.Tensor:
    """ "333 223" -> [[3, 3, 3], [2, 2, 3]]."""
    return torch.tensor([[int(level) for level in row] for row in rows.split()])


# ----------------------------------------------------------------------------
# invariants


@each_schedule
def test_a_plan_states_the_facts_of_its_schedule(h):
    """Each by its definition, from start steps and context order alone."""
    plan, s, order = h.plan(L), h.start(L).tolist(), h.order(L).tolist()
    ranked = sorted(range(L), key=lambda i: (s[i], i))
    assert plan.position.tolist() == ranked and plan.starts == tuple(s[i] for i in ranked)
    assert plan.rank.tolist() == [order[i] for i in ranked] and plan.calls == h.calls(L)
    sees = {i: {j for j in range(L) if order[j] <= order[i]} for i in range(L)}
    assert plan.exact == all(s[j] <= s[i] for i in range(L) for j in sees[i])
    assert plan.causal == all(sees[i] == set(ranked[: r + 1]) for r, i in enumerate(ranked))
    assert plan.flat == (max(s) == 0) and plan.left_to_right == (ranked == list(range(L)))
    drawn = [h.window(k, L).nonzero().flatten().tolist() for k in range(h.calls(L))]
    assert plan.one_by_one == (drawn == [[i] for i in range(L)])
    tilings = [plan.tiling(torch.tensor([[o]])) for o in range(h.T)]
    assert plan.windows == max(len(tiling.window.unique()) for tiling in tilings)
    assert all(torch.equal(a, b) for a, b in zip(plan.tiling_at_zero, tilings[0], strict=True))
    assert plan is h.plan(L) is not h.plan(L, torch.device("meta"))


@each_schedule
def test_sequences_with_orders_of_their_own_share_a_plan(h):
    """Only `position` [B, L] knows the order: the tiling of each is that of all, moved with it."""
    plan, offset = h.plan(L), torch.tensor([[0.0], [h.T - 0.5]], dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    moved = torch.stack([torch.randperm(L, generator=draw) for _ in range(2)])
    own = replace(plan, position=moved[:, plan.position], left_to_right=False).tiling(offset)
    for field, shared in zip(own, plan.tiling(offset), strict=True):
        assert torch.equal(field.gather(-1, moved), shared)


@each_schedule
def test_19_levels_run_from_T_to_0_and_touch_every_step_of_every_position_once(h):
    tau = matrix(h)
    assert (tau[0] == h.T).all() and (tau[-1] == 0).all()
    assert (tau[-2] > 0).any(), "the last call settles something"
    fall = tau[:-1] - tau[1:]
    assert set(fall.unique().tolist()) <= {0, 1}
    for i in range(L):
        moved = tau[:-1, i][fall[:, i] == 1]
        assert moved.tolist() == list(range(h.T, 0, -1)), "T -> T-1 -> ... -> 0, each once"


@each_schedule
def test_19_levels_are_the_formula(h):
    """τ_k(i) = clip(T + s(i) - k, 0, T) and K = T + max s, in integers."""
    s = h.start(L).tolist()
    assert h.start(L).dtype == torch.int64 and min(s) >= 0
    assert h.calls(L) == h.T + max(s)
    truth = [[min(max(h.T + s[i] - k, 0), h.T) for i in range(L)] for k in range(h.calls(L) + 1)]
    assert matrix(h).tolist() == truth


@each_schedule
def test_19_every_position_is_settled_active_or_worthless(h):
    """The parts by their definitions: settled τ_k = 0, active τ_k > 0 and τ_{k+1} < T, worthless
    the rest.
    """
    tau, plan = matrix(h), h.plan(L)
    for k in range(h.calls(L)):
        settled, window = tau[k] == 0, (tau[k] > 0) & (tau[k + 1] < h.T)
        worthless = (tau[k] == h.T) & (tau[k + 1] == h.T)
        assert (settled.int() + window.int() + worthless.int() == 1).all()
        assert torch.equal(h.settled(k, L), settled) and torch.equal(h.window(k, L), window)
        ends = plan.settled(k), plan.reached(k)
        parts = plan.position.tensor_split(ends)
        for part, expected in zip(parts, (settled, window, worthless), strict=True):
            assert part.sort().values.tolist() == expected.nonzero().flatten().tolist()
        assert torch.equal(plan.times(k), tau[k + 1][parts[1]].double() / h.T)
    assert plan.settled(h.calls(L)) == L


@each_schedule
def test_19_window_width_and_token_rate(h):
    """ω is the widest window and ρ = L/K; every token is settled exactly once."""
    tau = matrix(h)
    active = (tau[:-1] > 0) & (tau[1:] < h.T)
    assert h.omega(L) == int(active.sum(1).max())
    assert h.rho(L) == Fraction(L, len(tau) - 1)
    assert sum(newly_settled(h)) == L


@each_schedule
def test_19_steps_outside_the_schedule_are_refused(h):
    for k in (-1, h.calls(L) + 1):
        with pytest.raises(ValueError, match="lies outside"):
            h.level(k, L)


# ----------------------------------------------------------------------------
# special cases


@pytest.mark.parametrize("length", [1, 7, 12])
@pytest.mark.parametrize(
    "a, b",
    [
        (lambda n: QuenchedAR(), lambda n: Slide(1, 1)),
        (lambda n: QuenchedAR(), lambda n: Block(1, 1)),
        (lambda n: QuenchedAR(), lambda n: StartSteps(1, tuple(range(n)))),
        (lambda n: Flat(5), lambda n: Block(n, 5)),
        (lambda n: Flat(5), lambda n: Block(n + 3, 5)),
        (lambda n: Flat(5), lambda n: TightBlock(n, 5)),
        (lambda n: Flat(1), lambda n: Slide(n, n)),
        (lambda n: Flat(5), lambda n: StartSteps(5, (0,) * n)),
        (
            lambda n: TightBlock(1, 5),
            lambda n: Slide(20, 4) if n == 1 else StartSteps(5, tuple(4 * i for i in range(n))),
        ),
        (lambda n: Slide(4, 2), lambda n: Slide(4, "4/2")),
        (lambda n: Slide(3, "1/2"), lambda n: Slide(3, Fraction(1, 2))),
        (lambda n: Slide(4, 4), lambda n: Block(4, 1)),
    ],
)
def test_19_special_cases_are_equal(a, b, length):
    assert torch.equal(matrix(a(length), length), matrix(b(length), length))


def test_19_one_level_one_token_is_gpt():
    """T = 1, w = 1: call k sees tokens < k and settles token k. Nothing divides by T - 1."""
    for h in (QuenchedAR(), Slide(1, 1), Block(1, 1)):
        assert (h.T, h.calls(L), h.omega(L), h.rho(L)) == (1, L, 1, 1)
        for k in range(L):
            before = torch.arange(L) < k
            assert torch.equal(h.settled(k, L), before)
            assert h.window(k, L).nonzero().item() == k
        assert newly_settled(h) == [1] * L


@pytest.mark.parametrize("width", [1, 3, 4, 16])
@pytest.mark.parametrize("T", [1, 2, 4, 7])
def test_19_closed_forms_of_flat_block_and_tight(width, T):
    """Flat: τ = T - k. Block: clip(T - (k - bT)). Tight: clip(T - (k - b(T-1))), b the block
    (arXiv 2504.06416).
    """
    for k in range(Flat(T).calls(L) + 1):
        assert (Flat(T).level(k, L) == T - k).all()
    blocks = ceil(L / width)
    assert Block(width, T).calls(L) == blocks * T
    for k in range(blocks * T + 1):
        truth = [min(max(T - (k - (i // width) * T), 0), T) for i in range(L)]
        assert Block(width, T).level(k, L).tolist() == truth
    assert OverlapBlock(width, T, levels=T).start(L).equal(Block(width, T).start(L))
    if T >= 2:
        tight = TightBlock(width, T)
        assert OverlapBlock(width, T - 1, levels=T).start(L).equal(tight.start(L))
        assert tight.calls(L) == T + (blocks - 1) * (T - 1)
        for k in range(tight.calls(L) + 1):
            assert tight.level(k, L).tolist() == [
                min(max(T - (k - (i // width) * (T - 1)), 0), T) for i in range(L)
            ]
        hand_over = T - 1
        if blocks > 1:
            assert tight.window(hand_over, L).sum() == min(2 * width, L), (
                "two blocks are fed on the hand-over call"
            )


@pytest.mark.parametrize("length", [5, 12, 21])
@pytest.mark.parametrize("width", [1, 3, 4, 8])
@pytest.mark.parametrize("rate", [4, 1, 2, "1/2", "3/2", "2/3", "1/10", "7/5"])
def test_19_closed_form_of_slide(width, rate, length):
    """T = ceil(ω/ρ), τ = clip(T + floor(i/ρ) - k, 0, T), K = T + floor((L-1)/ρ); floors of exact
    fractions.
    """
    rho, h = Fraction(rate), Slide(width, rate)
    T = ceil(width / rho)
    assert h.T == T and h.calls(length) == T + floor((length - 1) / rho)
    for k in range(h.calls(length) + 1):
        assert h.level(k, length).tolist() == [
            min(max(T + floor(i / rho) - k, 0), T) for i in range(length)
        ]
    if rho >= 1 and rho.denominator == 1:
        assert h.calls(length) == ceil(length / rho) + T - 1, "arXiv 2504.06416"
    full = newly_settled(h, length)[T - 1 :]
    assert max(full) <= ceil(rho) and sum(full) == length


def test_19_the_paper_figures():
    """The panels of the paper's figure (d = 20) and its illustration, level by level."""
    d = 20
    assert Flat(20).calls(d) == 20 and Block(4, 4).calls(d) == 20 and Slide(4, 1).calls(d) == 23
    assert QuenchedAR().calls(d) == 20
    tight = grid("44444444 33334444 22224444 11114444 00003333 00002222 00001111 00000000")
    assert torch.equal(matrix(TightBlock(4, 4), 8), tight)
    block = grid("33333333 22223333 11113333 00003333 00002222 00001111 00000000")
    assert torch.equal(matrix(Block(4, 3), 8), block)
    slide = grid("444444 344444 234444 123444 012344 001234 000123 000012 000001 000000")
    assert torch.equal(matrix(Slide(4, 1), 6), slide)
    assert torch.equal(matrix(QuenchedAR(), 3), grid("111 011 001 000"))
    assert torch.equal(matrix(Slide(3, "1/2"), 3)[:6], grid("666 566 466 356 246 135"))
    assert torch.equal(matrix(Slide(4, 2), 6), grid("222222 112222 001122 000011 000000"))


def test_19_floors_of_rates_are_exact():
    """Floats put 25 / (25/39) below 39, and many like it; a float rate is refused, a fraction is
    exact.
    """
    for rate in ("25/39", "27/50", "7/51", "14/51", "1/10"):
        rho = Fraction(rate)
        assert Slide(3, rate).start(500).tolist() == [floor(i / rho) for i in range(500)]
    with pytest.raises(ValueError, match="float"):
        Slide(3, 0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Flat(0),
        lambda: Flat(1.5),
        lambda: Block(0, 4),
        lambda: Block(4, 0),
        lambda: TightBlock(4, 1),
        lambda: OverlapBlock(4, 5, levels=4),
        lambda: OverlapBlock(4, 0, levels=4),
        lambda: StartSteps.in_order((0, 2)),
        lambda: StartSteps.in_order((0, 0, 1)),
        lambda: StartSteps.in_order((1, 0), group=0),
        lambda: Slide(0, 1),
        lambda: Slide(4, 0),
        lambda: Slide(4, "-1/2"),
        lambda: Slide(4, "fast"),
        lambda: Slide(4, "1/0"),
        lambda: StartSteps(0, (0,)),
        lambda: StartSteps(1, ()),
        lambda: StartSteps(1, (0, -1)),
        lambda: StartSteps(1, (0, 0.5)),
        lambda: StartSteps(1, (0, 1, 2)).start(4),
    ],
)
def test_a_hyperschedule_that_makes_no_sense_is_refused(make):
    with pytest.raises(ValueError):
        make()


# ----------------------------------------------------------------------------
# tiling


@each_schedule
def test_19_the_tilings_of_all_offsets_touch_every_step_once(h):
    """Over o = 0..T-1 the pairs (i, τ -> τ-1) occur exactly once each; so T times a random tiling
    is unbiased.
    """
    touched = []
    for o in range(h.T):
        tiling = h.plan(L).tiling(torch.tensor([[o]]))
        assert tiling.level.shape == (1, L) and tiling.window.shape == (1, L)
        touched += [(i, int(level)) for i, level in enumerate(tiling.level[0])]
    assert sorted(touched) == [(i, level) for i in range(L) for level in range(1, h.T + 1)]


@each_schedule
def test_19_a_tiling_is_made_of_the_windows_of_inference(h):
    """The positions of one window number are exactly the window of a call k = o (mod T), at that
    call's levels.
    """
    for o in range(h.T):
        tiling = h.plan(L).tiling(torch.tensor([[o]]))
        calls = [k for k in range(h.calls(L)) if k % h.T == o]
        seen = torch.zeros(L, dtype=torch.int64)
        for k in calls:
            members = tiling.call[0] == k
            assert torch.equal(members, h.window(k, L)), f"window of call {k}"
            assert torch.equal(tiling.level[0][members], h.level(k, L)[members].double())
            assert len(tiling.window[0][members].unique()) <= 1, "one window, one number"
            if members.any():
                assert (tiling.window[0][members] == (k - o) // h.T).all(), "call = o + window T"
            seen += members
        assert (seen == 1).all(), "every position lies in one window"


@each_schedule
def test_19_tiling_equals_the_formula_of_the_design(h):
    """window id k(i) = s(i) + ((o - s(i)) mod T), level T - ((o - s(i)) mod T), in integers."""
    s = h.start(L)
    for o in range(h.T):
        tiling, late = h.plan(L).tiling(torch.tensor([[o]])), (o - s) % h.T
        assert torch.equal(tiling.call[0], (s + late).double())
        assert torch.equal(tiling.level[0], (h.T - late).double())


@each_schedule
def test_19_the_context_of_a_window_is_what_had_settled(h):
    """{j : s(j) <= k - T} = the settled positions of call k; it never meets the window."""
    s = h.start(L)
    for o in range(h.T):
        tiling = h.plan(L).tiling(torch.tensor([[o]]))
        for k in tiling.call.unique().tolist():
            context = s <= k - h.T
            assert torch.equal(context, h.level(int(k), L) == 0)
            assert torch.equal(context, h.settled(int(k), L))
            assert not (context & (tiling.call[0] == k)).any()


@each_schedule
def test_19_real_offsets_tile_continuous_time(h):
    """o in [0, T): levels in (0, T], same windows as the integer below, and the level falls by 1 as
    o grows by 1.
    """
    o = torch.rand(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * h.T
    tiling, s = h.plan(L).tiling(o), h.start(L)
    assert tiling.level.dtype == torch.float64 and tiling.level.shape == (50, L)
    assert tiling.level.min() > 0 and tiling.level.max() <= h.T
    late = torch.remainder(o - s, h.T)
    torch.testing.assert_close(tiling.level, h.T - late, atol=1e-12, rtol=0)
    torch.testing.assert_close(tiling.call, s + late, atol=1e-12, rtol=0)
    torch.testing.assert_close(tiling.call, o + h.T * tiling.window, atol=1e-12, rtol=0)


@each_schedule
def test_19_the_level_of_a_position_is_uniform_for_a_uniform_offset(h):
    o = (torch.arange(1000, dtype=torch.float64).unsqueeze(1) + 0.5) / 1000 * h.T
    levels = h.plan(L).tiling(o).level.sort(0).values
    grid_ = ((torch.arange(1000) + 0.5) / 1000 * h.T).double().unsqueeze(1)
    assert (levels - grid_).abs().max() < 1.5 * h.T / 1000


@each_schedule
def test_19_groups_draw_their_own_offsets_only_where_windows_never_overlap(h):
    """There are several groups iff no window of any real offset holds two different start steps;
    they are the start steps then.
    """
    s = h.start(L)
    offsets = torch.arange(0, h.T, 0.25, dtype=torch.float64).unsqueeze(1)
    plan = h.plan(L)
    window = plan.tiling(offsets).window
    together = (window.unsqueeze(-1) == window.unsqueeze(-2)) & (s.unsqueeze(-1) != s.unsqueeze(-2))
    group = plan.by_position(plan.group)
    assert plan.groups == len(group.unique()) and plan.apart == (not together.any())
    if together.any():
        assert (group == 0).all()
    else:
        assert torch.equal(
            group.unsqueeze(0) == group.unsqueeze(1), s.unsqueeze(0) == s.unsqueeze(1)
        )
    own = (torch.arange(plan.groups) + 1).remainder(h.T).double().unsqueeze(0)
    with pytest.raises(ValueError, match="one for each of the"):
        plan.tiling(own.repeat(1, 2) if plan.groups > 1 else own.repeat(1, 3))
    if plan.groups > 1:
        tiling = plan.tiling(own)
        for i in range(L):
            alone = plan.tiling(own[:, group[i], None])
            assert (
                tiling.level[0, i] == alone.level[0, i]
                and tiling.window[0, i] == alone.window[0, i]
            )


@each_schedule
@pytest.mark.parametrize("bad", [-1e-9, -1.0, "T", float("nan")])
def test_19_offsets_outside_0_T_are_refused(h, bad):
    offset = float(h.T) if bad == "T" else bad
    with pytest.raises(ValueError, match="offsets must lie in"):
        h.plan(L).tiling(torch.tensor([[0.0], [offset]]))
