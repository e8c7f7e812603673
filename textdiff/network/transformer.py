"""Our transformer: pre-norm, RoPE over explicit positions, per-token noise conditioning (adaLN)
where the process wants it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers import initialization as init

from ..denoiser.cache import Cache
from ..denoiser.protocol import Architecture
from ..denoiser.visibility import Visibility
from .base import DenoiserModel, Layout, check_layout
from .block import Block, Condition
from .embeddings import TimeEmbedding
from .kernels import check_backend
from .stack import Stack

INITIAL = 0.02  # standard deviation of initial weights, as in GPT-2
SHAPE = ("layers", "width", "heads", "tie", "dropout")
"""What an architecture and the config of its network have in common."""


class TransformerConfig(PreTrainedConfig):
    """Shape of a `TransformerDenoiser`; `num_tokens` is N, MASK is id N."""

    model_type = "textdiff"

    def __init__(
        self,
        num_tokens: int = 256,
        layers: int = 4,
        width: int = 128,
        heads: int = 4,
        tie: bool = False,
        dropout: float = 0.0,
        shifted: bool = False,
        conditioned: bool = False,
        bos: int = 0,
        attention: str = "sdpa",
        **kwargs: Any,
    ):
        self.num_tokens = num_tokens
        self.layers = layers
        self.width = width
        self.heads = heads
        self.tie = tie
        self.dropout = dropout
        self.shifted = shifted
        self.conditioned = conditioned
        self.bos = bos
        self.attention = attention
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)


@dataclass(frozen=True)
class Transformer(Architecture):
    """The transformer that a config file names; `build` makes the network once the tokenizer is
    known.

    Args:
        layers: number of blocks.
        width: D, a multiple of 2 * heads.
        heads: H.
        tie: share the head's weights with the embedding.
        dropout: on residual branches and attention, in [0, 1).
        layout: "aligned": row j predicts token j; "shifted": row j-1 does, with a BOS in front.
        attention: the kernel: "sdpa" everywhere, "flex" or "flash" on CUDA
            (`textdiff.network.kernels`).
        checkpoint: compute activations again in the backward pass: less memory, about a third
            more time.
    """

    layers: int = 4
    width: int = 128
    heads: int = 4
    tie: bool = False
    dropout: float = 0.0
    layout: Layout = "aligned"
    attention: Literal["sdpa", "flex", "flash"] = "sdpa"
    checkpoint: bool = False

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise ValueError(
                "width must be a multiple of 2 * heads (RoPE turns pairs), got "
                f"width={self.width}, heads={self.heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        check_layout(self.layout)
        check_backend(self.attention)

    def build(self, num_tokens: int, sees_time: bool, bos: int) -> TransformerDenoiser:
        """The untrained network over N = num_tokens ordinary tokens, seeing t if `sees_time`."""
        config = TransformerConfig(
            num_tokens=num_tokens,
            shifted=self.layout == "shifted",
            conditioned=sees_time,
            bos=bos,
            attention=self.attention,
            **{name: getattr(self, name) for name in SHAPE},
        )
        network = TransformerDenoiser(config)
        network.blocks.recompute = self.checkpoint
        return network


class TransformerDenoiser(DenoiserModel):
    """Our denoiser: embeddings of N + 1 ids, blocks, a final norm, a linear head over N tokens."""

    config_class = TransformerConfig
    base_model_prefix = "textdiff"
    blocks: Stack
    _no_split_modules = ["Block"]  # noqa: RUF012 - transformers' own convention

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        D = config.width
        self.embedding = nn.Embedding(config.num_tokens + 1, D)
        self.time = TimeEmbedding(D) if config.conditioned else None
        blocks = [Block(config) for _ in range(config.layers)]
        self.blocks = Stack(blocks, head_size=D // config.heads)
        self.norm = nn.LayerNorm(D, bias=False)
        self.output = None if config.tie else nn.Linear(D, config.num_tokens)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """GPT-2's scale; gates and the untied head start at 0, so that an untrained network's bound
        is log N.
        """
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self._deviation(module))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=INITIAL)
        elif isinstance(module, nn.LayerNorm):
            scale = 1.0
            if self.config.tie and module is self.norm:
                # A tied head sees the own token's embedding in the residual stream: its first
                # logit would be 0.02 D.
                scale = min(1.0, 0.5 / (INITIAL * self.config.width))
            init.constant_(module.weight, scale)

    def _deviation(self, module: nn.Linear) -> float:
        """Standard deviation of the initial weights of a linear map."""
        if module is self.output or any(module is block.modulation for block in self.blocks):
            return 0.0
        if any(module is block.out or module is block.down for block in self.blocks):
            return INITIAL / math.sqrt(2 * self.config.layers)
        return INITIAL

    @property
    def architecture(self) -> Transformer:
        """The shape that builds such a network."""
        layout: Layout = "shifted" if self.config.shifted else "aligned"
        return Transformer(layout=layout, **{name: getattr(self.config, name) for name in SHAPE})

    def get_input_embeddings(self) -> nn.Module:
        """The embedding, for transformers' tools."""
        return self.embedding

    def body(
        self,
        ids: Tensor,
        positions: Tensor,
        t: Tensor,
        visibility: Visibility,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden rows: see `denoiser.Denoiser`."""
        condition = None if self.time is None else Condition.of(self.time, t)
        x = self.blocks(self.embedding(ids), positions, condition, visibility, cache=cache)
        return self.norm(x)

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Weight [N, D] and bias of the head; tied, the embedding without its MASK row."""
        if self.output is None:
            return self.embedding.weight[: self.num_tokens], None
        return self.output.weight, self.output.bias


# so that the Hub and AutoTokenizer know a model folder
AutoConfig.register(TransformerConfig.model_type, TransformerConfig)
AutoModel.register(TransformerConfig, TransformerDenoiser)
