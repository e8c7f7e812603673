"""The values of generation options as Python has them: numbers of numpy and torch, and lists, are
taken.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch

_COUNTS = (
    "max_new_tokens",
    "max_length",
    "num_return_sequences",
    "max_denoising_steps",
    "batch_size",
    "min_new_tokens",
)
_NUMBERS = ("temperature", "top_p", "min_p", "repetition_penalty")
_NEEDED = ("temperature", "repetition_penalty")
_FLAGS = ("use_cache", "output_trajectory", "logprobs")


def plain(name: str, value: Any) -> Any:
    """The value of an option as Python has it.

    Raises:
        ValueError: if it is no value for this option.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if name == "logits_processor":
        return _functions(value)
    if name == "stop":
        return _texts(value)
    if name == "suppress_tokens":
        return _ids(name, [] if value is None else value)
    if name == "eos_token_id" and isinstance(value, list | tuple | set):
        ids = _ids(name, value)
        return ids[0] if len(ids) == 1 else ids or None
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if name in _COUNTS and value is not None and not (is_whole and value >= 1):
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    if name in ("top_k", "eos_token_id") and value is not None and not is_whole:
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if name == "seed" and not is_whole and not isinstance(value, torch.Generator):
        raise ValueError(f"seed must be an integer or a torch.Generator, got {value!r}")
    if name in _FLAGS and not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if name in _NUMBERS and not is_number and (value is not None or name in _NEEDED):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return int(value) if is_whole and name not in _NUMBERS else value


def _functions(value: Any) -> tuple[Any, ...]:
    """Functions on logits in a row."""
    several = tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)
    if not all(callable(one) for one in several):
        raise ValueError(f"logits_processor must be functions of logits and where, got {value!r}")
    return several


def _texts(value: Any) -> tuple[str, ...]:
    """Strings in a row."""
    several = (value,) if isinstance(value, str | int) else tuple(value or ())
    if not all(isinstance(one, str) and one for one in several):
        raise ValueError(f"stop must be strings that are not empty, got {value!r}")
    return several


def _ids(name: str, values: Any) -> tuple[int, ...]:
    """Token ids in a row."""
    try:
        ids = tuple(values)
    except TypeError:
        ids = (values,)
    if not all(isinstance(one, Integral) and not isinstance(one, bool) for one in ids):
        raise ValueError(f"{name} must be token ids, got {values!r}")
    return tuple(int(one) for one in ids)
