"""The options of `Model.generate`, with the names that transformers gives them; stored with the
model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any

import torch

from ..hyperschedule import Hyperschedule
from ..samplers import Ancestral, Sampler, filters
from ..spec import build, describe, parse

_COUNTS = (
    "max_new_tokens",
    "max_length",
    "num_return_sequences",
    "max_denoising_steps",
    "batch_size",
)
_NUMBERS = ("temperature", "top_p", "min_p")
_FLAGS = ("use_cache", "output_trajectory")
_OF_OTHERS = ("transformers_version", "bos_token_id", "pad_token_id", "do_sample")
"""Options of transformers' config that change nothing here: what is drawn is always sampled."""


@dataclass(frozen=True)
class GenerationConfig:
    """How to draw; every option has the default that draws exactly from the model of the reported
    bound.

        >>> config = GenerationConfig(max_new_tokens=32, temperature=0.8)
        >>> config.but(sampler="ACS(rate=1.0)").sampler
        ACS(rate=1.0)
        >>> config.as_dict()
        {'max_new_tokens': 32, 'temperature': 0.8}

    Args:
        max_new_tokens: tokens to draw between a prompt and its suffix.
        max_length: instead, tokens of the whole sequence; default: the training length.
        num_return_sequences: samples per prompt.
        hyperschedule: which position is at which noise level at which call, or how it is written on
            the command line; default: that of training.
        max_denoising_steps: T, the calls of a window: replaces the levels of the hyperschedule
            (flat and block).
        sampler: how a token takes a step, or how it is written on the command line.
        temperature: divides the logits of the distribution that is drawn, > 0.
        top_k: draw among the k likeliest tokens only, >= 1.
        top_p: draw among the fewest likeliest tokens that have this probability together, in (0,
            1].
        min_p: draw among tokens at least this times as likely as the likeliest, in [0, 1].
        suppress_tokens: ids that are never drawn.
        eos_token_id: a text ends where this token, or one of these, was drawn, and costs nothing
            from then on; None: texts have full length.
        seed: key of all draws; a sample depends on it, its prompt and its number, not on the batch
            it sits in.
        batch_size: sequences per network call; changes no result.
        use_cache: keep keys and values of settled tokens; changes no result.
        output_trajectory: keep the state after every network call, with confidences.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    num_return_sequences: int = 1
    hyperschedule: Hyperschedule | None = None
    max_denoising_steps: int | None = None
    sampler: Sampler = field(default_factory=Ancestral)
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    suppress_tokens: tuple[int, ...] = ()
    eos_token_id: int | tuple[int, ...] | None = None
    seed: int | torch.Generator = 0
    batch_size: int = 16
    use_cache: bool = True
    output_trajectory: bool = False

    def __post_init__(self) -> None:
        for name, base in (("sampler", Sampler), ("hyperschedule", Hyperschedule)):
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, parse(value, base))
            elif not isinstance(value, base) and not (value is None and name == "hyperschedule"):
                raise ValueError(
                    f"{name} must be a {base.__name__}, or how one is written on the command line, "
                    f"got {value!r}"
                )
        for field_ in dataclasses.fields(self):
            object.__setattr__(self, field_.name, _plain(field_.name, getattr(self, field_.name)))
        if self.max_new_tokens is not None and self.max_length is not None:
            raise ValueError(
                f"max_new_tokens={self.max_new_tokens} and max_length={self.max_length} both say "
                "how long a text is: give one"
            )
        self.filter()  # refuses values out of range

    def but(self, **options: Any) -> GenerationConfig:
        """This config with other options; ValueError for one that does not exist."""
        known = {f.name for f in dataclasses.fields(self)}
        if unknown := sorted(set(options) - known):
            raise ValueError(
                f"generate takes no option {', '.join(unknown)}; it takes "
                f"{', '.join(sorted(known))}"
            )
        if options.get("hyperschedule") is not None and "max_denoising_steps" not in options:
            options["max_denoising_steps"] = None
        if options.get("max_length") is not None and options.get("max_new_tokens") is None:
            options["max_new_tokens"] = None
        if options.get("max_new_tokens") is not None and options.get("max_length") is None:
            options["max_length"] = None
        return replace(self, **options)

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a text; none where texts have full length."""
        if self.eos_token_id is None:
            return ()
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)

    def filter(self) -> filters.Filter:
        """The filters on the logits of the distribution that is drawn, in transformers' order."""
        chosen = [filters.temperature(self.temperature)]
        if self.suppress_tokens:
            chosen.insert(0, filters.banned(*self.suppress_tokens))
        if self.top_k is not None:
            chosen.append(filters.top_k(self.top_k))
        if self.top_p is not None:
            chosen.append(filters.top_p(self.top_p))
        if self.min_p is not None:
            chosen.append(filters.min_p(self.min_p))
        return filters.compose(*chosen)

    def schedule(self, trained: Hyperschedule) -> Hyperschedule:
        """The hyperschedule to draw under; ValueError if it has no levels to replace."""
        chosen = self.hyperschedule or trained
        if self.max_denoising_steps is None:
            return chosen
        if "levels" not in {f.name for f in dataclasses.fields(chosen)}:
            raise ValueError(
                f"max_denoising_steps={self.max_denoising_steps} sets the levels of a window, "
                f"which {chosen} derives"
            )
        return replace(chosen, levels=self.max_denoising_steps)  # type: ignore[call-arg]

    def as_dict(self) -> dict[str, Any]:
        """What differs from the defaults, as plain values for generation_config.json."""
        if isinstance(self.seed, torch.Generator):
            raise ValueError("a torch.Generator cannot be written down: give an integer seed")
        default = GenerationConfig()
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            name: describe(value)
            for name, value in values.items()
            if value != getattr(default, name)
        }

    @classmethod
    def of(cls, config: Any) -> GenerationConfig:
        """This config, or what one of transformers says.

        Raises:
            ValueError: if it is neither, or asks for what `generate` does not do.
        """
        if isinstance(config, cls):
            return config
        if not hasattr(config, "to_diff_dict"):
            raise ValueError(
                "generation_config must be a GenerationConfig of textdiff or transformers, got "
                f"{config!r}: give options by name (temperature=0.8)"
            )
        values = config.to_diff_dict()
        if values.get("do_sample") is False:
            raise ValueError("do_sample=False: generate always draws; top_k=1 takes the likeliest")
        if values.get("max_new_tokens") is not None:
            values.pop("max_length", None)
        return cls().but(**{name: values[name] for name in values if name not in _OF_OTHERS})

    @classmethod
    def from_dict(cls, values: dict[str, Any], classes: Sequence[type] = ()) -> GenerationConfig:
        """The config that `as_dict` described, built with the caller's own `classes`, too.

        Raises:
            ValueError: for an unknown option or class.
        """
        kinds = {"hyperschedule": Hyperschedule, "sampler": Sampler}
        objects = {
            name: build(values[name], base, classes)
            for name, base in kinds.items()
            if name in values
        }
        return cls().but(**values | objects)


def _plain(name: str, value: Any) -> Any:
    """The value of an option as Python has it: numbers of numpy and torch, and lists, are taken.

    Raises:
        ValueError: if it is no value for this option.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
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
    if name in _NUMBERS and not is_number and (value is not None or name == "temperature"):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return int(value) if is_whole and name not in _NUMBERS else value


def _ids(name: str, values: Any) -> tuple[int, ...]:
    """Token ids in a row."""
    try:
        ids = tuple(values)
    except TypeError:
        ids = (values,)
    if not all(isinstance(one, Integral) and not isinstance(one, bool) for one in ids):
        raise ValueError(f"{name} must be token ids, got {values!r}")
    return tuple(int(one) for one in ids)
