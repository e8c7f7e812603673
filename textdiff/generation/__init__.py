"""From noise to text: the loop, its options, what it tells and what it returns.

`denoise` draws token ids under any sampler and hyperschedule; `Model.generate` makes texts of them
under a `GenerationConfig`. After every network call the loop tells a `Frame`; `Watch` turns frames
into progress, streams and trajectories.
"""

from .config import GenerationConfig
from .engine import check_sampler, denoise
from .samples import Samples, Trajectory
from .state import Denoised, Frame

__all__ = [
    "Denoised",
    "Frame",
    "GenerationConfig",
    "Samples",
    "Trajectory",
    "check_sampler",
    "denoise",
]
