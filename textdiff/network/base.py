"""What our networks share: the denoiser protocol, read from a config of `transformers`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedConfig, PreTrainedModel

from ..denoiser.cache import Cache
from ..denoiser.visibility import Visibility

Layout = Literal["aligned", "shifted"]


def check_layout(layout: str) -> None:
    """Raise a ValueError unless it is one of the two."""
    if layout not in ("aligned", "shifted"):
        raise ValueError(f"layout must be 'aligned' or 'shifted', got {layout!r}")


def own_arguments(config_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` that a config class (or one between it and transformers' own) names as its
    arguments; nothing else that a file says should reach transformers, which fetches code from the
    Hub for some of it.

    >>> from textdiff.network import TransformerConfig
    >>> own_arguments(TransformerConfig, {"layers": 2, "attn_implementation": "somebody/kernel"})
    {'layers': 2}
    """
    own = {"tie_word_embeddings"}
    for cls in config_class.__mro__:
        if cls is PreTrainedConfig:
            break
        own |= inspect.signature(cls).parameters.keys()
    return {name: value for name, value in values.items() if name in own - {"kwargs"}}


class DenoiserModel(PreTrainedModel):
    """A `PreTrainedModel` behind the protocol `denoiser.Denoiser`: a network defines `body` and
    `head_parameters`, and the properties in which it differs.
    """

    blocks: nn.ModuleList

    def __init__(self, config: PreTrainedConfig, *arguments: Any, **options: Any):
        config._attn_implementation = None  # it may name a kernel on the Hub; we have our own
        super().__init__(config, *arguments, **options)

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.config.num_tokens

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that ended texts for the model that this was made from, beside its tokenizer's."""
        return ()

    @property
    def shifted(self) -> bool:
        """Whether row j-1 predicts token j."""
        return self.config.shifted

    @property
    def bos(self) -> int:
        """The id in front of a shifted sequence."""
        return self.config.bos

    @property
    def sees_time(self) -> bool:
        """Whether the network looks at t."""
        return self.config.conditioned

    @property
    def cacheable(self) -> bool:
        """Whether time conditions each row by itself (`maths.md` 6, C4)."""
        return True

    @property
    def self_noise(self) -> float | None:
        """The self-noise for which the logits are a posterior's (4.2); None: they are what the
        model's prediction says.
        """
        return None

    @property
    def causal(self) -> bool:
        """Whether `forward` shows a row only what stands before it."""
        return self.shifted

    def body(
        self,
        ids: Tensor,
        positions: Tensor,
        t: Tensor,
        visibility: Visibility,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden rows of ids [B, R] in 0..N at positions [R] or [B, R] and times t [B, R]: see
        `denoiser.Denoiser`.
        """
        raise NotImplementedError

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Weight [N, D] and bias [N] (or None) of the head: see `denoiser.Denoiser`."""
        raise NotImplementedError

    def compile(self) -> None:
        """Run blocks through `torch.compile`, in place: names of weights stay.

        `torch.compile(network)` itself compiles nothing, for it sees `forward` only. Here it is
        what treats rows one by one, so that the graphs are few, whatever the schedule, the cache
        and the visibility.
        """
        for block in self.blocks:
            block.compile(dynamic=True)

    def forward(self, input_ids: Tensor, t: Tensor | None = None) -> Tensor:
        """Logits [B, R, N] of whole sequences [B, R] under full or `causal` attention, for a quick
        look.
        """
        R = input_ids.shape[-1]
        if t is None:
            t = torch.zeros_like(input_ids, dtype=torch.float64)
        positions = torch.arange(R, device=input_ids.device)
        visibility = Visibility(context=R if self.causal else 0)
        return linear(self.body(input_ids, positions, t, visibility), *self.head_parameters())
