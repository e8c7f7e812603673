"""What the tests run over: one list each of processes, schedules and samplers.

A test takes a whole list, or says by properties which of it it wants, so that a new process,
schedule or sampler enters every test by one line here.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from textdiff.hyperschedule import (
    Block,
    Flat,
    Hyperschedule,
    OverlapBlock,
    QuenchedAR,
    Slide,
    StartSteps,
    TightBlock,
)
from textdiff.process import (
    GIDD,
    SCDD,
    Absorbing,
    Clock,
    EpsilonHybrid,
    GammaHybrid,
    GammaHybridMaskClock,
    Process,
    SmoothEpsilonHybrid,
    Uniform,
)
from textdiff.samplers import (
    ACS,
    Analytic,
    Ancestral,
    Capped,
    Confidence,
    Count,
    Editing,
    Entropy,
    EntropyBound,
    Euler,
    FirstHitting,
    GibbsCorrector,
    InformedACS,
    Margin,
    PosteriorCorrector,
    PredictorCorrector,
    PublishedACS,
    ReMDM,
    Rescaled,
)


def name(value: object) -> str:
    """The id of a parametrised test."""
    return repr(value).replace(" ", "")


def each(argument: str, values: list) -> pytest.MarkDecorator:
    """Run a test once per value, with the value in the test's id."""
    return pytest.mark.parametrize(argument, values, ids=name)


# --------------------------------------------------------------------------------------------------
# processes


@dataclass(frozen=True)
class Leaky(Process):
    """A process of the tests with a leak that is neither 0 nor GIDD's: m = t, κ = e^{-t}, v = θ
    (1-t).

    So u = 1 - θ t and r = 1/(1-t) + θ t. With MASK -> token -> MASK, P(MASK | MASK) = m_t + (1-m_s)
    exp(-∫ (r+v)).
    """

    theta: float = 0.6

    @property
    def leaks(self) -> bool:
        return True

    def _clock(self, t: Tensor) -> Clock:
        zero = torch.zeros_like(t)
        return Clock(
            mask=t,
            mask_rate=zero + 1,
            log_keep=-t,
            log_corrupt=(-torch.expm1(-t)).log(),
            keep_rate=zero - 1,
            leak=self.theta * (1 - t),
        )

    def _stay(self, s: Tensor, t: Tensor) -> Tensor:
        return t + (1 - t) * torch.exp(-self.theta * (t - s))


PROCESSES = [
    Absorbing(),
    Uniform(),
    GammaHybrid(0.3),
    GammaHybrid(0.5, tail=0.1),
    GammaHybridMaskClock(0.3),
    EpsilonHybrid(0.3),
    SmoothEpsilonHybrid(0.3, power=3.0),
    GIDD(),
    SCDD(0.3, shape=1.2, t_peak=0.4),
    Leaky(),
]
"""One of every kind, noisy enough for a few draws to tell them apart."""

LIMITS = [
    GammaHybrid(0.0),
    GammaHybridMaskClock(0.0),
    EpsilonHybrid(0.0),
    SmoothEpsilonHybrid(0.0),
]
"""The options at which a hybrid is absorbing noise."""

HYBRIDS = [p for p in PROCESSES if p.masks and p.corrupts and not p.leaks]
RESTING = [p for p in PROCESSES if p.masks and not p.needs_time]  # no jump between t = 0+ and 1
MASKING = [p for p in [*PROCESSES, GammaHybrid(0.0)] if p.masks and not p.leaks]
CORRUPTIBLE = [p for p in PROCESSES if p.corrupts]

