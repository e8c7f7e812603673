"""Texts that a command line names."""

from __future__ import annotations

import glob
from collections.abc import Sequence

from ..data import Benchmark, Corpus, Files
from ..data.benchmarks import BENCHMARKS
from ..data.readers import KINDS
from ..spec import names, parse
from .common import Options


def add_column(parser: Options) -> None:
    """Where the texts of rows are."""
    parser.add_argument(
        "--column",
        default="text",
        help="of files with rows: the column of the text; dots lead into objects, as meta.text",
    )


def corpus_of(
    text: str, data_dir: str | None, classes: Sequence[type] = (), column: str = "text"
) -> Corpus:
    """A corpus from the command line: a benchmark, a file, glob or folder (its texts in `column`),
    or a class call such as `TinyShakespeare` or `HubDataset('id')`.
    """
    if text in BENCHMARKS:
        return Benchmark(text, data_dir)
    known = names(Corpus, classes)
    if text not in known and glob.glob(text, recursive=True):
        return Files(train=text, validation=text, test=text, column=column)
    if text.split("(")[0].strip() in known:
        return parse(text, Corpus, classes)
    raise ValueError(
        f"there is no corpus {text!r}: give one of {', '.join(BENCHMARKS)}, "
        f"a file or folder of {KINDS}, or one of {', '.join(known)}"
    )
