"""Sequences to be scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Sequences to be scored.

    Args:
        ids: [B, L] in 0..N-1.
        example: [B] names each row for the noise.
        slot: [B] running number in the order of the data; neighbours are stratified.
        valid: [B, L] False at ignored padding, or None.
        document: [B, L] attention stays inside a document, or None.
        key: times of different keys are independent.
        known: [B, L] True at known tokens: seen at t = 0 and not scored, so that the bound is one
            of the others given them; or None.
    """

    ids: Tensor
    example: Tensor
    slot: Tensor
    valid: Tensor | None = None
    document: Tensor | None = None
    key: int = 0
    known: Tensor | None = None

    @classmethod
    def of(cls, rows: Mapping[str, Tensor]) -> Batch:
        """The columns of a data loader's batch, by name."""
        columns: dict[str, Any] = dict(rows)
        return cls(**columns)

    @property
    def counts(self) -> Tensor | None:
        """[B, L] True at tokens that are noised and scored; None: all."""
        if self.known is None:
            return self.valid
        return ~self.known if self.valid is None else self.valid & ~self.known

    @property
    def scored(self) -> Tensor:
        """[B] number of tokens that count."""
        return (
            torch.full_like(self.example, self.ids.shape[-1])
            if self.counts is None
            else self.counts.sum(-1)
        )
