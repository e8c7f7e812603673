"""`textdiff evaluate lambada RUN`: accuracy of the last word."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from ..data import Benchmark
from ..data.benchmarks import DATA
from ..evaluation import ranks
from ..evaluation.last_word import last_word
from ..evaluation.provenance import provenance
from ..files import check_place, slug, write_json
from .common import open_run, parser_of, progress_bar, schedule_of

FILL = (
    "greedy, known number of tokens, most certain first as far as the hyperschedule leaves it open"
)


def _name(options: argparse.Namespace) -> str:
    """A file name of its own for each way of measuring."""
    first = f"first{options.limit}" if options.limit else None
    seed = f"seed{options.seed}" if options.seed else None
    return f"{slug('lambada', options.hyperschedule, first, seed)}.json"


def main(arguments: list[str]) -> None:
    """`textdiff evaluate lambada RUN`; under `torchrun` all its processes together."""
    parser = parser_of(
        "evaluate lambada",
        "Last-word accuracy on LAMBADA's test passages; writes a JSON into RUN/results.",
    )
    parser.add_argument(
        "--data-dir",
        help=f"folder with the benchmarks, for use without network; default: what {DATA} names",
    )
    parser.add_argument("--limit", type=int, help="only the first passages")
    parser.add_argument(
        "--output",
        type=Path,
        help="JSON file; default: one in RUN/results named after these options",
    )
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"--limit must be >= 1, got {options.limit}")
    schedule = schedule_of(options)
    with ranks.joined(options.device) as options.device:
        model = open_run(options)
        output = options.output or options.run.results / _name(options)
        if not ranks.rank():
            check_place(output)
        corpus = Benchmark("lambada", options.data_dir)
        model.warn_if_unseen(schedule or model.hyperschedule, model.length)
        passages = list(islice(corpus.documents("test"), options.limit))
        with progress_bar(total=len(passages), desc="completing", unit="passage") as bar:
            answers = last_word(
                model,
                passages,
                schedule,
                on_batch=bar.update,
                **{name: getattr(options, name) for name in ("batch_size", "seed")},
            )
        if ranks.rank():
            return
        result = {
            **asdict(answers),
            "accuracy": answers.accuracy,
            "standard_error": answers.standard_error,
            "fill": FILL,
            "schedule": str(schedule or model.hyperschedule),
            "data": corpus.provenance("test"),
            **provenance(model, options.run, options.seed),
        }
        print(f"last word right: {answers}")
        write_json(output, result)
        print(f"written to {output}")
