"""`textdiff evaluate harness RUN`: tasks of lm-evaluation-harness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..evaluation.provenance import provenance
from ..evaluation.tables import Table
from ..files import write_json
from .common import open_run, parser_of


def _rows(results: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Every metric of every task, with the harness's own standard error over the documents."""
    rows = []
    for task, found in results.items():
        for key, value in found.items():
            name, _, filtered = key.partition(",")
            if isinstance(value, float) and not name.endswith("_stderr"):
                error = found.get(f"{name}_stderr,{filtered}")
                rows.append(
                    [
                        task,
                        name,
                        f"{value:.4f}",
                        f"{error:.4f}" if isinstance(error, float) else "-",
                    ]
                )
    return rows


def main(arguments: list[str]) -> None:
    """`textdiff evaluate harness RUN`."""
    parser = parser_of(
        "evaluate harness",
        "Tasks of lm-evaluation-harness; what its log-likelihoods are is printed with them.",
    )
    parser.add_argument("--tasks", required=True, help="names, with commas between")
    parser.add_argument("--include", type=Path, help="folder with YAML tasks of your own")
    parser.add_argument(
        "--draws", type=int, default=16, help="noisy versions of each request, even"
    )
    parser.add_argument("--limit", type=int, help="only the first documents of a task")
    parser.add_argument(
        "--num-fewshot", type=int, help="examples in the context; default: the task's"
    )
    parser.add_argument(
        "--output", type=Path, help="JSON file; default: RUN/results/harness-TASKS.json"
    )
    options = parser.parse_args(arguments)
    if options.hyperschedule:
        raise ValueError(
            "--hyperschedule: log-likelihoods are of the schedule of training; leave it out"
        )
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager

        from ..evaluation.harness_adapter import TextdiffLM
    except ImportError as error:
        raise ValueError(
            f"lm-evaluation-harness is not installed ({error}): pip install 'textdiff[harness]'"
        ) from None
    model = open_run(options)
    adapter = TextdiffLM(model, options.draws, options.seed, options.batch_size)
    manager = TaskManager(include_path=None if options.include is None else str(options.include))
    names = options.tasks.split(",")
    if unknown := [name for name in names if name not in manager.all_tasks]:
        raise ValueError(
            f"the harness has no task {', '.join(unknown)}: see lm_eval ls tasks, or give --include FOLDER"
        )
    found = simple_evaluate(
        adapter,
        tasks=names,
        task_manager=manager,
        limit=options.limit,
        num_fewshot=options.num_fewshot,
        log_samples=False,
    )
    summary = adapter.summary()
    print(Table(["task", "metric", "value", "s.e. over documents"], _rows(found["results"])).text())
    print(
        f"log-likelihoods: {summary['likelihood']}; s.e. of one request {summary['standard_error_of_a_request']} nats"
    )
    result = {
        "harness": found["results"],
        **summary,
        "limit": options.limit,
        **provenance(model, options.run, options.seed),
    }
    output = (
        options.output or options.run.results / f"harness-{options.tasks.replace(',', '-')}.json"
    )
    write_json(output, json.loads(json.dumps(result, default=str)))
    print(f"written to {output}")
