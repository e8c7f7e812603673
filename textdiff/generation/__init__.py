"""From noise to text: the loop, its options, what it tells and what it returns.

`denoise` draws token ids under any sampler and hyperschedule; `Model.generate` makes texts of them
under a `GenerationConfig`. After every network call the loop tells a `Frame`; `Watch` turns frames
into progress, streams and trajectories.

`Engine` draws sequences that come and go, each with its own clock, and tells `Committed`,
`Provisional` and `Finished` events.
"""

from .config import GenerationConfig
from .continuous import Engine
from .engine import check_sampler, denoise
from .events import Committed, Event, Finished, Provisional
from .samples import Samples, Trajectory
from .sequence import Request
from .state import Denoised, Frame

__all__ = [
    "Committed",
    "Denoised",
    "Engine",
    "Event",
    "Finished",
    "Frame",
    "GenerationConfig",
    "Provisional",
    "Request",
    "Samples",
    "Trajectory",
    "check_sampler",
    "denoise",
]
