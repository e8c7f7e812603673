"""Structured training: one noisy stream beside one clean stream gives the logits of every window's
own call (maths 7: 38, 39, 41-43).
"""

from __future__ import annotations

import pytest
import torch
from catalogue import any_order, layouts
from toys import a_bound

from textdiff.denoiser.generation_rows import generation_call
from textdiff.denoiser.training_rows import training_call
from textdiff.denoiser.visibility import context_order
from textdiff.hyperschedule import Block, Flat, QuenchedAR, StartSteps
from textdiff.network import Transformer
from textdiff.noise import Noise
from textdiff.objective import Batch, MaskCount, Nelbo, Stratified
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid

N, L, B = 5, 8, 3
LATE = StartSteps(2, (0, 0, 1, 1, 3, 3, 4, 6))  # from left to right, with pauses
CASES = [*layouts(L), ("aligned", LATE), ("shifted", LATE)]


def network(layout, layers=3):
    """A random network in float64 that sees times."""
    torch.manual_seed(1)
    found = (
        Transformer(layers=layers, width=16, heads=2, layout=layout)
        .build(N, True, 0)
        .double()
        .eval()
    )
    for parameter in found.parameters():
        parameter.data.normal_(0, 0.3)
    return found


def noisy(schedule, offsets):
    """Clean and noisy tokens, times and tiling for one offset a row."""
    torch.manual_seed(2)
    tiling = schedule.plan(L).tiling(offsets)
    t = tiling.level / schedule.T
    x = torch.randint(0, N, (len(offsets), L))
    z = torch.where(torch.rand(x.shape) < 0.5, N, torch.randint(0, N, x.shape))
    return x, torch.where(t == 1, N, z), t, tiling


@pytest.mark.parametrize(("layout", "schedule"), CASES, ids=str)
def test_42_two_stream_logits_are_those_of_each_windows_own_call(layout, schedule):
    net = network(layout)
    for o in range(schedule.T):
        offsets = torch.tensor(
            [[o], [(o + 1) % schedule.T], [o]]
        )  # rows of a batch may tile differently
        x, z, t, tiling = noisy(schedule, offsets)
        with torch.no_grad():
            together = training_call(net, schedule, x, z, t, tiling=tiling).hidden(net)
        for row in range(B):
            for k in range(int(offsets[row]), schedule.calls(L), schedule.T):
                settled, window = schedule.settled(k, L), schedule.window(k, L)
                own = torch.where(settled, x[row], torch.where(window, z[row], N))[None]
                times = torch.where(settled, 0.0, torch.where(window, t[row], 1.0))[None]
                call, active = generation_call(net, schedule, k, own, times)
                with torch.no_grad():
                    torch.testing.assert_close(
                        call.hidden(net)[0], together[row, active], atol=1e-10, rtol=0
                    )


@pytest.mark.parametrize(("layout", "schedule"), CASES, ids=str)
def test_39_what_a_settled_row_sees_never_changes(layout, schedule):
    seen: dict[int, set[int]] = {}
    for k in range(schedule.calls(L)):
        settled = schedule.settled(k, L).nonzero().squeeze(-1)
        if not len(settled):
            continue
        among = context_order(schedule.order(L)[settled])
        table = torch.ones(len(settled), len(settled)).tril().bool() if among is None else among[0]
        for row, position in enumerate(settled.tolist()):
            now = set(settled[table[row]].tolist())
            assert seen.setdefault(position, now) == now


