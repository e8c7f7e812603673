"""The optimiser and its learning rate."""

from __future__ import annotations

import math


def _check_optimiser(
    lr: float, betas: tuple[float, float], weight_decay: float, warmup: int, final_lr: float
) -> None:
    for name, value, right, rule in (
        ("lr", lr, 0 <= lr < math.inf, ">= 0"),
        (
            "betas",
            betas,
            len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
            "two numbers in [0, 1)",
        ),
        ("weight_decay", weight_decay, 0 <= weight_decay < math.inf, ">= 0"),
        ("warmup", warmup, warmup >= 0, ">= 0"),
        ("final_lr", final_lr, 0 <= final_lr <= 1, "a share of lr in [0, 1]"),
    ):
        if not right:
            raise ValueError(f"{name} must be {rule}, got {value!r}")
