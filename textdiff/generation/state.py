"""A batch on its way, and what the loop tells of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser.cache import Cache


@dataclass(frozen=True)
class State:
    """What a network call leaves behind, as tensors that generation goes on with: clone what is to
    be kept.

    Args:
        call: how many network calls the batch has had; 0 is the noise at the beginning, the last
            one comes again at the end.
        ids: [B, L] tokens, N = MASK.
        t: [B, L] times; 0 is settled.
        confidence: [B, L] float32, the probability that the network gave to the token that it just
            put there; nan elsewhere, and for networks of log-scores, which have none.
        called: [B] bool, the sequences that needed this call.
    """

    call: int
    ids: Tensor
    t: Tensor
    confidence: Tensor
    called: Tensor


@dataclass(frozen=True)
class Denoised:
    """Finished sequences ids [B, L], the network calls nfe [B] that each needed, and rows through
    body and head in all.
    """

    ids: Tensor
    nfe: Tensor
    body_rows: int
    head_rows: int


@dataclass
class _Batch:
    """Sequences on their way: `which` [b] are not finished (None: all); the cache has rows of these
    only.
    """

    z: Tensor
    t: Tensor
    free: Tensor
    end: Tensor | None
    cache: Cache | None
    nfe: Tensor
    which: Tensor | None = None
    calls: int = 0
    body_rows: int = 0
    head_rows: int = 0

    def of(self, x: Tensor) -> Tensor:
        """The rows of x [B, ...] that are not finished."""
        return x if self.which is None else x[self.which]

    def put(self, x: Tensor, columns: Tensor, value: Tensor) -> None:
        """Write value [b, W] into those rows."""
        if self.which is None:
            x[:, columns] = value
        else:
            x[self.which[:, None], columns] = value

    def drop_finished(self, eos: int) -> None:
        """Go on without the sequences that drew an end of text all before which is settled; infills
        go on.
        """
        z, t, free = self.of(self.z), self.of(self.t), self.of(self.free)
        length = z.shape[-1] if self.end is None else self.of(self.end)
        tail = free.sum(-1) == length - free.long().argmax(-1)
        going = ~((t == 0).cumprod(-1).bool() & free & (z == eos)).any(-1) | ~tail
        if not going.all():
            self.which = self.of(torch.arange(len(self.z), device=z.device))[going]
            if self.cache is not None:
                self.cache.keep(going)


def _confidence(logits: Tensor, rows: Tensor, z: Tensor) -> Tensor:
    """Probabilities of the tokens z [b, W] that were put at `rows`, nan elsewhere."""
    N, put = logits.shape[-1], z[rows]
    p = logits.double().softmax(-1).gather(-1, put.clamp(max=N - 1).unsqueeze(-1)).squeeze(-1)
    return torch.full(z.shape, torch.nan, device=z.device).masked_scatter(
        rows, torch.where(put < N, p, torch.nan).float()
    )
