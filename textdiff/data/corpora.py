"""Named collections of text: each yields the documents of its splits and says their origin."""

from __future__ import annotations

import hashlib
import lzma
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain, islice
from typing import Any

from . import readers
from .columns import missing, texts

SPLITS = ("train", "validation", "test")
_HELD_OUT = 20  # without a validation file every 20th document (5 %) is held out


class Corpus(ABC):
    """A named collection of text in three splits; `streaming` ones are read as training goes, never
    as a whole.
    """

    streaming = False

    @property
    def name(self) -> str:
        """A short name for logs and reports."""
        return type(self).__name__

    @abstractmethod
    def documents(self, split: str) -> Iterator[str]:
        """The documents of a split, always in the same order; ValueError for one that does not
        exist or is empty.
        """

    @abstractmethod
    def provenance(self, split: str) -> dict[str, Any]:
        """Plain values that identify the text of a split: source, revision, checksum or
        fingerprint, license.
        """


@dataclass(frozen=True)
class TinyShakespeare(Corpus):
    """The embedded default, no network: a million characters of plays, split 90/5/5 % in order."""

    def documents(self, split: str) -> Iterator[str]:
        """The split as one document, cut at line ends."""
        check_split(split)
        yield _tiny_shakespeare()[SPLITS.index(split)]

    def provenance(self, split: str) -> dict[str, Any]:
        """Where the text is from, and the SHA-256 of the split's text."""
        check_split(split)
        text = _tiny_shakespeare()[SPLITS.index(split)]
        return {
            "corpus": self.name,
            "split": split,
            "source": "github.com/karpathy/char-rnn data/tinyshakespeare/input.txt, 90/5/5 % by "
            "characters",
            "revision": "embedded",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "license": "public domain",
        }


@dataclass(frozen=True)
class Files(Corpus):
    """Your own files: paths, globs or folders of .txt (a file is a document), .jsonl, .json, .csv,
    .tsv or .parquet (a row is, in `column`; dots lead into objects: `meta.text`), compressed or
    not. Rows whose text is null, and empty files among others, are left out with a warning.

    Without `validation`, every 20th training document (of fewer than 20 the last; of a single one
    its last 5 %) is held out and never trained on.
    """

    train: str | list[str]
    validation: str | list[str] | None = None
    test: str | list[str] | None = None
    column: str = "text"

    def documents(self, split: str) -> Iterator[str]:
        """The documents of a split; ValueError if a file is missing, empty, unreadable or lacks the
        column.
        """
        check_split(split)
        if split != "test" and self.validation is None:
            return _hold_out(self._read(self.train), validation=split == "validation")
        return self._read(self._patterns(split))

    def provenance(self, split: str) -> dict[str, Any]:
        """The files of a split and the SHA-256 of their bytes."""
        check_split(split)
        held_out = split != "test" and self.validation is None
        paths = readers.expand(self.train if held_out else self._patterns(split))
        return {
            "corpus": self.name,
            "split": split,
            "source": [str(path.resolve()) for path in paths],
            "revision": f"1 in {_HELD_OUT} held out" if held_out else "whole files",
            "sha256": readers.checksum(paths),
            "column": self.column,
        }

    def _patterns(self, split: str) -> str | list[str]:
        patterns = {"train": self.train, "validation": self.validation, "test": self.test}[split]
        if patterns is None:
            raise ValueError(f"Files has no {split} split: set {split} to a file")
        return patterns

    def _read(self, patterns: str | list[str]) -> Iterator[str]:
        return readers.documents(readers.expand(patterns), self.column)


