"""The reference bound: a number that travels with a model and that anyone can compute again without
data.
"""

from __future__ import annotations

from typing import Any

import torch

from ..noise import Noise, Stream, uniform, uniform_token
from ..objective import Batch
from ..objective.bounds import bounds_of_each
from .model import Model

ROWS, LENGTH = 4, 32
TOLERANCE = 1e-5
"""Relative. Float32 differs from float64 by 2e-8 at most on the six models of `experiments`;
weights rounded to bfloat16 give 5e-5.
"""


def _batch(model: Model) -> Batch:
    """ROWS sequences of uniform tokens: a pure function of N and the length, which is the
    training's if the schedule is defined for no other.
    """
    L = model.hyperschedule.shortened(model.length, LENGTH)
    example = torch.arange(ROWS)
    u = uniform(0, example.unsqueeze(-1), 0, torch.arange(L), Stream.UNIFORM_TOKEN)
    batch = Batch(uniform_token(model.network.num_tokens, u), example, example)
    return batch.apart(model.apart)


@torch.no_grad()
def compute(model: Model) -> dict[str, float]:
    """Every bound of `objective.bounds` on the fixed batch under fixed noise, nats per token, by
    name.

    The network should be in float32 and on the CPU, as `textdiff.load` gives it: then the same
    numbers come on every machine.
    """
    batch = _batch(model)
    nats_by_name = {}
    wanted = bounds_of_each(
        model.process,
        model.hyperschedule,
        batch.ids.shape[-1],
        prediction=model.prediction,
        sees_time=model.network.sees_time,
    )
    for name, bound in wanted.items():
        nats = bound.nats(model.network, batch, Noise(0, batch.example))
        nats_by_name[name] = float(nats.values.sum() / batch.ids.numel())
    return nats_by_name


def check(model: Model, stored: Any, where: str) -> None:
    """Compute the stored bounds again.

    Raises:
        ValueError: if one of them differs by more than TOLERANCE of its value.
    """
    expected = stored.get("bounds") if isinstance(stored, dict) else None
    if not isinstance(expected, dict) or not all(
        isinstance(value, float | int) for value in expected.values()
    ):
        raise ValueError(
            f"{where} holds no bounds: corrupt, or written by another version of textdiff; "
            "export the model again"
        )
    nats_by_name = compute(model)
    if nats_by_name.keys() != expected.keys():
        raise ValueError(
            f"{where} holds the bounds {', '.join(expected)}, but this model has "
            f"{', '.join(nats_by_name)}: export it again"
        )
    wrong = [
        f"{name} {nats_by_name[name]:.6f} here, {value:.6f} there"
        for name, value in expected.items()
        if not abs(nats_by_name[name] - value) <= TOLERANCE * max(1.0, abs(value))
    ]
    if wrong:
        raise ValueError(
            f"this model does not give the reference bounds of {where} (nats per token: "
            f"{'; '.join(wrong)}; tolerance {TOLERANCE:g} of the value): its weights or this "
            "version of textdiff are not those it was exported with"
        )
