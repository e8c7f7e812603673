"""Noising processes: what noise does to one token.

A process is two clocks and a leak (`base.py`); everything else follows from them. Each of the
others is only the definition of its clocks.
"""

from .absorbing import Absorbing
from .base import Bridge, Clock, Process, Rates
from .epsilon import EpsilonHybrid, SmoothEpsilonHybrid
from .gamma import GammaHybrid, GammaHybridMaskClock
from .gidd import GIDD
from .uniform import Uniform

__all__ = [
    "GIDD",
    "Absorbing",
    "Bridge",
    "Clock",
    "EpsilonHybrid",
    "GammaHybrid",
    "GammaHybridMaskClock",
    "Process",
    "Rates",
    "SmoothEpsilonHybrid",
    "Uniform",
]
