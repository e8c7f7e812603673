"""What we write is whole or not there, put in place from aside; what we read is never run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

NEXT = ".next"  # in a folder: files that are whole and not all in place yet
ASIDE = re.compile(r"\..*-[0-9a-f]{32}(\.[^.]*)?")  # names of what is being written
LONGEST = 180  # bytes of a file name, with room for what is put around it
FORGOTTEN = 3600.0  # seconds after which nobody writes on


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def slug(*parts: str | None) -> str:
    """A file name, without its ending, made of the parts that there are.

    It travels with a model: of a path it holds the last part, and a mark that tells it from others
    of that name. One that is too long for a file system ends in such a mark.

    >>> slug("perplexity", "data/my text.txt", None, "Block(16, 4)")
    'perplexity-my_text.txt-e75b5c-Block_16_4'
    """
    name = "-".join(_last(part) for part in parts if part)
    name = re.sub(r"[^\w.=-]+", "_", name).strip("_")
    if len(name.encode()) <= LONGEST:
        return name
    return name.encode()[: LONGEST - 7].decode(errors="ignore") + f"-{_mark(name)}"


def _last(part: str) -> str:
    folder, _, name = part.rstrip("/\\").replace("\\", "/").rpartition("/")
    return f"{name}-{_mark(part)}" if folder else name


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path to write to, beside `path`; what stands there after the block replaces `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path.parent)
    aside = _aside(path)
    try:
        yield aside
        _sync(aside)
        os.replace(aside, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say where
        raise
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, beside `path`; after the block it stands at `path`.

    Raises:
        OSError: after the block, if `path` is there and not an empty folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path.parent)
    aside = _aside(path)
    aside.mkdir()  # not mkdtemp, which shuts out other users
    try:
        yield aside
        _sync_all(aside)
        if path.exists():
            path.rmdir()
        os.rename(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def new_files(folder: Path, last: Sequence[str] = (), own: Sequence[str] = ()) -> Iterator[Path]:
    """An empty folder to fill, inside `folder`; after the block its files replace those of
    `folder`, all at once for who reads from `whole(folder)`.

        .writing-...   what is being written: gone, if that fails
        .next          whole: it counts from here on; its files are put in place one by one
        (none)         all are in place

    Args:
        folder: where the files belong; made if missing.
        last: names of those that are put in place last, in this order.
        own: patterns of files that are removed unless they are written again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    aside = _aside(folder / "writing")
    aside.mkdir()
    try:
        yield aside
        _sync_all(aside)
        if (folder / NEXT).is_dir():  # the write before this one was killed
            _put_in_place(folder, last, own)
        os.rename(aside, folder / NEXT)
        _put_in_place(folder, last, own)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def whole(folder: Path) -> Path:
    """Where what `new_files` wrote into a folder is whole: `folder`/.next while it is being put in
    place, and after a kill in between.
    """
    ready = folder / NEXT
    return ready if ready.is_dir() else folder


def _put_in_place(folder: Path, last: Sequence[str], own: Sequence[str]) -> None:
    """Replace files of `folder` by those in `folder`/.next, which stays whole until all are."""
    ready = folder / NEXT
    names = sorted(path.relative_to(ready) for path in ready.rglob("*") if path.is_file())
    for name in sorted(names, key=lambda name: last.index(str(name)) if str(name) in last else -1):
        with new_file(folder / name) as aside:
            try:
                os.link(ready / name, aside)
            except OSError:  # a file system without links
                shutil.copyfile(ready / name, aside)
    for old in [path for pattern in own for path in folder.glob(pattern)]:
        if old.relative_to(folder) not in names:
            old.unlink()
            if not any(old.parent.iterdir()):
                old.parent.rmdir()
    done = _aside(folder / "done")
    os.rename(ready, done)
    shutil.rmtree(done, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove what writes left in a folder that were killed: hidden names of `_aside` that nobody
    touched for an hour.
    """
    for path in folder.iterdir():
        if ASIDE.fullmatch(path.name):
            with suppress(OSError):  # another process was first, or may do it
                if time.time() - path.stat().st_mtime > FORGOTTEN:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _aside(path: Path) -> Path:
    """A hidden name beside `path` that no other process takes, with the same ending."""
    return path.with_name(f".{path.stem[:60]}-{uuid4().hex}{path.suffix}")


def _sync(path: Path) -> None:
    """Have a file on the disk before a name says that it is whole."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)


def check_place(path: Path, option: str = "--output") -> None:
    """Try to write where `path` will be, before the work whose result it is.

    Raises:
        ValueError: if that fails; it names the option that says where.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
    except OSError as error:
        raise ValueError(
            f"{str(path)!r} cannot be written ({error.strerror}): name another place with {option}"
        ) from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; it is whole or not there."""
    with new_file(path) as aside:
        aside.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; the file is whole or not there."""
    write_bytes(path, text.encode())


def write_picture(path: Path, figure: Any, dpi: int = 150) -> None:
    """Write a figure of matplotlib; the file is whole or not there."""
    with new_file(path) as aside:
        figure.savefig(aside, dpi=dpi)


def write_json(path: Path, content: Any) -> None:
    """Write JSON; the file is whole or not there."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


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
