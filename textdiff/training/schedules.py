"""Learning rates by name, for `--lr_scheduler`: a linear warm-up, and then constant, a cosine, or
stable with a decay at the end. Each is a share of the optimiser's own rate.
"""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def _checked(warmup: int, steps: int, **shares: float) -> None:
    if not 0 <= warmup < max(steps, 1):
        raise ValueError(f"warmup {warmup} leaves none of the {steps} steps: lower it")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be a share in [0, 1], got {share!r}")


def cosine(step: int, steps: int, warmup: int, final: float) -> float:
    """The share of the rate at a step of so many: up in a line, down half a cosine to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / (steps - warmup), 1.0)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


class Constant(LambdaLR):
    """A linear warm-up, then always the same.

    Args:
        optimizer: whose rate.
        warmup: steps of the warm-up.
        steps: of the training; None: as many as it has.
    """

    def __init__(self, optimizer: Optimizer, warmup: int = 0, steps: int | None = None):
        _checked(warmup, steps or warmup + 1)
        super().__init__(optimizer, lambda step: min((step + 1) / max(warmup, 1), 1.0))


class Cosine(LambdaLR):
    """A linear warm-up, then half a cosine down to `final`.

    Args:
        optimizer: whose rate.
        warmup: steps of the warm-up.
        final: share at the end.
        steps: of the training; None: as many as it has.
    """

    def __init__(
        self, optimizer: Optimizer, warmup: int = 0, final: float = 0.1, steps: int | None = None
    ):
        total = steps or warmup + 1
        _checked(warmup, total, final=final)

        super().__init__(optimizer, lambda step: cosine(step, total, warmup, final))


class WSD(LambdaLR):
    """Warm-up, stable, decay (arXiv 2404.06395): a linear warm-up, constant, and linear down to
    `final` in the last part.

    Args:
        optimizer: whose rate.
        warmup: steps of the warm-up.
        decay: share of the steps in which it falls.
        final: share of the rate at the end.
        steps: of the training; None: as many as it has.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: int = 0,
        decay: float = 0.2,
        final: float = 0.0,
        steps: int | None = None,
    ):
        total = steps or warmup + 1
        _checked(warmup, total, decay=decay, final=final)
        begin = max(total - round(decay * total), warmup)

        def share(step: int) -> float:
            if step < begin:
                return min((step + 1) / max(warmup, 1), 1.0)
            progress = min((step - begin) / max(total - begin, 1), 1.0)
            return 1 - (1 - final) * progress

        super().__init__(optimizer, share)