# The property tests of kernels and integrands, which cost microseconds, take more options of each.
ABSORBING = [Absorbing(), *LIMITS]
UNIFORM = [Uniform(), GammaHybrid(1.0)]
GAMMA_SIGMA = [GammaHybrid(0.01), GammaHybrid(0.3), GammaHybrid(0.3, tail=5e-3)]
GAMMA = [*GAMMA_SIGMA, GammaHybridMaskClock(0.01), GammaHybridMaskClock(0.3)]
PEAKED = [SCDD(0.1), SCDD(0.3, shape=1.2, t_peak=0.4), SCDD(0.5, shape=1.25, t_peak=0.2)]
SMOOTH_EPSILON = [SmoothEpsilonHybrid(0.01), SmoothEpsilonHybrid(0.3, power=3.0)]
EPSILON = [EpsilonHybrid(0.01), EpsilonHybrid(0.3)]
LEAKING = [GIDD(), GIDD(uniform=0.5, shape=1.5), Leaky()]

WITHOUT_LEAK = ABSORBING + UNIFORM + GAMMA + PEAKED + SMOOTH_EPSILON + EPSILON
ALL = WITHOUT_LEAK + LEAKING
CORRUPTING = UNIFORM + GAMMA + PEAKED + SMOOTH_EPSILON + EPSILON + LEAKING
WITHOUT_ATOM = [p for p in ALL if p not in EPSILON]


def each_process(processes: list[Process] = ALL) -> pytest.MarkDecorator:
    """Run a test once per process, with the process in the test's id."""
    return each("process", processes)


# --------------------------------------------------------------------------------------------------
# schedules

SCHEDULES = [
    QuenchedAR(),
    Flat(2),
    Block(2, 2),
    Slide(2, 1),
    TightBlock(2, 2),
    OverlapBlock(1, 1, levels=3),
    StartSteps(3, (2, 0, 3)),
]
"""One of every kind for three tokens, where the chain is enumerated."""

LEFT_TO_RIGHT = [
    QuenchedAR(),
    Flat(3),
    Block(3, 4),  # the last block of 8 or 11 tokens is short
    Block(4, 3),
    Block(1, 2),
    Block(4, 1),
    Block(3, 4, block_causal=True),
    TightBlock(3, 3),
    OverlapBlock(3, 2, levels=4),
    OverlapBlock(2, 1, levels=4, block_causal=True),
    Slide(4, 1),
    Slide(5, 2),
    Slide(4, "4/3"),
    Slide(3, "1/2"),
]
"""Schedules for about ten tokens that settle from left to right."""


def any_order(length: int) -> list[Hyperschedule]:
    """Schedules of `length` tokens that settle in another order: scattered, and one by one from
    both ends.
    """
    scattered = (3, 0, 1, 7, 0, 2, 2, 9, 5, 1, 4, 4)
    inwards = tuple(i // 2 if i % 2 else length - 1 - i // 2 for i in range(length))
    return [StartSteps(2, scattered[:length]), StartSteps(1, inwards)]


def layouts(length: int) -> list[tuple[str, Hyperschedule]]:
    """(layout, schedule) of every pair that exists: another order needs the aligned layout."""
    aligned = [("aligned", schedule) for schedule in LEFT_TO_RIGHT + any_order(length)]
    return aligned + [("shifted", schedule) for schedule in LEFT_TO_RIGHT]


# --------------------------------------------------------------------------------------------------
# samplers

SAMPLERS = [
    Ancestral(),
    ACS(eta=0.9),
    ACS(rate=2.0),
    InformedACS(eta=0.9),
    InformedACS(rate=2.0),
    PublishedACS(0.9),
    ReMDM(),
    ReMDM(Capped(0.3)),
    ReMDM(Rescaled(0.5)),
    FirstHitting(),
    Confidence(),
    Confidence(Entropy(), EntropyBound(0.5)),
    Confidence(Margin(), Count(2)),
    PredictorCorrector(),
    PredictorCorrector(corrector=GibbsCorrector()),
    PredictorCorrector(corrector=Editing(0.3)),
    PredictorCorrector(ReMDM(), PosteriorCorrector(), 2),
    PredictorCorrector(FirstHitting()),
    PredictorCorrector(FirstHitting(), PosteriorCorrector(), 2),
    PredictorCorrector(Confidence(select=Count(2))),
]
"""Every sampler of posterior networks, with its options."""

OF_SCORES = [Analytic(), Euler()]
"""Those that take log-scores."""
