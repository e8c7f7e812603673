"""Our transformer: pre-norm, RoPE over explicit positions, per-token noise conditioning (adaLN)
where the process wants it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers import initialization as init

from ..denoiser.cache import Cache
from ..denoiser.protocol import Architecture
from ..denoiser.visibility import Visibility
from .base import DenoiserModel
from .block import Block, Condition, TimeEmbedding, rotary
from .kernels import check_backend


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
        **kwargs: object,
    ):
        self.num_tokens, self.layers, self.width, self.heads = num_tokens, layers, width, heads
        self.tie, self.dropout, self.shifted, self.conditioned, self.bos = (
            tie,
            dropout,
            shifted,
            conditioned,
            bos,
        )
        self.attention = attention
        super().__init__(**{"tie_word_embeddings": False, **kwargs})


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
        attention: the kernel: "sdpa" everywhere, "flex" or "flash" on CUDA (`textdiff.network.kernels`).
        checkpoint: recompute activations in the backward pass: less memory, about a third more
            time.
    """

    layers: int = 4
    width: int = 128
    heads: int = 4
    tie: bool = False
    dropout: float = 0.0
    layout: Literal["aligned", "shifted"] = "aligned"
    attention: Literal["sdpa", "flex", "flash"] = "sdpa"
    checkpoint: bool = False

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width must be a multiple of 2 * heads (RoPE turns pairs), got width={self.width}, heads={self.heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.layout not in ("aligned", "shifted"):
            raise ValueError(f"layout must be 'aligned' or 'shifted', got {self.layout!r}")
        check_backend(self.attention)

    def build(self, num_tokens: int, sees_time: bool, bos: int) -> TransformerDenoiser:
        """The untrained network over N = num_tokens ordinary tokens, seeing t if `sees_time`."""
        network = TransformerDenoiser(
            TransformerConfig(
                num_tokens=num_tokens,
                layers=self.layers,
                width=self.width,
                heads=self.heads,
                tie=self.tie,
                dropout=self.dropout,
                shifted=self.layout == "shifted",
                conditioned=sees_time,
                bos=bos,
                attention=self.attention,
            )
        )
        network.recompute = self.checkpoint
        return network


class TransformerDenoiser(DenoiserModel):
    """The denoiser (see `network.protocol`): embeddings for N + 1 ids, blocks, a final norm and a
    linear head over N tokens.
    """

    config_class = TransformerConfig
    base_model_prefix = "textdiff"
    recompute = False
    _no_split_modules = ["Block"]  # noqa: RUF012 - transformers' own convention

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        D = config.width
        self.embedding = nn.Embedding(config.num_tokens + 1, D)
        self.time = TimeEmbedding(D) if config.conditioned else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(D, bias=False)
        self.output = None if config.tie else nn.Linear(D, config.num_tokens)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """GPT-2's scale; gates and the untied head start at 0, so that an untrained network's bound
        is log N.
        """
        if isinstance(module, nn.Linear):
            zero = module is self.output or any(module is block.modulation for block in self.blocks)
            deep = any(module is block.out or module is block.down for block in self.blocks)
            init.normal_(
                module.weight,
                std=0.0 if zero else 0.02 / math.sqrt(2 * self.config.layers) if deep else 0.02,
            )
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.LayerNorm):
            # A tied head sees the own token's embedding in the residual stream: its first logit
            # would be 0.02 D.
            tied = self.config.tie and module is self.norm
            init.constant_(
                module.weight, min(1.0, 0.5 / (0.02 * self.config.width)) if tied else 1.0
            )

    @property
    def architecture(self) -> Transformer:
        """The shape that builds such a network."""
        c = self.config
        return Transformer(
            c.layers, c.width, c.heads, c.tie, c.dropout, "shifted" if c.shifted else "aligned"
        )

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
        """Hidden rows of ids [B, R] in 0..N at positions [R] or [B, R] and times t [B, R]: see
        `network.protocol`.
        """
        x = self.embedding(ids)
        cos, sin = rotary(positions, self.config.width // self.config.heads, x.dtype)
        c = None
        if (
            self.time is not None
        ):  # few different times occur in a call, so the modulations are made once for each
            levels, place = t.unique(return_inverse=True)
            c = Condition(self.time(levels), place)
        skip = visibility.context if visibility.context < ids.shape[-1] else 0
        for layer, block in enumerate(self.blocks):
            last = layer == len(self.blocks) - 1
            if self.recompute and self.training and not last:
                x = checkpoint(block, x, c, cos, sin, visibility, use_reentrant=False)
            else:  # context rows end as keys and values
                extend = None if cache is None else partial(cache.extend, layer)
                x = block(x, c, cos, sin, visibility, skip if last else 0, extend)
        return self.norm(x)

    def head_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Weight [N, D] and bias of the head; tied, the embedding without its MASK row."""
        if self.output is None:
            return self.embedding.weight[: self.num_tokens], None
        return self.output.weight, self.output.bias

    def forward(self, input_ids: Tensor, t: Tensor | None = None) -> Tensor:
        """Logits [B, R, N] of a whole sequence under full (aligned) or causal (shifted) attention,
        for a quick look.
        """
        weight, bias = self.head_parameters()
        t = torch.zeros_like(input_ids, dtype=torch.float64) if t is None else t
        positions = torch.arange(input_ids.shape[-1], device=input_ids.device)
        hidden = self.body(
            input_ids, positions, t, Visibility(context=len(positions) if self.shifted else 0)
        )
        return nn.functional.linear(hidden, weight, bias)


AutoConfig.register(
    TransformerConfig.model_type, TransformerConfig
)  # so that hub and AutoTokenizer know a model folder
AutoModel.register(TransformerConfig, TransformerDenoiser)
