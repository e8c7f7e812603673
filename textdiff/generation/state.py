"""Sequences on their way, and what the loop tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..denoiser.cache import Cache
from ..samplers.draws import probability

REPEATS = 1 << 20  # names a step's draws: more calls of one kind than any window takes


@dataclass(frozen=True)
class Frame:
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
    """Finished sequences and what they cost.

    Args:
        ids: [B, L] tokens in 0..N-1.
        nfe: [B] network calls that each needed.
        body_rows, head_rows: rows that went through the network's body and its head in all.
    """

    ids: Tensor
    nfe: Tensor
    body_rows: int
    head_rows: int


@dataclass
class Sequences:
    """A batch of sequences on their way from noise to data.

    Args:
        ids: [B, L] tokens, N = MASK.
        t: [B, L] their times.
        known: [B, L] bool, tokens that are not drawn: prompts, kept positions, padding.
        end: [B] lengths where sequences differ, else None.
        cache: keys and values of settled rows, of the sequences that go on only; or None.
        nfe: [B] network calls that each needed.
        going: [b] the sequences that are not finished; None: all B.
        calls: network calls so far.
        body_rows, head_rows: rows that went through the network so far.
    """

    ids: Tensor
    t: Tensor
    known: Tensor
    end: Tensor | None = None
    cache: Cache | None = None
    nfe: Tensor = field(init=False)
    going: Tensor | None = None
    calls: int = 0
    body_rows: int = 0
    head_rows: int = 0

    def __post_init__(self) -> None:
        self.nfe = torch.zeros(len(self.ids), dtype=torch.int64, device=self.ids.device)

    @property
    def left(self) -> int:
        """How many are not finished, b."""
        return len(self.ids) if self.going is None else len(self.going)

    def of(self, x: Tensor) -> Tensor:
        """The rows of x [B, ...] that are not finished, [b, ...]."""
        return x if self.going is None else x[self.going]

    def put(self, x: Tensor, columns: Tensor, value: Tensor) -> None:
        """Write value [b, W] into those rows of x [B, L]."""
        if self.going is None:
            x[:, columns] = value
        else:
            x[self.going[:, None], columns] = value

    def needing(self, needed: Tensor) -> Tensor:
        """Needed [b] bool as a mask of all sequences, [B] bool."""
        if self.going is None:
            return needed
        return torch.zeros_like(self.nfe, dtype=torch.bool).index_put((self.going,), needed)

    def drop_finished(self, eos: int | Sequence[int]) -> None:
        """Go on without the sequences that drew an end of text all before which is settled; infills
        go on.
        """
        ids, t, free = self.of(self.ids), self.of(self.t), ~self.of(self.known)
        length = ids.shape[-1] if self.end is None else self.of(self.end)
        is_tail = free.sum(-1) == length - free.long().argmax(-1)
        settled = (t == 0).cumprod(-1).bool()
        ended = (settled & free & is_end(ids, eos)).any(-1)
        goes_on = ~(ended & is_tail)
        if goes_on.all():
            return
        self.going = self.of(torch.arange(len(self.ids), device=ids.device))[goes_on]
        if self.cache is not None:
            self.cache.keep(goes_on)


def is_end(ids: Tensor, eos: int | Sequence[int]) -> Tensor:
    """Which tokens end a text, bool of the shape of ids."""
    return torch.isin(ids, torch.tensor(eos, dtype=ids.dtype, device=ids.device))


def confidence_of(logits: Tensor, rows: Tensor, z: Tensor) -> Tensor:
    """Probabilities of the tokens z [b, W] that were put at `rows`, nan elsewhere."""
    N, put = logits.shape[-1], z[rows]
    p = torch.where(put < N, probability(logits, put.clamp(max=N - 1)), torch.nan).float()
    return torch.full(z.shape, torch.nan, device=z.device).masked_scatter(rows, p)
