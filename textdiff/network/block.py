"""A transformer block: pre-norm attention and MLP, RoPE, noise conditioning per token (adaLN); lean
in memory when it trains.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, embedding, gelu, one_hot
from torch.utils.checkpoint import checkpoint

from ..denoiser.visibility import Visibility
from .attention import attend
from .embeddings import Rotation

FEW = 64
"""Up to so many times on a GPU, each row's is read by a product: the gradient of a look-up sorts
all rows, and waits for it.
"""

Extend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Keys and values of the fed rows -> these with the cached ones before them."""


class BlockShape(Protocol):
    """What a block needs of a network's config."""

    width: int
    heads: int
    dropout: float
    attention: str
    conditioned: bool


class Condition(NamedTuple):
    """The noise condition of the rows: a table [U, D] of the times that occur, and each row's place
    in it, [B, R] or as [B, R, U] of ones and zeros.
    """

    table: Tensor
    place: Tensor

    @classmethod
    def of(cls, embed: nn.Module, levels: Tensor) -> Condition:
        """That of rows at `levels` [B, R]: few differ in a call, so each is embedded once."""
        distinct, place = levels.unique(return_inverse=True)
        table = embed(distinct)
        if levels.is_cuda and torch.is_grad_enabled() and len(distinct) <= FEW:
            place = one_hot(place, len(distinct)).to(table.dtype)
        return cls(table, place)


def at(place: Tensor, table: Tensor) -> Tensor:
    """The rows [B, R, D] of a table [U, D] at their places."""
    return place @ table if place.is_floating_point() else embedding(place, table)


class Modulation(NamedTuple):
    """Tables [U, D] of adaLN: norm(x) becomes (1 + scale) norm(x) + shift, and what is added to the
    residual stream is multiplied by gate. All None without conditioning.
    """

    shift: Tensor | None = None
    scale: Tensor | None = None
    gate: Tensor | None = None


