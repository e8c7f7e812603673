"""The bodies of requests: OpenAI's fields with OpenAI's meanings, and ours beside them.

An unknown field, a wrong type or a number out of range is an error that names the field. Fields of
OpenAI's that have no meaning here are taken at the value that changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Ids = Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=1)]
Text = Annotated[str, Field(max_length=1 << 20)]
Prompts = Text | Ids | Annotated[list[Text | Ids], Field(min_length=1)]
Named = Annotated[str, Field(min_length=1, max_length=200)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Body(BaseModel):
    """What all bodies share."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Body):
    """`include_provisional` tells of the window, too, as events of type `provisional`."""

    include_usage: bool = False
    include_provisional: bool = False


class Law(Body):
    """How tokens are drawn: None is the model's own."""

    hyperschedule: Named | None = None
    sampler: Named | None = None
    max_denoising_steps: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] = 0
    seed: Seed | None = None


class Completion(Law):
    """`POST /v1/completions`."""

    model: Text
    prompt: Prompts = ""
    suffix: Text | None = None
    fill_mask: bool = False
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    n: Annotated[int, Field(ge=1, le=1024)] | None = 1
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logprobs: Annotated[int, Field(ge=0, le=1)] | None = None
    echo: bool | None = False
    user: Text | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    ignore_eos: bool = False

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.best_of not in (None, self.n or 1):
            raise ValueError(f"best_of={self.best_of} is not supported: leave it out, or give n")
        for name in ("frequency_penalty", "presence_penalty"):
            if getattr(self, name):
                raise ValueError(f"{name} is not supported: leave it out, or give 0")
        if self.logit_bias:
            raise ValueError("logit_bias is not supported: leave it out, or give {}")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream=true")
        if self.stream and self.echo:
            raise ValueError("echo is not supported with stream=true: the prompt is known")
        if self.max_tokens == 0 and not (self.echo or self.fill_mask):
            raise ValueError("max_tokens=0 draws nothing: give >= 1, or echo=true")
        if self.max_tokens == 0 and not self.fill_mask and (self.n or 1) > 1:
            raise ValueError(f"n={self.n} with max_tokens=0: nothing is drawn, leave it out")
        if self.echo and self.max_tokens != 0 and self.logprobs is not None:
            raise ValueError("echo with logprobs needs max_tokens=0: it scores the prompt")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts one by one."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt

    @property
    def stops(self) -> list[str]:
        """The strings that end a text."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class Scoring(Body):
    """What `score` and `decide` share."""

    model: Text
    order: Literal["left to right", "all"] = "left to right"
    hyperschedule: Named | None = None
    draws: Annotated[int, Field(ge=2, le=1024)] = 16
    seed: Seed = 0


class ScoreOf(Scoring):
    """`POST /v1/score`."""

    prompt: Text | Ids = ""
    completions: Annotated[list[Text | Ids], Field(min_length=1)]
    suffix: Text | Ids = ""
    eos: bool = False


class DecideOf(Scoring):
    """`POST /v1/decide`; `lengths` are the caller's prior over numbers of tokens."""

    text: Text
    options: Annotated[list[Text], Field(min_length=2)]
    lengths: dict[str, Annotated[float, Field(ge=0)]] | None = None


def said(errors: list[Any]) -> tuple[str, str | None]:
    """The first of pydantic's errors as a sentence, and the field that it names."""
    first = errors[0]
    path = [str(part) for part in first["loc"] if part != "body"]
    shown = {"extra_forbidden": "unknown field: remove it"}
    message = shown.get(first["type"], first["msg"].removeprefix("Value error, "))
    name = path[0] if path else None
    return (f"{'.'.join(path)}: {message}" if name else message), name