@pytest.mark.parametrize(("layout", "schedule"), CASES, ids=str)
def test_41_43_a_window_depends_on_its_context_and_itself_alone(layout, schedule):
    """Neither tokens that have not settled when a window is called nor those of other windows
    change its logits, bit for bit.
    """
    net = network(layout)
    x, z, t, tiling = noisy(schedule, torch.zeros(B, 1, dtype=torch.int64))
    with torch.no_grad():
        before = training_call(net, schedule, x, z, t, tiling=tiling).hidden(net)
        for number in tiling.window[0].unique():
            inside = tiling.window[0] == number
            call = tiling.call[0][inside][0]
            outside = ~inside & ~(schedule.start(L) <= call - schedule.T)
            other_x = torch.where(
                outside, (x + 1) % N, x
            )  # clean tokens that the window must not know,
            other_z = torch.where(~inside, (z + 1) % (N + 1), z)  # and noisy ones of other windows
            if layout == "shifted" and schedule.T > 1:
                other_z = torch.where(t == 1, N, other_z)  # a token at level T is not fed
            own = (x + 1) % N
            hidden_own = torch.where(inside, own, other_x)  # nor its own clean tokens
            after = training_call(net, schedule, hidden_own, other_z, t, tiling=tiling).hidden(net)
            torch.testing.assert_close(after[:, inside], before[:, inside], atol=1e-12, rtol=0)


@pytest.mark.parametrize(("layout", "schedule", "rows"), [
    ("aligned", Flat(4), L),
    ("shifted", QuenchedAR(), L),
    ("aligned", Block(4, 4), 2 * L),
    ("shifted", Block(4, 4), 2 * L + 2),
    ("shifted", Block(4, 1), 2 * L),
])  # fmt: skip
def test_flat_and_quenched_ar_cost_one_length(layout, schedule, rows):
    x, z, t, tiling = noisy(schedule, torch.zeros(B, 1, dtype=torch.int64))
    assert training_call(network(layout), schedule, x, z, t, tiling=tiling).ids.shape == (B, rows)


def test_22_the_bound_of_block_is_the_sum_of_conditional_block_bounds():
    """Exactly: the T-step value of one draw for two blocks is that of block one alone plus that of
    block two after block one.
    """
    net, schedule, process = network("aligned"), Block(4, 3), GammaHybrid(0.3)
    x = torch.randint(0, N, (B, L), generator=torch.Generator().manual_seed(3))
    batch = Batch(x, torch.arange(B), torch.arange(B))
    draw = Stratified()(batch, process, schedule, N, Noise(0, batch.example))
    values = a_bound(process, schedule).at(net, batch, draw).values
    first = Batch(x[:, :4], batch.example, batch.slot)
    cut = type(draw)(
        draw.z[:, :4],
        draw.t[:, :4],
        draw.s[:, :4],
        schedule.plan(4).tiling(torch.zeros(1, 1)),
        draw.factor,
    )
    alone = a_bound(process, schedule).at(net, first, cut).values
    torch.testing.assert_close(values[:, :4], alone, atol=1e-10, rtol=0)


@pytest.mark.parametrize("layout", ["aligned", "shifted"])
@pytest.mark.parametrize("process", [Absorbing(), EpsilonHybrid(0.2)], ids=str)
def test_23_mask_count_per_block_and_fine_steps_agree(layout, process):
    torch.manual_seed(0)
    net = Transformer(layers=1, width=16, heads=2, layout=layout).build(3, False, 0).double().eval()
    for parameter in net.parameters():
        parameter.data.normal_(0, 0.5)
    n = 20000
    batch = Batch(torch.tensor([[0, 2, 1, 1]]).expand(n, -1), torch.arange(n), torch.arange(n))
    estimates = []
    for schedule, estimator in ((Block(2, 8), MaskCount()), (Block(2, 64), Stratified())):
        with torch.no_grad():
            nats = (
                a_bound(process, schedule, Nelbo(), estimator)
                .nats(net, batch, Noise(0, batch.example))
                .values.sum(-1)
            )
        estimates.append((nats.mean(), nats.std() / n**0.5))
    (a, error_a), (b, error_b) = estimates
    assert abs(a - b) < 5 * (error_a**2 + error_b**2) ** 0.5 + 0.03  # 64 steps are not the limit


def test_shifted_layout_refuses_what_is_not_left_to_right():
    scattered = any_order(L)[0]
    x, z, t, tiling = noisy(scattered, torch.zeros(B, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="left to right"):
        training_call(network("shifted"), scattered, x, z, t, tiling=tiling)
