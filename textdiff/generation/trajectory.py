"""What happened to one sample, call by call."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Trajectory:
    """The states of one sample; frame 0 is the noise before the first network call, frame n the
    state after the n-th.

    Args:
        ids: [frames, L] int64, N = MASK.
        settled: [frames, L] bool: clean for good (given positions from the start).
        confidence: [frames, L] float32: the probability that the network gave to the token that the
            call put there; nan where it put none.
        given: [L] bool: prompt and kept positions.
    """

    ids: Tensor
    settled: Tensor
    confidence: Tensor
    given: Tensor
