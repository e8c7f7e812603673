"""The network calls of an engine: sequences of like row counts share one."""

from __future__ import annotations

from collections.abc import Sequence as Row

import torch
from torch import Tensor

from ..denoiser.cache import Cache, Part, Store
from ..denoiser.call import Call
from ..denoiser.generation_rows import generation_call
from ..denoiser.mixed_rows import Turn, mixed_call
from ..denoiser.protocol import Denoiser
from ..denoiser.ragged import Ragged, owns
from .sequence import Sequence


class Calls:
    """Feeds sequences, and stores what has settled.

    Args:
        network: the denoiser.
        places: sequences at a time.
        length: the most tokens of one.
        apart: the token that ends a document, where documents are kept apart.
    """

    def __init__(self, network: Denoiser, places: int, length: int, apart: int | None = None):
        self.network = network
        self.apart = apart
        self.store = Store(places, length + 1)
        # Of clocks that differ: keys copied into one tensor for one call of attention, or a call
        # for each sequence on keys of its own. A CPU's calls are cheap, a GPU's are not.
        self.copies = network.head_parameters()[0].device.type != "cpu"
        self.count = 0
        self.body_rows = 0
        self.head_rows = 0

    @torch.no_grad()
    def hidden(
        self, turns: Row[tuple[Sequence, Turn]], ids: Tensor, t: Tensor
    ) -> dict[int, Tensor]:
        """Hidden rows [W, D] of each sequence's window, by handle; ids and t [places, L] of all."""
        groups: dict[tuple[bool, int, int], list[tuple[Sequence, Turn]]] = {}
        for one, turn in turns:
            like = (one.cached, (turn.new | 1).bit_length(), turn.width.bit_length())
            groups.setdefault(like, []).append((one, turn))
        hidden = {}
        for group in groups.values():
            fed = self._fed(group, ids, t)
            for (one, turn), rows in zip(group, fed, strict=True):
                hidden[one.handle] = rows[: turn.width]
                if one.cached:
                    one.stored += len(turn.kept(self.network.shifted, 0))
        return hidden

    def _fed(self, group: list[tuple[Sequence, Turn]], ids: Tensor, t: Tensor) -> Tensor:
        """Hidden rows [b, W, D] of one call."""
        sequences, turns = [one for one, _ in group], [turn for _, turn in group]
        slots = torch.tensor([one.place for one in sequences], device=ids.device)
        L = max(len(one.plan.starts) for one in sequences)
        z, now = ids[slots, :L], t[slots, :L]
        if sequences[0].cached and not self.copies and len({*map(_clock, turns)}) > 1:
            return self._apart(turns, slots.tolist(), z, now)
        cache = None
        if sequences[0].cached:
            stored = [turn.stored for turn in turns]
            C = max(turn.new for turn in turns)
            kept = [turn.kept(self.network.shifted, C) for turn in turns]
            cache = Part(self.store, slots.tolist(), stored, kept)
        return self._hidden(self._call(sequences, turns, z, now, cache=cache), cache)

    def _apart(self, turns: list[Turn], places: list[int], z: Tensor, t: Tensor) -> Tensor:
        """As `_fed`, of keys that are not copied."""
        shifted = self.network.shifted
        own = owns(turns, places, z, t, shifted=shifted, eos=self.apart)
        call = mixed_call(self.network, turns, z, t, eos=self.apart, own=own)
        return self._hidden(call, Ragged(self.store, own, call.visibility.context))

    def _hidden(self, call: Call, cache: Cache | None) -> Tensor:
        self.count += 1
        self.body_rows += call.ids.numel()
        return call.hidden(self.network, cache)

    def _call(
        self,
        sequences: list[Sequence],
        turns: list[Turn],
        z: Tensor,
        t: Tensor,
        *,
        cache: Part | None,
    ) -> Call:
        """Without masks where all clocks agree."""
        first = turns[0]
        if first.piece is not None or any(turn != first for turn in turns):
            return mixed_call(self.network, turns, z, t, eos=self.apart)
        call, _ = generation_call(
            self.network,
            sequences[0].request.schedule,
            first.k,
            z,
            t,
            cache=cache,
            once=first.once,
            eos=self.apart,
        )
        return call


def _clock(turn: Turn) -> tuple[int, int, int]:
    """What decides where a sequence's rows stand."""
    return turn.stored, turn.new, turn.width
