"""Which bounds are stated for a network, under the names by which they are reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..denoiser.prediction import Prediction
from ..denoiser.protocol import Denoiser
from ..hyperschedule import Hyperschedule
from ..process import Process
from .bounds import Bound, bounds
from .chain_rule import ChainRule, RandomOrders, has_orders, is_exact

NAMES = {
    "nelbo": "NELBO",
    "b1": "B1: NELBO of masking alone, clean context",
    "b2": "B2: bound of unmasking with noisy display",
}
LIMIT = ", limit of many steps"
"""Said of a bound in continuous time under a schedule that is not flat: chains that keep its
lags and take ever shorter steps; the T-step chain has another bound.
"""
CORRECTING = "B3: NELBO with correction"
"""What the NELBO of a process with an atom is called beside B1 and B2 (`maths.md` 4.4)."""


def stated(
    network: Denoiser,
    process: Process,
    hyperschedule: Hyperschedule,
    L: int,
    *,
    prediction: Prediction = Prediction.CAVITY,
    discrete: bool = False,
    any_order: bool = False,
) -> list[Bound]:
    """What is reported of a network: the exact -log p alone where the chain rule gives it, else
    every bound of `bounds`.

    Args:
        network, process, hyperschedule: of training, or another schedule.
        L: tokens of a sequence.
        prediction: what the network predicts.
        discrete: the T-step bound of a flat schedule, the law of `generate`, instead of continuous
            time.
        any_order: also the mean over random orders, after each bound that is one.

    Of a mixture all bounds of its schedules are, under their names.

    Raises:
        ValueError: if `any_order` is asked of a network that has no such bound, or with `discrete`.
    """
    if any_order and discrete:
        raise ValueError(
            "the mean over orders is the bound of infinitely many steps: "
            "ask for any_order or discrete, not both"
        )
    if len(hyperschedule.members) > 1:
        given: dict[str, Any] = {"prediction": prediction, "discrete": discrete}
        given["any_order"] = any_order
        each = {one: stated(network, process, one, L, **given) for one in hyperschedule.members}
        return [replace(bound, name=f"{bound.name}, {one}") for one in each for bound in each[one]]
    readings = bounds(
        process,
        hyperschedule,
        L,
        prediction=prediction,
        sees_time=network.sees_time,
        discrete=discrete,
    )
    cavity = prediction == Prediction.CAVITY
    if cavity and is_exact(network, process, hyperschedule, L):  # B1 and B2 coincide with it
        return [ChainRule.of(readings["nelbo"])]
    reported: list[Bound] = []
    for key, bound in readings.items():
        name = CORRECTING if key == "nelbo" and len(readings) > 1 else NAMES[key]
        if not cavity and not discrete and not hyperschedule.plan(L).flat:
            name += LIMIT
        reported.append(replace(bound, name=name))
        if any_order and has_orders(network, bound.process, hyperschedule, L):
            limit = name if hyperschedule.plan(L).flat else name + LIMIT
            reported.append(RandomOrders.of(bound, limit))
    if any_order and not any(isinstance(bound, RandomOrders) for bound in reported):
        raise ValueError(
            f"{process} under {hyperschedule} is no mean over orders: "
            "ask for it of masking, flat or in blocks"
        )
    return reported
