"""Objectives: what one row of logits is worth, in nats, in O(N) and safe in float32.

A row is a token x, its noisy value z (N = MASK) and its time t; with `s`, the next cleaner time,
the value is that of the step t -> s of a T-step chain, without it the integrand of the continuous
bound per unit of t. Objectives return values, they do not reduce; `has_value` says which rows have
a value at all, so that no other row reaches the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..denoiser.prediction import Prediction, add_at_own, log_score, own_token_shift
from ..process import Clock, Process
from ..process.base import inside
from .divergence import LogSoftmaxStatistics, as_float, nelbo_integrand, step_kl
from .estimators import Estimator, Stratified, _Continuous


@dataclass(frozen=True)
class Rows:
    """Rows of one or many sequences: x, z [R] int64; t [R] in (0, 1]; s [R] in [0, 1) or None for
    continuous time.
    """

    x: Tensor
    z: Tensor
    t: Tensor
    s: Tensor | None = None

    def __getitem__(self, index: Any) -> Rows:
        s = None if self.s is None else self.s[index]
        return Rows(self.x[index], self.z[index], self.t[index], s)


@dataclass(frozen=True)
class Objective:
    """Base of all objectives; a frozen dataclass of its options."""

    prediction: ClassVar[Prediction] = Prediction.CAVITY
    """What a network trained with it predicts."""
    is_bound: ClassVar[bool] = False
    """Whether prior, rows and reconstruction add up to the process's bound on -log p(x), (2.1)."""

    def check(self, process: Process) -> None:
        """Raise a ValueError if the objective is not defined for this process."""

    def end(self, process: Process) -> float:
        """The noisiest time of the bound, in (0, 1]."""
        return 1.0

    def drawn(self, estimator: Estimator, process: Process) -> Estimator:
        """The estimator that draws its rows."""
        return estimator

    def has_value(self, rows: Rows, N: int, process: Process) -> Tensor:
        """Which rows have a value: bool, the shape of rows.x; the others need no logits."""
        raise NotImplementedError

    def __call__(self, logits: Tensor, rows: Rows, process: Process) -> Tensor:
        """What rows are worth: float64 nats [R], per unit of t (s None), or per step t -> s.

        Args:
            logits: [R, N] cavity logits, or log-scores as `prediction` says.
            rows: what they predict.
            process: whose noise z is.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Nelbo(Objective):
    """The negative ELBO of the process: (2.4) in continuous time, (3.3)-(3.5) for the step t -> s.

    A masked token of absorbing noise has the weight m'/m = 1/t on its cross-entropy; log 4 here:

    >>> from textdiff.process import Absorbing
    >>> rows = Rows(x=torch.tensor([2, 2]), z=torch.tensor([4, 2]), t=torch.tensor([0.5, 0.5]))
    >>> Nelbo()(torch.zeros(2, 4).double(), rows, Absorbing()).tolist()
    [2.772588722239781, 0.0]
    >>> Nelbo().has_value(rows, 4, Absorbing()).tolist()
    [True, False]
    """

    is_bound: ClassVar[bool] = True

    def has_value(self, rows: Rows, N: int, process: Process) -> Tensor:
        masked = rows.z == N
        if not process.corrupts:
            return masked
        if rows.s is None:
            return masked | (process.clock(rows.t).keep_rate < 0)
        return masked | process.moves(rows.s, rows.t)

    def __call__(self, logits: Tensor, rows: Rows, process: Process) -> Tensor:
        if rows.s is None:
            return nelbo_integrand(logits, rows.x, rows.z, rows.t, process)
        return step_kl(logits, rows.x, rows.z, s=rows.s, t=rows.t, process=process)


@dataclass(frozen=True)
class WeightedCrossEntropy(Objective):
    """The paper's ε-Hybrid loss, Σ w CE, trained on cavity logits (4.1).

    Weights of a token per unit of m, with κ = 1 - ε:

        MASK        1/m
        shuffled    λ κ/(1-m)
        kept        λ (1-κ)/(1-m)

    A shuffle may hit the token itself, so the weight at z = x is the mean of both given z = x.
    The cross-entropy is that of the posterior for self-noise 1/2, cavity + log(1 + N) at the own
    token, which is what these weights make of any network (4.2): nothing needs recalibration. λ = 0
    is the bound B2 of maths 4.3, for every λ the loss is at least B2; for λ > 0 it bounds nothing
    that is sampled with correction.
    """

    lambda_: float = 1.0

    def __post_init__(self) -> None:
        if not self.lambda_ >= 0:
            raise ValueError(f"lambda_ must be >= 0, got {self.lambda_!r}")

    def check(self, process: Process) -> None:
        if not process.masks or process.leaks:
            raise ValueError(
                "the weighted cross-entropy is defined for masking processes without leak, "
                f"not for {process}: use Nelbo"
            )

    def has_value(self, rows: Rows, N: int, process: Process) -> Tensor:
        masked = rows.z == N
        return masked if self.lambda_ == 0 or not process.corrupts else torch.ones_like(masked)

    def __call__(self, logits: Tensor, rows: Rows, process: Process) -> Tensor:
        N = logits.shape[-1]
        clock = process.clock(rows.t)
        flow = clock.mask_rate if rows.s is None else clock.mask - process.clock(rows.s).mask
        shifted = add_at_own(as_float(logits), rows.z, own_token_shift(0.5, N))
        ce = -LogSoftmaxStatistics.apply(shifted, rows.x, rows.x, None)[0].double()
        corrupt = clock.log_corrupt.exp()
        kept = clock.keep * corrupt * (1 + 1 / N) / (clock.keep + corrupt / N)
        weight = self.lambda_ * torch.where(rows.z == rows.x, kept, clock.keep)
        visible = weight / (1 - clock.mask).clamp_min(1e-30)
        return flow * torch.where(rows.z == N, 1 / clock.mask.clamp_min(1e-30), visible) * ce


def _k(a: Tensor) -> Tensor:
    """K(a) = a (log a - 1)."""
    return torch.xlogy(a, a) - a


@dataclass(frozen=True)
class ScoreEntropy(Objective):
    """Exact score entropy for log-score networks: the NELBO of any process without leak, per unit
    of t (`maths.md` 2.5, (2.9)).

        SE = Σ_{y≠z} R(y -> z) (s_y - r_y log s_y + K(r_y))
        r_y = q(y | x)/q(z | x),    K(a) = a (log a - 1)

    The γ loss as the paper's code has it is another (`maths.md` 8.1), which bounds nothing between
    γ = 0 and γ = 1.
    """

    prediction: ClassVar[Prediction] = Prediction.LOG_SCORE
    is_bound: ClassVar[bool] = True

    def check(self, process: Process) -> None:
        if process.leaks or process.atom:
            raise ValueError(
                "score entropy is defined for processes without leak or atom, "
                f"not for {process}: use Nelbo"
            )

    def end(self, process: Process) -> float:
        return process.last

    def drawn(self, estimator: Estimator, process: Process) -> Estimator:
        """Real offsets under every schedule, unless the steps are asked for."""
        if isinstance(estimator, Stratified) and not estimator.discrete:
            return _Continuous(self.end(process))
        return estimator

    def reported(self, process: Process) -> _Continuous:
        """The estimator of a bound that is reported: where the uniform clock -log κ runs beyond 1,
        times are drawn by it, for what the scores err at full noise costs as much for each unit.
        """
        end = self.end(process)
        clock = process.clock(torch.full((), end, dtype=torch.float64))
        return _Continuous(end, spread=float(clock.log_keep) < -1)

    def has_value(self, rows: Rows, N: int, process: Process) -> Tensor:
        return Nelbo().has_value(rows, N, process)

    def _ratios(self, clock: Clock, N: int) -> tuple[Tensor, Tensor, Tensor]:
        """At MASK r_y = r_0 + r_1 1[y = x]; at a corrupted visible token r_x = odds (and r_y =
        1/odds at an intact one).
        """
        c = clock.log_corrupt.exp() / N
        seen = (1 - clock.mask) / clock.mask.clamp_min(1e-30)
        return seen * c, seen * clock.keep, 1 + clock.keep / c.clamp_min(1e-30)

    def __call__(self, logits: Tensor, rows: Rows, process: Process) -> Tensor:
        self.check(process)
        if rows.s is not None:
            raise ValueError(
                "score entropy is a bound in continuous time only: "
                "use a flat hyperschedule, or Nelbo"
            )
        N = logits.shape[-1]
        clock = process.clock(inside(rows.t))
        r_0, r_1, odds = self._ratios(clock, N)
        log_s = log_score(as_float(logits), rows.z, clock.mask)
        visible = rows.z < N
        total_s = log_s.exp().sum(-1).double() - visible.double()  # the self-score is 1
        total_log = log_s.sum(-1).double()
        log_x = log_s.gather(-1, rows.x.unsqueeze(-1)).squeeze(-1).double()
        r = clock.mask_rate / (1 - clock.mask).clamp_min(1e-30)
        masked = r * (total_s - r_1 * log_x - r_0 * total_log + _k(r_1 + r_0) + (N - 1) * _k(r_0))
        kept = total_s - total_log / odds + (N - 1) * _k(1 / odds)
        shuffled = total_s - total_log - (odds - 1) * log_x + _k(odds) - (N - 2)
        unmoved = torch.where(rows.z == rows.x, kept, shuffled)
        return torch.where(visible, -clock.keep_rate / N * unmoved, masked)
