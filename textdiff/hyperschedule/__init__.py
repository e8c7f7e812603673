"""Hyperschedules: which position is at which noise level at which network call.

A hyperschedule is a number of levels T and one integer start step s(i) >= 0 per position
(`base.py`); `schedules.py` has them by name; `plan.py` has all that one fixes for L tokens.
"""

from .base import Hyperschedule, same_visibility
from .mixture import Mixture
from .plan import Plan, Tiling
from .schedules import Block, Flat, OverlapBlock, QuenchedAR, Slide, StartSteps, TightBlock

__all__ = [
    "Block",
    "Flat",
    "Hyperschedule",
    "Mixture",
    "OverlapBlock",
    "Plan",
    "QuenchedAR",
    "Slide",
    "StartSteps",
    "TightBlock",
    "Tiling",
    "same_visibility",
]
