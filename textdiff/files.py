"""What we write is whole or not there, put in place from aside; what we read is never run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def slug(*parts: str | None) -> str:
    """A file name, without its ending, made of the parts that there are.

    >>> slug("perplexity", "data/my text.txt", None, "Block(16, 4)")
    'perplexity-data_my_text.txt-Block_16_4'
    """
    return re.sub(r"[^\w.=-]+", "_", "-".join(part for part in parts if part)).strip("_")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path to write to, beside `path`; what stands there after the block replaces `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, beside `path`; after the block it stands at `path`.

    Raises:
        OSError: after the block, if `path` is there and not an empty folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    aside.mkdir()  # not mkdtemp, which shuts out other users
    try:
        yield aside
        if path.exists():
            path.rmdir()
        os.rename(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def new_files(folder: Path, last: Sequence[str] = ()) -> Iterator[Path]:
    """An empty folder to fill, inside `folder`; after the block its files replace those of
    `folder`, each as a whole.

    Args:
        folder: where the files belong; made if missing.
        last: names of those that come last, in this order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = _aside(folder / "writing")
    aside.mkdir()
    try:
        yield aside
        names = sorted(path.name for path in aside.iterdir())
        for name in sorted(names, key=lambda name: last.index(name) if name in last else -1):
            os.replace(aside / name, folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    """A hidden name beside `path` that no other process takes, with the same ending."""
    return path.with_name(f".{path.stem}-{uuid4().hex}{path.suffix}")


def write_json(path: Path, content: Any) -> None:
    """Write JSON; the file is whole or not there."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    with new_file(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON; a ValueError if it is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): the folder is corrupt, write it again"
        ) from None


def reason(error: Exception) -> str:
    """Why transformers did not open something, without its advice to run foreign code.

    >>> reason(ValueError("please pass trust_remote_code=True"))
    'it needs Python code of its own, which textdiff never runs'
    >>> reason(ValueError("no such file"))
    'no such file'
    """
    if "trust_remote_code" in str(error):
        return "it needs Python code of its own, which textdiff never runs"
    return str(error)
