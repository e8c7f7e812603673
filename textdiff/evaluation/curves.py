"""Pictures of where the nats are: by position in the row and by noise level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..objective.curve import Curve
from ..viewer.figures import figure as empty_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(curves: Mapping[str, tuple[Curve | None, Curve | None]], title: str) -> Figure:
    """Two panels: nats per token by position and by noise level, a line for each name."""
    made = empty_figure(9, 3.6)
    panels = made.subplots(1, 2, sharey=True)
    for name, pair in curves.items():
        for panel, curve in zip(panels, pair, strict=True):
            if curve is None:
                continue
            panel.plot(curve.x, curve.nats, marker="o", markersize=2.5, linewidth=1, label=name)
            if curve.standard_error is None:
                continue
            points = list(zip(curve.nats, curve.standard_error, strict=True))
            low = [nats - 2 * error for nats, error in points]
            high = [nats + 2 * error for nats, error in points]
            panel.fill_between(curve.x, low, high, alpha=0.2, linewidth=0)
    panels[0].set(xlabel="position i", ylabel="nats per token")
    panels[1].set(xlabel="noise level t")
    panels[0].legend(fontsize=7, frameon=False)
    made.suptitle(title, fontsize=9)
    return made
