"""`textdiff.estimator.X`, as users write it; the home of these is `textdiff.objective`."""

from .objective.batch import Batch
from .objective.estimators import Estimator, MaskCount, Stratified, least_variance

__all__ = ["Batch", "Estimator", "MaskCount", "Stratified", "least_variance"]