def lean(function: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """function(*inputs), of which the backward pass keeps the inputs alone, on a CPU.

    A GPU has the memory, and its host no time for so many small calls. What feeds a last matrix
    product is computed again, the product itself is not: recomputing stops at the last tensor that
    is wanted.
    """
    # A compiler decides itself what to recompute.
    on_gpu = any(x is not None and x.is_cuda for x in inputs)
    if torch.compiler.is_compiling() or on_gpu or not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def modulate(
    norm: nn.Module, x: Tensor, place: Tensor | None, shift: Tensor | None, scale: Tensor | None
) -> Tensor:
    """norm(x), with noise conditioning (1 + scale) norm(x) + shift; shift and scale are tables [U,
    D], read at `place`.
    """
    if place is None or shift is None or scale is None:
        return norm(x)
    return torch.addcmul(at(place, shift), norm(x), at(place, 1 + scale))


def gated(x: Tensor, y: Tensor, place: Tensor | None, gate: Tensor | None) -> Tensor:
    """x + y, with noise conditioning x + gate y; gate is a table [U, D], read at `place`."""
    if place is None or gate is None:
        return x + y
    return torch.addcmul(x, at(place, gate), y)


class Block(nn.Module):
    """Attention and MLP, pre-norm; with conditioning, shift, scale, gate per token (adaLN-zero)."""

    compiled = False
    """Whether what is done row by row, all but attention and rotation, goes through
    `torch.compile`.
    """

    def __init__(self, config: BlockShape):
        super().__init__()
        D = config.width
        self.heads = config.heads
        self.dropout = config.dropout
        self.attention = config.attention
        self.norm_attention = nn.LayerNorm(D, bias=False)
        self.norm_mlp = nn.LayerNorm(D, bias=False)
        self.qkv = nn.Linear(D, 3 * D, bias=False)
        self.out = nn.Linear(D, D, bias=False)
        self.up = nn.Linear(D, 4 * D)
        self.down = nn.Linear(4 * D, D)
        self.modulation = nn.Linear(D, 6 * D) if config.conditioned else None

    def compile(self, *, dynamic: bool = True) -> None:
        """Set `compiled`; the graphs are for any number of rows.

        Raises:
            ValueError: if they are not to be.
        """
        if not dynamic:
            raise ValueError("the graphs of a block are dynamic: leave dynamic=False out")
        self.compiled = True

    def drop(self, x: Tensor) -> Tensor:
        """x with the config's dropout."""
        return dropout(x, self.dropout, self.training) if self.dropout else x

    def _attention(
        self,
        qkv: Tensor,
        rotation: Rotation,
        visibility: Visibility,
        skip: int,
        extend: Extend | None,
    ) -> list[Tensor]:
        """The heads' outputs [B, H, rows, D/H], in parts of the rows."""
        B, R = qkv.shape[:2]
        D = self.out.in_features
        H = self.heads
        qk, v = qkv.view(B, R, 3 * H, D // H).split([2 * H, H], 2)
        # v is copied, lest it keep q and k before their rotation alive; under autocast the
        # rotation is float32
        q, k = (x.transpose(1, 2) for x in rotation(qk).to(v.dtype).split(H, 2))
        q, v = q[:, :, skip:], v.contiguous().transpose(1, 2)
        if extend is not None:
            k, v = extend(k, v)
        rate = self.dropout if self.training else 0.0
        return attend(q, k, v, visibility, dropout=rate, backend=self.attention)

    def _modulations(self, condition: Condition | None) -> tuple[Modulation, Modulation]:
        """Those of attention and MLP."""
        if self.modulation is None or condition is None:
            return Modulation(), Modulation()
        tables = self.modulation(condition.table).chunk(6, -1)
        return Modulation(*tables[:3]), Modulation(*tables[3:])

    def forward(
        self,
        x: Tensor,
        condition: Condition | None,
        rotation: Rotation,
        visibility: Visibility,
        skip: int = 0,
        extend: Extend | None = None,
    ) -> Tensor:
        """x [B, R, D] -> [B, R - skip, D]; the first `skip` rows are keys and values only."""
        attending, thinking = self._modulations(condition)
        place = None
        if condition is not None:  # one time of a sequence is that of all its rows
            place = condition.place
            place = place.expand(*x.shape[:2], *place.shape[2:])
        run = _compiled if self.compiled else _as_it_is
        qkv = run(before_attention)(self, _rows(x), _rows(place), attending)
        heads = self._attention(qkv.view(*x.shape[:2], -1), rotation, visibility, skip, extend)
        if self.compiled:  # their shapes are of many kinds
            heads = [joined(*heads)]
        x = x[:, skip:]
        place = None if place is None else place[:, skip:]
        y = run(behind_attention)(self, _rows(x), _rows(place), attending, thinking, *heads)
        return y.view(x.shape)


def before_attention(
    block: Block, x: Tensor, place: Tensor | None, attending: Modulation
) -> Tensor:
    """Rows x [R, D] -> their queries, keys and values [R, 3 D]."""

    def project(*inputs: Tensor) -> Tensor:
        return block.qkv(modulate(block.norm_attention, *inputs))

    return lean(project, x, place, attending.shift, attending.scale)


def behind_attention(
    block: Block,
    x: Tensor,
    place: Tensor | None,
    attending: Modulation,
    thinking: Modulation,
    *heads: Tensor,
) -> Tensor:
    """Rows x [R, D] and what their heads say, as `joined` takes it -> the block's output [R, D]."""

    def say(*heads: Tensor) -> Tensor:
        return block.out(joined(*heads))

    def widen(*inputs: Tensor) -> Tensor:
        return block.up(modulate(block.norm_mlp, *inputs))

    def narrow(up: Tensor) -> Tensor:
        return block.down(gelu(up, approximate="tanh"))

    x = lean(gated, x, block.drop(lean(say, *heads)), place, attending.gate)
    up = lean(widen, x, place, thinking.shift, thinking.scale)
    return lean(gated, x, block.drop(lean(narrow, up)), place, thinking.gate)


def joined(*heads: Tensor) -> Tensor:
    """The heads' outputs [B, H, rows, D/H], in parts of the rows -> rows [R, D]; what is joined
    stays as it is.
    """
    if heads[0].ndim == 2:
        return heads[0]
    return torch.cat(heads, 2).transpose(1, 2).flatten(2).flatten(0, 1)


def _rows(x: Tensor | None) -> Tensor | None:
    """All rows of a batch, one after another."""
    return None if x is None else x.flatten(0, 1)


def _as_it_is(by_rows: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return by_rows


@cache
def _compiled(by_rows: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """One for all blocks of one shape, and for any number of rows."""
    return torch.compile(by_rows, dynamic=True)
