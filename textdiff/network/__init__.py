"""Networks: the denoiser protocol, our transformer and pretrained ones behind it, and the chunked
head.
"""

from ..denoiser.head import row_values
from ..denoiser.protocol import Architecture, Denoiser
from .ddit import DDiT, DDiTConfig
from .pretrained import Pretrained, PretrainedDenoiser, PretrainedDenoiserConfig
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
