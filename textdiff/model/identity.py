"""What decides a model's answers, as hashes."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from ..files import sha256
from .folder import CONFIG, TOKENIZER
from .model import Model
from .source import Source
from .weights import weights_sha256


def identity_of(model: Model, source: Source) -> dict[str, Any]:
    """Weights, configuration, tokenizer, options, version, number format and device."""
    files = {name: sha256(source.whole / name) for name in (CONFIG, TOKENIZER)}
    return {
        "weights": weights_sha256(model, source),
        **files,
        "generation": model.generation_config.as_dict(),
        "dtype": str(model.network.head_parameters()[0].dtype),
        "device": model.device.type,
        "textdiff": version("textdiff"),
    }
