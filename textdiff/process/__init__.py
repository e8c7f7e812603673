"""Noising processes: what noise does to one token.

A process is two clocks and a leak (`base.py`); everything else follows from them. Each of the
others is only the definition of its clocks, and `check(process)` says whether they are consistent:

    Absorbing             tokens turn into MASK                                  MDLM, SEDD
    Uniform               tokens turn into other tokens                          UDLM, Duo, SEDD
    GammaHybrid           both, side by side; also in the clock m = t            HDLM-γ
    EpsilonHybrid         masking, and a share ε of wrong tokens                 HDLM-ε
    SmoothEpsilonHybrid   the same without its jump at t = 0+
    GIDD                  both, and MASK turns into tokens again                 GIDD
    SCDD                  both, with a peak of wrong tokens, and MASK stays      SCDD
"""

from .absorbing import Absorbing
from .base import Bridge, Clock, Process, Rates
from .check import check
from .epsilon import EpsilonHybrid, SmoothEpsilonHybrid
from .gamma import GammaHybrid, GammaHybridMaskClock
from .gidd import GIDD
from .scdd import SCDD
from .uniform import Uniform

__all__ = [
    "GIDD",
    "SCDD",
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
    "check",
]
