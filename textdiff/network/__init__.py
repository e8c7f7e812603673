"""Networks: the denoiser protocol, our transformer and pretrained ones behind it, and the chunked head."""

from .ddit import DDiT, DDiTConfig
from .head import row_values
from .pretrained import Pretrained, PretrainedDenoiser, PretrainedDenoiserConfig
from .protocol import Architecture, Denoiser
from .transformer import Transformer, TransformerConfig, TransformerModel

__all__ = [
    "Architecture",
    "DDiT",
    "DDiTConfig",
    "Denoiser",
    "Pretrained",
    "PretrainedDenoiser",
    "PretrainedDenoiserConfig",
    "Transformer",
    "TransformerConfig",
    "TransformerModel",
    "row_values",
]