@dataclass(frozen=True)
class HubDataset(Corpus):
    """A data set of the Hugging Face Hub, or a local folder that `datasets` understands; a row is a
    document, or a line of one. Of `column` dots lead into objects; null rows are left out.

    `heading` is a regular expression for data sets whose rows are lines: a row that it matches
    begins a document, to which the rows up to the next one belong, as they stand.
    `train`, `validation` and `test` are split names or slices such as "train[:95%]"; pin `revision`
    to a commit for exact repeatability. `files` are those of a split instead, where the data set
    does not say it itself: a glob in which {split} stands for the split. `streaming` reads the
    train split as training goes, in its own order.
    """

    path: str
    config: str | None = None
    column: str = "text"
    revision: str | None = None
    train: str = "train"
    validation: str = "validation"
    test: str = "test"
    streaming: bool = False
    files: str | None = None
    heading: str | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.heading or "")
        except re.error as error:
            raise ValueError(
                f"heading must be a regular expression, got {self.heading!r}: {error}"
            ) from None

    @property
    def name(self) -> str:
        """The path and configuration of the data set."""
        return self.path if self.config is None else f"{self.path}/{self.config}"

    def documents(self, split: str) -> Iterator[str]:
        """The documents of a split; ValueError if it cannot be reached, or lacks the split or the
        column.
        """
        rows = self._rows(split)
        return rows if self.heading is None else _joined(rows, re.compile(self.heading))

    def _rows(self, split: str) -> Iterator[str]:
        dataset = self._load(split)
        names = dataset.column_names
        if names is not None and not {self.column, self.column.split(".")[0]} & set(names):
            raise ValueError(missing(self.column, self.name, names))
        rows = ((f"{self.name}, {split} row {n}", row) for n, row in enumerate(dataset))
        return texts(rows, self.column, f"{self.name}, {split}")

    def provenance(self, split: str) -> dict[str, Any]:
        """The data set, its revision, and the fingerprint that `datasets` gives the rows (none for
        a stream).
        """
        dataset = self._load(split)
        sources = " ".join(dataset.info.download_checksums or {})
        resolved = re.search(r"@([0-9a-f]{40})/", sources)
        commit = resolved.group(1) if resolved else "unpinned"
        return {
            "corpus": self.name,
            "split": getattr(self, split),
            "source": self.path,
            "revision": self.revision or commit,
            "fingerprint": None if self.streaming else dataset._fingerprint,
            "column": self.column,
            "heading": self.heading,
            "license": dataset.info.license or None,
        }

    def _load(self, split: str) -> Any:
        check_split(split)
        import datasets
        from datasets.exceptions import DatasetsError

        wanted = getattr(self, split)
        files = None if self.files is None else {wanted: self.files.format(split=wanted)}
        try:
            return datasets.load_dataset(
                self.path,
                self.config,
                split=wanted,
                revision=self.revision,
                streaming=self.streaming,
                data_files=files,
            )
        except (ConnectionError, FileNotFoundError) as error:
            raise ValueError(
                f"data set {self.name!r} cannot be reached ({error}): check the name and the "
                "network (HF_HUB_OFFLINE=1 uses what is cached, without retries), or download it "
                "and give its folder or textdiff.data.Files"
            ) from error
        except (DatasetsError, ValueError) as error:
            raise ValueError(
                f"data set {self.name!r} has no readable {wanted!r} ({error}): set config and "
                f"{split} to what it has"
            ) from error


def _joined(rows: Iterator[str], heading: re.Pattern[str]) -> Iterator[str]:
    r"""Documents of rows that are lines: a new one begins where the heading matches.

    >>> list(_joined(iter([" = A = \n", "one\n", " = B = \n"]), re.compile("^ = ")))
    [' = A = \none\n', ' = B = \n']
    """
    lines: list[str] = []
    for row in rows:
        if any(lines) and heading.search(row):
            yield "".join(lines)
            lines = []
        lines.append(row)
    if any(lines):
        yield "".join(lines)


def check_split(split: str) -> None:
    """Raise ValueError unless `split` is train, validation or test."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")


@cache
def _tiny_shakespeare() -> tuple[str, str, str]:
    # Public domain; from karpathy/char-rnn, data/tinyshakespeare/input.txt.
    packed = files("textdiff.data").joinpath("embedded/tinyshakespeare.txt.xz").read_bytes()
    text = lzma.decompress(packed).decode("utf-8")
    first, second = (text.rindex("\n", 0, len(text) * percent // 100) + 1 for percent in (90, 95))
    return text[:first], text[first:second], text[second:]


def _hold_out(documents: Iterator[str], validation: bool) -> Iterator[str]:
    """The training or the held-out part of a collection without a validation split."""
    head = list(islice(documents, _HELD_OUT))
    if len(head) == 1:
        text = head[0]
        target = len(text) * (_HELD_OUT - 1) // _HELD_OUT
        # The cut is at a line end if there is one in the last tenth of the training part.
        cut = text.rfind("\n", target - target // 10, target) + 1 or target
        part = text[cut:] if validation else text[:cut]
        if part:
            yield part
        return
    for index, document in enumerate(chain(head, documents)):
        if (index % len(head) == len(head) - 1) == validation:
            yield document
