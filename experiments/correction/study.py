"""What the study is over: tasks, models and samplers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from textdiff.data import Addition, KnownLanguage, SmallSudoku
from textdiff.hyperschedule import Block, Flat, Hyperschedule, QuenchedAR
from textdiff.process import (
    SCDD,
    Absorbing,
    EpsilonHybrid,
    GammaHybrid,
    Process,
    SmoothEpsilonHybrid,
    Uniform,
)
from textdiff.samplers import (
    ACS,
    Ancestral,
    Confidence,
    Count,
    GibbsCorrector,
    InformedACS,
    PredictorCorrector,
    PublishedACS,
    ReMDM,
    Rescaled,
    Sampler,
)

CALLS = (4, 8, 16, 32, 64, 128)
BLOCK = 4  # tokens of a block

TASKS: dict[str, KnownLanguage] = {"sudoku": SmallSudoku(), "addition": Addition(3)}

PROCESSES: dict[str, Process] = {
    "mdlm": Absorbing(),
    "ε 0.01": EpsilonHybrid(0.01),
    "ε 0.1": EpsilonHybrid(0.1),
    "smooth ε 0.1": SmoothEpsilonHybrid(0.1),
    "γ 0.1": GammaHybrid(0.1),
    "scdd": SCDD(0.2),
    "uniform": Uniform(),
}
IN_BLOCKS = ("mdlm", "ε 0.01", "ε 0.1")

SAMPLERS: dict[str, Callable[[int, int], Sampler]] = {
    "Ancestral": lambda L, calls: Ancestral(),
    "ReMDM(Rescaled(0.3))": lambda L, calls: ReMDM(Rescaled(0.3)),
    "ACS(rate=64)": lambda L, calls: ACS(rate=64.0),
    "PublishedACS(0.5)": lambda L, calls: PublishedACS(0.5),
    "InformedACS(rate=8)": lambda L, calls: InformedACS(rate=8.0),
    "GibbsCorrector": lambda L, calls: PredictorCorrector(Ancestral(), GibbsCorrector()),
    "Confidence": lambda L, calls: Confidence(select=Count(max(1, math.ceil(L / calls)))),
}
"""By name, of the tokens and calls of a group that is drawn together."""


@dataclass(frozen=True)
class Point:
    """One training, and all that is drawn from it."""

    task: str
    model: str
    seed: int

    @property
    def file(self) -> str:
        """Its name in points/."""
        letters = self.model.replace("ε", "epsilon").replace("γ", "gamma")
        letters = letters.replace(",", "").replace(" ", "-")
        return f"{self.task}_{letters}_{self.seed}.json"

    @property
    def process(self) -> Process:
        """Whose noise it is trained with."""
        return PROCESSES[self.model.removesuffix(", block")] if self.model != "ar" else Absorbing()

    def schedule(self, calls: int, L: int) -> Hyperschedule:
        """The one of so many calls a sequence (AR: always L)."""
        if self.model == "ar":
            return QuenchedAR()
        if self.model.endswith("block"):
            return Block(BLOCK, max(1, calls * BLOCK // L))
        return Flat(calls)


MODELS = ("ar", *PROCESSES, *(f"{name}, block" for name in IN_BLOCKS))
