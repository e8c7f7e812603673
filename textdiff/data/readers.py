"""Documents in local files: .txt (a file is a document), .jsonl, .csv and .parquet (a row is a
document).
"""

from __future__ import annotations

import csv
import glob
import gzip
import hashlib
import json
import lzma
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

_OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
# csv refuses fields above 128 KiB by default; a document may be longer
_CSV_FIELD_LIMIT = 2**31 - 1


def expand(patterns: str | Sequence[str]) -> list[Path]:
    """The files that paths or globs name, each pattern's in sorted order.

    Raises ValueError for a pattern that names no file, or a folder.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    paths: list[Path] = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            raise ValueError(f"{pattern} is a folder: name its files, for example {pattern}/*.txt")
        matches = [path]
        if not path.exists():
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        files = [match for match in matches if match.is_file()]
        if not files:
            raise ValueError(
                f"no file matches {pattern!r}: check the path (relative to {Path.cwd()})"
            )
        paths += files
    if not paths:
        raise ValueError("an empty list of files: name at least one")
    return paths


def documents(path: Path, column: str) -> Iterator[str]:
    """The documents of one file, in order.

    Raises ValueError for an unknown kind of file and for one that is empty, unreadable, not UTF-8,
    or lacks `column`.
    """
    kind = path.suffix
    readers = {".txt": _text, ".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
    if kind in _OPENERS:
        kind = path.with_suffix("").suffix
        readers = {".txt": _text, ".jsonl": _json_lines}
    if kind not in readers:
        raise ValueError(
            f"{path}: unknown kind of file; use .txt, .jsonl (also .xz, .gz), .csv or .parquet"
        )
    empty = True
    try:
        for document in readers[kind](path, column):
            empty = False
            yield document
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 ({error}): convert it first, e.g. iconv -f latin1 -t utf-8"
        ) from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): check its permissions and that it is whole"
        ) from error
    if empty:
        raise ValueError(f"{path} holds no text: remove it from the list or fill it")


def checksum(paths: Sequence[Path]) -> str:
    """SHA-256 over the bytes of the files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _open(path: Path) -> BinaryIO:
    if path.suffix in _OPENERS:
        return _OPENERS[path.suffix](path)
    return path.open("rb")


def _text(path: Path, column: str) -> Iterator[str]:
    with _open(path) as file:
        # drops a byte-order mark; line ends stay as they are
        text = file.read().decode("utf-8-sig")
    if text:
        yield text


def _json_lines(path: Path, column: str) -> Iterator[str]:
    with _open(path) as file:
        # binary lines end at "\n" only, never at U+2028 and the like
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number} is not JSON ({error}): mend or remove the line"
                ) from error
            if not isinstance(record, dict):
                raise ValueError(
                    f"{path}, line {number} is not an object: write "
                    f'{{"{column}": "..."}} on each line'
                )
            yield _field(record, column, f"{path}, line {number}")


def _csv(path: Path, column: str) -> Iterator[str]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        try:
            for row in rows:
                yield _field(row, column, f"{path}, line {rows.line_num}")
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {rows.line_num} is not CSV ({error}): mend the line"
            ) from error


def _parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise ValueError(_missing(column, str(path), file.schema_arrow.names))
            number = 0
            for batch in file.iter_batches(columns=[column]):
                for record in batch.to_pylist():
                    number += 1
                    yield _field(record, column, f"{path}, row {number}")
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a parquet file ({error}): write it again") from error


def _field(record: dict[str, object], column: str, where: str) -> str:
    if column not in record:
        raise ValueError(_missing(column, where, [str(name) for name in record]))
    value = record[column]
    if not isinstance(value, str):
        raise ValueError(
            f"{where}: {column!r} is {value!r}, not text; remove the row or name another column"
        )
    return value


def _missing(column: str, where: str, names: Sequence[str]) -> str:
    known = ", ".join(names) or "(there is none)"
    return f"{where}: no column {column!r}; set column to one of {known}"
