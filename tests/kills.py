"""What a kill, or a full disk, at each call that changes files would leave."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")
_watching: list[Callable[[str, tuple[Any, ...]], None]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and (event in CHANGES or (event == "open" and _writes(arguments))):
        told = _watching.pop()  # what it does itself is none of its business
        try:
            told(event, arguments)
        finally:
            _watching.append(told)


def _writes(arguments: tuple[Any, ...]) -> bool:
    return isinstance(arguments[0], str | os.PathLike) and bool(
        arguments[2] & (os.O_WRONLY | os.O_RDWR)
    )


sys.addaudithook(_hook)


@contextmanager
def told(of: Callable[[str, tuple[Any, ...]], None]) -> Iterator[None]:
    """Call `of` before every call of the system that changes files."""
    _watching.append(of)
    try:
        yield
    finally:
        _watching.clear()


def left(folder: Path, copies: Path, work: Callable[[], object]) -> list[Path]:
    """Copies of a folder as a kill before each call of `work`, and its end, would leave it."""
    states: list[Path] = []

    def copy(*_: Any) -> None:
        states.append(Path(shutil.copytree(folder, copies / str(len(states)))))

    with told(copy):
        work()
    copy()
    return states


@contextmanager
def full_disk(call: int) -> Iterator[None]:
    """From call number `call` on the disk is full: nothing can be made or written."""
    calls = iter(range(1 << 30))

    def refuse(event: str, _: tuple[Any, ...]) -> None:
        if event in ("open", "os.mkdir", "os.link") and next(calls) >= call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with told(refuse):
        yield
