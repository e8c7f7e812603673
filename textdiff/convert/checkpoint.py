"""A published checkpoint as it lies on disk: its tensors under their published names, and its
configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from yaml import YAMLError

from .pickles import load_pickle, plain

FOLDER = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
PREFIXES = ("module.", "_orig_mod.", "backbone.")
"""Of the wrappers of DataParallel, torch.compile, Lightning and Hugging Face."""
BUFFERS = ("rotary_emb.inv_freq", "sampling_eps_min", "sampling_eps_max")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by published name (without wrappers' prefixes), and the configuration.

    Args:
        path: the file of the weights.
        state: the tensors.
        config: what the authors' configuration says; `get` reads it.
        averaged: whether the weights are the moving average that the file holds beside the raw
            ones.
    """

    path: Path
    state: dict[str, Tensor]
    config: DictConfig
    averaged: bool = False

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of the dotted names that the configuration has, else the default.

        Raises:
            ValueError: if the value refers to something that is not there.
        """
        for name in names:
            try:
                value = OmegaConf.select(self.config, name)
            except OmegaConfBaseException as error:
                raise ValueError(
                    f"the configuration's {name} cannot be read ({error}): write its value into a "
                    "--config file"
                ) from None
            if value is not None:
                return value
        return default

    def number(self, *names: str, default: float | None = None) -> float:
        """As `get`, but a number; without a default it must be there.

        Raises:
            ValueError: if it is missing or no number.
        """
        value = self.get(*names, default=default)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"the configuration's {names[0]} must be a number, got {value!r}: give it with a "
                "--config file"
            ) from None

    @property
    def length(self) -> int:
        """L of the training sequences."""
        return int(self.number("model.length", "model_length", default=1024))


def open_checkpoint(source: Path, config: Path | None = None) -> Checkpoint:
    """Open a weights file, or a folder of the Hugging Face Hub.

    Args:
        source: a .safetensors, .pt, .pth, .ckpt or .bin file, or a folder with model.safetensors or
            pytorch_model.bin.
        config: the authors' configuration, JSON or YAML; default: config.json, config.yaml or
            .hydra/config.yaml beside the weights (.hydra also one folder above), or the
            hyper-parameters in a Lightning checkpoint.

    Raises:
        ValueError: if the weights or the configuration are missing, broken, or would need code of
            the file to run.
    """
    path = _weights(source)
    content = _load(path)
    state = content.get("state_dict", content.get("model", content))
    if not _tensors(state):
        raise ValueError(
            f"{path} holds no state dict of tensors: give the file that the authors' code saved, "
            "or its safetensors"
        )
    state = {_bare(name): value for name, value in state.items() if not name.startswith("noise.")}
    average = content.get("ema")
    shadow = average.get("shadow_params") if isinstance(average, dict) else None
    if shadow is not None:
        state = _averaged(path, state, shadow)
    return Checkpoint(path, state, _config(path, config, content), shadow is not None)


def _tensors(state: Any) -> bool:
    """Whether this is a state dict."""
    if not isinstance(state, dict) or not state:
        return False
    return all(isinstance(value, Tensor) for value in state.values())


def _weights(source: Path) -> Path:
    if source.is_dir():
        files = [source / name for name in FOLDER if (source / name).is_file()]
        if not files:
            raise ValueError(
                f"folder {str(source)!r} holds neither {' nor '.join(FOLDER)}: give the weights "
                "file itself"
            )
        return files[0]
    if not source.is_file():
        raise ValueError(
            f"there is no file or folder {str(source)!r}; fetch it first, e.g. hf download "
            "ORG/NAME --local-dir FOLDER"
        )
    if source.suffix not in SUFFIXES:
        raise ValueError(
            f"{source} is none of {', '.join(SUFFIXES)}: give a weights file or a folder"
        )
    return source


def _load(path: Path) -> dict[str, Any]:
    if path.suffix != ".safetensors":
        content = load_pickle(path)
        if not isinstance(content, dict):
            raise ValueError(
                f"{path} holds a {type(content).__name__}, not a state dict: save "
                "model.state_dict() and give that"
            )
        return content
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no whole safetensors file ({error}): copy or download it again"
        ) from None


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name.replace("_orig_mod.", "")


def _averaged(path: Path, state: dict[str, Tensor], shadow: Any) -> dict[str, Tensor]:
    """The moving average in place of the raw weights: a list in the order of the parameters, which
    is that of the state dict.
    """
    names = [name for name in state if name not in BUFFERS]
    shapes = [tuple(state[name].shape) for name in names]
    theirs = None
    if isinstance(shadow, list):
        theirs = [tuple(getattr(value, "shape", ())) for value in shadow]
    if theirs != shapes:
        raise ValueError(
            f"{path}: the moving average does not fit the {len(names)} weights in number, order or "
            "shape: save the averaged weights alone as a state dict"
        )
    return {**state, **dict(zip(names, shadow, strict=True))}


def _config(path: Path, given: Path | None, content: dict[str, Any]) -> DictConfig:
    beside = [path.parent / "config.json", path.parent / "config.yaml"]
    beside += [folder / ".hydra" / "config.yaml" for folder in (path.parent, path.parent.parent)]
    file = given or next((file for file in beside if file.is_file()), None)
    if file is None:
        inside = plain(content.get("hyper_parameters"))
        if isinstance(inside, dict) and isinstance(inside.get("config"), dict):
            return DictConfig(inside["config"])
        raise ValueError(
            f"{path} has no configuration beside it: give the authors' config.json or "
            ".hydra/config.yaml with --config"
        )
    try:
        config = OmegaConf.load(file)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise ValueError(
            f"the configuration {file} cannot be read: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(config, DictConfig):
        raise ValueError(f"the configuration {file} holds no mapping of names to values")
    return config
