"""Who attends to whom: one rule, and the attention call that obeys it.

A network row carries a position and a role, *context* (clean, settled) or *window n* (`design.md`):

- context sees context, causal in (start step, position) order;
- a window called at k sees every position that has settled when call k starts, s(j) <= k - T, and all of itself.

A settled row therefore never sees an unsettled one, which is what makes its keys and values cacheable (`maths.md` 6).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Roles:
    """The roles of R network rows.

    Args:
        position: [R] int64.
        start: [R] int64, the hyperschedule's start step s of the row's position.
        window: [B or 1, R] int64, the window's number, -1 for context.
        call: [B or 1, R] float64, the call k of the row's window (unused for context).
    """

    position: Tensor
    start: Tensor
    window: Tensor
    call: Tensor


@dataclass(frozen=True)
class Visibility:
    """Which keys a query sees: everything (the default), a causal prefix, or a mask [1 or B, Q, K] bool, True = sees."""

    mask: Tensor | None = None
    causal: bool = False

    @classmethod
    def of(cls, roles: Roles, T: int) -> Visibility:
        """The rule above for T noise levels, as a mask [B or 1, R, R]."""
        start, position = roles.start, roles.position
        earlier = (start < start[:, None]) | ((start == start[:, None]) & (position <= position[:, None]))
        context = roles.window < 0
        to_context = torch.where(context[:, :, None], earlier, start <= roles.call[:, :, None] - T)
        to_window = roles.window[:, :, None] == roles.window[:, None, :]
        return cls(torch.where(context[:, None, :], to_context, to_window & ~context[:, :, None]))

    def within(self, document: Tensor | None = None, valid: Tensor | None = None) -> Visibility:
        """Restrict to keys of the query's document [B, R] and to valid keys [B, R]; a row always sees itself."""
        if document is None and valid is None:
            return self
        like = document if document is not None else valid
        assert like is not None
        R = like.shape[-1]
        square = torch.ones(1, R, R, dtype=torch.bool, device=like.device)
        mask = self.mask if self.mask is not None else (square.tril() if self.causal else square)
        if document is not None:
            mask = mask & (document[:, :, None] == document[:, None, :])
        if valid is not None:
            mask = mask & valid[:, None, :]
        return Visibility(mask | torch.eye(R, dtype=torch.bool, device=like.device))


def attend(q: Tensor, k: Tensor, v: Tensor, visibility: Visibility, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product attention of q, k, v [B, H, R, D/H] under `visibility` -> [B, H, R, D/H]."""
    mask = None if visibility.mask is None else visibility.mask.unsqueeze(1)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=visibility.causal)
