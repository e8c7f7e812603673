"""textdiff: hybrid diffusion language models, everything between GPT and diffusion.

import textdiff
model = textdiff.load("runs/quickstart")  # .to("cuda")
print(model.generate("To be", num_return_sequences=3).texts)
print(model.measure("To be, or not to be: that is the question.")[0].perplexity)

Here: load, save, export, push, measure, Model, Samples. Processes, hyperschedules and samplers are
in the modules of these names.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from .registration import register

if TYPE_CHECKING:
    from .model.folder import load, measure, save
    from .model.hub import export, push
    from .model.model import Model, Samples

__all__ = ["Model", "Samples", "export", "load", "measure", "push", "save"]

_HOME = {
    "load": "model.folder",
    "save": "model.folder",
    "measure": "model.folder",
    "export": "model.hub",
    "push": "model.hub",
    "Model": "model.model",
    "Samples": "model.model",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `import textdiff` alone costs no torch."""
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    if name == "__version__":
        return importlib.metadata.version("textdiff")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


register()
