"""The model folder (RUN): model.safetensors, config.json, the tokenizer; written atomically, opened
strictly.

`load` opens a checkpoint or a Hub id as well (`model.source`). Nothing that is opened is ever
run.
"""

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
from safetensors.torch import save as to_bytes
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .. import __version__
from ..denoiser.prediction import Prediction
from ..files import read_json, sha256
from ..generation.config import GenerationConfig
from ..hyperschedule import Hyperschedule
from ..process import Process
from ..spec import build, describe
from . import checkpoint, reference
from .model import Model
from .source import Source, find

WEIGHTS, TOKENIZER, CONFIG = "model.safetensors", "tokenizer.json", "config.json"
GENERATION, REFERENCE = "generation_config.json", "reference.json"
FORMAT = 1  # of the folder: raised when an older textdiff would misread it
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def weights_sha256(model: Model, source: Source) -> str:
    """SHA-256 of the model.safetensors of a source, for a checkpoint of the one that `save` would
    write.
    """
    if source.checkpoint is None:
        return sha256(source.folder / WEIGHTS)
    return hashlib.sha256(
        to_bytes(_plain(model.network.state_dict()), {"format": "pt"})
    ).hexdigest()  # type: ignore[attr-defined]


def save(model: Model, folder: str | Path, weights: Mapping[str, Tensor] | None = None) -> Path:
    """Write a model folder; files already there stay whole until the new ones are complete,
    config.json comes last.

    Args:
        model: what to save; its network must be one of `textdiff.network`.
        folder: where to; made if missing.
        weights: state dict to write instead of the network's own (the EMA).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = weights if weights is not None else model.network.state_dict()  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
        fresh = Path(temporary)
        save_file(_plain(state), fresh / WEIGHTS, {"format": "pt"})
        model.tokenizer.save_pretrained(temporary)
        (fresh / GENERATION).write_text(
            json.dumps(model.generation_config.as_dict(), indent=2) + "\n", encoding="utf-8"
        )
        network = model.network.config.to_dict()  # type: ignore[attr-defined]
        network["textdiff"] = {
            "format": FORMAT,
            "version": __version__,
            "process": describe(model.process),
            "hyperschedule": describe(model.hyperschedule),
            "prediction": str(model.prediction),
            "length": model.length,
            "data": model.data,
            "sha256": {name: sha256(fresh / name) for name in (WEIGHTS, TOKENIZER)},
        }
        (fresh / CONFIG).write_text(json.dumps(network, indent=2) + "\n", encoding="utf-8")
        for file in sorted(
            fresh.iterdir(),
            key=lambda file: (file.name == CONFIG, file.name == GENERATION, file.name),
        ):
            os.replace(file, folder / file.name)
    return folder


def _read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What config.json says of the network, and of all else; only networks of textdiff's own are
    known here.
    """
    if not (folder / CONFIG).is_file():
        raise ValueError(
            f"{str(folder)!r} holds no {CONFIG}: it is no model folder, or its training has not saved a model yet"
        )
    config = read_json(folder / CONFIG)
    kind = config.get("model_type") if isinstance(config, dict) else None
    known = (
        CONFIG_MAPPING[kind] if isinstance(kind, str) and kind in CONFIG_MAPPING else None
    )  # `textdiff.network` registers its own
    ours = (
        config.pop("textdiff", None)
        if known is not None and known.__module__.startswith("textdiff.")
        else None
    )
    if not isinstance(ours, dict):
        raise ValueError(f"{folder / CONFIG} describes no textdiff model (model_type {kind!r})")
    if ours.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"{folder / CONFIG} has format {ours['format']!r}, written by textdiff {ours.get('version')}; this is textdiff "
            f"{__version__}, which reads format {FORMAT}: install that version"
        )
    if missing := {"process", "hyperschedule", "prediction", "length", "sha256"} - ours.keys():
        raise ValueError(
            f"{folder / CONFIG} lacks {', '.join(sorted(missing))}: the folder is corrupt, write it again"
        )
    return config, ours


def _check_file(folder: Path, name: str, expected: dict[str, str]) -> None:
    path = folder / name
    if not path.is_file():
        pickles = (
            sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
            if name == WEIGHTS
            else []
        )
        seen = (
            f"; {', '.join(pickles)} may be pickles, which can run code and are not opened"
            if pickles
            else ""
        )
        raise ValueError(
            f"{str(folder)!r} holds no {name}: the folder is half-written, copy or write it again{seen}"
        )
    if sha256(path) != expected.get(name):
        raise ValueError(
            f"{path} is not the file that {CONFIG} was written for: corrupt or half-written, write it again"
        )


def _read_network(folder: Path, config: dict[str, Any]) -> PreTrainedModel:
    # The kernel is a choice of the machine, not of the model.
    shape = AutoConfig.for_model(**{**config, "attention": "sdpa"})
    network = AutoModel.from_config(shape, dtype=torch.float32, trust_remote_code=False)
    path = folder / WEIGHTS
    try:
        network.load_state_dict(load_file(path), strict=True)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}): copy or write it again") from None
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds a network of another architecture than {CONFIG} says: {error}"
        ) from None
    return network


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the tokenizer in {str(folder)!r} cannot be read ({error}): copy or write the folder again"
        ) from None


def _read_generation_config(path: Path) -> GenerationConfig:
    if not path.is_file():
        return GenerationConfig()
    try:
        return GenerationConfig.from_dict(read_json(path))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be used ({error}): correct it, or delete it for the defaults"
        ) from None


def load(source: str | Path | Source, verify: bool = False) -> Model:
    """Open a model strictly: every weight must be there, whole, and of the shape that the config
    says.

    Args:
        source: a model folder, a .ckpt in the checkpoints of its run, or a Hub id
            `user/name[@revision]`.
        verify: compute the reference bounds that `textdiff export` stored with the model again.

    Raises:
        ValueError: if it is missing, corrupt, half-written, of another kind or version, or does not
            give its reference bounds.
    """
    found = find(source)
    config, ours = _read_config(found.folder)
    _check_file(found.folder, TOKENIZER, ours["sha256"])
    if found.checkpoint is None:
        _check_file(found.folder, WEIGHTS, ours["sha256"])
        process, schedule = (
            build(ours["process"], Process),
            build(ours["hyperschedule"], Hyperschedule),
        )
        network, prediction = _read_network(found.folder, config), Prediction(ours["prediction"])
    else:
        network, process, schedule, prediction = checkpoint.parts(found.checkpoint)
    model = Model(
        network.eval(),
        process,
        schedule,
        _read_tokenizer(found.folder),
        ours["length"],
        prediction,
        ours.get("data", {}),
        _read_generation_config(found.folder / GENERATION),
    )
    if verify:
        stored = found.folder / REFERENCE
        if found.checkpoint is not None or not stored.is_file():
            raise ValueError(
                f"{found} holds no {REFERENCE} to verify it by: `textdiff export` writes one"
            )
        reference.check(model, read_json(stored), str(stored))
    return model
