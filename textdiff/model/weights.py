"""The weights of a network as a file: model.safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from safetensors.torch import save as to_bytes
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedModel

from ..files import sha256
from ..network.base import own_arguments
from .source import Source
from .trained import Trained

WEIGHTS = "model.safetensors"
COMPILED = "_orig_mod."  # what torch.compile puts in front of names


def stored(network: Any, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights of a network under the names that `read` asks for.

    Args:
        network: one of `textdiff.network`, also if it or its blocks are compiled.
        weights: a state dict instead of its own.

    Raises:
        ValueError: if `read` would refuse them: the class of the network is not registered, or
            adapters of another library are in it.
    """
    if network.config.model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{type(network).__name__} is a network that AutoModel does not know: register it, "
            "AutoConfig.register(model_type, its config) and AutoModel.register(its config, it)"
        )
    state = network.state_dict() if weights is None else weights
    plain = {name.replace(COMPILED, ""): value for name, value in state.items()}
    with torch.device("meta"):
        wanted = untrained(network.config.to_dict()).state_dict()
    others = sorted(plain.keys() ^ wanted.keys())
    others += [name for name in wanted if name in plain and plain[name].shape != wanted[name].shape]
    if others:
        raise ValueError(
            f"the network's weights are not those that its config says ({', '.join(others[:3])}): "
            "if another library put adapters into it, merge them first (PEFT: "
            "network.merge_and_unload())"
        )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in plain.items()}


def write(state: dict[str, Tensor], path: Path) -> None:
    """Write safetensors, readable for whom the umask says: safetensors itself shuts others out.

    Raises:
        OSError: if the disk is full, or it cannot be written for another reason.
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(state, path, {"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from None
    path.chmod(mode)


def weights_sha256(model: Trained, source: Source) -> str:
    """SHA-256 of the model.safetensors of a source, for a checkpoint of the one that `save` would
    write.
    """
    if source.checkpoint is None:
        return sha256(source.whole / WEIGHTS)
    return hashlib.sha256(to_bytes(stored(model.network), {"format": "pt"})).hexdigest()


def untrained(config: dict[str, Any]) -> PreTrainedModel:
    """The network that a config.json describes, without its weights; only the arguments of its own
    config class reach transformers, which would fetch code for others (`attn_implementation`).
    """
    made = CONFIG_MAPPING[config["model_type"]]
    values = own_arguments(made, config)
    # The kernel is a choice of the machine, not of the model.
    shape = made(**values | {"attention": "sdpa"})
    network: PreTrainedModel = AutoModel.from_config(
        shape, dtype=torch.float32, trust_remote_code=False
    )
    return network


def read(path: Path, config: dict[str, Any]) -> PreTrainedModel:
    """The network that a config.json describes, with the weights in a file.

    Raises:
        ValueError: if the file cannot be read, or holds other weights.
    """
    network = untrained(config)
    try:
        network.load_state_dict(load_file(path), strict=True)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}): copy or write it again") from None
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds a network of another architecture than config.json says: {error}"
        ) from None
    return network
