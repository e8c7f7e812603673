"""Under which schedule of a mixture a batch is trained."""

from __future__ import annotations

from torch import Tensor

from ..hyperschedule import Hyperschedule
from ..noise import Stream, uniform


def schedule_of_batch(
    schedule: Hyperschedule, seed: int, slot: Tensor, batch_size: int
) -> Hyperschedule:
    """That of a batch of a run: of a `Mixture` one of its schedules by a hash of (seed, number of
    the batch), the same on all ranks and after a resume.

    >>> import torch
    >>> from textdiff.hyperschedule import Flat, Mixture, QuenchedAR
    >>> both = Mixture((QuenchedAR(), Flat(4)))
    >>> for first in (0, 8, 16):
    ...     print(schedule_of_batch(both, seed=0, slot=torch.tensor([first]), batch_size=8))
    Flat(levels=4)
    QuenchedAR()
    Flat(levels=4)

    Args:
        schedule: a mixture, or any other.
        seed: of the run.
        slot: [B] places in the run of the batch's rows on this rank.
        batch_size: rows of a batch on all ranks.
    """
    members = schedule.members
    if len(members) == 1:  # nothing is read from a GPU
        return schedule
    number = int(slot[0]) // batch_size
    return members[int(uniform(seed, 0, 0, number, Stream.SCHEDULE) * len(members))]
