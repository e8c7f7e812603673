"""The model folder (RUN): model.safetensors, config.json, the tokenizer; written atomically, opened strictly."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from . import __version__
from .generation_config import GenerationConfig
from .hyperschedule import Hyperschedule
from .model import Model
from .prediction import Prediction
from .process import Process
from .spec import build, describe

WEIGHTS, TOKENIZER, CONFIG, GENERATION = "model.safetensors", "tokenizer.json", "config.json", "generation_config.json"


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON through a temporary file beside it, so that the file is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(model: Model, folder: str | Path, weights: Mapping[str, Tensor] | None = None) -> Path:
    """Write a model folder; files already there stay whole until the new ones are complete, config.json comes last.

    Args:
        model: what to save; its network must be one of `textdiff.network`.
        folder: where to; made if missing.
        weights: state dict to write instead of the network's own (the EMA).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = dict(weights if weights is not None else model.network.state_dict())  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
        fresh = Path(temporary)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, fresh / WEIGHTS, {"format": "pt"})
        model.tokenizer.save_pretrained(temporary)
        write_json(fresh / GENERATION, model.generation_config.as_dict())
        network = model.network.config.to_dict()  # type: ignore[attr-defined]
        network["textdiff"] = {
            "version": __version__,
            "process": describe(model.process),
            "hyperschedule": describe(model.hyperschedule),
            "prediction": str(model.prediction),
            "length": model.length,
            "data": model.data,
            "sha256": {name: sha256(fresh / name) for name in (WEIGHTS, TOKENIZER)},
        }
        (fresh / CONFIG).write_text(json.dumps(network, indent=2) + "\n", encoding="utf-8")
        for file in sorted(fresh.iterdir(), key=lambda file: (file.name == CONFIG, file.name)):
            os.replace(file, folder / file.name)
    return folder


def _read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if not folder.is_dir():
        raise ValueError(f"there is no model folder {str(folder)!r}: give the folder that `textdiff fit` wrote")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{str(folder)!r} holds no {CONFIG}: it is no model folder, or its training has not saved a model yet")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / CONFIG} is not valid JSON ({error}): the folder is corrupt, write it again") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    known = isinstance(kind, str) and kind in CONFIG_MAPPING  # `textdiff.network` registers its own
    ours = config.pop("textdiff", None) if known and CONFIG_MAPPING[kind].__module__.startswith("textdiff.") else None
    if not isinstance(ours, dict):
        raise ValueError(f"{folder / CONFIG} describes no textdiff model (model_type {kind!r})")
    if missing := {"process", "hyperschedule", "prediction", "length", "sha256"} - ours.keys():
        raise ValueError(f"{folder / CONFIG} lacks {', '.join(sorted(missing))}: the folder is corrupt, write it again")
    return config, ours


def _check_files(folder: Path, expected: dict[str, str]) -> None:
    for name in (WEIGHTS, TOKENIZER):
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{str(folder)!r} holds no {name}: the folder is half-written, copy or write it again")
        if sha256(path) != expected.get(name):
            raise ValueError(f"{path} is not the file that {CONFIG} was written for: corrupt or half-written, write it again")


def _read_weights(path: Path, network: PreTrainedModel) -> None:
    try:
        state = load_file(path)
        network.load_state_dict(state, strict=True)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}): copy or write it again") from None
    except RuntimeError as error:
        raise ValueError(f"{path} holds a network of another architecture than {CONFIG} says: {error}") from None


def _read_generation_config(path: Path) -> GenerationConfig:
    if not path.is_file():
        return GenerationConfig()
    try:
        return GenerationConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be used ({error}): correct it, or delete it for the defaults") from None


def load(folder: str | Path) -> Model:
    """Open a model folder strictly: every weight must be there, whole, and of the shape that the config says.

    Raises:
        ValueError: if the folder is missing, corrupt, half-written, or of another kind.
    """
    folder = Path(folder)
    config, ours = _read_config(folder)
    _check_files(folder, ours["sha256"])
    # The kernel is a choice of the machine, not of the model.
    shape = AutoConfig.for_model(**{**config, "attention": "sdpa"})
    network = AutoModel.from_config(shape, dtype=torch.float32, trust_remote_code=False)
    _read_weights(folder / WEIGHTS, network)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"the tokenizer in {str(folder)!r} cannot be read ({error}): copy or write the folder again") from None
    return Model(
        network=network.eval(),
        process=build(ours["process"], Process),
        hyperschedule=build(ours["hyperschedule"], Hyperschedule),
        tokenizer=tokenizer,
        length=ours["length"],
        prediction=Prediction(ours["prediction"]),
        data=ours.get("data", {}),
        generation_config=_read_generation_config(folder / GENERATION),
    )
