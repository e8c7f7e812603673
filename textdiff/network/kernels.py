"""Attention kernels behind one signature, chosen by name; a library is imported when its kernel is
first used.

Every kernel maps q [B, H, Q, D/H], k, v [B, H, K, D/H], a mask [B or 1, Q, K] (True = sees) or
None, `causal` (square, no mask) and a dropout rate to [B, H, Q, D/H].
"""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from functools import cache, lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

PLANLESS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All of PyTorch's but cuDNN's, which makes a plan for every new shape (some 45 ms on an H200):
nothing in training, where shapes repeat, and nine tenths of the time of generation.
"""


class Kernel(Protocol):
    """q, k, v, what they may see, and the rate of dropout -> attention [B, H, Q, D/H]."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float
    ) -> Tensor:
        """Attention of q to k and v."""


# All layers of a call share a mask; of a mask of bools each layer would keep a copy in floats.
@lru_cache(maxsize=2)
@torch.inference_mode(False)  # a constant mask is met in training and in validation
def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~mask, -torch.inf).unsqueeze(1)


def sdpa(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """PyTorch's own; everywhere, any mask."""
    bias = None if mask is None else _bias(mask, q.dtype)
    few_shapes = torch.is_grad_enabled() or not q.is_cuda
    with nullcontext() if few_shapes else sdpa_kernel(PLANLESS):
        return scaled_dot_product_attention(
            q, k, v, attn_mask=bias, dropout_p=dropout, is_causal=causal
        )


@cache
def _flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    if torch.cuda.is_available():
        return torch.compile(flex_attention, dynamic=False)
    return flex_attention


@lru_cache(maxsize=2)  # all layers of a call share a mask
def _block_mask(mask: Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    batch, Q, K = mask.shape

    def sees(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return mask[b if batch > 1 else 0, i, j]

    B = batch if batch > 1 else None
    return create_block_mask(sees, B=B, H=None, Q_LEN=Q, KV_LEN=K, device=mask.device.type)


@lru_cache(maxsize=2)
def _causal(rows: int, device: torch.device) -> Tensor:
    return torch.ones(1, rows, rows, dtype=torch.bool, device=device).tril()


def flex(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """FlexAttention: skips blocks of the mask that none sees. Training needs CUDA (there is no
    backward pass on CPU), no dropout.
    """
    if dropout:
        raise ValueError("the flex kernel has no dropout: set dropout to 0, or attention to sdpa")
    if q.device.type == "cpu" and (q.requires_grad or k.requires_grad):
        raise ValueError("the flex kernel has no backward pass on CPU: set attention to sdpa")
    if causal:
        mask = _causal(q.shape[2], q.device)
    block_mask = None if mask is None else _block_mask(mask)
    return _flex()(q, k, v, block_mask=block_mask)


def flash(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """flash-attn: half precision on CUDA, full or causal attention; it knows no masks."""
    if mask is not None:
        raise ValueError(
            "the flash kernel knows no masks (two-stream training, packed documents): set "
            "attention to sdpa or flex"
        )
    if q.device.type != "cuda" or q.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"the flash kernel needs half precision on CUDA, got {q.dtype} on {q.device.type}: set "
            "attention to sdpa"
        )
    from flash_attn import flash_attn_func

    rows = (x.transpose(1, 2) for x in (q, k, v))
    return flash_attn_func(*rows, dropout_p=dropout, causal=causal).transpose(1, 2)


BACKENDS: dict[str, Kernel] = {"sdpa": sdpa, "flex": flex, "flash": flash}


def check_backend(name: str) -> None:
    """A ValueError, with the remedy, if the kernel of this name is unknown or not installed."""
    if name not in BACKENDS:
        raise ValueError(f"unknown attention kernel {name!r}: choose one of {', '.join(BACKENDS)}")
    if name == "flash" and importlib.util.find_spec("flash_attn") is None:
        raise ValueError(
            "attention: flash needs flash-attn: pip install --no-build-isolation "
            "'textdiff[flash]', or use sdpa"
        )
