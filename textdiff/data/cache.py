"""Packed splits on disk, so that a corpus is tokenised once; read back memory-mapped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..files import new_folder
from .packing import Packed

FORMAT = 2  # of the columns: raised when rows packed before would be read wrongly


def cached(folder: str | None, key: Mapping[str, Any], make: Callable[[], Packed]) -> Packed:
    """What `make` gives, from `folder` if it is stored there under the same plain values `key`;
    None stores nothing.
    """
    if folder is None:
        return make()
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True, indent=1)
    place = Path(folder).expanduser() / hashlib.sha256(text.encode()).hexdigest()[:32]
    if not place.exists():
        _store(make(), text, place)
    arrays = {f.name: place / f"{f.name}.npy" for f in fields(Packed)}
    return Packed(
        **{name: np.load(path, mmap_mode="r") for name, path in arrays.items() if path.exists()}
    )


def _store(packed: Packed, text: str, place: Path) -> None:
    try:
        with new_folder(place) as aside:
            for field in fields(Packed):
                if (array := getattr(packed, field.name)) is not None:
                    np.save(aside / f"{field.name}.npy", array)
            (aside / "key.json").write_text(text)
    except OSError:
        # Another process was first; its rows are the same. Anything else is an error.
        if not place.exists():
            raise
