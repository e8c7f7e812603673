"""`textdiff report FOLDER`: one Markdown and one HTML report of all results below a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..evaluation import report


def main(arguments: list[str]) -> None:
    """`textdiff report FOLDER`."""
    parser = argparse.ArgumentParser(
        prog="textdiff report",
        description="Tables, error bars and plots of every result below FOLDER, as report.md and "
        "one self-contained report.html.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="such as RUN, RUN/results or the output of a frontier",
    )
    parser.add_argument("--title", help="default: the folder's name")
    options = parser.parse_args(arguments)
    results = report.read_results(options.folder)
    parts = report.sections(results)
    markdown = options.folder / "report.md"
    html = options.folder / "report.html"
    report.write(options.title or options.folder.resolve().name, parts, markdown, html)
    print(f"{len(results)} results in {len(parts)} sections: {markdown}, {html}")
