"""Where a bound is -log p itself: what `is_exact` allows needs no noise, what it refuses does."""

import pytest
import torch
from toys import SetNetwork

from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide, StartSteps
from textdiff.noise import Noise
from textdiff.objective import Batch
from textdiff.objective.bounds import bounds
from textdiff.objective.chain_rule import ChainRule, is_exact
from textdiff.process import GIDD, Absorbing, EpsilonHybrid, GammaHybridMaskClock, Uniform

L = 4


class Shifted(SetNetwork):
    """The same, predicting the token behind each row."""

    shifted = True


def draws(network, process, schedule) -> torch.Tensor:
    """The bound of a text under eight noises."""
    bound = bounds(process, schedule, L, prediction="cavity", sees_time=False, discrete=True)[
        "nelbo"
    ]
    bound = ChainRule.of(bound) if is_exact(network, process, schedule, L) else bound
    ids, example = torch.tensor([[0, 2, 1, 2]]), torch.tensor([7])
    batch = Batch(ids, example, example)
    return torch.stack(
        [bound.nats(network, batch, Noise(seed, example)).total for seed in range(8)]
    )


@pytest.mark.parametrize(
    ("process", "schedule", "aligned", "shifted"),
    [
        (Absorbing(), QuenchedAR(), True, True),
        (Absorbing(), Block(1, 1), True, True),
        (Absorbing(), StartSteps(1, (2, 0, 3, 1)), True, None),
        (Absorbing(), Block(2, 2), False, False),
        (Absorbing(), Flat(3), False, False),
        (Absorbing(), Slide(2, 1), False, False),
        (EpsilonHybrid(0.1), QuenchedAR(), True, True),
        (GIDD(0.3), QuenchedAR(), True, True),
        (GammaHybridMaskClock(0.5), QuenchedAR(), True, True),
        # at full noise the row of a token shows noise: it tells nothing, but is seen if aligned
        (Uniform(), QuenchedAR(), False, None),
    ],
    ids=str,
)
def test_where_it_is_exact(process, schedule, aligned, shifted):
    for network, expected in ((SetNetwork(), aligned), (Shifted(), shifted)):
        if expected is None:
            continue
        assert is_exact(network, process, schedule, L) is expected
        values = draws(network, process, schedule)
        if expected:
            assert torch.allclose(values, values[:1].expand(8), atol=1e-12)
        else:
            assert values.std() > 1e-6, "it depends on the noise, and is called inexact rightly"
