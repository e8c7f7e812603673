"""The quality frontier: runs x samplers x hyperschedules, one point each; what a file says of it,
and the table of what was measured. `sweep.py` draws and measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from ..files import sha256, slug
from ..hyperschedule import Hyperschedule
from ..samplers import Sampler
from ..spec import parse
from . import mauve_score
from .tables import Table, per_call, plus_minus

LENGTH_OF_TEXTS = 96


@dataclass(frozen=True)
class Point:
    """One combination: a model (folder, .ckpt or Hub id), a sampler and a hyperschedule, as the
    file writes them.
    """

    run: str
    sampler: str
    hyperschedule: str

    @property
    def name(self) -> str:
        """A file name of its own."""
        return slug(self.model.replace("/", "_"), self.sampler, self.hyperschedule)

    @property
    def model(self) -> str:
        """The model's own name: of its folder, and of its .ckpt if it is one."""
        path = Path(self.run)
        if path.suffix != ".ckpt":
            return path.name
        inside = path.parent.name == "checkpoints"
        return f"{path.parents[1 if inside else 0].name}/{path.name}"


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

    def check(self, name: str) -> None:
        """Find what is wrong before hours of work, not after; `name` is whose study this is.

        Raises:
            ValueError: if a point comes twice or cannot be read, or there are too few samples.
        """
        if len({point.name for point in self.points}) < len(self.points):
            raise ValueError(
                f"{name} names a point twice, or two runs of one folder name: give every "
                "combination once"
            )
        for point in self.points:
            parse(point.sampler, Sampler, self.classes)
            parse(point.hyperschedule, Hyperschedule, self.classes)
        mauve_score.checked_buckets(self.num_samples, self.buckets, self.kmeans_seeds)

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
            name: fingerprint(getattr(self, name)) for name in ("judge", "features", "reference")
        }
        return {name: getattr(self, name) for name in shown} | {"sha256": files}


@cache
def fingerprint(name: str | None) -> str | None:
    """SHA-256 of a local file, or of the weights in a folder, that this stands for; None for the
    name of something elsewhere.
    """
    path = Path((name or "").replace(":", "/"))
    if path.is_file():
        return sha256(path)
    weights = sorted(path.glob("*.safetensors")) if name and path.is_dir() else []
    return " ".join(map(sha256, weights)) or None


GROUP = ("runs", "samplers", "hyperschedules")
NUMBERS = (
    "num_samples",
    "length",
    "seed",
    "batch_size",
    "max_tokens",
    "buckets",
    "kmeans_seeds",
    "judge_batch_size",
)


def _combinations(groups: Any) -> list[Point]:
    if not isinstance(groups, list) or not all(
        isinstance(group, dict) and group.keys() == set(GROUP) for group in groups
    ):
        raise ValueError(f"points: give a list of groups, each with {', '.join(GROUP)}")
    lists = [
        [[group[name]] if isinstance(group[name], str) else group[name] for name in GROUP]
        for group in groups
    ]
    return [point for runs, samplers, steps in lists for point in points(runs, samplers, steps)]


def points(
    runs: Iterable[str], samplers: Sequence[str], hyperschedules: Sequence[str]
) -> list[Point]:
    """All combinations, those of a run together."""
    pairs = [(sampler, schedule) for sampler in samplers for schedule in hyperschedules]
    return [Point(run, *pair) for run in runs for pair in pairs]


def _content(path: Path) -> dict[str, Any]:
    """The fields of a YAML file, each one that there is and of the right kind."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from None
    known = [field.name for field in fields(Study) if field.name != "classes"]
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no fields; a frontier file has {', '.join(known)}")
    if unknown := sorted(set(content) - set(known)):
        names = ", ".join(unknown)
        raise ValueError(f"{path} does not know {names}; a frontier file has {', '.join(known)}")
    if missing := [name for name in ("points", "judge", "reference") if not content.get(name)]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    wrong = [name for name in NUMBERS if not isinstance(content.get(name, 0), int)]
    if wrong:
        raise ValueError(
            f"{path}: {', '.join(wrong)} must be whole numbers; leave out a field to have its "
            "default"
        )
    return content


def read_study(path: Path, classes: Sequence[type] = ()) -> Study:
    """The study that a YAML file describes; `classes` are the caller's own that it may name.

    Raises:
        ValueError: if a field is unknown or missing, a point cannot be read or comes twice.
    """
    content = _content(path)
    combinations = tuple(_combinations(content.pop("points")))
    study = Study(points=combinations, classes=tuple(classes), **content)
    study.check(str(path))
    return study


def row(result: dict[str, Any]) -> dict[str, Any]:
    """A measured point as one line: number and error of every measure, cost, and what it was."""
    point = result["point"]
    drawn = result["settings"]
    mauve = result["mauve"]
    calls = drawn["nfe"] * drawn["num_samples"]
    tokens = drawn.get("tokens", drawn["length"] * drawn["num_samples"])
    return {
        "run": Point(point["run"], "", "").model,
        "sampler": point["sampler"],
        "hyperschedule": point["hyperschedule"],
        "rho": result["rho"],
        "nfe": drawn["nfe"],
        "tokens_per_forward": tokens / calls if calls else None,
        "seconds": drawn["seconds"],
        "seconds_per_sample": drawn["seconds"] / drawn["num_samples"],
        **numbers(result["quality"], mauve),
    }


def human_row(result: dict[str, Any]) -> dict[str, Any]:
    """The human texts in the same form."""
    return numbers(result["human"], result["mauve"]["human"])


def numbers(quality: dict[str, Any], mauve: dict[str, Any]) -> dict[str, list[float]]:
    """Number and error of every measure of a set of texts."""
    measures = {one["name"]: [one["value"], one["standard_error"]] for one in quality["measures"]}
    return measures | {
        "MAUVE": [mauve["mauve"], mauve["sd"]],
        "MAUVE*": [mauve["mauve_star"], mauve["mauve_star_sd"]],
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
    header = ["run", "sampler", "hyperschedule", "rho", "NFE", "tokens/call", "s/sample", *SHOWN]
    lines = []
    for one in rows:
        law = [one["run"], one["sampler"], one["hyperschedule"], f"{one['rho']:.3g}"]
        cost = [f"{one['nfe']:.0f}", per_call(one), f"{one['seconds_per_sample']:.3f}"]
        lines.append([*law, *cost, *(plus_minus(*one[name]) for name in SHOWN)])
    empty = [""] * (len(header) - 1 - len(SHOWN))
    lines.append(["human", *empty, *(plus_minus(*human[name]) for name in SHOWN)])
    return Table(header, lines)
