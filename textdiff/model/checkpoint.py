"""A Lightning checkpoint of textdiff as plain values and tensors; nothing in it is ever run."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..denoiser.prediction import Prediction
from ..hyperschedule import Hyperschedule
from ..network import Architecture
from ..objective import Objective
from ..process import Process
from ..spec import build

HYPER_PARAMETERS = "hyper_parameters"


def read(path: str | Path, device: str = "cpu") -> dict[str, Any]:
    """Load a checkpoint with `weights_only`: tensors and plain values, no class of anyone's.

    Raises:
        ValueError: if it is corrupt, truncated, holds other objects, or is not textdiff's.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            if (broken := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {broken} is wrong")
        checkpoint = torch.load(path, weights_only=True, map_location=device)
    except Exception as error:  # torch raises whatever the broken bytes lead to
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({' '.join(str(error).split())[:200]}): "
            "corrupt, half-written, or a pickle of objects, which are not opened"
        ) from None
    return checkpoint if isinstance(checkpoint, dict) else {}


def network_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of a module's state dict."""
    return {
        name.removeprefix("network."): value
        for name, value in state.items()
        if name.startswith("network.")
    }


def base(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """The config of the base of an adapted model, which is not needed again."""
    network = checkpoint.get(HYPER_PARAMETERS, {}).get("network", {})
    config = network.get("init_args", {}).get("config")
    return config if isinstance(config, dict) else None


def parts(
    path: Path, classes: Sequence[type] = ()
) -> tuple[Any, Process, Hyperschedule, Prediction]:
    """The trained network (averaged weights, if there are) with what it was trained under.

    Args:
        path: the .ckpt.
        classes: the caller's own classes that may be built.

    Raises:
        ValueError: as `read`, and if this version of textdiff has no such network or process.
    """
    checkpoint = read(path)
    saved, state = checkpoint.get(HYPER_PARAMETERS), checkpoint.get("state_dict")
    if not (isinstance(saved, dict) and isinstance(state, dict)):
        raise ValueError(f"{path} is not a checkpoint that textdiff wrote")
    if (
        missing := {"network", "process", "hyperschedule", "objective", "num_tokens", "bos"}
        - saved.keys()
    ):
        raise ValueError(
            f"{path} lacks {', '.join(sorted(missing))}: written by another version of textdiff?"
        )
    process = build(saved["process"], Process, classes)
    schedule = build(saved["hyperschedule"], Hyperschedule, classes)
    objective = build(saved["objective"], Objective, classes)
    shape = build(saved["network"], Architecture, classes)
    network = shape.build(saved["num_tokens"], process.needs_time, saved["bos"] or 0)
    try:
        network.load_state_dict(network_state(state), strict=True)
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds a network of another architecture than its own settings say: {error}"
        ) from None
    return network, process, schedule, objective.prediction
