"""The options of `Model.generate`, with the names that transformers gives them; stored with the
model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
        eos_token_id: a text ends where this token was drawn, and costs nothing from then on; None:
            texts have full length.
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
    eos_token_id: int | None = None
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
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if self.max_new_tokens is not None and self.max_length is not None:
            raise ValueError(
                f"max_new_tokens={self.max_new_tokens} and max_length={self.max_length} both say "
                "how long a text is: give one"
            )
        object.__setattr__(self, "suppress_tokens", tuple(self.suppress_tokens))
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
