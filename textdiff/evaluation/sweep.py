"""The work of a frontier: draw and measure each point once; an interrupted sweep goes on where it
stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data.corpora import Corpus
from ..files import sha256, write_json
from ..hyperschedule import Hyperschedule
from ..model.model import Model
from ..model.source import find
from ..model.weights import WEIGHTS
from ..samplers import Sampler
from ..spec import parse
from . import mauve_score, quality, texts
from .frontier import Point, Study
from .judge import Judge, open_judge


@dataclass(frozen=True)
class Judges:
    """What the points of a study are measured with.

    Args:
        judge: scores texts.
        features: makes MAUVE's features.
        humans: 2n human texts for MAUVE, reference and ceiling.
        human: the judge's measures of n human texts.
    """

    judge: Judge
    features: Judge
    humans: list[str]
    human: dict[str, Any]


def open_judges(study: Study, corpus: Corpus, device: str) -> Judges:
    """Open the networks of a study, and read and measure its human texts.

    Raises:
        ValueError: if a network cannot be opened, or there are too few human texts.
    """
    judge = open_judge(study.judge, device, study.dtype)
    maker = open_judge(study.features, device, study.dtype) if study.features else judge
    humans = texts.human(maker, corpus, study.split, 2 * study.num_samples, study.max_tokens)
    same = texts.human(judge, corpus, study.split, study.num_samples, study.max_tokens)
    human = quality.quality_of(judge, same, study.max_tokens, batch_size=study.judge_batch_size)
    return Judges(judge, maker, humans, human)


def _stored(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What is stored, if it was made under the same settings."""
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if content.get("point") == settings else None


def settings(study: Study, point: Point, measured: bool) -> dict[str, Any]:
    """What the samples of a point depend on, and their measures if asked for; a stored file holds
    only for the same.
    """
    source = find(point.run)
    weights = source.checkpoint or source.whole / WEIGHTS
    if not weights.is_file():
        raise ValueError(
            f"{point.run} is no model folder: paths of runs start from the folder where the "
            "command runs"
        )
    return {
        **asdict(point),
        "weights_sha256": sha256(weights),
        "documents": "running text",  # not what was drawn before samples kept their EOS
        **study.drawing,
        **(study.measuring if measured else {}),
    }


def samples(
    study: Study, point: Point, folder: Path, opened: Callable[[str], Model]
) -> dict[str, Any]:
    """The samples of a point, drawn or read back from `folder`/samples."""
    path = folder / "samples" / f"{point.name}.json"
    wanted = settings(study, point, measured=False)
    before = _stored(path, wanted)
    if before is not None:
        return before
    model = opened(point.run)
    schedule = parse(point.hyperschedule, Hyperschedule, study.classes)
    drawn = texts.draw(
        model,
        find(point.run),
        study.num_samples,
        length=study.length,
        hyperschedule=schedule,
        sampler=parse(point.sampler, Sampler, study.classes),
        seed=study.seed,
        batch_size=study.batch_size,
    )
    drawn |= {"point": wanted, "rho": float(schedule.rho(study.length or model.length))}
    write_json(path, drawn)
    return drawn


def measures(
    study: Study, samples: Sequence[str], folder: Path, judges: Judges, eos: str | None
) -> dict[str, dict[str, Any]]:
    """Quality and MAUVE of a set of samples, whose documents end with `eos`; features are kept in
    `folder`/features.
    """
    size = study.judge_batch_size
    read = texts.read_by(judges.judge, samples, eos)
    measured = quality.quality_of(judges.judge, read, study.max_tokens, batch_size=size)
    mauve = mauve_score.against_humans(
        judges.features,
        texts.read_by(judges.features, samples, eos),
        judges.humans,
        max_tokens=study.max_tokens,
        buckets=study.buckets,
        seeds=study.kmeans_seeds,
        cache=folder / "features",
        batch_size=size,
    )
    return {"quality": measured, "human": judges.human, "mauve": mauve}


def measure_point(
    study: Study, point: Point, folder: Path, drawn: dict[str, Any], judges: Judges
) -> dict[str, Any]:
    """The measures of a point."""
    result = {key: value for key, value in drawn.items() if key != "samples"}
    result |= {"point": settings(study, point, measured=True)}
    result |= measures(study, drawn["samples"], folder, judges, drawn.get("eos"))
    return result


def stored(study: Study, folder: Path) -> dict[Point, dict[str, Any] | None]:
    """What is measured already, by point."""
    return {
        p: _stored(folder / "points" / f"{p.name}.json", settings(study, p, measured=True))
        for p in study.points
    }


def sweep(
    study: Study,
    folder: Path,
    judges: Callable[[], Judges],
    opened: Callable[[str], Model],
    on_point: Callable[[Point], object] = lambda point: None,
) -> Iterator[dict[str, Any]]:
    """Every point of a study, measured: what is stored in `folder` is not measured again.

    Args:
        study: what to measure.
        folder: where samples and measures are.
        judges: opens what the points are measured with; called only if there is work.
        opened: a model by the name of its run.
        on_point: called before each point.
    """
    for point, result in stored(study, folder).items():
        on_point(point)
        if result is None:
            drawn = samples(study, point, folder, opened)
            result = measure_point(study, point, folder, drawn, judges())
            try:
                write_json(folder / "points" / f"{point.name}.json", result)
            except OSError:  # a full disk: it is measured nevertheless
                yield result
                raise
        yield result
