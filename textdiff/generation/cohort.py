"""Sequences that take one step together: those with the same stage of a sampler and filter."""

from __future__ import annotations

from collections.abc import Sequence as Row
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..noise import Noise
from ..process import Process
from ..samplers import Filter, Sampler, Step
from .sequence import Sequence, noisy


@dataclass(frozen=True, eq=False)
class Cohort:
    """A step of [b, W] that serves all its sequences, each with its own clock.

    Columns that pad a shorter window have t = s = 0 and hold no MASK, so that no sampler changes or
    counts them.

    Args:
        sequences: b of them.
        step: theirs.
        place: [b, W] positions of the columns.
        there: [b, W] bool, the columns that do not pad.
        rows: [b, W] bool, where a token may change.
    """

    sequences: list[Sequence]
    step: Step
    place: Tensor
    there: Tensor
    rows: Tensor

    @property
    def sampler(self) -> Sampler:
        """The stage that all take."""
        return self.sequences[0].sampler

    @property
    def filter(self) -> Filter:
        """The filter that all have."""
        return self.sequences[0].request.filter

    @classmethod
    def of(
        cls, sequences: list[Sequence], ids: Tensor, t: Tensor, process: Process, N: int
    ) -> Cohort:
        """The next step of sequences whose tokens and times stand in their places of ids and t,
        [places, L].
        """
        device = ids.device
        windows = [one.window() for one in sequences]
        place = _padded([torch.tensor(window) for window in windows], device)
        width = torch.tensor([len(window) for window in windows], device=device)
        there = torch.arange(place.shape[1], device=device) < width[:, None]
        slot = torch.tensor([one.place for one in sequences], device=device)[:, None]
        z = ids[slot, place].masked_fill(~there, 0)
        now = t[slot, place].masked_fill(~there, 0.0)
        goal = torch.zeros_like(now)
        if not sequences[0].request.sampler.own_times:
            goals = [one.plan.times(one.k) for one in sequences]
            goal = torch.minimum(now, _padded(goals, device).to(now))
        seed, example, number = noisy(sequences, device)
        noise = Noise(seed, example, number, place)
        step = Step(process, z, now, s=goal, N=N, noise=noise, ids=ids[slot[:, 0]])
        rows = sequences[0].sampler.rows(step)
        return cls(sequences, step, place, there=there, rows=rows)


def cohorts(sequences: Row[Sequence]) -> list[list[Sequence]]:
    """Sequences in groups that can take a step together."""
    groups: list[list[Sequence]] = []
    for one in sequences:
        for group in groups:
            if _together(group[0], one):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _together(a: Sequence, b: Sequence) -> bool:
    return (
        a.request.filter is b.request.filter
        and a.request.sampler.own_times == b.request.sampler.own_times
        and a.sampler == b.sampler
    )


def _padded(rows: list[Tensor], device: torch.device) -> Tensor:
    return pad_sequence(rows, batch_first=True).to(device)
