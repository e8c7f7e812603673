"""Who sees whom (maths.md 6, 7: 42, 43): training and generation feed the same law, settled rows
see only settled ones.
"""

import pytest
import torch
from catalogue import LEFT_TO_RIGHT, name
from toys import random_transformer

from textdiff.denoiser.generation_rows import generation_call
from textdiff.denoiser.head import logits_of
from textdiff.denoiser.training_rows import training_call
from textdiff.hyperschedule import (
    Flat,
    Hyperschedule,
    QuenchedAR,
    StartSteps,
)
from textdiff.network import TransformerDenoiser

N, L, B = 5, 6, 2
LONGER = [*LEFT_TO_RIGHT, StartSteps(2, (3, 0, 1, 1, 5, 0))]
each_schedule = pytest.mark.parametrize("schedule", LONGER, ids=name)


def network(layout: str = "aligned") -> TransformerDenoiser:
    return random_transformer(N, True, layout=layout).requires_grad_(False)


def noisy(schedule: Hyperschedule, offset: int, seed: int = 0):
    """(x, z, t, tiling): clean tokens and any noisy ones, at the levels of the tiling."""
    draw = torch.Generator().manual_seed(seed)
    x, z = torch.randint(N, (B, L), generator=draw), torch.randint(N + 1, (B, L), generator=draw)
    tiling = schedule.plan(L).tiling(torch.full((B, 1), float(offset)))
    return x, z, tiling.level / schedule.T, tiling


def rows_before_the_last_block(net: TransformerDenoiser, call) -> torch.Tensor:
    """Hidden rows [B, R, D] of context and window: the last block makes keys and values of them,
    and outputs of the window only.
    """
    kept = []
    with net.blocks[-1].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0])):
        call.hidden(net)
    return kept[0]


@each_schedule
def test_42_training_call_reproduces_every_generation_call(schedule):
    net, seen = network(), torch.zeros(L, dtype=torch.int64)
    for offset in range(schedule.T):
        x, z, t, tiling = noisy(schedule, offset)
        trained = logits_of(net, training_call(net, schedule, x, z, t, tiling=tiling).hidden(net))
        for k in range(offset, schedule.calls(L), schedule.T):
            settled, level = schedule.settled(k, L), schedule.level(k, L).double() / schedule.T
            state = torch.where(settled, x, torch.where(schedule.window(k, L), z, N))
            call, active = generation_call(net, schedule, k, state, level.expand(B, -1))
            torch.testing.assert_close(
                logits_of(net, call.hidden(net)), trained[:, active], rtol=0, atol=1e-10
            )
            seen[active] += 1
    assert (seen == schedule.T).all(), "a position was not trained at each of its levels once"


def test_42_shifted_quenched_training_reproduces_every_generation_call():
    net, schedule = network("shifted"), QuenchedAR()
    x, z, t, tiling = noisy(schedule, 0)
    trained = logits_of(net, training_call(net, schedule, x, z, t, tiling=tiling).hidden(net))
    for k in range(L):
        state = torch.where(torch.arange(L) < k, x, N)
        call, active = generation_call(net, schedule, k, state, (state == N).double())
        torch.testing.assert_close(
            logits_of(net, call.hidden(net)), trained[:, active], rtol=0, atol=1e-10
        )


@each_schedule
def test_43_settled_rows_never_see_unsettled_tokens(schedule):
    """Change every unsettled token and its time: settled rows' hidden stay, bit for bit."""
    net = network()
    for k in range(schedule.calls(L)):
        settled, window = schedule.settled(k, L), schedule.window(k, L)
        draw = torch.Generator().manual_seed(k)
        hidden = []
        for _ in range(2):
            z = torch.where(
                settled, torch.arange(L) % N, torch.randint(N + 1, (B, L), generator=draw)
            )
            t = torch.where(settled, 0.0, torch.rand(B, L, generator=draw, dtype=torch.float64))
            call, active = generation_call(net, schedule, k, z, t)
            hidden.append(rows_before_the_last_block(net, call))
            assert call.ids.shape[1] == int(settled.sum() + window.sum()), (
                "a worthless position is fed"
            )
        first = int(settled.sum())
        assert torch.equal(hidden[0][:, :first], hidden[1][:, :first])
        assert (hidden[0][:, first:] != hidden[1][:, first:]).any(-1).all(), (
            "the window sees itself"
        )
        assert len(active) == int(window.sum())


@pytest.mark.parametrize("schedule", [s for s in LONGER if not isinstance(s, Flat)], ids=name)
def test_43_clean_stream_of_training_sees_no_noise_and_no_later_token(schedule):
    """A block-causal block is seen by all of itself, since it settles as one (maths.md 6)."""
    net = network()
    x, z, t, tiling = noisy(schedule, 0)

    def clean_stream(x, z, t):
        call = training_call(net, schedule, x, z, t, tiling=tiling)
        return rows_before_the_last_block(net, call)[:, :L]

    reference = clean_stream(x, z, t)
    assert torch.equal(clean_stream(x, (z + 1) % (N + 1), t / 2), reference)
    start = schedule.start(L).tolist()
    as_one = getattr(schedule, "block_causal", False)
    rank = [(start[i], 0 if as_one else i) for i in range(L)]
    for i in range(L):
        changed = x.clone()
        changed[:, i] = (changed[:, i] + 1) % N
        moved = (clean_stream(changed, z, t) != reference).any(-1).any(0)
        assert moved.tolist() == [rank[j] >= rank[i] for j in range(L)]


@each_schedule
def test_43_a_window_sees_its_settled_context_and_itself_only(schedule):
    """Which tokens change a position's logits is exactly what maths.md 6 says, call by call."""
    net = network()
    start, T = schedule.start(L), schedule.T
    for offset in range(T):
        x, z, t, tiling = noisy(schedule, offset)
        reference = training_call(net, schedule, x, z, t, tiling=tiling).hidden(net)
        for j in range(L):
            other_x, other_z = x.clone(), z.clone()
            other_x[:, j], other_z[:, j] = (x[:, j] + 1) % N, (z[:, j] + 1) % (N + 1)
            by_x = (
                training_call(net, schedule, other_x, z, t, tiling=tiling).hidden(net) != reference
            ).any(-1)[0]
            by_z = (
                training_call(net, schedule, x, other_z, t, tiling=tiling).hidden(net) != reference
            ).any(-1)[0]
            call, window = tiling.call[0], tiling.window[0]
            assert torch.equal(by_x, start[j] <= call - T)
            assert torch.equal(by_z, window == window[j])
