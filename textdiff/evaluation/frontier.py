"""The quality frontier: runs x samplers x hyperschedules, one point each; resumes where it was
interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from ..data.corpora import Corpus
from ..files import sha256, slug, write_json
from ..hyperschedule import Hyperschedule
from ..model.folder import WEIGHTS
from ..model.model import Model
from ..samplers import Sampler
from ..spec import parse
from . import mauve_score, quality, texts
from .judge import Judge, open_judge
from .tables import Table, plus_minus

LENGTH_OF_TEXTS = 96


@dataclass(frozen=True)
class Point:
    """One combination: a model folder, a sampler and a hyperschedule, as they are written in the
    file.
    """

    run: str
    sampler: str
    hyperschedule: str

    @property
    def name(self) -> str:
        """A file name of its own."""
        return slug(Path(self.run).name, self.sampler, self.hyperschedule)


@dataclass(frozen=True)
class Study:
    """What a frontier file says; every field but `points`, `judge` and `reference` has a default.

    Args:
        points: groups of {runs, samplers, hyperschedules}; each group gives all its combinations.
        judge: causal language model for generative perplexity, entropy and n-grams.
        reference: corpus of human texts: a file or a corpus such as TinyShakespeare.
        split: which part of it.
        features: network for MAUVE's features; None: the judge.
        num_samples: per point.
        length: tokens of a sample; None: the training length.
        seed: key of all draws.
        batch_size: samples per network call.
        max_tokens: of each text that count, in tokens of the judge and of the features.
        buckets: of MAUVE; None: num_samples/10.
        kmeans_seeds: of MAUVE.
        dtype: precision of judge and features.
        judge_batch_size: texts per call of a judge.
    """

    points: tuple[Point, ...]
    judge: str
    reference: str
    split: str = "validation"
    features: str | None = None
    num_samples: int = 256
    length: int | None = None
    seed: int = 0
    batch_size: int = 64
    max_tokens: int = LENGTH_OF_TEXTS
    buckets: int | None = None
    kmeans_seeds: int = mauve_score.KMEANS_SEEDS
    dtype: str = "float32"
    judge_batch_size: int = 8
    classes: tuple[type, ...] = ()

    @property
    def drawing(self) -> dict[str, Any]:
        """The settings that samples depend on."""
        return {name: getattr(self, name) for name in ("num_samples", "length", "seed")}

    @property
    def measuring(self) -> dict[str, Any]:
        """The settings that the measures depend on, beside the samples."""
        shown = (
            "judge",
            "reference",
            "split",
            "features",
            "max_tokens",
            "buckets",
            "kmeans_seeds",
            "dtype",
        )
        files = {
            name: _fingerprint(getattr(self, name)) for name in ("judge", "features", "reference")
        }
        return {name: getattr(self, name) for name in shown} | {"sha256": files}


@cache
def _fingerprint(name: str | None) -> str | None:
    """SHA-256 of a local file, or of the weights in a folder, that this stands for; None for the
    name of something elsewhere.
    """
    path = Path((name or "").replace(":", "/"))
    if path.is_file():
        return sha256(path)
    weights = sorted(path.glob("*.safetensors")) if name and path.is_dir() else []
    return " ".join(map(sha256, weights)) or None


def _combinations(groups: Any) -> list[Point]:
    wanted = ("runs", "samplers", "hyperschedules")
    if not isinstance(groups, list) or not all(
        isinstance(group, dict) and group.keys() == set(wanted) for group in groups
    ):
        raise ValueError(f"points: give a list of groups, each with {', '.join(wanted)}")
    lists = [
        [[group[name]] if isinstance(group[name], str) else group[name] for name in wanted]
        for group in groups
    ]
    return [
        Point(run, *pair)
        for runs, samplers, steps in lists
        for run in runs
        for pair in _pairs(samplers, steps)
    ]


def _pairs(samplers: Sequence[str], hyperschedules: Sequence[str]) -> list[tuple[str, str]]:
    return [(sampler, schedule) for sampler in samplers for schedule in hyperschedules]


def read(path: Path, classes: Sequence[type] = ()) -> Study:
    """The study that a YAML file describes; `classes` are the caller's own that it may name.

    Raises:
        ValueError: if a field is unknown or missing, a point cannot be read or comes twice.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from None
    known = [field.name for field in fields(Study) if field.name != "classes"]
    if not isinstance(content, dict) or (unknown := sorted(set(content) - set(known))):
        named = (
            f"does not know {', '.join(unknown)}"
            if isinstance(content, dict)
            else "holds no fields"
        )
        raise ValueError(f"{path} {named}; a frontier file has {', '.join(known)}")
    if missing := [name for name in ("points", "judge", "reference") if not content.get(name)]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    numbers = (
        "num_samples",
        "length",
        "seed",
        "batch_size",
        "max_tokens",
        "buckets",
        "kmeans_seeds",
        "judge_batch_size",
    )
    if wrong := [
        name for name in numbers if name in content and not isinstance(content[name], int)
    ]:
        raise ValueError(
            f"{path}: {', '.join(wrong)} must be whole numbers; leave out a field to have its default"
        )
    points = _combinations(content.pop("points"))
    if len({point.name for point in points}) < len(points):
        raise ValueError(
            f"{path} names a point twice, or two runs of one folder name: give every combination once"
        )
    for point in points:  # before hours of work, not after
        parse(point.sampler, Sampler, classes)
        parse(point.hyperschedule, Hyperschedule, classes)
    study = Study(points=tuple(points), classes=tuple(classes), **content)
    mauve_score.checked_buckets(study.num_samples, study.buckets, study.kmeans_seeds)
    return study


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
    return Judges(
        judge,
        maker,
        humans,
        quality.measure(judge, same, study.max_tokens, batch_size=study.judge_batch_size),
    )


