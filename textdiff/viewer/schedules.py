"""A hyperschedule as a matrix, or as the 3-D steps of the paper."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import torch

from ..hyperschedule import Hyperschedule
from . import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTLED, NOISE = "#31508c", "#dfe1e6"
ACTIVE = ("#f6ead0", "#f0b648")  # almost settled, almost noise
MAX_CELLS = 4096  # the 3-D picture draws one bar a cell


def levels(schedule: Hyperschedule, L: int) -> torch.Tensor:
    """τ as a matrix [K + 1, L]."""
    return torch.stack([schedule.level(k, L) for k in range(schedule.calls(L) + 1)])


def _title(schedule: Hyperschedule, L: int) -> str:
    name = textwrap.shorten(str(schedule), 60, placeholder=" …)")
    rates = f"ω = {schedule.omega(L)}, ρ = {float(schedule.rho(L)):.3g}"
    return f"{name}\n{schedule.calls(L)} calls for {L} tokens, {rates}"


def palette(T: int) -> Any:
    """The colours of the levels 0..T."""
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    between = LinearSegmentedColormap.from_list("active", ACTIVE)
    shades: list[Any] = [between(level / max(T - 2, 1)) for level in range(T - 1)]
    return ListedColormap([SETTLED, *shades, NOISE])


def matrix(schedule: Hyperschedule, L: int) -> Figure:
    """Level of every position (columns) at every step (rows): blue settled, grey full noise, amber
    the window.
    """
    table = levels(schedule, L)
    T = schedule.T
    colours = palette(T)
    steepness = min(1.0, max(0.3, table.shape[0] / max(L, 1)))
    figure = figures.figure(7, 1.4 + 5 * steepness)
    axes = figure.add_subplot()
    image = axes.imshow(table, cmap=colours, vmin=0, vmax=T, aspect="auto", interpolation="nearest")
    axes.set(xlabel="position i", ylabel="step k", title=_title(schedule, L))
    axes.title.set_fontsize(9)
    locator: Any = axes.yaxis.get_major_locator()
    locator.set_params(integer=True)
    bar = figure.colorbar(image, ax=axes, label="noise level τ/T", ticks=[0, T / 2, T])
    bar.ax.set_yticklabels(["0 settled", "½", "1 noise"])
    return figure


def steps(schedule: Hyperschedule, L: int) -> Figure:
    """The same as steps in three dimensions: height is the level τ, after the paper's figure.

    Raises:
        ValueError: if there are more than MAX_CELLS bars to draw.
    """
    from matplotlib import colormaps

    table = levels(schedule, L)
    if table.numel() > MAX_CELLS:
        raise ValueError(
            f"{table.numel()} bars are too many to see: draw at most {MAX_CELLS}, with a smaller L "
            "or fewer levels"
        )
    figure = figures.figure(7, 6)
    axes: Any = figure.add_subplot(projection="3d", box_aspect=(4, 4, 2.5))
    k, i = torch.meshgrid(torch.arange(len(table)), torch.arange(L), indexing="ij")
    height = table.flatten().double()
    seen = height > 0
    shade = colormaps["viridis"](1 - (height[seen] / schedule.T).numpy())
    axes.bar3d(
        x=i.flatten()[seen],
        y=k.flatten()[seen],
        z=0,
        dx=1,
        dy=1,
        dz=height[seen],
        color=shade,
        shade=True,
        edgecolor="#00000022",
    )
    axes.set(xlabel="position i", ylabel="step k", zlabel="level τ", title=_title(schedule, L))
    axes.title.set_fontsize(9)
    axes.zaxis.get_major_locator().set_params(integer=True)
    axes.view_init(elev=35, azim=130)  # from the settled side, where the steps go down
    return figure
