"""What a hyperschedule fixes for L tokens, made once for each device: no step of training builds it
again or asks a GPU for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .base import Hyperschedule, Tiling, tile


def constant(make: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what `make` gives for hashable arguments, made outside inference mode so that training
    can use it; not to be changed.
    """
    return lru_cache(maxsize=64)(torch.inference_mode(False)(make))


@dataclass(frozen=True)
class Constants:
    """Index tensors [L] on one device, and decisions taken on the CPU.

    Args:
        start: start steps s(i).
        group: `Hyperschedule.groups`.
        tiling: that of offset 0, [1, L]; what attention needs where `apart`, for there an offset
            changes only the levels.
        groups: number of groups.
        windows: the most windows that a tiling of any offset has.
        flat: whether there is one window and no context.
        apart: whether windows never overlap (flat, block).
        left_to_right: whether no token starts before one on its left.
        one_by_one: whether every call draws the next token from the left (quenched AR).
    """

    start: Tensor
    group: Tensor
    tiling: Tiling
    groups: int
    windows: int
    flat: bool
    apart: bool
    left_to_right: bool
    one_by_one: bool


@constant
def constants(schedule: Hyperschedule, L: int, device: torch.device) -> Constants:
    """The constants of a hyperschedule for L tokens on a device."""
    start, group = schedule.start(L), schedule.groups(L)
    zero = tile(start, schedule.T, torch.zeros(1, 1, dtype=torch.int64))
    groups, offsets = int(group.max()) + 1, torch.arange(min(schedule.T, int(start.max()) + 1))
    return Constants(
        start.to(device),
        group.to(device),
        Tiling(*(x.to(device) for x in zero)),
        groups,
        max(len(tile(start, schedule.T, o).window.unique()) for o in offsets),
        schedule.flat(L),
        len(start.unique()) == groups,
        bool((start.diff() >= 0).all()),
        schedule.T == 1 and torch.equal(start, torch.arange(L)),
    )
