"""How the frames of the loop become progress, streams and trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .config import GenerationConfig
from .samples import Trajectory
from .state import Frame, is_end


class Watch:
    """All that follows the frames of a batch, in turn; `denoise` calls it with each.

    Args:
        known: [B, L] bool, the tokens that are not drawn.
        mask: N.
        config: says where a text ends, and whether trajectories are kept.
        bar: a progress bar of tokens, such as tqdm's.
        streamer: a streamer of transformers for the first sequence, or None.
        on_call: the caller's own, or None.
    """

    def __init__(
        self,
        known: Tensor,
        mask: int,
        config: GenerationConfig,
        *,
        bar: Any,
        streamer: Any = None,
        on_call: Callable[[Frame], None] | None = None,
    ):
        self.record = Record(known) if config.output_trajectory else None
        self.sure = Surety(known) if config.logprobs else None
        self.followers: list[Callable[[Frame], None]] = [Progress(bar, known)]
        if self.sure is not None:
            self.followers.append(self.sure)
        if self.record is not None:
            self.followers.append(self.record)
        if streamer is not None:
            self.followers.append(Feed(streamer, mask, config.ends, known[0]))
        if on_call is not None:
            self.followers.append(on_call)

    def __call__(self, frame: Frame) -> None:
        """Take one more frame."""
        for follow in self.followers:
            follow(frame)

    def trajectory(self, row: int, length: int) -> Trajectory | None:
        """How the first `length` tokens of a row came about; None if that was not asked for."""
        return None if self.record is None else self.record.trajectory(row, length)


class Surety:
    """How likely the network found each token at the call that put it: `confidence` [B, L]."""

    def __init__(self, known: Tensor):
        self.confidence = torch.full(known.shape, torch.nan)

    def __call__(self, frame: Frame) -> None:
        """Take what this call has put."""
        put = frame.confidence.cpu()
        self.confidence = torch.where(put.isnan(), self.confidence, put)


class Progress:
    """Moves a progress bar by the tokens that settle; known [B, L] bool have from the start."""

    def __init__(self, bar: Any, known: Tensor):
        self.bar = bar
        self.settled = int(known.sum())

    def __call__(self, frame: Frame) -> None:
        settled = int((frame.t == 0).sum())
        self.bar.update(settled - self.settled)
        self.settled = settled


class Kept(NamedTuple):
    """What is kept of a frame, on the CPU: ids, settled and confidence [B, L], called [B]."""

    ids: Tensor
    settled: Tensor
    confidence: Tensor
    called: Tensor


class Record:
    """Keeps the frames of a batch and makes trajectories of them; known [B, L] bool."""

    def __init__(self, known: Tensor):
        self.known = known
        self.kept: list[Kept] = []

    def __call__(self, frame: Frame) -> None:
        ids, called = frame.ids.cpu().clone(), frame.called.cpu().clone()
        self.kept.append(Kept(ids, frame.t.cpu() == 0, frame.confidence.cpu(), called))

    def trajectory(self, row: int, length: int) -> Trajectory:
        """How the first `length` tokens of a row came about, call by call of its own."""
        *frames, end = self.kept
        own = [frames[0], *(kept for kept in frames[1:] if kept.called[row])]
        ids = torch.stack([kept.ids[row, :length] for kept in own])
        settled = torch.stack([kept.settled[row, :length] for kept in own])
        confidence = torch.stack([kept.confidence[row, :length] for kept in own])
        # Its last tokens may settle without a call: what they are then belongs to its last frame.
        ids[-1] = end.ids[row, :length]
        settled[-1] = end.settled[row, :length]
        return Trajectory(ids, settled, confidence, self.known[row, :length])


class Feed:
    """Feeds a transformers streamer with the first sequence: `put` what has settled from the left,
    `put_draft` (if it has one) the rest.

        settled for good              still on its way
        The quick brown fox ________  MASK over MASK MASK dog
        put, token after token        put_draft: "over dog", after every call

    Nothing behind a drawn end of text `eos` is put.
    """

    def __init__(self, streamer: Any, mask: int, eos: Sequence[int], known: Tensor):
        self.streamer = streamer
        self.mask = mask
        self.known = known
        # A text with gaps goes on behind an end of text.
        self.eos = eos if ends_free(~known) else ()
        self.done = -1
        self.length = len(known)

    def __call__(self, frame: Frame) -> None:
        """Pass on what is new, and the end."""
        if self.done == self.length:
            return
        ids = frame.ids[0].cpu()
        ready = self._ready(ids, frame.t[0].cpu())
        if ready > self.done:  # first of all the prompt, even an empty one: a streamer may skip it
            self.streamer.put(ids[max(self.done, 0) : ready])
            self.done = ready
        if self.done == self.length:
            self.streamer.end()
        elif hasattr(self.streamer, "put_draft"):
            draft = ids[ready : self.length]
            self.streamer.put_draft(draft[draft < self.mask])

    def _ready(self, ids: Tensor, t: Tensor) -> int:
        """How many tokens have settled from the left; an end of text among them ends the stream."""
        ready = min(int((t == 0).cumprod(-1).sum()), self.length)
        if not self.eos:
            return ready
        ended = is_end(ids[:ready], self.eos) & ~self.known[:ready]
        if ended.any():
            ready = self.length = int(ended.long().argmax()) + 1
        return ready


def ends_free(free: Tensor) -> bool:
    """Whether the positions to draw, free [L], are the end of a sequence: only then is it cut at a
    drawn end of text.
    """
    return bool(free.any()) and bool(free[int(free.long().argmax()) :].all())
