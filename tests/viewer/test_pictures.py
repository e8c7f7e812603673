"""Pictures are drawn, are not empty, and show the levels of the formula."""

import csv

import numpy as np
import pytest
import torch

from textdiff.hyperschedule import Block, Flat, QuenchedAR, Slide, StartSteps, TightBlock
from textdiff.training import curves
from textdiff.viewer import schedules as pictures

SCHEDULES = [
    QuenchedAR(),
    Flat(8),
    Block(4, 4),
    TightBlock(4, 4),
    Slide(8, 2),
    Slide(4, "2/3"),
    StartSteps(3, tuple(range(12))),
]


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def colours(image):
    return len(np.unique(image.reshape(-1, 3), axis=0))


def texts_inside(figure):
    """Whether every title, label and tick lies within the picture."""
    width, height = figure.canvas.get_width_height()
    for axes in figure.axes:
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            box = text.get_window_extent()
            if text.get_text() and not (
                box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
            ):
                return False
    return True


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_matrix_shows_the_levels(schedule):
    figure = pictures.matrix(schedule, 12)
    image = figure.axes[0].images[0].get_array()
    expected = [schedule.level(k, 12).tolist() for k in range(schedule.calls(12) + 1)]
    assert np.asarray(image).tolist() == expected
    assert colours(pixels(figure)) > 20 and texts_inside(figure)
    assert f"{schedule.calls(12)} calls" in figure.axes[0].get_title()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_steps_are_drawn(schedule):
    figure = pictures.steps(schedule, 12)
    bars = int((pictures.levels(schedule, 12) > 0).sum())
    assert len(figure.axes[0].collections[0].get_facecolor()) == 6 * bars
    assert colours(pixels(figure)) > 20 and texts_inside(figure)


def test_too_many_bars_are_refused():
    with pytest.raises(ValueError, match="at most 4096"):
        pictures.steps(Flat(64), 128)


def test_levels_are_a_table():
    assert torch.equal(pictures.levels(Flat(2), 3), torch.tensor([[2, 2, 2], [1, 1, 1], [0, 0, 0]]))


def write_log(folder, rows):
    folder.mkdir(parents=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "loss", "step", "val/nelbo"])
        writer.writeheader()
        writer.writerows(rows)


def test_curves_join_the_parts_of_an_interrupted_run(tmp_path):
    write_log(
        tmp_path / "logs" / "version_0",
        [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.9, "val/nelbo": 2.5}],
    )
    write_log(tmp_path / "logs" / "version_10", [{"step": 3, "loss": 2.0}])
    write_log(tmp_path / "logs" / "version_2", [{"step": 2, "loss": 2.8}, {"step": 3, "loss": 2.7}])
    assert curves.read_metrics(tmp_path) == {
        "loss": [(1, 3.0), (2, 2.8), (3, 2.0)],
        "val/nelbo": [(2, 2.5)],
    }
    figure = curves.curves(tmp_path, entropy=3.3, uniform=4.1)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["loss"].get_xydata().tolist() == [[1, 3.0], [2, 2.8], [3, 2.0]]
    assert {note.get_text() for note in figure.axes[0].texts} == {
        "log N 4.10",
        "unigram entropy 3.30",
    }
    assert colours(pixels(figure)) > 20 and texts_inside(figure)


def test_curves_of_a_run_without_logs(tmp_path, recwarn):
    assert colours(pixels(curves.curves(tmp_path))) > 1
    assert not recwarn.list
