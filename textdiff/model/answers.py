"""What a caller gets: finished sequences, put back into the order in which they were asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ..generation.samples import Samples, Trajectory
from ..generation.state import Denoised, is_end
from ..generation.watching import Watch, ends_free
from .requests import Batch, Part, Request, joined
from .text import added, running


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
            if (trajectory := watch.trajectory(row, len(ids))) is not None:
                self.trajectories[number] = trajectory

    def samples(
        self, asked: list[Request], tokenizer: PreTrainedTokenizerFast, trajectories: bool
    ) -> Samples:
        """All of them, in order."""
        order = range(len(self.wanted))
        ids = [self.ids[number] for number in order]
        told = [
            tell(tokenizer, request.parts, self.mask_id, row)
            for request, row in zip(asked, ids, strict=True)
        ]
        drawn = [self.wanted[number][: len(ids[number])] == self.mask_id for number in order]
        return Samples(
            ids,
            [text for text, _, _ in told],
            nfe=[self.nfe[number] for number in order],
            seconds=time.perf_counter() - self.begin,
            tokens=sum(int(row.sum()) for row in drawn),
            body_rows=self.body_rows,
            head_rows=self.head_rows,
            completions=[completion for _, completion, _ in told],
            running=[whole for _, _, whole in told],
            trajectories=[self.trajectories[number] for number in order] if trajectories else None,
        )


def tell(
    tokenizer: PreTrainedTokenizerFast, parts: Sequence[Part], mask_id: int, ids: Tensor
) -> tuple[str, str, str]:
    """The text of a finished sequence, in which text that was given stands as it was given; the
    text of its drawn tokens alone; and the first with each EOS that was drawn.
    """
    tokens = ids.tolist()
    text = completion = whole = ""
    end = 0
    for is_gap, run in groupby(parts, lambda part: set(part[1]) <= {mask_id}):
        for given, of_part in [(None, joined(list(run)))] if is_gap else run:
            begin = end
            end = begin + len(of_part)
            piece = given or added(tokenizer, tokens[:begin], tokens[begin:end], True)
            text += piece
            completion += piece if is_gap else ""
            whole += given or running(tokenizer, tokens[:begin], tokens[begin:end])
    return text, completion, whole


def cut(ids: Tensor, free: Tensor, eos: Sequence[int]) -> Tensor:
    """A sequence up to the first drawn end of text, which stays; a text with gaps to fill is not
    cut.
    """
    if not eos or not ends_free(free):
        return ids
    ended = (free & is_end(ids, eos)).nonzero()
    return ids[: int(ended[0]) + 1] if len(ended) else ids
