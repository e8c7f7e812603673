"""Pictures of a frontier: generative perplexity against entropy, against MAUVE, and quality against
seconds; dot size is rho.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..viewer import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PERPLEXITY = "gen-PPL (per sequence)"
MARKERS = "osD^vP*X"


def _value(row: dict[str, Any], name: str) -> tuple[float, float]:
    """A number and its error."""
    number = row[name]
    if isinstance(number, float):
        return number, 0.0
    return number[0], number[1]


def _series(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The points of one run, sampler and kind of hyperschedule, by rho."""
    series: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["rho"]):
        kind = row["hyperschedule"].split("(")[0]
        series.setdefault(f"{row['run']}, {kind}, {row['sampler']}", []).append(row)
    return dict(sorted(series.items()))


def _draw(
    axes: Axes, rows: Sequence[dict[str, Any]], human: dict[str, Any], x: str, y: str
) -> None:
    """One dot a point, with its errors in both directions; points that differ in rho only are
    joined.
    """
    for number, (name, points) in enumerate(_series(rows).items()):
        xs, dx = zip(*(_value(row, x) for row in points), strict=True)
        ys, dy = zip(*(_value(row, y) for row in points), strict=True)
        colour = f"C{number % 10}"
        line: dict[str, Any] = {"color": colour, "linewidth": 0.8, "elinewidth": 0.8}
        axes.errorbar(xs, ys, xerr=dx, yerr=dy, alpha=0.7, zorder=1, **line)
        size = [20 + 25 * math.sqrt(row["rho"]) * 1.5 for row in points]
        marker = MARKERS[number // 10 % len(MARKERS)]
        axes.scatter(xs, ys, s=size, color=colour, marker=marker, label=name, zorder=2)
    _draw_human(axes, human, x, y)
    axes.set(xlabel=x, ylabel=y)


def _draw_human(axes: Axes, human: dict[str, Any], x: str, y: str) -> None:
    """Human texts: a star where they have both numbers, a line where they have one."""
    if y not in human:
        return
    level, error = _value(human, y)
    if x in human:
        place, across = _value(human, x)
        star: dict[str, Any] = {"marker": "*", "markersize": 13, "linestyle": ""}
        star |= {"color": "black", "label": "human"}
        axes.errorbar([place], [level], xerr=across, yerr=error, **star)
        return
    axes.axhspan(level - error, level + error, color="#bbbbbb", alpha=0.5, zorder=0)
    axes.axhline(level, color="black", linewidth=1, linestyle="--", label="human")


def against(
    rows: Sequence[dict[str, Any]], human: dict[str, Any], x: str, y: str, title: str
) -> Figure:
    """One pair of measures; dot area grows with rho."""
    figure = figures.figure(8, 5.2)
    axes = figure.add_subplot()
    _draw(axes, rows, human, x, y)
    axes.set_title(title, fontsize=9)
    _legend(figure, axes)
    return figure


def seconds(rows: Sequence[dict[str, Any]], human: dict[str, Any], title: str) -> Figure:
    """Perplexity and MAUVE against the seconds that a sample took."""
    figure = figures.figure(11, 4.8)
    for number, y in enumerate((PERPLEXITY, "MAUVE"), 1):
        axes = figure.add_subplot(1, 2, number)
        _draw(axes, rows, human, "seconds_per_sample", y)
        axes.set(xscale="log", xlabel="seconds per sample")
    figure.suptitle(title, fontsize=9)
    _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        fontsize=7,
        frameon=False,
    )


def pictures(rows: Sequence[dict[str, Any]], human: dict[str, Any]) -> dict[str, Figure]:
    """The paper's two plots and quality against seconds, by file name."""
    about = (
        "dot area grows with rho, tokens settled per call; bars: bootstrap s.e., MAUVE: k-means sd"
    )
    return {
        "perplexity_entropy": against(rows, human, "token entropy", PERPLEXITY, about),
        "perplexity_mauve": against(rows, human, "MAUVE", PERPLEXITY, about),
        "quality_seconds": seconds(rows, human, about),
    }
