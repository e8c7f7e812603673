"""What an engine tells: tokens that have settled, tokens that may still change, and the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Reason = Literal["eos", "length"]


@dataclass(frozen=True)
class Committed:
    """Drawn tokens that have settled for good.

    Args:
        handle: whose.
        position: where they stand, in the order in which they settled; given tokens are left out.
        ids: the tokens there, in 0..N-1.
        nfe: network calls of the sequence so far.
        confidence: the probability that the network gave to each at the call that put it there;
            nan where none did, or nobody asked.
    """

    handle: int
    position: tuple[int, ...]
    ids: tuple[int, ...]
    nfe: int
    confidence: tuple[float, ...]


@dataclass(frozen=True)
class Provisional:
    """The window of a sequence after a network call: tokens that may still change.

    Args:
        handle: whose.
        position: where they stand.
        ids: the tokens there in 0..N, N = MASK.
        confidence: as `Committed` has it, if `Request.confidence`.
        nfe: network calls of the sequence so far.
    """

    handle: int
    position: tuple[int, ...]
    ids: tuple[int, ...]
    confidence: tuple[float, ...]
    nfe: int


@dataclass(frozen=True)
class Finished:
    """A sequence that is done; no event of it follows.

    Args:
        handle: whose.
        ids: [L] all its tokens, given ones too, up to a drawn end of text that ends it.
        nfe: network calls that it needed.
        reason: "eos" if a drawn end of text ended it, else "length".
    """

    handle: int
    ids: Tensor
    nfe: int
    reason: Reason


Event = Committed | Provisional | Finished
