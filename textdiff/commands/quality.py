"""`textdiff evaluate samples SAMPLES`: generative perplexity, entropy, distinct n-grams, repetition
and MAUVE of texts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from ..evaluation import mauve_score, quality, texts
from ..evaluation.judge import DTYPES, FIELD_JUDGE, Judge, open_judge
from ..evaluation.provenance import software
from ..evaluation.tables import Table, plus_minus
from ..files import sha256, write_json
from ..hyperschedule import Hyperschedule
from ..samplers import Sampler
from ..spec import parse
from .common import add_import, open_run
from .perplexity import corpus_of

ONLY_OF_A_RUN = (
    "num_samples",
    "length",
    "hyperschedule",
    "sampler",
    "temperature",
    "seed",
    "batch_size",
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="textdiff evaluate samples",
        description="Quality of samples, every number with its error and definition; writes a JSON.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "run",
        metavar="SAMPLES",
        type=Path,
        help=".json or .jsonl file of texts, or a model folder to sample from",
    )
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
        "--reference", help="human texts for MAUVE: file, or corpus such as TinyShakespeare"
    )
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="validation",
        help="which part of it",
    )
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
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where the networks run",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="JSON file; default: quality.json beside the file, or in RUN/results",
    )
    add_import(parser)
    drawn = parser.add_argument_group("sampling from a model folder")
    drawn.add_argument(
        "--verify",
        action="store_true",
        help="compute the reference bounds of an exported model again, first",
    )
    drawn.add_argument("--num-samples", type=int, help="default: 256")
    drawn.add_argument(
        "--length", type=int, help="tokens of a sample; default: the training length"
    )
    drawn.add_argument("--hyperschedule", help="such as 'Flat(64)'; default: that of training")
    drawn.add_argument("--sampler", help="such as 'ACS(eta=0.01)'; default: Ancestral")
    drawn.add_argument("--temperature", type=float, help="default: 1, the model's own law")
    drawn.add_argument("--seed", type=int, help="key of all draws; default: 0")
    drawn.add_argument("--batch-size", type=int, help="samples per network call; default: 16")
    return parser


def _read(options: argparse.Namespace) -> dict[str, Any]:
    """The samples with all that is known about them."""
    path: Path = options.run
    given = {
        name: getattr(options, name) for name in ONLY_OF_A_RUN if getattr(options, name) is not None
    }
    if path.is_dir():
        parsed = {"hyperschedule": Hyperschedule, "sampler": Sampler}
        options.batch_size = given.setdefault("batch_size", 16)
        values = {
            name: parse(value, parsed[name], options.classes) if name in parsed else value
            for name, value in given.items()
        }
        return texts.draw(
            open_run(options),
            path,
            **{"num_samples": 256, "length": None, "hyperschedule": None, "sampler": None} | values,
        )
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(
            f"{names} would draw samples from a model folder, but {path} is not one: leave out, or "
            "give a folder"
        )
    samples = texts.read(path)
    written = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else None
    known = (
        {key: value for key, value in written.items() if key != "samples"}
        if isinstance(written, dict)
        else {}
    )
    return {"samples": samples, "file": path.name, "file_sha256": sha256(path), **known}


def _mauve(options: argparse.Namespace, judge: Judge, samples: list[str]) -> dict[str, Any]:
    """MAUVE and the judge's measures of the human texts."""
    maker = (
        open_judge(options.features, options.device, options.dtype) if options.features else judge
    )
    if options.max_tokens is None:
        fitting = sorted(map(len, maker.encode(samples, None)[0]))[len(samples) // 20]
        raise ValueError(
            f"MAUVE sees length: give --max-tokens, at most {fitting} (95 % of these samples have "
            "as many or more)"
        )
    corpus, n = corpus_of(options.reference, None, options.classes), len(samples)
    humans = texts.human(maker, corpus, options.split, 2 * n, options.max_tokens)
    seeds, size = options.kmeans_seeds, options.judge_batch_size
    found = mauve_score.against_humans(
        maker, samples, humans, options.max_tokens, options.buckets, seeds, options.cache, size
    )
    same = texts.human(judge, corpus, options.split, n, options.max_tokens)
    human = quality.measure(judge, same, options.max_tokens, options.bos, size)
    return {
        "mauve": found,
        "human": human,
        "reference": {**corpus.provenance(options.split), "split": options.split},
    }


def table(result: dict[str, Any]) -> Table:
    """The measures of samples, beside those of human texts where there are some."""
    human = {one["name"]: one for one in result.get("human", {}).get("measures", [])}
    rows = [
        [one["name"], plus_minus(one["value"], one["standard_error"])]
        + (
            [plus_minus(human[one["name"]]["value"], human[one["name"]]["standard_error"])]
            if human
            else []
        )
        for one in result["quality"]["measures"]
    ]
    if "mauve" in result:
        found = result["mauve"]
        for name, error, title in (
            ("mauve", "sd", "MAUVE ± k-means sd"),
            ("mauve_star", "mauve_star_sd", "MAUVE* ± k-means sd"),
        ):
            rows.append(
                [
                    title,
                    plus_minus(found[name], found[error]),
                    plus_minus(found["human"][name], found["human"][error]),
                ]
            )
    return Table(["measure ± s.e.", "samples", *(["human"] if human else [])], rows)


def main(arguments: list[str]) -> None:
    """`textdiff evaluate samples SAMPLES`."""
    options = _parser().parse_args(arguments)
    for name in ("judge_batch_size", "max_tokens"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be >= 1, got {value}")
    if options.reference is None and (options.features or options.buckets or options.cache):
        raise ValueError(
            "--features, --buckets and --cache are for MAUVE: give the human texts with --reference"
        )
    given, drawn = options.run, _read(options)
    judge = open_judge(options.judge, options.device, options.dtype)
    samples = drawn["samples"]
    found = quality.measure(
        judge, samples, options.max_tokens, options.bos, options.judge_batch_size
    )
    result = {
        "quality": found,
        **(_mauve(options, judge, samples) if options.reference else {}),
        **drawn,
        "evaluated": software(),
    }
    print(table(result).text())
    print(
        f"{found['texts']} texts, {found['scored_tokens']} tokens scored by "
        f"{found['judge']['name']}; {found['bos']}",
        end="",
    )
    print(
        f"; {found['truncated']} texts cut at {found['max_tokens']} tokens"
        if found["max_tokens"]
        else ""
    )
    if "mauve" in result:
        m = result["mauve"]
        print(
            f"MAUVE: {m['samples']} texts of {m['text_length']} tokens, {m['buckets']} buckets, "
            f"features of {m['features']['name']}"
        )
    output = (
        options.output or (given / "results" if given.is_dir() else given.parent) / "quality.json"
    )
    write_json(output, json.loads(json.dumps(result, default=str)))
    print(f"written to {output}")
