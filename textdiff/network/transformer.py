"""Our transformer: pre-norm, RoPE over explicit positions, per-token noise conditioning (adaLN) where the process wants it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, embedding, gelu, silu
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from ..attention import Visibility, attend
from ..kernels import check_backend
from .cache import Cache
from .protocol import Architecture

SINUSOIDS = 128  # features of the time embedding

Extend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # keys and values of the fed rows -> with the cached ones before them


class TransformerConfig(PreTrainedConfig):
    """Shape of a `TransformerModel`; `num_tokens` is N, MASK is id N."""

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
        self.tie, self.dropout, self.shifted, self.conditioned, self.bos = tie, dropout, shifted, conditioned, bos
        self.attention = attention
        super().__init__(**{"tie_word_embeddings": False, **kwargs})


@dataclass(frozen=True)
class Transformer(Architecture):
    """The transformer that a config file names; `build` makes the network once the tokenizer is known.

    Args:
        layers: number of blocks.
        width: D, a multiple of 2 * heads.
        heads: H.
        tie: share the head's weights with the embedding.
        dropout: on residual branches and attention, in [0, 1).
        layout: "aligned": row j predicts token j; "shifted": row j-1 does, with a BOS in front.
        attention: the kernel: "sdpa" everywhere, "flex" or "flash" on CUDA (`textdiff.kernels`).
        checkpoint: recompute activations in the backward pass: less memory, about a third more time.
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

    def build(self, num_tokens: int, conditioned: bool, bos: int) -> TransformerModel:
        """The untrained network over N = num_tokens ordinary tokens, seeing t if `conditioned`."""
        network = TransformerModel(
            TransformerConfig(
                num_tokens=num_tokens,
                layers=self.layers,
                width=self.width,
                heads=self.heads,
                tie=self.tie,
                dropout=self.dropout,
                shifted=self.layout == "shifted",
                conditioned=conditioned,
                bos=bos,
                attention=self.attention,
            )
        )
        network.recompute = self.checkpoint
        return network


