"""What `Model.generate` returns, and how states of the loop become trajectories, streams and progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .generation import State
from .generation_config import GenerationConfig
from .trajectory import Trajectory


@dataclass(frozen=True)
class Samples:
    """One entry per sample, in the order prompt by prompt.

    Args:
        ids: token ids of each sample, prompt included, cut behind a drawn end of text.
        texts: their texts.
        nfe: network calls that each needed.
        seconds: wall time of all.
        tokens: tokens that were drawn, given ones not counted.
        body_rows, head_rows: rows that went through the network's body and its head.
        trajectories: how each came about, if `output_trajectory` was asked for.
    """

    ids: list[Tensor]
    texts: list[str]
    nfe: list[int]
    seconds: float
    tokens: int
    body_rows: int
    head_rows: int
    trajectories: list[Trajectory] | None = None

    @property
    def tokens_per_second(self) -> float:
        """Drawn tokens per second."""
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def tokens_per_forward(self) -> float:
        """Drawn tokens per network call of a sequence."""
        return self.tokens / max(sum(self.nfe), 1)


class Watch:
    """What follows the states of a batch: progress bar, streamer, the caller's `on_call`, and the trajectories of its rows."""

    def __init__(
        self,
        given: Tensor,
        lengths: list[int],
        mask: int,
        config: GenerationConfig,
        bar: Any,
        streamer: Any,
        on_call: Callable[[State], None] | None,
    ):
        self.given, self.lengths, self.bar, self.on_call = given < mask, lengths, bar, on_call
        self.stream = None if streamer is None else Stream(streamer, mask, config.eos_token_id, given[0] < mask)
        self.states: list[State] | None = [] if config.output_trajectory else None
        self.settled = int(self.given.sum())

    def __call__(self, state: State) -> None:
        """Take one more state."""
        settled = int((state.t == 0).sum())
        self.bar.update(settled - self.settled)
        self.settled = settled
        if self.states is not None:
            self.states.append(State(state.call, state.ids.cpu().clone(), state.t.cpu() == 0, state.confidence.cpu()))
        if self.stream is not None:
            self.stream.take(state)
        if self.on_call is not None:
            self.on_call(state)

    def trajectory(self, row: int) -> Trajectory | None:
        """How a row came about, up to the call that settled all of it; None if that was not asked for."""
        if self.states is None:
            return None
        kept = slice(self.lengths[row])
        ids, settled, confidence = (
            torch.stack([getattr(state, name)[row, kept] for state in self.states]) for name in ("ids", "t", "confidence")
        )
        frames = int((~settled.all(-1)).sum()) + 1
        return Trajectory(ids[:frames], settled[:frames], confidence[:frames], self.given[row, kept])


class Stream:
    """Feeds a transformers streamer with one sequence: `put` what has settled from the left, `put_draft` (if it has one) the rest.

    Nothing behind a drawn end of text `eos` is put.
    """

    def __init__(self, streamer: Any, mask: int, eos: int | None, given: Tensor):
        self.streamer, self.mask, self.eos, self.given = streamer, mask, eos, given
        self.done, self.length = 0, len(given)

    def take(self, state: State) -> None:
        """Pass on what is new, and the end."""
        if self.done == self.length:
            return
        ids = state.ids[0].cpu()
        ready = min(int((state.t[0] == 0).cumprod(-1).sum()), self.length)
        ended = (ids[:ready] == self.eos) & ~self.given[:ready] if self.eos is not None else torch.zeros(0, dtype=torch.bool)
        if ended.any():
            ready = self.length = int(ended.long().argmax()) + 1
        if ready > self.done:
            self.streamer.put(ids[self.done : ready])
            self.done = ready
        draft = ids[ready : self.length]
        if self.done == self.length:
            self.streamer.end()
        elif hasattr(self.streamer, "put_draft"):
            self.streamer.put_draft(draft[draft < self.mask])
