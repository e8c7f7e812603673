"""What a completion's fields ask of the engine: options, sequences, and the key of the answer."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import torch

from ..generation.config import GenerationConfig
from ..model import laws
from ..model.model import Model
from ..model.options import options_of
from ..model.requests import MASK_TEXT, literal, requests
from .errors import Refused
from .fields import Completion
from .limits import Limits
from .worker import Ask

AS_THEY_ARE = (
    *("max_denoising_steps", "temperature", "top_p", "top_k", "min_p"),
    "repetition_penalty",
)
"""Fields that are options of `generate`."""


@dataclass(frozen=True)
class Asked:
    """A completion, ready to be drawn.

    Args:
        asks: n sequences for each prompt, prompt by prompt.
        echoes: what `echo` puts before each choice.
        prompt_tokens: of prompts and suffixes, each once.
        seed: key of the draws: the request's, else a fresh one.
        repeatable: whether the request stated it, so that its answer may be kept.
        law: sampler and hyperschedule in words.
        request: every field that decides the answer, the defaults filled in.
    """

    asks: tuple[Ask, ...]
    echoes: tuple[str, ...]
    prompt_tokens: int
    seed: int
    repeatable: bool
    law: str
    request: dict[str, Any]


def asked(model: Model, limits: Limits, body: Completion, longest: int) -> Asked:
    """A completion as sequences.

    Raises:
        Refused: if an option is unknown, or more is asked for than is allowed.
        ValueError: if the model cannot do it.
    """
    seed = secrets.randbits(53) if body.seed is None else body.seed
    config = _config(model, limits, body, seed)
    n, prompts = body.n or 1, body.prompts
    if n * len(prompts) > limits.sequences:
        raise Refused(
            400,
            f"n: {n} choices of {len(prompts)} prompts are more than the {limits.sequences} "
            "sequences allowed",
            "n",
        )
    limits.check_text(body.suffix or "", longest)
    told = bool(body.stream_options and body.stream_options.include_provisional)
    asks: list[Ask] = []
    echoes: list[str] = []
    tokens = 0
    for prompt in prompts:
        limits.check_text(prompt, longest)
        ids, echo = _prompt(model, prompt, body.fill_mask)
        (request,) = requests(model, [ids], body.suffix or "", config)
        limits.check(config, model, len(request.ids))
        tokens += int((request.ids != model.mask_id).sum())
        for _ in range(n):
            asks.append(Ask(request, config, len(asks), told))
            echoes.append(echo if body.echo else "")
    schedule = config.schedule(model.hyperschedule)
    return Asked(
        tuple(asks),
        tuple(echoes),
        prompt_tokens=tokens,
        seed=seed,
        repeatable=body.seed is not None,
        law=f"{model.process} under {schedule}, {config.sampler}",
        request=body.model_dump(exclude={"user", "stream", "stream_options"})
        | {"max_tokens": config.max_new_tokens},  # what it is if it was left out
    )


def _config(model: Model, limits: Limits, body: Completion, seed: int) -> GenerationConfig:
    """The options of a completion; what it leaves open is the model's own."""
    stated = {name: limits.named(name, getattr(body, name)) for name in laws.BASES}
    stated |= {name: getattr(body, name) for name in AS_THEY_ARE}
    options = {name: value for name, value in stated.items() if value is not None}
    if body.temperature == 0:  # OpenAI's way to ask for the likeliest token
        options |= {"temperature": 1.0, "top_k": 1}
    if body.max_tokens is not None and body.max_tokens > limits.length:
        most = f"this server takes {limits.length}"
        raise Refused(400, f"max_tokens: {body.max_tokens} tokens, {most}", "max_tokens")
    has_gaps = body.fill_mask and any(isinstance(p, str) and MASK_TEXT in p for p in body.prompts)
    new = None if has_gaps and "max_tokens" not in body.model_fields_set else body.max_tokens
    options |= {"max_new_tokens": new or None, "max_length": None}
    if body.ignore_eos:
        options["eos_token_id"] = None
    elif model.generation_config.eos_token_id is None:
        options["eos_token_id"] = model.ends or None
    options["min_new_tokens"] = body.min_tokens or None
    options |= {"stop": body.stops, "logprobs": body.logprobs is not None, "seed": seed}
    options |= {"num_return_sequences": 1, "output_trajectory": False}
    return options_of(model, None, options)


def _prompt(model: Model, prompt: str | list[int], fill: bool) -> tuple[str | list[int], str]:
    """A prompt as the engine takes it, and the text before what is drawn."""
    if not isinstance(prompt, str):
        ids = literal(model, prompt)
        return ids, model.decode(torch.tensor(ids, dtype=torch.int64))
    if fill:
        return prompt, prompt.partition(MASK_TEXT)[0]
    return literal(model, prompt), prompt
