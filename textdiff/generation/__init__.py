"""From noise to text: the loop, its options, what it tells and what it returns."""

from .config import GenerationConfig
from .engine import check_sampler, denoise
from .samples import Samples
from .state import Denoised, State
from .trajectory import Trajectory

__all__ = [
    "Denoised",
    "GenerationConfig",
    "Samples",
    "State",
    "Trajectory",
    "check_sampler",
    "denoise",
]