def _stored(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What is stored, if it was made under the same settings."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if found.get("point") == settings else None


def settings(study: Study, point: Point, measured: bool) -> dict[str, Any]:
    """What the samples of a point depend on, and their measures if asked for; a stored file holds
    only for the same.
    """
    weights = Path(point.run) / WEIGHTS
    if not weights.is_file():
        raise ValueError(
            f"{point.run} is no model folder: paths of runs start from the folder where the command runs"
        )
    return {
        **asdict(point),
        "weights_sha256": sha256(weights),
        **study.drawing,
        **(study.measuring if measured else {}),
    }


def samples(
    study: Study, point: Point, folder: Path, opened: Callable[[str], Model]
) -> dict[str, Any]:
    """The samples of a point, drawn or read back from `folder`/samples."""
    path, wanted = folder / "samples" / f"{point.name}.json", settings(study, point, measured=False)
    if (found := _stored(path, wanted)) is not None:
        return found
    schedule, sampler, model = (
        parse(point.hyperschedule, Hyperschedule, study.classes),
        parse(point.sampler, Sampler, study.classes),
        opened(point.run),
    )
    drawn = texts.draw(
        model,
        Path(point.run),
        study.num_samples,
        study.length,
        schedule,
        sampler,
        study.seed,
        study.batch_size,
    )
    drawn |= {"point": wanted, "rho": float(schedule.rho(study.length or model.length))}
    write_json(path, drawn)
    return drawn


def measure(
    study: Study, point: Point, folder: Path, drawn: dict[str, Any], judges: Judges
) -> dict[str, Any]:
    """The measures of a point, in `folder`/points."""
    size, cache = study.judge_batch_size, folder / "features"
    found = quality.measure(judges.judge, drawn["samples"], study.max_tokens, batch_size=size)
    mauve = mauve_score.against_humans(
        judges.features,
        drawn["samples"],
        judges.humans,
        study.max_tokens,
        study.buckets,
        study.kmeans_seeds,
        cache,
        size,
    )
    known = {key: value for key, value in drawn.items() if key != "samples"}
    result = known | {
        "point": settings(study, point, measured=True),
        "quality": found,
        "human": judges.human,
        "mauve": mauve,
    }
    write_json(folder / "points" / f"{point.name}.json", result)
    return result


def stored(study: Study, folder: Path) -> dict[Point, dict[str, Any] | None]:
    """What is measured already, by point."""
    return {
        p: _stored(folder / "points" / f"{p.name}.json", settings(study, p, measured=True))
        for p in study.points
    }


def row(result: dict[str, Any]) -> dict[str, Any]:
    """A measured point as one flat line: number and error of every measure, cost, and what it was."""
    point, drawn, mauve = result["point"], result["settings"], result["mauve"]
    measures = {
        one["name"]: [one["value"], one["standard_error"]] for one in result["quality"]["measures"]
    }
    return {
        "run": Path(point["run"]).name,
        "sampler": point["sampler"],
        "hyperschedule": point["hyperschedule"],
        "rho": result["rho"],
        "nfe": drawn["nfe"],
        "seconds": drawn["seconds"],
        "seconds_per_sample": drawn["seconds"] / drawn["num_samples"],
        **measures,
        "MAUVE": [mauve["mauve"], mauve["sd"]],
        "MAUVE*": [mauve["mauve_star"], mauve["mauve_star_sd"]],
    }


def human_row(result: dict[str, Any]) -> dict[str, Any]:
    """The human texts in the same form."""
    ceiling = result["mauve"]["human"]
    measures = {
        one["name"]: [one["value"], one["standard_error"]] for one in result["human"]["measures"]
    }
    return measures | {
        "MAUVE": [ceiling["mauve"], ceiling["sd"]],
        "MAUVE*": [ceiling["mauve_star"], ceiling["mauve_star_sd"]],
    }


SHOWN = (
    "gen-PPL (per sequence)",
    "gen-PPL (corpus)",
    "token entropy",
    "distinct-2",
    "repetition-4",
    "MAUVE",
    "MAUVE*",
)


def table(rows: Sequence[dict[str, Any]], human: dict[str, Any]) -> Table:
    """All points, and the human texts; errors as `Measure.error` says, for MAUVE the k-means sd."""
    header = ["run", "sampler", "hyperschedule", "rho", "NFE", "s/sample", *SHOWN]
    lines = [
        [
            r["run"],
            r["sampler"],
            r["hyperschedule"],
            f"{r['rho']:.3g}",
            f"{r['nfe']:.0f}",
            f"{r['seconds_per_sample']:.3f}",
        ]
        + [plus_minus(*r[name]) for name in SHOWN]
        for r in rows
    ]
    return Table(
        header,
        [*lines, ["human", "", "", "", "", "", *(plus_minus(*human[name]) for name in SHOWN)]],
    )
