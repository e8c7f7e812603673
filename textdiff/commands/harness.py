"""`textdiff evaluate harness RUN`: tasks of lm-evaluation-harness."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..evaluation.provenance import provenance
from ..evaluation.tables import Table, metric_rows
from ..files import check_place, slug, write_json
from .common import open_run, parser_of

DRAWS = 16


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "evaluate harness",
        "Tasks of lm-evaluation-harness; what its log-likelihoods are is printed with them.",
    )
    parser.add_argument("--tasks", required=True, help="names, with commas between")
    parser.add_argument("--include", type=Path, help="folder with YAML tasks of your own")
    parser.add_argument(
        "--draws", type=int, default=DRAWS, help="noisy versions of each request, even"
    )
    parser.add_argument("--limit", type=int, help="only the first documents of a task")
    parser.add_argument(
        "--num-fewshot", type=int, help="examples in the context; default: the task's"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="JSON file; default: one in RUN/results named after these options",
    )
    return parser


def _name(options: argparse.Namespace) -> str:
    """A file name of its own for each way of measuring."""
    ways = {"first": options.limit, "shots": options.num_fewshot, "seed": options.seed or None}
    ways["draws"] = options.draws if options.draws != DRAWS else None
    stated = [f"{name}{value}" for name, value in ways.items() if value is not None]
    return f"{slug('harness', *options.tasks.split(','), *stated)}.json"


def main(arguments: list[str]) -> None:
    """`textdiff evaluate harness RUN`."""
    options = _parser().parse_args(arguments)
    if options.hyperschedule:
        raise ValueError(
            "--hyperschedule: log-likelihoods are of the schedule of training; leave it out"
        )
    try:
        from ..evaluation.harness_adapter import TextdiffLM, evaluate
    except ImportError as error:
        raise ValueError(
            f"lm-evaluation-harness is not installed ({error}): pip install 'textdiff[harness]'"
        ) from None
    model = open_run(options)
    output = options.output or options.run.results / _name(options)
    check_place(output)
    adapter = TextdiffLM(model, options.draws, options.seed, options.batch_size)
    results = evaluate(
        adapter,
        options.tasks.split(","),
        include=options.include,
        limit=options.limit,
        num_fewshot=options.num_fewshot,
    )
    summary = adapter.summary()
    rows = [
        [task, metric.partition(",")[0], value, error]
        for task, metric, value, error in metric_rows(results)
    ]
    print(Table(["task", "metric", "value", "s.e. over documents"], rows).text())
    noise = summary["standard_error_of_a_request"]
    of_one = "" if noise is None else f"; s.e. of one request {noise:.3g} nats"
    print(f"log-likelihoods: {summary['likelihood']}{of_one}")
    result = {
        "harness": results,
        **summary,
        "limit": options.limit,
        **provenance(model, options.run, options.seed),
    }
    write_json(output, json.loads(json.dumps(result, default=str)))
    print(f"written to {output}")
