"""Where a number comes from: all that one needs to get it again."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..files import sha256
from ..model.folder import CONFIG
from ..model.model import Model
from ..model.source import Source, find
from ..model.weights import weights_sha256
from ..spec import describe

PACKAGES = ("torch", "transformers", "lightning", "datasets", "tokenizers", "numpy")


def _git_revision() -> str | None:
    """The commit of textdiff's own checkout, with a + if it is changed; None if it is installed
    from a wheel.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # another one is the repository of somebody's virtual environment
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None
        return git("describe", "--always", "--dirty=+", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return None


def software() -> dict[str, Any]:
    """Code and versions as plain values."""
    return {
        "textdiff": version("textdiff"),
        "git": _git_revision(),
        "python": platform.python_version(),
        # torch's own says which build it is, as its metadata need not
        "versions": {name: version(name) for name in PACKAGES} | {"torch": torch.__version__},
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def provenance(model: Model, run: str | Path | Source, seed: int) -> dict[str, Any]:
    """Model, weights, code and versions as plain values."""
    source = find(run)
    return {
        "run": str(source),
        "weights_sha256": weights_sha256(model, source),
        "config_sha256": sha256(source.whole / CONFIG),
        "process": describe(model.process),
        "hyperschedule": describe(model.hyperschedule),
        "prediction": str(model.prediction),
        "dtype": str(model.network.head_parameters()[0].dtype).removeprefix("torch."),
        "device": str(model.device),
        "seed": seed,
        **software(),
    }
