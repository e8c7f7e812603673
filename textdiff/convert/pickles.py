"""Tensors out of a torch pickle without running any code in it."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

LIBRARIES = (
    "omegaconf",
    "lightning",
    "pytorch_lightning",
    "transformers",
    "tokenizers",
    "typing",
    "collections",
    "numpy",
    "pathlib",
)
"""Packages whose objects training code leaves beside the tensors."""
TYPES = {
    f"builtins.{kind.__name__}"
    for kind in (bool, bytes, dict, float, int, list, object, set, str, tuple)
}
REMEDY = (
    "If you trust the file, open it in the environment that wrote it, and save its tensors with "
    "safetensors.torch.save_file"
)
_UNREADABLE = (pickle.UnpicklingError, EOFError, OSError, struct.error, RuntimeError)
# torch's reader on bytes that are none of its own
_SPOILT = (ArithmeticError, AttributeError, LookupError, TypeError, AssertionError, ValueError)
_BROKEN = (*_UNREADABLE, *_SPOILT)


class Inert:
    """Stands in for any class or function of those packages: it keeps what it is given and does
    nothing.
    """

    state: Any = None

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _zipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def load_pickle(path: Path) -> Any:
    """The content of a `torch.save` file on the CPU; objects of other libraries come as `Inert`,
    which runs nothing.

    Raises:
        ValueError: if the file is broken, or names anything else.
    """
    zipped = _zipped(path)
    # of the old format torch does not list the names, and itself refuses all that it does not know
    try:
        names = sorted(get_unsafe_globals_in_checkpoint(path)) if zipped else []
    except _BROKEN as error:
        raise ValueError(
            f"{path} is no whole torch checkpoint ({error}): copy or download it again"
        ) from None
    foreign = [
        name for name in names if name.partition(".")[0] not in LIBRARIES and name not in TYPES
    ]
    if foreign:
        raise ValueError(
            f"{path} is a pickle that names {', '.join(foreign)}; code named in a file is never "
            f"run. {REMEDY}"
        )
    try:
        with safe_globals([(Inert, name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except _BROKEN as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} cannot be read without running its code, or is broken ({reason}). {REMEDY}"
        ) from None


def plain(value: Any) -> Any:
    """An OmegaConf tree of `Inert` nodes as dicts, lists and values."""
    if isinstance(value, Inert) and isinstance(value.state, dict):
        return plain(value.state.get("_content", value.state.get("_val")))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, Inert) else value
