"""What textdiff asks of a network: two calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from .cache import Cache
from .visibility import Visibility


class Denoiser(Protocol):
    """A network that fits: `body` makes hidden rows, a linear `head` turns the wanted ones into
    logits over N tokens.
    """

    @property
    def num_tokens(self) -> int:
        """N, the ordinary tokens; ids 0..N-1, and MASK = N."""
        ...

    @property
    def shifted(self) -> bool:
        """Whether row j-1 predicts token j (with a BOS in front) instead of row j."""
        ...

    @property
    def bos(self) -> int:
        """The id that stands in front in the shifted layout."""
        ...

    @property
    def sees_time(self) -> bool:
        """Whether the network looks at t."""
        ...

    @property
    def cacheable(self) -> bool:
        """Whether a row's keys depend on its own time only, so that those of settled rows can be
        cached.
        """
        ...

    @property
    def self_noise(self) -> float | None:
        """The self-noise for which the logits are a posterior's (an imported checkpoint's); None:
        they are not.
        """
        ...

    def body(
        self,
        ids: Tensor,
        positions: Tensor,
        t: Tensor,
        visibility: Visibility,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden rows of ids [B, R] in 0..N, positions [R] or [B, R] and times t [B, R] in [0, 1].

        [B, W, D] for the window rows; where all rows are context (a causal language model), [B, R,
        D] for these. With a cache, each layer's keys and values go through `cache.extend(layer, k,
        v)`.
        """
        ...

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Weight [N, D] and bias [N] (or None) of the head; logits = hidden @ weight.T + bias."""
        ...


@dataclass(frozen=True)
class Architecture:
    """Base of what a config file names as `network`: a shape that makes a network once the
    tokenizer is known.
    """

    @property
    def tokenizer(self) -> str | None:
        """Name or folder of the tokenizer whose tokens the network knows already; None: any will
        do.
        """
        return None

    def stored(self, network: Any) -> Architecture:
        """What a checkpoint says of a network that this has built: enough to build it again."""
        return self

    def build(self, num_tokens: int, sees_time: bool, bos: int) -> Any:
        """The untrained `Denoiser` module over N = num_tokens ordinary tokens, seeing t if
        `sees_time`.
        """
        raise NotImplementedError
