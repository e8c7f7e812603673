"""What `Model.generate` returns: samples, and how each came about."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Trajectory:
    """The states of one sample; frame 0 is the noise before the first network call, frame n the
    state after the n-th.

    Args:
        ids: [frames, L] int64, N = MASK.
        settled: [frames, L] bool: clean for good (known positions from the start).
        confidence: [frames, L] float32: the probability that the network gave to the token that the
            call put there; nan where it put none.
        known: [L] bool: prompt and kept positions.
    """

    ids: Tensor
    settled: Tensor
    confidence: Tensor
    known: Tensor


@dataclass(frozen=True)
class Samples:
    """One entry per sample, in the order prompt by prompt.

    Args:
        ids: token ids of each sample, prompt included, cut behind a drawn end of text.
        texts: their texts; text that was given stands in them as it was given.
        nfe: network calls that each needed.
        seconds: wall time of all.
        tokens: tokens that were drawn, known ones not counted.
        body_rows, head_rows: rows that went through the network's body and its head.
        completions: the texts of the drawn tokens alone.
        running: `texts` with the text of each EOS that was drawn, as running text.
        logprobs: log-probabilities [drawn tokens] of each drawn token at the call that put it, in
            nats, if `logprobs` was asked for; nan where the network gave none.
        trajectories: how each came about, if `output_trajectory` was asked for.
    """

    ids: list[Tensor]
    texts: list[str]
    nfe: list[int]
    seconds: float
    tokens: int
    body_rows: int
    head_rows: int
    completions: list[str]
    running: list[str]
    logprobs: list[Tensor] | None = None
    trajectories: list[Trajectory] | None = None

    @property
    def tokens_per_second(self) -> float:
        """Drawn tokens per second."""
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def tokens_per_forward(self) -> float:
        """Drawn tokens per network call of a sequence."""
        return self.tokens / max(sum(self.nfe), 1)
