"""The bound on the law of `generate`, which scores and log-likelihoods rest on."""

from __future__ import annotations

from ..denoiser.prediction import Prediction
from ..hyperschedule import Hyperschedule
from ..objective.bounds import Bound, bounds
from ..objective.estimators import continuous
from .trained import Trained


def chain_bound(model: Trained, schedule: Hyperschedule, L: int) -> tuple[Bound, str]:
    """The NELBO of L tokens under a schedule, and how many steps its chain takes, in words.

    That of the T-step chain for block and slide schedules; of its limit of many steps for flat
    ones, and for log-scores, whose steps of finite length have no bound of their own (`Analytic`
    puts 0 where no consistent scores lead, and -log 0 bounds nothing). However short the tokens
    are, the schedule is as at the model's own length.
    """
    limit = continuous(schedule, model.length) or model.prediction == Prediction.LOG_SCORE
    readings = bounds(
        model.process,
        schedule,
        L,
        prediction=model.prediction,
        sees_time=model.network.sees_time,
        discrete=not limit,
    )
    return readings["nelbo"], "many" if limit else str(schedule.T)
