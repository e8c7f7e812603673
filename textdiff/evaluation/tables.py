"""A table of strings, as text that lines up, as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


def plus_minus(value: float, error: float | None, digits: int = 3) -> str:
    """`value ± error`."""
    number = f"{value:.{digits}f}"
    return number if error is None else f"{number} ± {error:.{digits}f}"


@dataclass(frozen=True)
class Table:
    """A header and rows of the same length; columns of words (`words`, as a rule the first) stand
    at the left, numbers at the right.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = (0,)

    def text(self) -> str:
        """For a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        aligned = []
        for line in lines:
            cells = [
                cell.ljust(width) if i in self.words else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            aligned.append("  ".join(cells).rstrip())
        rule = "-" * max(map(len, aligned))
        return "\n".join([aligned[0], rule, *aligned[1:]])

    def markdown(self) -> str:
        """A GitHub table."""
        cells = [
            [cell.replace("|", "\\|").replace("\n", " ") for cell in line]
            for line in (self.header, *self.rows)
        ]
        marks = ["---" if i in self.words else "---:" for i in range(len(self.header))]
        return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], marks, *cells[1:]))

    def html(self) -> str:
        """A <table>."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.header)
        lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self.rows)
        rows = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def metric_rows(results: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Task, metric, value and standard error over the documents, of what lm-evaluation-harness
    gives.

    >>> metric_rows({"arc": {"alias": "arc", "acc,none": 0.5, "acc_stderr,none": 0.01}})
    [['arc', 'acc,none', '0.5000', '0.0100']]
    """
    rows = []
    for task, metrics in results.items():
        for metric, value in metrics.items():
            name, _, filtered = metric.partition(",")
            if not isinstance(value, float) or name.endswith("_stderr"):
                continue
            error = metrics.get(f"{name}_stderr,{filtered}")
            shown = f"{error:.4f}" if isinstance(error, float) else "-"
            rows.append([task, metric, f"{value:.4f}", shown])
    return rows


def per_call(drawn: Mapping[str, Any]) -> str:
    """Drawn tokens for each network call, of what is told of a set of samples; "-" if that was
    measured before it was told.
    """
    share = drawn.get("tokens_per_forward")
    return "-" if share is None else f"{share:.2f}"
