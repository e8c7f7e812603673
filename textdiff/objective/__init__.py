"""What a text costs, in nats: divergences, objectives, estimators, bounds."""

from .batch import Batch
from .divergence import nelbo_integrand, step_kl
from .estimators import Estimator, MaskCount, Stratified, least_variance
from .objectives import (
    Nelbo,
    Objective,
    PublishedScoreEntropy,
    Rows,
    ScoreEntropy,
    WeightedCrossEntropy,
)

__all__ = [
    "Batch",
    "Estimator",
    "MaskCount",
    "Nelbo",
    "Objective",
    "PublishedScoreEntropy",
    "Rows",
    "ScoreEntropy",
    "Stratified",
    "WeightedCrossEntropy",
    "least_variance",
    "nelbo_integrand",
    "step_kl",
]
