"""Sequences to be scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..denoiser.visibility import ended_before
from ..hyperschedule import Hyperschedule, Plan
from ..hyperschedule.plan import last_call

REMEDY = {
    "separate": "set documents: joined",
    "ignored": "set padding: learnt",
}


def goes_on(plan: Plan) -> bool:
    """Whether tokens settle from left to right, in more than one group: what has settled is a
    prefix that grows.
    """
    return plan.left_to_right and not plan.flat


def check_packing(
    schedule: Hyperschedule, L: int, documents: str = "joined", padding: str = "learnt"
) -> None:
    """Raise a ValueError if under this schedule a call would be shown where documents end.

    Documents kept apart and padding that is ignored must follow from what has settled
    (`maths.md` 10): a prefix of the row, which no flat schedule has and no other order.
    """
    for member in schedule.members:
        _check_packing(member, L, documents, padding)


def _check_packing(schedule: Hyperschedule, L: int, documents: str, padding: str) -> None:
    if goes_on(schedule.plan(L)):
        return
    for choice, name in ((documents, "documents"), (padding, "padding")):
        if choice in REMEDY:
            raise ValueError(
                f"{name}: {choice} under {schedule} would show the network where a document ends, "
                "and what is reported would be no bound on -log p. It needs a hyperschedule that "
                f"goes from left to right (QuenchedAR, Block, Slide): {REMEDY[choice]}, or change "
                "the schedule"
            )


@dataclass(frozen=True)
class Batch:
    """Sequences to be scored.

    Args:
        ids: [B, L] in 0..N-1.
        example: [B] names each row for the noise.
        slot: [B] running number in the order of the data; neighbours are stratified.
        valid: [B, L] False at the filler behind the end of a row whose calls stop there (ignored
            padding, `maths.md` 10.3), or None.
        document: [B, L] how many documents have ended before each token, where a call sees of its
            settled context the last document only (`maths.md` 10.2), or None.
        key: times of different keys are independent.
        known: [B, L] True at known tokens: seen at t = 0 and not scored, so that the bound is one
            of the others given them; or None.
        counted: [B, L] False at filler that is scored like any token (learnt padding): its nats
            belong to the sum, it is none of the tokens; or None.
    """

    ids: Tensor
    example: Tensor
    slot: Tensor
    valid: Tensor | None = None
    document: Tensor | None = None
    key: int = 0
    known: Tensor | None = None
    counted: Tensor | None = None

    @classmethod
    def of(cls, rows: Mapping[str, Tensor]) -> Batch:
        """The columns of a data loader's batch, by name."""
        columns: dict[str, Any] = dict(rows)
        return cls(**columns)

    def apart(self, eos: int | None) -> Batch:
        """The same, its documents, which end with `eos`, kept apart; None: not."""
        return self if eos is None else replace(self, document=ended_before(self.ids, eos))

    @property
    def counts(self) -> Tensor | None:
        """[B, L] True at the tokens by whose number nats are divided; None: all."""
        scored = self.valid
        if self.counted is not None:
            scored = self.counted if scored is None else scored & self.counted
        if self.known is not None:
            scored = ~self.known if scored is None else scored & ~self.known
        return scored

    def noised(self, plan: Plan, call: Tensor | None = None) -> Tensor | None:
        """[B, L] True at the tokens that are noised and scored; None: all.

        Filler behind the end i* of a row is one of them in the calls k < s(i*) + T, which come
        before the row stops.

        Args:
            plan: the schedule's.
            call: [B or 1, L] the call that touches each position; None: whether any does.

        Raises:
            ValueError: if rows stop under a schedule that does not go from left to right.
        """
        if self.valid is None:
            return None if self.known is None else ~self.known
        if not goes_on(plan):
            raise ValueError(f"this schedule cannot stop at the end of a row: {REMEDY['ignored']}")
        start = plan.start if call is None else call
        alive = start < last_call(plan, self.valid)[:, None]
        return alive if self.known is None else alive & ~self.known

    def fed(self, schedule: Hyperschedule) -> int:
        """How many positions from the left a call needs: those behind are filler of calls that come
        after every row has stopped. All, under a schedule whose shorter rows begin otherwise.
        """
        L = self.ids.shape[-1]
        if self.valid is None:
            return L
        plan = schedule.plan(L, self.ids.device)
        n = int((plan.start < last_call(plan, self.valid).max()).sum())
        if n < L and (not schedule.fits(n) or schedule.plan(n).starts != plan.starts[:n]):
            return L
        return n

    @property
    def scored(self) -> Tensor:
        """[B] number of tokens that count."""
        return (
            torch.full_like(self.example, self.ids.shape[-1])
            if self.counts is None
            else self.counts.sum(-1)
        )
