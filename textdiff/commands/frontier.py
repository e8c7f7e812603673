"""`textdiff evaluate frontier FILE.yaml`: quality over runs, samplers and hyperschedules; table,
plots, one JSON a point.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from ..evaluation import frontier, sweep
from ..evaluation.frontier_pictures import pictures
from ..evaluation.provenance import software
from ..files import check_place, write_json, write_picture
from ..model.folder import load
from ..model.model import Model
from .common import add_device, add_import, progress_bar
from .corpus import corpus_of


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="textdiff evaluate frontier",
        description="Sweep runs x samplers x hyperschedules; an interrupted sweep goes on where it "
        "stopped.",
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
    add_device(parser)
    add_import(parser)
    return parser


def opener(device: str, classes: Sequence[type] = ()) -> Callable[[str], Model]:
    """Opens a model by its name, once each, on a device; `classes` are the user's own."""

    @cache
    def opened(run: str) -> Model:
        return load(run, classes=classes).to(device)

    return opened


def main(arguments: list[str]) -> None:
    """`textdiff evaluate frontier FILE.yaml`."""
    options = _parser().parse_args(arguments)
    study = frontier.read_study(options.file, options.classes)
    folder: Path = options.output or options.file.with_suffix("")
    corpus = corpus_of(study.reference, None, options.classes)
    check_place(folder / "frontier.json")
    waiting = sum(result is None for result in sweep.stored(study, folder).values())
    judges = cache(lambda: sweep.open_judges(study, corpus, options.device))
    opened = opener(options.device, options.classes)
    results = []
    try:
        with progress_bar(total=len(study.points), desc="frontier", unit="point") as bar:

            def told(point: frontier.Point) -> None:
                bar.set_postfix_str(point.name)

            if waiting:
                judges()  # whatever is wrong with them is said before anything is drawn
            for result in sweep.sweep(study, folder, judges, opened, told):
                results.append(result)
                bar.update()
    finally:  # what is measured is said, also if it could not be written
        rows = [frontier.row(result) for result in results]
        if rows:
            human = frontier.human_row(results[0])
            print(frontier.table(rows, human).text())
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
        write_picture(folder / f"{name}.png", figure, dpi=130)
    print(f"{len(rows)} points, table and plots in {folder}")
