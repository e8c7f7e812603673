"""The text of a record: a column, a nested one (`meta.text`), or none (null rows are left out)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

SHOWN = 60  # characters of a value that a message shows


def texts(records: Iterator[tuple[str, Any]], column: str, file: str) -> Iterator[str]:
    """The texts of records that come with where they stand; how many have none is said at the end.

    Args:
        records: (where, record) pairs; a record is a mapping, or text itself.
        column: the key of the text; dots lead into mappings: `meta.text`.
        file: for the warning.

    Raises:
        ValueError: if a record has no such column, other things than text in it, or half a pair of
            surrogates, which no file can hold.
    """
    left_out = 0
    for where, record in records:
        value = record if isinstance(record, str) else _value(record, column, where)
        if value is None:
            left_out += 1
            continue
        if not isinstance(value, str):
            raise ValueError(
                f"{where}: {column!r} is {shown(value)}, not text; remove the row or name another "
                "column"
            )
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where}: character {error.start} of {column!r} is half a pair of surrogates: "
                "write the row again as UTF-8"
            ) from None
        yield value
    if left_out:
        rows = "a row has" if left_out == 1 else f"{left_out} rows have"
        warnings.warn(f"{file}: {rows} null in {column!r} and no part in this", stacklevel=2)


def missing(column: str, where: str, names: Sequence[str]) -> str:
    """That there is no such column, and which there are."""
    known = ", ".join(names) or "(there is none)"
    return f"{where}: no column {column!r}; set column to one of {known}"


def shown(value: object) -> str:
    """A value in a message: its beginning, never all of a document."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _value(record: Any, column: str, where: str) -> Any:
    if not isinstance(record, dict):
        raise ValueError(
            f'{where} is {shown(record)}, not an object: write {{"{column}": "..."}} for each'
        )
    if column in record:
        return record[column]
    value: Any = record
    for name in column.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or name not in value:
            raise ValueError(missing(column, where, list(_names(record))))
        value = value[name]
    return value


def _names(record: dict[Any, Any], before: str = "") -> Iterator[str]:
    """The columns of a record, nested ones with dots."""
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield from _names(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"
