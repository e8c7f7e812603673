"""The options of `Model.generate`, with the names that transformers gives them; stored with the
model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

from ..hyperschedule import Hyperschedule
from ..samplers import Ancestral, Sampler, filters
from ..spec import build, describe, parse
from .plain import plain

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
        min_new_tokens: no text ends before so many tokens were drawn.
        repetition_penalty: multiplies the log-probability of tokens that stand in the text already,
            > 0; for noise that masks only, where what stands there has been drawn.
        logits_processor: a function, or several, (logits [R, N], `samplers.Where`) -> logits, on
            the distribution that is drawn, before the filters below it. Like every filter it holds
            for text that has settled; noise may show any token before.
        eos_token_id: a text ends where this token, or one of these, was drawn, and costs nothing
            from then on; None: texts have full length.
        stop: a text ends before the first of these strings in what was drawn.
        logprobs: keep the log-probability of each drawn token at the call that put it, before
            filters: of that token given what that call saw, so their sum is no likelihood of the
            text unless it was drawn one token a call.
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
    min_new_tokens: int | None = None
    repetition_penalty: float = 1.0
    logits_processor: filters.Filter | tuple[filters.Filter, ...] = ()
    stop: tuple[str, ...] = ()
    logprobs: bool = False
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
            object.__setattr__(self, field_.name, plain(field_.name, getattr(self, field_.name)))
        if self.max_new_tokens is not None and self.max_length is not None:
            raise ValueError(
                f"max_new_tokens={self.max_new_tokens} and max_length={self.max_length} both say "
                "how long a text is: give one"
            )
        if self.min_new_tokens is not None and self.eos_token_id is None and not self.stop:
            raise ValueError(
                f"min_new_tokens={self.min_new_tokens} needs eos_token_id or stop: without them no "
                "text ends early"
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

    @property
    def looks_around(self) -> bool:
        """Whether a filter depends on where a token stands, or on the tokens around it."""
        return bool(self.logits_processor or self.min_new_tokens or self.repetition_penalty != 1)

    def filter(self, begin: int = 0) -> filters.Filter:
        """The filters on the logits of the distribution that is drawn, in transformers' order; the
        same object for the same values.

        Args:
            begin: the place of the first drawn token.
        """
        early = (begin + self.min_new_tokens, self.ends) if self.min_new_tokens else None
        shape = (self.top_k, self.top_p, self.min_p)
        hooks = (self.repetition_penalty, self.logits_processor, self.suppress_tokens)
        return _filter(hooks, early, self.temperature, shape)

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
        if self.logits_processor:
            raise ValueError("logits_processor cannot be written down: give it to generate")
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
        if "stop_strings" in values:
            values["stop"] = values.pop("stop_strings")
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


@lru_cache(maxsize=256)
def _filter(
    hooks: tuple[Any, ...],
    early: tuple[int, tuple[int, ...]] | None,
    temperature: float,
    shape: tuple[Any, ...],
) -> filters.Filter:
    penalty, processors, suppressed = hooks
    top_k, top_p, min_p = shape
    chosen = [filters.repetition_penalty(penalty), *processors]
    if early is not None:
        chosen.append(filters.banned_before(early[0], *early[1]))
    if suppressed:
        chosen.append(filters.banned(*suppressed))
    chosen.append(filters.temperature(temperature))
    if top_k is not None:
        chosen.append(filters.top_k(top_k))
    if top_p is not None:
        chosen.append(filters.top_p(top_p))
    if min_p is not None:
        chosen.append(filters.min_p(min_p))
    return filters.compose(*chosen)
