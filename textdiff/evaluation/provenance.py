"""Where a number comes from: all that one needs to get it again."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..hub import CONFIG, sha256, weights_sha256
from ..model import Model
from ..source import Source, find
from ..spec import describe

PACKAGES = ("torch", "transformers", "lightning", "datasets", "tokenizers", "numpy")


def _git_revision() -> str | None:
    """The commit of textdiff's own checkout, with a + if it is changed; None if it is installed from a wheel."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def software() -> dict[str, Any]:
    """Code and versions as plain values."""
    return {
        "textdiff": __version__,
        "git": _git_revision(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def provenance(model: Model, run: str | Path | Source, seed: int) -> dict[str, Any]:
    """Model, weights, code and versions as plain values."""
    source = find(run)
    return {
        "run": str(source),
        "weights_sha256": weights_sha256(model, source),
        "config_sha256": sha256(source.folder / CONFIG),
        "process": describe(model.process),
        "hyperschedule": describe(model.hyperschedule),
        "prediction": str(model.prediction),
        "dtype": str(model.network.head_parameters()[0].dtype).removeprefix("torch."),
        "device": str(model.device),
        "seed": seed,
        **software(),
    }
