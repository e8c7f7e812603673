"""What can be said of one token after one call: the only place where the viewers' states are
decided.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from ..generation.samples import Trajectory


class TokenState(IntEnum):
    """The state of one position after one call."""

    MASKED = 0
    ACTIVE = 1
    """Visible, and may still change."""
    SETTLED = 2
    """Clean for good; did not change in this call."""
    GIVEN = 3
    DRAWN = 4
    """MASK before this call, visible after it."""
    CORRECTED = 5
    """Visible before this call, another token after it."""
    REMASKED = 6
    """Visible before this call, MASK after it."""

    @property
    def label(self) -> str:
        """The words of the legends."""
        return _LABELS[self]


_LABELS = {
    TokenState.MASKED: "masked",
    TokenState.ACTIVE: "visible, still active",
    TokenState.SETTLED: "settled",
    TokenState.GIVEN: "given",
    TokenState.DRAWN: "drawn in this call",
    TokenState.CORRECTED: "corrected in this call",
    TokenState.REMASKED: "masked again in this call",
}


def state(before: Tensor, ids: Tensor, settled: Tensor, given: Tensor, num_tokens: int) -> Tensor:
    """`TokenState` of every token, of the common shape, uint8.

    Args:
        before: ids before the call, N = MASK.
        ids: ids after it.
        settled: bool, clean for good after it.
        given: bool, prompt and kept positions: these are GIVEN whatever else holds.
        num_tokens: N.
    """
    changed = ids != before
    visible = torch.where(settled, TokenState.SETTLED, TokenState.ACTIVE)
    drawn = torch.where(before == num_tokens, TokenState.DRAWN, TokenState.CORRECTED)
    visible = torch.where(changed, drawn, visible)
    masked = torch.where(changed, TokenState.REMASKED, TokenState.MASKED)
    unknown = torch.where(ids == num_tokens, masked, visible)
    return torch.where(given, TokenState.GIVEN, unknown).to(torch.uint8)


def states(trajectory: Trajectory, num_tokens: int) -> Tensor:
    """`TokenState` of every cell of a trajectory, [frames, L] uint8; frame 0 changed nothing.

    Raises:
        ValueError: if the parts of the trajectory do not have one shape, or an id lies outside
            0..N.
    """
    ids = trajectory.ids
    if ids.dim() != 2 or not len(ids):
        raise ValueError(
            "a trajectory has ids [frames, L] with at least one frame, got the shape "
            f"{tuple(ids.shape)}"
        )
    parts = {"settled": trajectory.settled, "confidence": trajectory.confidence}
    for name, part in parts.items():
        if part.shape != ids.shape:
            raise ValueError(
                f"{name} has the shape {tuple(part.shape)}, but ids has {tuple(ids.shape)}: record "
                "both at every frame"
            )
    if trajectory.known.shape != ids.shape[1:]:
        raise ValueError(
            f"known has the shape {tuple(trajectory.known.shape)}, "
            f"but there are {ids.shape[1]} positions"
        )
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= num_tokens:
        raise ValueError(
            f"token ids lie in {int(ids.min())}..{int(ids.max())}, outside 0..{num_tokens}: give "
            "the model's num_tokens (MASK is that id)"
        )
    before = torch.cat([ids[:1], ids[:-1]])
    return state(before, ids, trajectory.settled, trajectory.known, num_tokens)
