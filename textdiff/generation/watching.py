"""How states of the loop become trajectories, streams and progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .config import GenerationConfig
from .state import State
from .trajectory import Trajectory


def ends_free(free: Tensor) -> bool:
    """Whether the positions to draw, free [L], are the end of a sequence: only then is it cut at a
    drawn end of text.
    """
    return bool(free.any()) and bool(free[int(free.long().argmax()) :].all())


class Watch:
    """What follows the states of a batch: progress bar, streamer, the caller's `on_call`, and the
    trajectories of its rows.
    """

    def __init__(
        self,
        given: Tensor,
        mask: int,
        config: GenerationConfig,
        bar: Any,
        streamer: Any,
        on_call: Callable[[State], None] | None,
    ):
        self.given, self.bar, self.on_call = given < mask, bar, on_call
        self.stream = (
            None
            if streamer is None
            else Stream(streamer, mask, config.eos_token_id, given[0] < mask)
        )
        self.states: list[State] | None = [] if config.output_trajectory else None
        self.settled = int(self.given.sum())

    def __call__(self, state: State) -> None:
        """Take one more state."""
        settled = int((state.t == 0).sum())
        self.bar.update(settled - self.settled)
        self.settled = settled
        if self.states is not None:
            kept = (
                state.ids.cpu().clone(),
                state.t.cpu() == 0,
                state.confidence.cpu(),
                state.called.cpu().clone(),
            )
            self.states.append(State(state.call, *kept))
        if self.stream is not None:
            self.stream.take(state)
        if self.on_call is not None:
            self.on_call(state)

    def trajectory(self, row: int, length: int) -> Trajectory | None:
        """How the first `length` tokens of a row came about, call by call of its own; None if that
        was not asked for.
        """
        if self.states is None:
            return None
        own = [state for n, state in enumerate(self.states[:-1]) if n == 0 or state.called[row]]
        ids, settled, confidence = (
            torch.stack([getattr(state, name)[row, :length] for state in own])
            for name in ("ids", "t", "confidence")
        )
        ids[-1], settled[-1] = (
            self.states[-1].ids[row, :length],
            self.states[-1].t[row, :length],
        )  # may settle without a call
        return Trajectory(ids, settled, confidence, self.given[row, :length])


class Stream:
    """Feeds a transformers streamer with one sequence: `put` what has settled from the left,
    `put_draft` (if it has one) the rest.

    Nothing behind a drawn end of text `eos` is put.
    """

    def __init__(self, streamer: Any, mask: int, eos: int | None, given: Tensor):
        self.streamer, self.mask, self.given = streamer, mask, given
        self.eos = (
            eos if ends_free(~given) else None
        )  # a text with gaps goes on behind an end of text
        self.done, self.length = -1, len(given)

    def take(self, state: State) -> None:
        """Pass on what is new, and the end."""
        if self.done == self.length:
            return
        ids = state.ids[0].cpu()
        ready = min(int((state.t[0] == 0).cumprod(-1).sum()), self.length)
        ended = (
            (ids[:ready] == self.eos) & ~self.given[:ready]
            if self.eos is not None
            else torch.zeros(0, dtype=torch.bool)
        )
        if ended.any():
            ready = self.length = int(ended.long().argmax()) + 1
        if ready > self.done:  # first of all the prompt, even an empty one: a streamer may skip it
            self.streamer.put(ids[max(self.done, 0) : ready])
            self.done = ready
        draft = ids[ready : self.length]
        if self.done == self.length:
            self.streamer.end()
        elif hasattr(self.streamer, "put_draft"):
            self.streamer.put_draft(draft[draft < self.mask])
