"""Pretrained causal language models as denoisers: `transformers`' own modules (GPT-2, Llama, Qwen2,
Qwen3, Mistral, SmolLM3, Gemma 3) under our visibility and our cache.

The layout is shifted unless told otherwise, MASK is one more embedding, and the head is the base's
own over its N tokens; so before any training quenched AR is exactly the base. `transformers` hands
each layer's queries, keys and values to the attention function that is registered here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
)
from transformers import initialization as init

from ..denoiser.cache import Cache
from ..denoiser.protocol import Architecture
from ..denoiser.visibility import Visibility
from .attention import attend
from .base import DenoiserModel, Layout, check_layout
from .bases import open_base, plain_config
from .embeddings import TimeEmbedding
from .families import base_config
from .kernels import check_backend
from .stack import context_without_output

ATTENTION = "textdiff"


class Sight(NamedTuple):
    """What a call's attention needs beside queries, keys and values; `transformers` passes it on to
    every layer.
    """

    visibility: Visibility
    cache: Cache | None
    backend: str


def _attention(
    module: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: None,
    scaling: float,
    sight: Sight,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention function of `transformers`: q [B, H, R, D/H], k and v [B, G, R, D/H] (G <= H
    groups) -> [B, R, H, D/H].
    """
    if sight.cache is not None:  # of G heads: grouped queries share their keys
        k, v = sight.cache.extend(module.layer_idx, k, v)
    group = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(group, 1)
    v = v.repeat_interleave(group, 1)
    scale = scaling * q.shape[-1] ** 0.5  # 1, but for GPT-2 variants that scale otherwise
    if abs(scale - 1) >= 1e-9:
        q = q * scale
    parts = attend(q.to(v.dtype), k.to(v.dtype), v, sight.visibility, backend=sight.backend)
    return torch.cat(parts, 2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attention)


class PretrainedDenoiserConfig(PreTrainedConfig):
    """What a `PretrainedDenoiser` is made from: the base's own config as plain values, so that the
    base itself is not needed again.
    """

    model_type = "textdiff-pretrained"
    dropout = 0.0

    def __init__(
        self,
        base: dict[str, Any] | None = None,
        conditioned: bool = False,
        bos: int = 0,
        attention: str = "sdpa",
        shifted: bool = True,
        **kwargs: Any,
    ):
        self.shifted = shifted
        self.base = base or {"model_type": "gpt2"}
        self.conditioned = conditioned
        self.bos = bos
        self.attention = attention
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)


@dataclass(frozen=True)
class Pretrained(Architecture):
    """A pretrained causal language model to go on from; its tokenizer must be the data's.

    Args:
        source: a base of one of `families.FAMILIES`: an id on the Hugging Face Hub, or a local
            folder.
        attention: the kernel: "sdpa" everywhere, "flex" or "flash" on CUDA
            (`textdiff.network.kernels`).
        checkpoint: compute activations again in the backward pass: less memory, about a third
            more time.
        config: the base's own, as checkpoints hold it: the network is made from it alone, for
            weights that come from there, and the base is not needed again.
        layout: "shifted": a row predicts the next token, as the base does; "aligned": its own.
    """

    source: str
    attention: Literal["sdpa", "flex", "flash"] = "sdpa"
    checkpoint: bool = False
    config: dict[str, Any] | None = None
    layout: Layout = "shifted"

    def __post_init__(self) -> None:
        check_backend(self.attention)
        check_layout(self.layout)

    @property
    def tokenizer(self) -> str:
        """The base's own."""
        return self.source

    def stored(self, network: Any) -> Architecture:
        """This with the config of the base."""
        return self if network is None else replace(self, config=network.config.base)

    def build(self, num_tokens: int, sees_time: bool, bos: int) -> PretrainedDenoiser:
        """The base's weights, with a row for MASK (the mean of all embeddings) and, if
        `sees_time`, a time embedding of zero. Rows that stand for no token of its tokenizer are
        left out.

        Raises:
            ValueError: if the base cannot be loaded, is of another family, or has not num_tokens
                tokens.
        """
        base = None if self.config is not None else open_base(self.source, num_tokens)
        plain = self.config if base is None else plain_config(base)
        config = PretrainedDenoiserConfig(
            plain, sees_time, bos, attention=self.attention, shifted=self.layout == "shifted"
        )
        network = PretrainedDenoiser(config)
        if base is not None:
            network.base.load_state_dict(base.base_model.state_dict())
            if network.output is not None:
                network.output.load_state_dict(base.get_output_embeddings().state_dict())
            with torch.no_grad():
                # as it is fed: Gemma's embedding scales its rows
                every = torch.arange(network.num_tokens)
                network.mask.copy_(network.base.get_input_embeddings()(every).mean(0))
        if self.checkpoint:
            # its new name came after transformers 5.17
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                network.base.gradient_checkpointing_enable({"use_reentrant": False})
        return network


