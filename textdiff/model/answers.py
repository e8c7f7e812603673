"""What a caller gets: finished sequences, put back into the order in which they were asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..generation.config import GenerationConfig
from ..generation.samples import Samples, Trajectory
from ..generation.state import Denoised, is_end
from ..generation.watching import Watch, ends_free
from .prefix import Told, prefix_of, tell
from .requests import Batch, Request
from .trained import Trained


@dataclass
class Answers:
    """The samples of one call of `generate`, taken in batch by batch.

    Args:
        wanted: the sequences that were asked for, [L] each, with MASK where a token is drawn.
        mask_id: N.
        eos: a sample whose drawn tokens are its tail ends where one of these was drawn.
        begin: when the drawing began, by `time.perf_counter`.
    """

    wanted: list[Tensor]
    mask_id: int
    eos: Sequence[int]
    begin: float = field(default_factory=time.perf_counter)
    ids: dict[int, Tensor] = field(default_factory=dict)
    nfe: dict[int, int] = field(default_factory=dict)
    confidence: dict[int, Tensor] = field(default_factory=dict)
    trajectories: dict[int, Trajectory] = field(default_factory=dict)
    body_rows: int = 0
    head_rows: int = 0

    def take(self, batch: Batch, done: Denoised, watch: Watch) -> None:
        """Take the sequences of a batch, each up to its own end, with how they came about."""
        self.body_rows += done.body_rows
        self.head_rows += done.head_rows
        for row, number in enumerate(batch.numbers):
            whole = done.ids[row, : batch.ends[row]].cpu()
            ids = cut(whole, self.wanted[number] == self.mask_id, self.eos)
            self.ids[number] = ids
            self.nfe[number] = int(done.nfe[row])
            if watch.sure is not None:
                self.confidence[number] = watch.sure.confidence[row]
            if (trajectory := watch.trajectory(row, len(ids))) is not None:
                self.trajectories[number] = trajectory

    def samples(self, asked: list[Request], model: Trained, config: GenerationConfig) -> Samples:
        """All of them, in order."""
        order = range(len(self.wanted))
        told = [self._told(asked[number], self.ids[number], model, config) for number in order]
        ids = [one.ids for one in told]
        drawn = [self.wanted[number][: len(ids[number])] == self.mask_id for number in order]
        trajectories = [self.trajectories[number] for number in order if self.trajectories]
        sure = [self.confidence[n][: len(ids[n])][drawn[n]].log() for n in order if self.confidence]
        return Samples(
            ids,
            [one.text for one in told],
            nfe=[self.nfe[number] for number in order],
            seconds=time.perf_counter() - self.begin,
            tokens=sum(int(row.sum()) for row in drawn),
            body_rows=self.body_rows,
            head_rows=self.head_rows,
            completions=[one.completion for one in told],
            running=[one.running for one in told],
            logprobs=sure if config.logprobs else None,
            trajectories=trajectories if config.output_trajectory else None,
        )

    def _told(
        self, request: Request, ids: Tensor, model: Trained, config: GenerationConfig
    ) -> Told:
        """A finished sequence as text, cut before a stop string."""
        if not config.stop:
            return tell(model.tokenizer, request.parts, self.mask_id, ids)
        prefix = prefix_of(model, request, config)
        prefix.put(range(len(ids)), ids.tolist())
        return prefix.told_as(ids, self.mask_id)


def cut(ids: Tensor, free: Tensor, eos: Sequence[int]) -> Tensor:
    """A sequence up to the first drawn end of text, which stays; a text with gaps to fill is not
    cut.
    """
    if not eos or not ends_free(free):
        return ids
    ended = (free & is_end(ids, eos)).nonzero()
    return ids[: int(ended[0]) + 1] if len(ended) else ids
