"""Networks: the denoiser protocol, our transformer behind it, and the chunked head."""

from .ddit import DDiT, DDiTConfig
from .head import row_values
from .protocol import Architecture, Denoiser
from .transformer import Transformer, TransformerConfig, TransformerModel

__all__ = ["Architecture", "DDiT", "DDiTConfig", "Denoiser", "Transformer", "TransformerConfig", "TransformerModel", "row_values"]
