"""Watch generation in a terminal: the first sample, redrawn in place after every network call."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import TextIO

import torch
from torch import Tensor

from ..generation.state import Frame
from .states import TokenState, state

MASKED = "░"
STYLE = {
    TokenState.MASKED: "2",
    TokenState.ACTIVE: "33",
    TokenState.SETTLED: "",
    TokenState.GIVEN: "34",
    TokenState.DRAWN: "30;42",
    TokenState.CORRECTED: "1;37;45",
    TokenState.REMASKED: "30;43",
}
HIDE = "\x1b[?25l"
SHOW = "\x1b[?25h"
CLEAR = "\x1b[J"
_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
Piece = tuple[str, TokenState]
"""The text of a token, and its state."""
Cell = tuple[str, TokenState]
"""One character, and the state of its token."""


def visible(text: str) -> str:
    """A text with marks for what a terminal would obey: control characters, line breaks (↵),
    changes of direction.
    """
    return "".join(_visible(character) for character in text)


def clean(text: str) -> str:
    """A text of several lines whose other control characters a terminal does not obey."""
    return "".join(one if one in "\n\t" else _visible(one) for one in text)


def _visible(character: str) -> str:
    if character == "\n":
        return "↵"
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    odd = (
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in _BIDI
    )
    return "\ufffd" if odd else character


def width(character: str) -> int:
    """Columns of one visible character: 0 combining, 2 East Asian wide, else 1 (sequences of emoji
    are measured one by one).
    """
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrap(pieces: list[Piece], columns: int) -> list[list[Cell]]:
    """Lines of at most `columns` columns of (character, state); a line also ends after "↵"."""
    lines: list[list[Cell]] = [[]]
    used = 0
    for piece, token_state in pieces:
        for character in piece:
            shown = _visible(character)
            size = width(shown)
            if used + size > columns:
                lines.append([])
                used = 0
            lines[-1].append((shown, token_state))
            used += size
            if character == "\n":
                lines.append([])
                used = 0
    return lines


def paint(cells: list[Cell]) -> str:
    """One line with its ANSI colours, which end with it."""
    out = ""
    style = ""
    for character, token_state in cells:
        if STYLE[token_state] != style:
            style = STYLE[token_state]
            out += f"\x1b[0;{style}m" if style else "\x1b[0m"
        out += character
    return out + ("\x1b[0m" if style else "")


class Watcher:
    """Shows the first sample of every batch while it is generated; use it as a context manager,
    which gives the cursor back.

    On a terminal each call redraws in place, with the tail of a text that is too long; elsewhere,
    and with NO_COLOR or TERM=dumb, each call prints one plain line. `generation.denoise` calls it
    with its states.

    Args:
        decode: the text of one token id in 0..N-1.
        num_tokens: N; id N is MASK.
        stream: where to.
    """

    def __init__(
        self, decode: Callable[[int], str], num_tokens: int, stream: TextIO | None = None
    ) -> None:
        self.decode = cache(decode)
        self.num_tokens = num_tokens
        self.stream = sys.stderr if stream is None else stream
        self.plain = (
            not self.stream.isatty()
            or bool(os.environ.get("NO_COLOR"))
            or os.environ.get("TERM") == "dumb"
        )
        self._before: Tensor | None = None
        self._given = torch.zeros(0, dtype=torch.bool)
        self._height = 0

    def __enter__(self) -> Watcher:
        if not self.plain:
            self._write(HIDE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.plain:
            self._write("\x1b[0m" + SHOW)

    def __call__(self, seen: Frame) -> None:
        """Show what a call left behind; call 0 begins a batch."""
        row = seen.ids[0].cpu().clone()
        done = (seen.t[0] == 0).cpu()
        if seen.call == 0 or self._before is None:
            self._before = row
            self._given = done
            self._height = 0
        cells = state(self._before, row, done, self._given, self.num_tokens).tolist()
        pieces = [
            (MASKED if token == self.num_tokens else self.decode(token), TokenState(cell))
            for token, cell in zip(row.tolist(), cells, strict=True)
        ]
        self._before = row
        heading = f"call {seen.call} ({int(done.sum())}/{len(done)})"
        if self.plain:
            text = "".join(visible(piece) for piece, _ in pieces)
            self._write(f"{heading}: {text}\n")
        else:
            self._redraw(heading, pieces)

    def _redraw(self, heading: str, pieces: list[Piece]) -> None:
        columns, rows = self._size()
        shown = sorted({cell for _, cell in pieces})
        head: list[Piece] = [(heading, TokenState.SETTLED)]
        for cell in shown:
            head += [("  ", TokenState.SETTLED), (cell.label, cell)]
        tail = max(rows - 2, 1)  # the cursor rests in a row of its own
        lines = [wrap(head, columns)[0], *wrap(pieces, columns)[-tail:]]
        up = f"\x1b[{self._height}A" if self._height else ""
        text = "".join(paint(line) + "\r\n" for line in lines)
        self._write(up + "\r" + CLEAR + text)
        self._height = len(lines)

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError):  # a stream without a terminal of its own
            size = os.terminal_size((0, 0))
        if not size.columns or not size.lines:  # as some pseudo-terminals say
            size = shutil.get_terminal_size()
        return max(size.columns, 2), size.lines

    def _write(self, text: str) -> None:
        encoding = self.stream.encoding or "utf-8"
        self.stream.write(text.encode(encoding, "replace").decode(encoding))
        self.stream.flush()
