"""Samplers and hyperschedules by name: what a model can be drawn by, in the library's own words."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from ..denoiser.prediction import require
from ..hyperschedule import Hyperschedule
from ..samplers import Sampler
from ..spec import descendants, names, parse
from .trained import Trained

BASES: dict[str, type] = {"sampler": Sampler, "hyperschedule": Hyperschedule}
"""What is named -> the base of what has names."""


def named(what: str, text: str, classes: Sequence[type] = ()) -> Any:
    """The sampler or hyperschedule, as `what` says, that a text such as "ACS(rate=4)" or "Flat(64)"
    names, one of textdiff's or of `classes`.

    Raises:
        ValueError: as `textdiff.spec.parse`.
    """
    return parse(text, BASES[what], classes)


def known(what: str) -> list[str]:
    """The names of all of them."""
    return names(BASES[what])


def samplers(model: Trained, alone: bool = True) -> dict[str, str]:
    """Names of the samplers that are defined for a model, with what each does and its law; those
    that share no call of an engine if `alone`.
    """
    told = {}
    for cls in descendants(Sampler):
        if cls.__name__.startswith("_") or (cls.alone and not alone):
            continue
        try:
            sampler = cls()
        except (TypeError, ValueError):  # it needs an argument
            told[cls.__name__] = _paragraphs(cls)
            continue
        if sampler.stages[-1].predicts and _fits(model, sampler):
            told[cls.__name__] = _paragraphs(cls)
    return told


def _fits(model: Trained, sampler: Sampler) -> bool:
    try:
        for stage in sampler.stages:
            stage.check(model.process)
            require(model.prediction, stage.prediction, stage)
    except ValueError:
        return False
    return True


def hyperschedules() -> dict[str, str]:
    """Names of the hyperschedules, with what each does."""
    return {cls.__name__: _paragraphs(cls) for cls in descendants(Hyperschedule)}


def _paragraphs(cls: type) -> str:
    """The first paragraph of a class's page, and that of its law."""
    pages = [" ".join(page.split()) for page in (inspect.getdoc(cls) or "").split("\n\n")]
    return " ".join([pages[0], *[page for page in pages[1:] if page.startswith("Law: ")]])
