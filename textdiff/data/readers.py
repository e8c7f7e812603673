"""Documents in local files: .txt (a file is a document), .jsonl, .json, .csv, .tsv and .parquet (a
row is a document); all but parquet also as .gz, .bz2, .xz or .zst.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import hashlib
import io
import json
import lzma
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from .columns import missing, texts

Records = Iterator[tuple[str, Any]]
"""Where a record stands, and the record."""

# csv refuses fields above 128 KiB by default; a document may be longer
_CSV_FIELD_LIMIT = 2**31 - 1


def expand(patterns: str | Sequence[str]) -> list[Path]:
    """The files that paths, globs or folders name, each one's in sorted order; of a folder those of
    known kinds, at any depth.

    Raises:
        ValueError: for what names no file.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    paths: list[Path] = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        matches = [path]
        if not path.exists():
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        files = [file for match in matches for file in _files(match)]
        if not files:
            inside = f"the folder {pattern} has no {KINDS}" if path.is_dir() else ""
            raise ValueError(
                inside or f"no file matches {pattern!r}: check the path (relative to {Path.cwd()})"
            )
        paths += files
    if not paths:
        raise ValueError("an empty list of files: name at least one")
    return paths


def _files(path: Path) -> list[Path]:
    """A file, or all that can be read in a folder; nothing hidden."""
    if not path.is_dir():
        return [path] if path.is_file() else []
    below = (one for one in sorted(path.rglob("*")) if one.is_file() and kind_of(one) in READERS)
    return [one for one in below if not any(w.startswith(".") for w in one.relative_to(path).parts)]


def documents(paths: Sequence[Path], column: str) -> Iterator[str]:
    """The documents of files, in order; empty files among others are left out, and said.

    Raises:
        ValueError: for an unknown kind of file, for one that is unreadable, not UTF-8, or lacks
            `column`, and if there is no text at all.
    """
    empty: list[Path] = []
    for path in paths:
        count = 0
        for document in _documents(path, column):
            count += 1
            yield document
        if not count:
            empty.append(path)
    if len(empty) == len(paths):
        names = str(empty[0]) if len(empty) == 1 else f"all {len(empty)} files, {empty[0]} first,"
        raise ValueError(f"{names} holds no text: remove it from the list or fill it")
    if empty:
        warnings.warn(f"{len(empty)} files without text, {empty[0]} first", stacklevel=2)


def _documents(path: Path, column: str) -> Iterator[str]:
    reader = READERS.get(kind_of(path))
    if reader is None:
        raise ValueError(f"{path}: unknown kind of file; use {KINDS}")
    try:
        yield from texts(reader(path, column), column, str(path))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 ({error}): convert it first, e.g. iconv -f latin1 -t utf-8"
        ) from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): check its permissions and that it is whole"
        ) from error


def kind_of(path: Path) -> str:
    """The suffix that says what is in a file, without that of its compression; "" if it is not
    known.
    """
    if path.suffix in _OPENERS:
        kind = path.with_suffix("").suffix
        return "" if kind == ".parquet" else kind
    return path.suffix


def checksum(paths: Sequence[Path]) -> str:
    """SHA-256 over the bytes of the files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _zstd(path: Path) -> Any:
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


_OPENERS: dict[str, Callable[..., Any]] = {
    ".xz": lzma.open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".zst": _zstd,
}


def _open(path: Path) -> BinaryIO:
    file: BinaryIO = _OPENERS[path.suffix](path) if path.suffix in _OPENERS else path.open("rb")
    return file


def _text(path: Path, column: str) -> Records:
    with _open(path) as file:
        # drops a byte-order mark; line ends stay as they are
        text = file.read().decode("utf-8-sig")
    if text:
        yield str(path), text


def _json_lines(path: Path, column: str) -> Records:
    with _open(path) as file:
        # binary lines end at "\n" only, never at U+2028 and the like
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where} is not JSON ({error}): mend or remove it") from error
            if isinstance(record, str):
                record = [record]  # text alone is no row
            yield where, record


def _json(path: Path, column: str) -> Records:
    """An array of objects or texts, one object, or lines as in .jsonl."""
    with _open(path) as file:
        data = file.read()
    if not data.strip():
        return
    try:
        whole = json.loads(data)
    except json.JSONDecodeError:
        yield from _json_lines(path, column)
        return
    rows = whole if isinstance(whole, list) else [whole]
    for number, record in enumerate(rows, 1):
        yield f"{path}, element {number}", record


def _csv(path: Path, column: str) -> Records:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    delimiter = "\t" if kind_of(path) == ".tsv" else ","
    with _open(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter=delimiter)
        try:
            for row in rows:
                yield f"{path}, line {rows.line_num}", row
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {rows.line_num} is not CSV ({error}): mend the line"
            ) from error


def _parquet(path: Path, column: str) -> Records:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            top = column if column in names else column.split(".")[0]
            if top not in names:
                raise ValueError(missing(column, str(path), names))
            number = 0
            for batch in file.iter_batches(columns=[top]):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", record
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a parquet file ({error}): write it again") from error


READERS: dict[str, Callable[[Path, str], Records]] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
KINDS = ".txt, .jsonl, .json, .csv, .tsv (also .gz, .bz2, .xz, .zst) or .parquet"
