"""The picture of the README: four hyperschedules, and one moment of a text that is being drawn.

    python experiments/picture/run.py

Left, the level of every position at every step, from `Hyperschedule.level`. Right, one frame of
the viewer (`textdiff sample --output x.html`): a sample of experiments/six_models/models after
some of its network calls, in the viewer's states and colours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import textdiff
from textdiff.files import write_picture
from textdiff.hyperschedule import Block, Flat, Hyperschedule, QuenchedAR, Slide
from textdiff.samplers import ACS
from textdiff.viewer import figures
from textdiff.viewer.schedules import levels, palette
from textdiff.viewer.states import TokenState, states

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch
    from torch import Tensor

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "six_models" / "models" / "epsilon_block"
INK, SOFT, PAPER = "#1d1f23", "#6a6f78", "#ffffff"

LENGTH = 24
SCHEDULES: dict[str, tuple[str, Hyperschedule]] = {
    "Quenched AR": ("GPT: one token after the other", QuenchedAR()),
    "Block": ("BD3-LM: block after block", Block(width=8, levels=8)),
    "Slide": ("a window that slides", Slide(width=8, rate=1)),
    "Flat": ("MDLM, SEDD, UDLM: all at once", Flat(24)),
}

COLOURS = {
    TokenState.MASKED: "#dfe1e6",
    TokenState.ACTIVE: "#ffe9a8",
    TokenState.SETTLED: PAPER,
    TokenState.GIVEN: "#cfe0fa",
    TokenState.DRAWN: "#83d39a",
    TokenState.CORRECTED: "#d6457f",
    TokenState.REMASKED: "#b388e8",
}
LEGEND = (
    TokenState.GIVEN,
    TokenState.SETTLED,
    TokenState.ACTIVE,
    TokenState.DRAWN,
    TokenState.CORRECTED,
    TokenState.MASKED,
)
PROMPT = "The ship left the harbour in the spring of 1915 . On the way to"
SEED, SAMPLE, CALL = 1, 31, 51
COLUMNS, LINES = 70, 6


def titled(axes: Axes, title: str, told: str) -> None:
    """A bold title and a soft line below it."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=17)
    place = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(told, (0, 1), (0, 4.5), **place, fontsize=8.5, color=SOFT, va="bottom")


def schedule_panel(axes: Axes, name: str) -> None:
    """One schedule as a matrix: positions to the right, steps downwards."""
    told, schedule = SCHEDULES[name]
    table, T = levels(schedule, LENGTH), schedule.T
    rows, columns = table.shape
    axes.pcolormesh(table, cmap=palette(T), vmin=0, vmax=T, edgecolors=PAPER, linewidth=0.4)
    axes.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    titled(axes, name, told)


def cells(pieces: list[str], kinds: list[TokenState]) -> Iterator[tuple[int, int, str, TokenState]]:
    """Column, line, text and state of every token, wrapped as in the viewer."""
    column = line = 0
    for piece, kind in zip(pieces, kinds, strict=True):
        text = (
            "  " if kind in (TokenState.MASKED, TokenState.REMASKED) else piece.replace("\n", "↵")
        )
        if column + len(text) > COLUMNS:
            column, line = 0, line + 1
            text = text.lstrip() or text
        if line == LINES:
            return
        yield column, line, text, kind
        column += len(text)


def sample() -> tuple[list[str], Tensor, str]:
    """The tokens shown, the states [frames, L] of all calls, and what was drawn how."""
    model = textdiff.load(MODEL)
    texts = map(model.decode_token, range(model.mask_id))
    marks = [
        token for token, text in enumerate(texts) if set(text) & set("<>=@\n") or "unk" in text
    ]
    drawn = model.generate(
        PROMPT,
        seed=SEED,
        first=SAMPLE,
        sampler=ACS(rate=4.0),
        temperature=0.6,
        suppress_tokens=marks,
        output_trajectory=True,
    )
    path = drawn.trajectories[0]
    pieces = [model.decode_token(token) for token in path.ids[CALL].tolist()]
    return pieces, states(path, model.mask_id), f"call {CALL} of {len(path.ids) - 1}"


def text_panel(axes: Axes, pieces: list[str], kinds: list[TokenState]) -> None:
    """Tokens as the viewer shows them, with the legend below."""
    axes.set(xlim=(-1.2, COLUMNS + 1.2), ylim=(LINES + 2.9, -0.5), xticks=[], yticks=[])
    axes.spines[:].set_color("#d9dadf")
    for column, line, text, kind in cells(pieces, kinds):
        axes.add_patch(box(column + 0.06, line + 0.1, len(text) - 0.12, kind))
        ink = PAPER if kind == TokenState.CORRECTED else INK
        place = (column, line + 0.52)
        axes.text(*place, text, family="monospace", fontsize=9.7, color=ink, va="center")
    for number, kind in enumerate(LEGEND):
        x, y = 24 * (number % 3), LINES + 0.7 + 1.05 * (number // 3)
        edge = "#c4c7ce" if kind == TokenState.SETTLED else COLOURS[kind]
        axes.add_patch(box(x + 0.06, y + 0.15, 2.2, kind, edge))
        axes.text(x + 3.0, y + 0.52, kind.label, fontsize=8, color=SOFT, va="center")


def box(x: float, y: float, width: float, kind: TokenState, edge: str = "none") -> Patch:
    """The rounded box of a token."""
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.15"
    colours = {"facecolor": COLOURS[kind], "edgecolor": edge}
    return FancyBboxPatch((x, y), width, 0.8, boxstyle=style, linewidth=0.6, **colours)


def calls_panel(axes: Axes, kinds: Tensor) -> None:
    """All calls of the sample, positions to the right, the call shown marked."""
    from matplotlib.colors import ListedColormap

    colours = ListedColormap([COLOURS[kind] for kind in TokenState])
    axes.imshow(
        kinds, cmap=colours, vmin=0, vmax=len(TokenState) - 1, aspect="auto", interpolation="none"
    )
    axes.axhline(CALL, color=INK, linewidth=0.8)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#d9dadf")


def main() -> None:
    """Draw both halves and write picture.png."""
    figure = figures.figure(12, 5)
    figure.set_facecolor(PAPER)
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.07)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.12))
    for axes, name in zip(left.subplots(2, 2).flat, SCHEDULES, strict=True):
        schedule_panel(axes, name)
    pieces, kinds, told = sample()
    text, calls = right.subplots(2, 1, height_ratios=(1.55, 1))
    text_panel(text, pieces, [TokenState(kind) for kind in kinds[CALL].tolist()])
    titled(text, "A text on its way", f"ε-Hybrid in blocks of 16, corrected by ACS: {told}")
    calls_panel(calls, kinds)
    titled(calls, "All its calls", "positions to the right, calls downwards, noise at the top")
    write_picture(HERE / "picture.png", figure)


if __name__ == "__main__":
    main()