class PretrainedDenoiser(DenoiserModel):
    """A causal language model as a denoiser; `base` and `output` are `transformers`' modules."""

    config_class = PretrainedDenoiserConfig
    base_model_prefix = "textdiff"

    def __init__(self, config: PretrainedDenoiserConfig):
        super().__init__(config)
        base = base_config(config.base)
        self.base = AutoModel.from_config(base, attn_implementation=ATTENTION, dtype=torch.float32)
        D = base.hidden_size
        self.output = None
        if not base.tie_word_embeddings:
            self.output = nn.Linear(D, base.vocab_size, bias=False)
        self.mask = nn.Parameter(torch.zeros(D))
        self.time = TimeEmbedding(D) if config.conditioned else None
        self.condition = nn.Linear(D, D) if config.conditioned else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """What is added to the base's embeddings starts at zero."""
        if module is self.condition:
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.base.config.vocab_size

    @property
    def ends(self) -> tuple[int, ...]:
        """Those of the base."""
        ends = self.config.base.get("eos_token_id")
        ids = ends if isinstance(ends, list | tuple) else [ends]
        return tuple(token for token in ids if token is not None and token < self.num_tokens)

    @property
    def shifted(self) -> bool:
        """A causal language model predicts the next token, unless it has been taught otherwise."""
        return self.config.shifted

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]
        """The base's layers."""
        return self.base.h if self.base.config.model_type == "gpt2" else self.base.layers

    def get_input_embeddings(self) -> nn.Module:
        """The base's embedding, for transformers' tools."""
        return self.base.get_input_embeddings()

    def compile(self) -> None:
        """As for every network; of the base's layers it is the MLPs."""
        layers: Any = self.blocks
        for layer in layers:
            layer.mlp.compile(dynamic=True)

    def body(
        self,
        ids: Tensor,
        positions: Tensor,
        t: Tensor,
        visibility: Visibility,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden rows: see `denoiser.Denoiser`.

        Raises:
            ValueError: if a position is past those that the base has learnt (GPT-2).
        """
        self._check_positions(positions)
        embed = self.get_input_embeddings()
        masked = (ids == self.num_tokens).unsqueeze(-1)
        x = torch.where(masked, self.mask, embed(ids.clamp(max=self.num_tokens - 1)))
        if self.time is not None and self.condition is not None:
            x = x + self.condition(self.time(t))
        output = self.base(
            inputs_embeds=x,
            position_ids=positions.reshape(-1, ids.shape[-1]),
            use_cache=False,
            sight=Sight(visibility, cache, self.config.attention),
        )
        return output.last_hidden_state[:, context_without_output(visibility, ids.shape[-1]) :]

    def _check_positions(self, positions: Tensor) -> None:
        if self.base.config.model_type != "gpt2":
            return
        limit = self.base.config.max_position_embeddings
        last = int(positions.max())
        if last >= limit:
            raise ValueError(
                f"position {last} is past the {limit} that the base has learnt: take at most "
                f"{limit - 1} tokens ({limit} under quenched AR)"
            )

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Weight [N, D] of the base's head; tied, its embedding."""
        head: Any = self.get_input_embeddings() if self.output is None else self.output
        return head.weight, None


AutoConfig.register(PretrainedDenoiserConfig.model_type, PretrainedDenoiserConfig)
AutoModel.register(PretrainedDenoiserConfig, PretrainedDenoiser)
