"""The curves of a training run."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
from ..viewer import figures


def read_metrics(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Every logged quantity of a run as (step, value) pairs, over all its interruptions."""
    series: dict[str, dict[int, float]] = {}
    for file in sorted(
        run.glob("logs/version_*/metrics.csv"), key=lambda file: int(file.parent.name.split("_")[1])
    ):
        # A line without its end was being written when the run was killed.
        lines = file.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        for row in csv.DictReader(lines):
            for name, value in row.items():
                if name not in ("step", "epoch") and value:
                    series.setdefault(name, {})[int(float(row["step"]))] = float(value)
    return {name: sorted(values.items()) for name, values in series.items()}


def curves(run: Path, entropy: float | None = None, uniform: float | None = None) -> Figure:
    """Training loss and validation bounds of a run against the step, nats per token; reference
    lines where given.
    """
    figure = figures.figure(7, 4.2)
    axes = figure.add_subplot()
    for name, points in read_metrics(run).items():
        if name.startswith("loss"):
            axes.plot(
                *zip(*points, strict=True),
                color="#9ecae1",
                linewidth=1,
                marker=".",
                markersize=3,
                label="loss",
                zorder=1,
            )
        elif name.startswith("val/"):
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name, zorder=2)
    for value, label in ((uniform, "log N"), (entropy, "unigram entropy")):
        if value is not None and math.isfinite(value):
            axes.axhline(value, color="#777777", linestyle="--", linewidth=1)
            axes.annotate(
                f"{label} {value:.2f}",
                (1, value),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=8,
            )
    axes.set(xlabel="step", ylabel="nats per token", title=f"training of {run.name}")
    axes.set_ylim(top=axes.get_ylim()[1] * 1.06)  # room for a label above the highest line
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
    return figure
