"""Who sees whom (maths.md 6, 7: 42, 43): training and generation feed the same law, settled rows
see only settled ones.
"""

from itertools import pairwise

import pytest
import torch
from catalogue import LEFT_TO_RIGHT, name
from toys import random_transformer

from textdiff.denoiser.generation_rows import generation_call
from textdiff.denoiser.head import logits_of
from textdiff.denoiser.training_rows import training_call
from textdiff.denoiser.visibility import Visibility
from textdiff.hyperschedule import (
    Block,
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
    as_one = isinstance(schedule, Block) and schedule.block_causal
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


CALLS = [(schedule, "aligned") for schedule in LONGER] + [(QuenchedAR(), "shifted")]


@pytest.mark.parametrize(("schedule", "layout"), CALLS, ids=name)
def test_documents_are_kept_apart(schedule, layout):
    """Change one document's tokens, clean and noisy: the other's hidden rows stay, bit for bit;
    alone it reads the same.
    """
    net = network(layout)
    document = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1]])
    x, z, t, tiling = noisy(schedule, 0)
    reference = training_call(net, schedule, x, z, t, tiling=tiling, document=document).hidden(net)
    for number in range(3):
        mine = document == number
        other_x, other_z = x.where(mine, (x + 1) % N), z.where(mine, (z + 1) % (N + 1))
        changed = training_call(
            net, schedule, other_x, other_z, t, tiling=tiling, document=document
        ).hidden(net)
        assert torch.equal(changed[mine], reference[mine])
        if layout == "aligned":
            assert (changed[~mine] != reference[~mine]).any(-1).all()


def test_documents_of_the_shifted_layout_start_anew():
    """Each document under the causal model reads as if it stood alone at its positions: its first
    row is a BOS.
    """
    net, schedule = network("shifted"), QuenchedAR()
    x, z, t, tiling = noisy(schedule, 0)
    document = torch.tensor([[0, 0, 1, 1, 1, 2]]).expand(B, -1)
    together = training_call(net, schedule, x, z, t, tiling=tiling, document=document).hidden(net)
    for begin, end in pairwise((0, 2, 5, 6)):
        ids = torch.cat([torch.full((B, 1), net.bos), x[:, begin : end - 1]], 1)
        alone = net.body(
            ids,
            torch.arange(begin, end),
            torch.zeros(ids.shape).double(),
            Visibility(context=ids.shape[1]),
        )
        torch.testing.assert_close(together[:, begin:end], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("schedule", "layout"), CALLS, ids=name)
def test_ignored_padding_changes_no_other_row(schedule, layout):
    net = network(layout)
    valid = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    x, z, t, tiling = noisy(schedule, 0)
    reference = training_call(net, schedule, x, z, t, tiling=tiling, valid=valid).hidden(net)
    other_x, other_z = x.where(valid, (x + 1) % N), z.where(valid, (z + 1) % (N + 1))
    changed = training_call(net, schedule, other_x, other_z, t, tiling=tiling, valid=valid).hidden(
        net
    )
    assert torch.equal(changed[valid], reference[valid])
    assert reference.isfinite().all()
    full = training_call(net, schedule, x, z, t, tiling=tiling).hidden(net)
    torch.testing.assert_close(full[1], reference[1], rtol=0, atol=1e-12)
