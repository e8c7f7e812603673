"""Samplers: how a token moves from one level to the next lower one. One file per sampler; each
states the law it draws from.
"""

from .acs import ACS, PublishedACS
from .analytic import Analytic
from .ancestral import Ancestral
from .base import Sampler, Step
from .confidence import Confidence
from .corrector import GibbsCorrector, PosteriorCorrector, PredictorCorrector
from .editing import Editing
from .euler import Euler
from .filters import Filter, Where, banned, compose, min_p, temperature, top_k, top_p
from .first_hitting import FirstHitting
from .informed import InformedACS
from .remdm import Capped, Remasking, ReMDM, Rescaled
from .score import Entropy, Margin, Probability, Score
from .selection import Count, EntropyBound, Selection, Threshold
from .speculative import SelfSpeculative

__all__ = [
    "ACS",
    "Analytic",
    "Ancestral",
    "Capped",
    "Confidence",
    "Count",
    "Editing",
    "Entropy",
    "EntropyBound",
    "Euler",
    "Filter",
    "FirstHitting",
    "GibbsCorrector",
    "InformedACS",
    "Margin",
    "PosteriorCorrector",
    "PredictorCorrector",
    "Probability",
    "PublishedACS",
    "ReMDM",
    "Remasking",
    "Rescaled",
    "Sampler",
    "Score",
    "Selection",
    "SelfSpeculative",
    "Step",
    "Threshold",
    "Where",
    "banned",
    "compose",
    "min_p",
    "temperature",
    "top_k",
    "top_p",
]
