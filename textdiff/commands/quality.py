"""`textdiff evaluate samples SAMPLES`: perplexity under a judge, entropy, MAUVE, ... of texts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..data.corpora import SPLITS
from ..evaluation import mauve_score, quality, texts
from ..evaluation.judge import DTYPES, FIELD_JUDGE, Judge, open_judge
from ..evaluation.provenance import software
from ..evaluation.tables import Table, plus_minus
from ..files import check_place, sha256, slug, write_json
from ..model.model import Model
from ..model.source import Source, find
from .common import (
    RUN,
    add_device,
    add_import,
    add_law,
    add_schedule,
    add_verify,
    law_of,
    open_run,
)
from .corpus import add_column, corpus_of

MAUVES = (
    ("mauve", "sd", "MAUVE ± k-means sd"),
    ("mauve_star", "mauve_star_sd", "MAUVE* ± k-means sd"),
)
"""Key of a number, of its error, and how a table calls it."""
LAW = ("num_samples", "length", "hyperschedule", "sampler", "temperature", "seed")
ONLY_OF_A_RUN = (*LAW, "batch_size")
MEASURING = ("judge", "bos", "max_tokens", "reference", "split", "features")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="textdiff evaluate samples",
        description="Quality of samples, every number with its error and definition; writes a "
        "JSON.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "run",
        metavar="SAMPLES",
        help=f".json or .jsonl file of texts, or what to sample from: {RUN}",
    )
    _add_judge(parser)
    _add_mauve(parser)
    add_device(parser)
    parser.add_argument(
        "--output",
        type=Path,
        help="JSON file; default: one named after these options, beside the file or in RUN/results",
    )
    add_import(parser)
    _add_drawing(parser.add_argument_group("sampling from a model folder"))
    return parser


def _add_judge(parser: argparse.ArgumentParser) -> None:
    """What judges texts, and how much of them."""
    parser.add_argument(
        "--judge",
        default=FIELD_JUDGE,
        help="causal LM: id, folder, or folder:file.gguf; default: %(default)s",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        help="tokens of a text that count, in tokens of the judge and of the features",
    )
    parser.add_argument(
        "--bos",
        action="store_true",
        help="BOS in front; default: none, the first token is context only",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="precision of judge and features; default: %(default)s",
    )
    parser.add_argument(
        "--judge-batch-size",
        type=int,
        default=8,
        help="texts per call of a judge; default: %(default)s",
    )


def _add_mauve(parser: argparse.ArgumentParser) -> None:
    """What texts are compared with."""
    parser.add_argument(
        "--reference", help="human texts for MAUVE: file, or corpus such as TinyShakespeare"
    )
    parser.add_argument("--split", choices=SPLITS, default="validation", help="which part of it")
    add_column(parser)
    parser.add_argument(
        "--features",
        help="causal LM or sentence encoder that makes MAUVE's features; default: the judge",
    )
    parser.add_argument(
        "--buckets", type=int, help="of MAUVE; default: a tenth of the number of samples"
    )
    parser.add_argument(
        "--kmeans-seeds",
        type=int,
        default=mauve_score.KMEANS_SEEDS,
        help="of MAUVE; default: %(default)s",
    )
    parser.add_argument("--cache", type=Path, help="folder that keeps features, for the next call")


def _add_drawing(group: argparse._ArgumentGroup) -> None:
    """What samples are drawn with; None where nothing is said, so that it can be seen."""
    add_verify(group)
    group.add_argument("--num-samples", type=int, help="default: 256")
    group.add_argument(
        "--length", type=int, help="tokens of a sample; default: the training length"
    )
    add_schedule(group)
    add_law(group)
    group.add_argument("--seed", type=int, help="key of all draws; default: 0")
    group.add_argument("--batch-size", type=int, help="samples per network call; default: 16")


def _samples(options: argparse.Namespace) -> dict[str, Any]:
    """The samples with all that is known about them."""
    options_of_a_run = {name: getattr(options, name) for name in ONLY_OF_A_RUN}
    stated = [name for name, value in options_of_a_run.items() if value is not None]
    path: Path = options.run
    if stated:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in stated)
        raise ValueError(
            f"{names} would draw samples from a model folder, but {path} is not one: leave out, or "
            "give a folder"
        )
    samples = texts.read_texts(path)
    written = None
    if path.suffix == ".json":
        written = json.loads(path.read_text(encoding="utf-8"))
    known = {}
    if isinstance(written, dict):
        known = {key: value for key, value in written.items() if key != "samples"}
    return {"samples": samples, "file": path.name, "file_sha256": sha256(path), **known}


def _drawn(options: argparse.Namespace, model: Model) -> dict[str, Any]:
    """Samples of a model."""
    if options.batch_size is None:
        options.batch_size = 16
    law = {"hyperschedule": None, "sampler": None} | law_of(options)
    if options.seed is not None:
        law["seed"] = options.seed
    return texts.draw(
        model,
        options.run,
        num_samples=256 if options.num_samples is None else options.num_samples,
        length=options.length,
        batch_size=options.batch_size,
        **law,
    )


def _mauve(
    options: argparse.Namespace, judge: Judge, samples: list[str], eos: str | None
) -> dict[str, Any]:
    """MAUVE and the judge's measures of the human texts."""
    maker = judge
    if options.features:
        maker = open_judge(options.features, options.device, options.dtype)
    longest = options.max_tokens
    read = texts.read_by(maker, samples, eos)
    if longest is None:
        fitting = sorted(map(len, maker.encode(read, None)[0]))[len(samples) // 20]
        raise ValueError(
            f"MAUVE sees length: give --max-tokens, at most {fitting} (95 % of these samples have "
            "as many or more)"
        )
    corpus = corpus_of(options.reference, None, options.classes, options.column)
    mauve = mauve_score.against_humans(
        maker,
        read,
        humans=texts.human(maker, corpus, options.split, 2 * len(samples), longest),
        max_tokens=longest,
        buckets=options.buckets,
        seeds=options.kmeans_seeds,
        cache=options.cache,
        batch_size=options.judge_batch_size,
    )
    same = texts.human(judge, corpus, options.split, len(samples), longest)
    return {
        "mauve": mauve,
        "human": _judged(options, judge, same),
        "reference": {**corpus.provenance(options.split), "split": options.split},
    }


def _judged(options: argparse.Namespace, judge: Judge, samples: list[str]) -> dict[str, Any]:
    size = options.judge_batch_size
    return quality.quality_of(judge, samples, options.max_tokens, bos=options.bos, batch_size=size)


def _cells(measures: list[dict[str, Any]]) -> dict[str, str]:
    """Each measure with its error, by name."""
    return {one["name"]: plus_minus(one["value"], one["standard_error"]) for one in measures}


def table(result: dict[str, Any]) -> Table:
    """The measures of samples, beside those of human texts where there are some."""
    columns = [_cells(result["quality"]["measures"])]
    if "human" in result:
        columns.append(_cells(result["human"]["measures"]))
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    if "mauve" in result:
        sets = (result["mauve"], result["mauve"]["human"])
        for name, error, title in MAUVES:
            rows.append([title, *(plus_minus(one[name], one[error]) for one in sets)])
    return Table(["measure ± s.e.", "samples", "human"][: 1 + len(columns)], rows)


def _print(result: dict[str, Any]) -> None:
    """The table, and what its numbers are about."""
    print(table(result).text())
    judged = result["quality"]
    about = (
        f"{judged['texts']} texts, {judged['scored_tokens']} tokens scored by "
        f"{judged['judge']['name']}; {judged['bos']}"
    )
    if judged["max_tokens"]:
        about += f"; {judged['truncated']} texts cut at {judged['max_tokens']} tokens"
    print(about)
    if "mauve" in result:
        mauve = result["mauve"]
        print(
            f"MAUVE: {mauve['samples']} texts of {mauve['text_length']} tokens, "
            f"{mauve['buckets']} buckets, features of {mauve['features']['name']}"
        )


def _check(options: argparse.Namespace) -> None:
    for name in ("judge_batch_size", "max_tokens"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be >= 1, got {value}")
    if options.reference is None and (options.features or options.buckets or options.cache):
        raise ValueError(
            "--features, --buckets and --cache are for MAUVE: give the human texts with --reference"
        )


def _opened(name: str) -> Path | Source:
    """A file of texts, or a model."""
    path = Path(name)
    if path.suffix in (".json", ".jsonl") or (path.is_file() and path.suffix != ".ckpt"):
        return path
    return find(name)


def _place(options: argparse.Namespace) -> Path:
    """Where the result belongs, under a name of its own for each way of measuring."""
    run: Path | Source = options.run
    usual = _parser()
    ways = {name: getattr(options, name) for name in (*LAW, *MEASURING)}
    stated = [
        value if isinstance(value, str) else f"{name}{value}"
        for name, value in ways.items()
        if value != usual.get_default(name)
    ]
    if isinstance(run, Source):
        return run.results / f"{slug('quality', *stated)}.json"
    return run.with_name(f"{slug('quality', run.stem, *stated)}.json")


def main(arguments: list[str]) -> None:
    """`textdiff evaluate samples SAMPLES`."""
    options = _parser().parse_args(arguments)
    _check(options)
    options.run = _opened(options.run)
    output = options.output or _place(options)
    check_place(output)
    model = open_run(options) if isinstance(options.run, Source) else None
    judge = open_judge(options.judge, options.device, options.dtype)
    drawn = _samples(options) if model is None else _drawn(options, model)
    samples, eos = drawn["samples"], drawn.get("eos")
    result = {"quality": _judged(options, judge, texts.read_by(judge, samples, eos))}
    if options.reference:
        result |= _mauve(options, judge, samples, eos)
    result |= {**drawn, "evaluated": software()}
    _print(result)
    write_json(output, json.loads(json.dumps(result, default=str)))
    print(f"written to {output}")
