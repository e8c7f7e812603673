"""What a text costs, in nats: divergences, objectives, estimators, bounds.

- `Objective`: what one row of logits is worth;
- `Estimator`: which times and which noise are drawn;
- `Bound`: both for a process and a hyperschedule, under a name; its `.nats` are one draw;
- `Halves`: draws in two independent halves, hence the standard error;
- `Measured`: a bound's estimate on a text.
"""

from .batch import Batch
from .bounds import Bound, Nats
from .divergence import nelbo_integrand, step_kl
from .estimators import Estimator, MaskCount, Stratified, least_variance
from .measured import Measured
from .objectives import Nelbo, Objective, Rows, ScoreEntropy, WeightedCrossEntropy

__all__ = [
    "Batch",
    "Bound",
    "Estimator",
    "MaskCount",
    "Measured",
    "Nats",
    "Nelbo",
    "Objective",
    "Rows",
    "ScoreEntropy",
    "Stratified",
    "WeightedCrossEntropy",
    "least_variance",
    "nelbo_integrand",
    "step_kl",
]
