"""`textdiff export RUN OUT`: the folder that travels."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..model.hub import contents, export
from .common import RUN, add_import

LICENSE = (
    "of the weights, an identifier of the Hub such as apache-2.0 (default: that of RUN's card, "
    "else unknown)"
)


def listing(folder: Path) -> str:
    """The files of a folder and their sizes, one a line."""
    return "\n".join(f"{size:>14,}  {name}" for name, size in contents(folder))


def main(arguments: list[str]) -> None:
    """Write a model with its reference bound and its model card into a new folder."""
    parser = argparse.ArgumentParser(
        prog="textdiff export", description=main.__doc__, allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="the folder to write; missing or empty"
    )
    parser.add_argument("--license", help=LICENSE)
    add_import(parser)
    options = parser.parse_args(arguments)
    folder = export(options.run, options.out, license=options.license, classes=options.classes)
    print(listing(folder))
    print(f"written to {options.out}")
