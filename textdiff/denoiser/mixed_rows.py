"""What one network call is fed where every sequence has its own clock.

    a    stored stored | new .   | window window window       . is a column that pads:
    b    stored .      | new new | window .      .            nobody sees it

Row for row each sequence is fed, and sees, what `generation_rows.py` says; only the columns that
pad are new, and they are seen by themselves alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..hyperschedule import Plan
from .call import Call
from .protocol import Denoiser
from .visibility import Own, Visibility, ended_before


@dataclass(frozen=True)
class Turn:
    """What one sequence is fed in a call.

    Args:
        plan: its schedule's.
        k: its call.
        stored: rows of it in the cache.
        piece: how many settled rows it has after this call, if they are all that is fed (a part of
            a long prompt); None: all that has settled and the window.
        once: whether this is its window's only call at k.
    """

    plan: Plan
    k: int
    stored: int = 0
    piece: int | None = None
    once: bool = True

    @property
    def settled(self) -> int:
        """Settled rows after this call, fed or in the cache."""
        return self.plan.settled(self.k) if self.piece is None else self.piece

    @property
    def new(self) -> int:
        """Settled rows that are fed."""
        return self.settled - self.stored

    @property
    def width(self) -> int:
        """W, the tokens that are predicted."""
        return 0 if self.piece is not None else self.plan.reached(self.k) - self.settled

    @property
    def alone(self) -> bool:
        """Whether one token is drawn from full noise."""
        return self.once and self.plan.T == 1 and self.width == 1

    def kept(self, shifted: bool, C: int) -> list[int]:
        """The columns of fed rows whose keys stay, where the window begins at column C
        (`generation_rows.py` says which).
        """
        return [*range(self.new), C] if shifted and self.alone else list(range(self.new))

    def rows(self, shifted: bool) -> tuple[list[int], list[int]]:
        """The positions of the settled rows that are fed, and of the window's."""
        plan = self.plan
        ranks = range(self.stored, self.settled + self.width)
        place = list(ranks) if plan.left_to_right else plan.position[ranks.start :].tolist()
        context, window = place[: self.new], place[self.new : self.new + self.width]
        trails = shifted and window and not self.alone
        return context, [*window, window[-1] + 1] if trails else window


def ends_of_pieces(plan: Plan) -> list[int]:
    """The numbers of settled rows at which no row sees one behind: where a prompt may be cut."""
    latest = plan.rank.cummax(0).values
    earliest = plan.rank.flip(0).cummin(0).values.flip(0)
    cuts = (latest[:-1] < earliest[1:]).nonzero()[:, 0] + 1
    return [*cuts.tolist(), len(plan.starts)]


def mixed_call(
    network: Denoiser,
    turns: Sequence[Turn],
    z: Tensor,
    t: Tensor,
    *,
    eos: int | None = None,
    own: tuple[Own, ...] = (),
) -> Call:
    """One call for sequences with clocks of their own.

    Args:
        network: the denoiser.
        turns: [B] what each is fed.
        z: tokens [B, L] in 0..N of sequences of at most L tokens.
        t: times [B, L] in [0, 1].
        eos: the token behind which a document ends, if of what has settled only the last document
            is seen; None: all of it is.
        own: what each sees of keys of its own (`ragged.py`); empty: keys stand in one tensor.

    Returns:
        A call whose first `width` rows with an output predict each sequence's window.
    """
    shifted, device = network.shifted, z.device
    rows = [turn.rows(shifted) for turn in turns]
    C = max(len(context) for context, _ in rows)
    W = max(len(window) for _, window in rows)
    place = torch.zeros(len(turns), C + W, dtype=torch.int64)
    there = torch.zeros(len(turns), C + W, dtype=torch.bool)
    for b, (context, window) in enumerate(rows):
        for begin, some in ((0, context), (C, window)):
            place[b, begin : begin + len(some)] = torch.tensor(some, dtype=torch.int64)
            there[b, begin : begin + len(some)] = True
    place, there = place.to(device), there.to(device)
    source = (place - 1).clamp_min(0) if shifted else place
    begins = (place == 0) & shifted
    ids = z.gather(1, source).masked_fill(begins, network.bos).masked_fill(~there, 0)
    times = t.gather(1, source).masked_fill(begins | ~there, 0.0)
    width = max(turn.width for turn in turns)
    if own:
        return Call(ids, place, times, Visibility(C, own=own), count=width)
    sight = _Sight(turns, C, there, eos=eos, z=z)
    among = sight.among() if C else None
    seen = sight.window(place, times, shifted) if W else None
    before = max(turn.stored for turn in turns)
    return Call(ids, place, times, Visibility(C, among, seen, before), count=width)


class _Sight:
    """Who sees whom in a call with C context columns, of which those `there` [B, C + W] pad not."""

    def __init__(self, turns: Sequence[Turn], C: int, there: Tensor, *, eos: int | None, z: Tensor):
        self.C, self.there = C, there
        device = there.device
        stored = torch.tensor([turn.stored for turn in turns], device=device)[:, None]
        self.settled = torch.tensor([turn.settled for turn in turns], device=device)[:, None]
        self.reached = self.settled + torch.tensor([[turn.width] for turn in turns], device=device)
        cached = torch.arange(max(turn.stored for turn in turns), device=device).expand(
            len(turns), -1
        )
        fed = stored + torch.arange(C, device=device)
        self.number = torch.cat([cached, fed], -1)  # [B, P + C]: the key's rank in its sequence
        self.keys = torch.cat([cached < stored, there[:, :C]], -1)
        order = pad_sequence([turn.plan.rank for turn in turns], batch_first=True)
        most = order.shape[-1] - 1
        self.order = order.gather(1, self.number.clamp(max=most))
        self.document = None
        if eos is not None:
            ended = ended_before(z, eos)
            most = ended.shape[-1] - 1
            self.document = ended.gather(1, self.number.clamp(max=most))
            self.open = ended.gather(1, self.settled.clamp(max=most))

    def among(self) -> Tensor:
        """Which cached and context rows a context row sees, [B, C, P + C]."""
        C = self.C
        seen = self.keys[:, None] & (self.order[:, None] <= self.order[:, -C:, None])
        if self.document is not None:
            seen = seen & (self.document[:, None] == self.document[:, -C:, None])
        P = self.keys.shape[-1] - C
        itself = torch.eye(C, dtype=torch.bool, device=seen.device)
        seen[:, :, P:] |= itself
        return seen

    def window(self, place: Tensor, t: Tensor, shifted: bool) -> Tensor:
        """Which rows a window row sees, [B, W, P + C + W]; `place` and `t` are those of the fed."""
        context = self.keys
        if self.document is not None:
            context = context & (self.document == self.open)
        there = self.there[:, self.C :]
        if shifted:  # the row behind the last token is seen while that is below full noise
            there = there & ((place < self.reached) | (t < 1))[:, self.C :]
        W = there.shape[-1]
        together = there[:, None] | torch.eye(W, dtype=torch.bool, device=there.device)
        return torch.cat([context[:, None].expand(-1, W, -1), together], -1)