def rotary(positions: Tensor, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cos and sin [..., R, 1, size/2] of RoPE at positions [..., R], base 10,000 (made here: buffers do not survive a meta load)."""
    frequencies = 10000.0 ** (-torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size)
    angles = (positions.unsqueeze(-1).float() * frequencies).unsqueeze(-2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (first half, second half) of x [B, R, H, D/H]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Condition(NamedTuple):
    """The noise condition of the rows: a table [U, D] of the times that occur, and each row's place in it [B, R]."""

    table: Tensor
    place: Tensor


def lean(function: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """function(*inputs), of which the backward pass keeps the inputs alone.

    What feeds a last matrix product is made again, the product itself is not: recomputing stops at the last tensor that is wanted.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():  # a compiler decides itself what to recompute
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def modulate(norm: nn.Module, x: Tensor, place: Tensor | None, shift: Tensor | None, scale: Tensor | None) -> Tensor:
    """norm(x), with noise conditioning (1 + scale) norm(x) + shift; shift and scale are tables [U, D], read at `place` [B, R]."""
    if place is None or shift is None or scale is None:
        return norm(x)
    return torch.addcmul(embedding(place, shift), norm(x), embedding(place, 1 + scale))


def gated(x: Tensor, y: Tensor, place: Tensor | None, gate: Tensor | None) -> Tensor:
    """x + y, with noise conditioning x + gate y; gate is a table [U, D], read at `place` [B, R]."""
    return x + y if place is None or gate is None else torch.addcmul(x, embedding(place, gate), y)


class Block(nn.Module):
    """Attention and MLP, pre-norm; with conditioning, shift, scale and gate per token (adaLN-zero)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        D = config.width
        self.heads, self.dropout, self.attention = config.heads, config.dropout, config.attention
        self.norm_attention, self.norm_mlp = nn.LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        self.modulation = nn.Linear(D, 6 * D) if config.conditioned else None

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training) if self.dropout else x

    def _attention(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, visibility: Visibility, skip: int, extend: Extend | None
    ) -> Tensor:
        B, R, D = *qkv.shape[:2], self.out.in_features
        q, k, v = qkv.view(B, R, 3, self.heads, D // self.heads).unbind(2)  # (B, R, H, D/H) each
        # v is copied, lest it keep q and k before their rotation alive; under autocast cos is float32
        rows = (rotate(q, cos, sin)[:, skip:].to(v.dtype), rotate(k, cos, sin).to(v.dtype), v.contiguous())
        q, k, v = (x.transpose(1, 2) for x in rows)
        if extend is not None:
            k, v = extend(k, v)
        parts = attend(q, k, v, visibility, self.dropout if self.training else 0.0, self.attention)
        return self._drop(lean(lambda *parts: self.out(torch.cat(parts, 2).transpose(1, 2).flatten(2)), *parts))

    def forward(
        self,
        x: Tensor,
        c: Condition | None,
        cos: Tensor,
        sin: Tensor,
        visibility: Visibility,
        skip: int = 0,
        extend: Extend | None = None,
    ) -> Tensor:
        """x [B, R, D] -> [B, R - skip, D]; c is the noise condition or None; the first `skip` rows are keys only."""
        place = tables = None
        if self.modulation is not None and c is not None:
            place, tables = c.place, self.modulation(c.table).chunk(6, -1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = tables or (None,) * 6
        qkv = lean(lambda *inputs: self.qkv(modulate(self.norm_attention, *inputs)), x, place, shift_a, scale_a)
        attention = self._attention(qkv, cos, sin, visibility, skip, extend)
        place = None if place is None else place[:, skip:]
        x = lean(gated, x[:, skip:], attention, place, gate_a)
        up = lean(lambda *inputs: self.up(modulate(self.norm_mlp, *inputs)), x, place, shift_m, scale_m)
        mlp = self._drop(lean(lambda up: self.down(gelu(up, approximate="tanh")), up))
        return lean(gated, x, mlp, place, gate_m)


class TimeEmbedding(nn.Module):
    """t [..., R] in [0, 1] -> [..., R, D]: sinusoids of 1000 t, then a small MLP."""

    def __init__(self, D: int):
        super().__init__()
        self.first, self.second = nn.Linear(SINUSOIDS, D), nn.Linear(D, D)

    def forward(self, t: Tensor) -> Tensor:
        half = SINUSOIDS // 2
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device) / half)
        angles = 1000.0 * t.unsqueeze(-1).float() * frequencies
        features = torch.cat([angles.cos(), angles.sin()], -1).to(self.first.weight.dtype)
        return silu(self.second(silu(self.first(features))))


class TransformerModel(PreTrainedModel):
    """The denoiser (see `network.protocol`): embeddings for N + 1 ids, blocks, a final norm and a linear head over N tokens."""

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
        """GPT-2's scale; gates and the untied head start at 0, so that an untrained network's bound is log N."""
        if isinstance(module, nn.Linear):
            zero = module is self.output or any(module is block.modulation for block in self.blocks)
            deep = any(module is block.out or module is block.down for block in self.blocks)
            init.normal_(module.weight, std=0.0 if zero else 0.02 / math.sqrt(2 * self.config.layers) if deep else 0.02)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.LayerNorm):
            # A tied head sees the own token's embedding in the residual stream: its first logit would be 0.02 D.
            tied = self.config.tie and module is self.norm
            init.constant_(module.weight, min(1.0, 0.5 / (0.02 * self.config.width)) if tied else 1.0)

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.config.num_tokens

    @property
    def shifted(self) -> bool:
        """Whether row j-1 predicts token j."""
        return self.config.shifted

    @property
    def bos(self) -> int:
        """The id in front of a shifted sequence."""
        return self.config.bos

    @property
    def conditioned(self) -> bool:
        """Whether the network looks at t."""
        return self.config.conditioned

    @property
    def architecture(self) -> Transformer:
        """The shape that builds such a network."""
        c = self.config
        return Transformer(c.layers, c.width, c.heads, c.tie, c.dropout, "shifted" if c.shifted else "aligned")

    def get_input_embeddings(self) -> nn.Module:
        """The embedding, for transformers' tools."""
        return self.embedding

    @property
    def cacheable(self) -> bool:
        """Time conditions each row by itself."""
        return True

    def body(self, ids: Tensor, positions: Tensor, t: Tensor, visibility: Visibility, cache: Cache | None = None) -> Tensor:
        """Hidden rows of ids [B, R] in 0..N at positions [R] or [B, R] and times t [B, R]: see `network.protocol`."""
        x = self.embedding(ids)
        cos, sin = rotary(positions, self.config.width // self.config.heads, x.dtype)
        c = None
        if self.time is not None:  # few different times occur in a call, so the modulations are made once for each
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
        """Logits [B, R, N] of a whole sequence under full (aligned) or causal (shifted) attention, for a quick look."""
        weight, bias = self.head_parameters()
        t = torch.zeros_like(input_ids, dtype=torch.float64) if t is None else t
        positions = torch.arange(input_ids.shape[-1], device=input_ids.device)
        hidden = self.body(input_ids, positions, t, Visibility(context=len(positions) if self.shifted else 0))
        return nn.functional.linear(hidden, weight, bias)


AutoConfig.register(TransformerConfig.model_type, TransformerConfig)  # so that hub and AutoTokenizer know a model folder
AutoModel.register(TransformerConfig, TransformerModel)
