"""`textdiff evaluate frontier FILE.yaml`: quality over runs, samplers and hyperschedules; table,
plots, one JSON a point.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import torch

from ..evaluation import frontier
from ..evaluation.frontier_pictures import pictures
from ..evaluation.provenance import software
from ..files import write_json
from ..model.folder import load
from ..model.model import Model
from .common import add_import, progress_bar
from .perplexity import corpus_of


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="textdiff evaluate frontier",
        description="Sweep runs x samplers x hyperschedules; an interrupted sweep goes on where it stopped.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "file",
        metavar="FILE.yaml",
        type=Path,
        help="what to sweep; paths start from where the command runs",
    )
    parser.add_argument(
        "--output", type=Path, help="folder; default: that of FILE.yaml, named as it"
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where the networks run",
    )
    add_import(parser)
    return parser


def main(arguments: list[str]) -> None:
    """`textdiff evaluate frontier FILE.yaml`."""
    options = _parser().parse_args(arguments)
    study = frontier.read(options.file, options.classes)
    folder: Path = options.output or options.file.with_suffix("")
    corpus = corpus_of(study.reference, None, options.classes)
    found = frontier.stored(study, folder)
    waiting = [point for point, result in found.items() if result is None]

    @cache
    def opened(run: str) -> Model:
        model = load(run, classes=options.classes)
        model.network.to(options.device)  # type: ignore[attr-defined]
        return model

    if waiting:
        judges = frontier.open_judges(study, corpus, options.device)
        with progress_bar(
            total=len(found), initial=len(found) - len(waiting), desc="frontier", unit="point"
        ) as bar:
            for point in waiting:
                bar.set_postfix_str(point.name)
                drawn = frontier.samples(study, point, folder, opened)
                found[point] = frontier.measure(study, point, folder, drawn, judges)
                bar.update()
    results = [result for result in found.values() if result is not None]
    rows, human = [frontier.row(result) for result in results], frontier.human_row(results[0])
    reference = {**corpus.provenance(study.split), "split": study.split}
    write_json(
        folder / "frontier.json",
        {
            "frontier": rows,
            "human": human,
            "study": study.measuring | study.drawing,
            "reference": reference,
            **software(),
        },
    )
    for name, figure in pictures(rows, human).items():
        figure.savefig(folder / f"{name}.png", dpi=130)
    print(frontier.table(rows, human).text())
    print(f"{len(rows)} points, table and plots in {folder}")
