"""Networks that fit the denoiser protocol: our transformer, the published DDiT, pretrained ones.

`Transformer` and `Pretrained` are what a config file names; each builds a denoiser, which is a
`transformers` model with its config.
"""

from __future__ import annotations

from typing import Any

from ..denoiser.head import row_values
from ..denoiser.protocol import Architecture, Denoiser
from .ddit import DDiTConfig, DDiTDenoiser
from .pretrained import Pretrained, PretrainedDenoiser, PretrainedDenoiserConfig
from .transformer import Transformer, TransformerConfig, TransformerDenoiser

__all__ = [
    "Architecture",
    "DDiTConfig",
    "DDiTDenoiser",
    "Denoiser",
    "Pretrained",
    "PretrainedDenoiser",
    "PretrainedDenoiserConfig",
    "Transformer",
    "TransformerConfig",
    "TransformerDenoiser",
    "row_values",
]

RENAMED = {"TransformerModel": TransformerDenoiser, "DDiT": DDiTDenoiser}


def __getattr__(name: str) -> Any:
    """The names that denoisers had before, for those who wrote them."""
    if name in RENAMED:
        return RENAMED[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
