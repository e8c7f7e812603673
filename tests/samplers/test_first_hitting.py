"""The first-hitting sampler (maths.md 7: 34) against every order of unmasking, enumerated."""

import pytest
import torch
from catalogue import RESTING, name
from driving import Alone, flat_run
from enumeration import chi_square
from toys import SetNetwork, any_order_law, law_of, model_law, ordinary, states

from textdiff.hyperschedule import Flat
from textdiff.noise import Noise
from textdiff.process import (
    GIDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    SmoothEpsilonHybrid,
    Uniform,
)
from textdiff.samplers import FirstHitting, Step

N = 3
each_process = pytest.mark.parametrize("process", RESTING, ids=name)


def any_order(net: SetNetwork, process: Absorbing | EpsilonHybrid, d: int) -> torch.Tensor:
    return any_order_law(net, getattr(process, "epsilon", 0.0), d)[1]


def moved(
    z: torch.Tensor, net: SetNetwork, process: Absorbing | EpsilonHybrid, i: int
) -> torch.Tensor:
    """The sampler's exact law of position i at the states z [S, d], [S, N+1]."""
    d, half = z.shape[1], torch.full((len(z),), 0.5, dtype=torch.float64)
    logits = net.cavity(z, [0.0] * d, list(range(d)), i).log()
    return law_of(Alone(FirstHitting()), process, logits, z[:, i], 0 * half, half)


@each_process
def test_34_the_law_is_that_of_all_orders(process):
    """The sampler's own step at every state and position; a masked position is hit with probability
    1/n.
    """
    d, net = 3, SetNetwork(N)
    z = states(N, d)
    masked = z == N
    index = torch.tensor([(N + 1) ** (d - 1 - i) for i in range(d)])
    p = masked.all(1).double()
    at_site = torch.zeros(d, len(z), N + 1, dtype=torch.float64)
    for i in range(d):
        at_site[i, masked[:, i]] = moved(z[masked[:, i]], net, process, i)
    for n in range(d, 0, -1):
        after = torch.zeros_like(p)
        for i in range(d):
            for y in range(N):
                here = masked[:, i] & (masked.sum(1) == n)
                target = (z @ index)[here] + (y - N) * index[i]
                after.index_add_(0, target, p[here] * at_site[i, here, y] / n)
        p = after
    final = ordinary(p, N, d)
    if process.corrupts:
        seen = z[~masked.any(1)]
        laws = torch.stack([moved(seen, net, process, i)[:, :N] for i in range(d)])
        final = sum(final[a] * prod_outer([laws[i, a] for i in range(d)]) for a in range(len(seen)))
    torch.testing.assert_close(final, any_order(net, process, d), rtol=0, atol=1e-12)
    assert float(final.sum()) == pytest.approx(1, abs=1e-12)


def prod_outer(laws: list[torch.Tensor]) -> torch.Tensor:
    total = laws[0]
    for law in laws[1:]:
        total = (total.unsqueeze(-1) * law).flatten()
    return total


@each_process
def test_34_real_draws_follow_the_law_at_one_call_a_token(process):
    d, B, net = 3, 40_000, SetNetwork(N)
    z, asked = flat_run(FirstHitting(), process, net, B, d)
    counts = torch.bincount(z @ torch.tensor([N * N, N, 1]), minlength=N**d)
    assert chi_square(counts, B * any_order(net, process, d)) > 1e-4
    assert len(asked) == d + process.corrupts
    assert all((rows.sum(1) == 1).all() for rows in asked[:d])
    if process.corrupts:
        assert asked[d].all(), "the atom redraws every token"


@each_process
def test_34_it_is_the_limit_of_the_ancestral_chain(process):
    net, d = SetNetwork(N), 2
    limit = any_order(net, process, d)
    errors = [
        float((ordinary(model_law(net, process, Flat(T), d), N, d) - limit).abs().sum())
        for T in (16, 32, 64)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.2) and errors[1] / errors[
        2
    ] == pytest.approx(2, abs=0.1)


def test_34_event_times_and_places():
    """T'/t = U^{1/n}, a uniformly chosen masked position; given tokens and finished sequences stay;
    each row by itself.
    """
    B, d, n = 40_000, 5, 3
    z = torch.tensor([N, 1, N, 0, N]).expand(B, d)
    t = torch.tensor([0.8, 0.8, 0.8, 0.0, 0.8]).double().expand(B, d)
    step = Step(Absorbing(), z, t, s=0 * t, N=N, noise=Noise(1, torch.arange(B), 7))
    rows = FirstHitting().rows(step)
    assert chi_square(rows.sum(0), B * torch.tensor([1, 0, 1, 0, 1]) / 3) > 1e-4
    _, times = FirstHitting().move(step, rows, torch.zeros(B, N))
    assert (times[:, 3] == 0).all() and (times[:, [0, 1, 2, 4]] == times[:, :1]).all()
    u = (times[:, 0] / 0.8) ** n
    assert (
        chi_square(torch.bincount((20 * u).long(), minlength=20), torch.full((20,), B / 20)) > 1e-4
    )


def test_34_rows_of_a_batch_finish_by_themselves():
    """A sequence drawn alone equals the same one in a batch, with more or fewer tokens to go."""
    net, example = SetNetwork(N), torch.tensor([3, 8, 5])
    whole, _ = flat_run(FirstHitting(), EpsilonHybrid(0.3), net, 3, 4, example=example)
    for row in range(3):
        alone, _ = flat_run(
            FirstHitting(), EpsilonHybrid(0.3), net, 1, 4, example=example[row : row + 1]
        )
        assert torch.equal(alone[0], whole[row])
    z, t = (
        torch.tensor([[N, N], [1, N], [1, 2]]),
        torch.tensor([[1.0, 1.0], [0.5, 0.5], [0.3, 0.3]]).double(),
    )
    for process, last in ((Absorbing(), [0, 0]), (EpsilonHybrid(0.3), [1, 1])):
        step = Step(process, z, t, s=0 * t, N=N, noise=Noise(0, torch.arange(3)))
        rows = FirstHitting().rows(step)
        assert rows.sum(1).tolist() == [1, 1, sum(last)] and not rows[1, 0]
        _, times = FirstHitting().move(step, rows, torch.zeros(int(rows.sum()), N))
        assert (
            (times[0] > 0).all()
            and (times[2] == 0).all()
            and bool((times[1] > 0).all()) == process.corrupts
        )


def test_34_undefined_processes_are_refused():
    for process in (Uniform(), GammaHybrid(0.3), SmoothEpsilonHybrid(0.1), GIDD()):
        with pytest.raises(ValueError, match="keep changing: use Ancestral"):
            FirstHitting().check(process)
    with pytest.raises(ValueError, match="do not see the time"):
        FirstHitting().check(GammaHybrid(0.0))
    FirstHitting().check(EpsilonHybrid(0.0))
