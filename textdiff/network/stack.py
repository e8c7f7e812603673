"""The blocks of a network, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..denoiser.cache import Cache
from ..denoiser.visibility import Visibility
from .block import Block, Condition
from .embeddings import rotary


class Stack(nn.ModuleList):
    """Blocks in their order, for `TransformerDenoiser` and `DDiTDenoiser`.

    Args:
        blocks: at least one.
        head_size: D/H, which RoPE turns.
    """

    recompute = False
    """Whether the backward pass computes the activations of all blocks but the last again."""

    def __init__(self, blocks: Sequence[Block], head_size: int):
        super().__init__(blocks)
        self.head_size = head_size

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        condition: Condition | None,
        visibility: Visibility,
        cache: Cache | None = None,
    ) -> Tensor:
        """Rows x [B, R, D] at positions [R] or [B, R] -> the window rows [B, W, D].

        Context rows end as keys and values; where all rows are context, all come out.
        """
        rotation = rotary(positions, self.head_size, x.dtype)
        context = context_without_output(visibility, x.shape[1])
        for layer, block in enumerate(self):
            last = layer == len(self) - 1
            if self.recompute and self.training and not last:
                x = checkpoint(block, x, condition, rotation, visibility, use_reentrant=False)
                continue
            extend = None if cache is None else partial(cache.extend, layer)
            skip = context if last else 0
            x = block(x, condition, rotation, visibility, skip=skip, extend=extend)
        return x


def context_without_output(visibility: Visibility, R: int) -> int:
    """How many of R rows nobody predicts from: C, but 0 where all are context (a causal LM)."""
    return visibility.context if visibility.context < R else 0
