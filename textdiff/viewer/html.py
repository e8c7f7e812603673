"""Trajectories as one HTML page that needs nothing else: no network, no server."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from torch import Tensor

from ..generation.samples import Trajectory
from .states import TokenState, states


def page(
    trajectories: Sequence[Trajectory],
    decode: Callable[[int], str],
    num_tokens: int,
    title: str,
    settings: Mapping[str, str],
) -> str:
    """The text of a page on which every call of every sample can be seen.

    Args:
        trajectories: the samples, at least one.
        decode: the text of one token id in 0..N-1; half a character may come as U+FFFD.
        num_tokens: N; id N is MASK.
        title: heading of the page.
        settings: what the samples were drawn with, shown below the heading.

    Raises:
        ValueError: if there is no trajectory, or one is not whole.
    """
    if not trajectories:
        raise ValueError("there is no trajectory to show: record at least one sample")
    samples = [_sample(trajectory, num_tokens) for trajectory in trajectories]
    ids = sorted({run[1] for sample in samples for position in sample["runs"] for run in position})
    piece = {token: number for number, token in enumerate(ids)}
    for sample in samples:
        sample["runs"] = [
            [value for n, token, *rest in runs for value in (n, piece[token], *rest)]
            for runs in sample["runs"]
        ]
    data = {
        "settings": [[str(name), str(value)] for name, value in settings.items()],
        "states": [[state.name.lower(), state.label] for state in TokenState],
        "ids": ids,
        "pieces": [None if token == num_tokens else decode(token) for token in ids],
        "samples": samples,
    }
    parts = {
        "title": html.escape(title),
        "data": _json(data),
        "style": _file("page.css"),
        "script": _file("page.js"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _file("page.html"))


def _sample(trajectory: Trajectory, num_tokens: int) -> dict[str, Any]:
    """Per position its runs (first frame, id, state, confidence or 0): a run ends where something
    happens.
    """
    cells = states(trajectory, num_tokens).cpu()
    ids = trajectory.ids.cpu()
    confidence = trajectory.confidence.float().cpu().nan_to_num(0.0)
    starts = confidence > 0
    starts[0] = True
    starts[1:] |= (ids[1:] != ids[:-1]) | (cells[1:] != cells[:-1])
    return {
        "frames": len(ids),
        "runs": [
            _runs(starts[:, i], ids[:, i], cells[:, i], confidence[:, i])
            for i in range(ids.shape[1])
        ],
    }


def _runs(
    starts: Tensor, ids: Tensor, cells: Tensor, confidence: Tensor
) -> list[tuple[int, int, int, float]]:
    frames = starts.nonzero().flatten()
    chances = [float(f"{chance:.3g}") for chance in confidence[frames].tolist()]
    short = [int(chance) if chance in (0, 1) else chance for chance in chances]
    return list(
        zip(frames.tolist(), ids[frames].tolist(), cells[frames].tolist(), short, strict=True)
    )


def _json(data: Any) -> str:
    """JSON that may stand inside <script>: ASCII, and nothing that HTML could read as markup."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
