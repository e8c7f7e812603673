"""Texts while they are drawn: `Model.stream`, and `Model.engine` for those with their own loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..generation import Engine
from ..generation import Request as Drawing
from ..generation.config import GenerationConfig
from ..generation.events import Committed as Settled
from ..generation.events import Event as Told
from ..generation.events import Provisional
from ..noise import seed_from
from .options import options_of
from .prefix import Prefix, prefix_of
from .requests import Prompt, Request, requests
from .trained import Trained

Reason = Literal["eos", "stop", "length"]


@dataclass(frozen=True)
class Committed:
    """Drawn tokens that have settled for good.

    Args:
        handle: of which sequence.
        position: where they stand in it, in the order in which they settled.
        ids: the tokens there, in 0..N-1.
        text: what this adds to the text that has no gap, from the first drawn token on: "" where
            tokens before it are still to be drawn, or only part of a character is there.
        nfe: network calls of the sequence so far.
        logprobs: of each token at the call that put it, in nats, before filters, if asked for.
    """

    handle: int
    position: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    nfe: int
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Finished:
    """A sequence that is done; no event of it follows.

    Args:
        handle: which.
        ids: [L] its tokens, given ones too; up to a drawn end of text, and without a stop string.
        text: of all of it, as `Samples.texts` has it.
        completion: of its drawn tokens, as `Samples.completions` has it.
        tail: what it adds to the texts of `Committed`.
        nfe: network calls.
        tokens: drawn tokens.
        reason: "eos" if a drawn end of text ended it, "stop" if a stop string did, else "length".
    """

    handle: int
    ids: Tensor
    text: str
    completion: str
    tail: str
    nfe: int
    tokens: int
    reason: Reason


Event = Committed | Provisional | Finished


class TextEngine:
    """Draws texts that come and go, each with its own clock.

        engine = model.engine(max_sequences=16, max_length=512)
        handle = engine.submit("To be", max_new_tokens=32, seed=1)
        while engine.busy:
            for event in engine.step():
                print(event)

    Law: each text is the one that `Model.generate` draws with the same options and number, whoever
    shares its calls (in float64; in float32 up to rounding).

    Args:
        model: what draws.
        max_sequences: how many are drawn at a time; others wait.
        max_length: the most tokens of one, given ones too.
        use_cache: keep keys and values of settled tokens; None: if the network can.
        prefill_chunk: settled rows of one sequence that are fed in one call, at most.
    """

    def __init__(
        self,
        model: Trained,
        *,
        max_sequences: int,
        max_length: int,
        use_cache: bool | None = None,
        prefill_chunk: int = 512,
    ):
        self.model = model
        self.core = Engine(
            model.network,
            model.process,
            max_sequences=max_sequences,
            max_length=max_length,
            use_cache=use_cache,
            apart=model.apart,
            prefill_chunk=prefill_chunk,
        )
        self._texts: dict[int, tuple[Prefix, bool]] = {}  # and whether logprobs are told

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self.core.busy

    @property
    def waiting(self) -> int:
        """How many texts wait for a place."""
        return self.core.waiting

    @property
    def running(self) -> int:
        """How many have one."""
        return self.core.running

    def submit(
        self,
        prompt: Prompt | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        suffix: str = "",
        number: int = 0,
        provisional: bool = False,
        **options: Any,
    ) -> int:
        """Queue a text; it enters as soon as a place is free.

        Args:
            prompt: one prompt, as `Model.generate` takes it.
            generation_config: how to draw; default: the model's own.
            suffix: what comes after the drawn tokens.
            number: of the sample: draws of another number are independent.
            provisional: whether events tell of the window after every call.
            options: options of `GenerationConfig` that replace those of the config.

        Returns:
            Its handle, which every event of it names.

        Raises:
            ValueError: as `Model.generate`; or it is longer than `max_length`, or several samples
                or a trajectory are asked for.
        """
        request, config = _single(self.model, prompt, generation_config, suffix, options=options)
        return self.put(request, config, number=number, provisional=provisional)

    def put(
        self,
        request: Request,
        config: GenerationConfig,
        *,
        number: int = 0,
        provisional: bool = False,
    ) -> int:
        """Queue a request that was made beforehand (`requests`), under options that were checked
        (`options_of`); see `submit`.
        """
        schedule = config.schedule(self.model.hyperschedule)
        ids, free = request.ids, request.ids == self.model.mask_id
        self.model.warn_if_unseen(schedule, len(ids))
        begin = int(free.long().argmax())
        handle = self.core.submit(
            Drawing(
                ids,
                schedule,
                config.sampler,
                seed=seed_from(config.seed),
                example=number,
                filter=config.filter(begin),
                eos=config.ends,
                provisional=provisional,
                confidence=provisional or config.logprobs,
            )
        )
        self._texts[handle] = (prefix_of(self.model, request, config), config.logprobs)
        return handle

    def cancel(self, handle: int) -> bool:
        """Drop a text, of which no event follows; whether there was one of this handle."""
        self._texts.pop(handle, None)
        return self.core.cancel(handle)

    def step(self) -> list[Event]:
        """Take every text one stage further, with at most one network call each.

        Returns:
            What has happened, in order.
        """
        events: list[Event] = []
        for told in self.core.step():
            if told.handle in self._texts:  # not of one that a stop string has ended
                events += self._events(told, *self._texts[told.handle])
        return events

    def _events(self, told: Told, prefix: Prefix, logprobs: bool) -> Iterator[Event]:
        """What one event of the core says of a text."""
        if isinstance(told, Provisional):
            yield told
        elif isinstance(told, Settled):
            new = prefix.put(told.position, told.ids)
            if new or prefix.cut is None:
                yield committed(told, new, logprobs)
            if prefix.cut is not None:
                self.core.cancel(told.handle)
                yield self._finished(told.handle, prefix, told.nfe, "stop")
        else:
            yield self._finished(told.handle, prefix, told.nfe, told.reason, told.ids)

    def _finished(
        self, handle: int, prefix: Prefix, nfe: int, reason: Reason, ids: Tensor | None = None
    ) -> Finished:
        del self._texts[handle]
        whole = torch.tensor(prefix.ids) if ids is None else ids
        told = prefix.told_as(whole, self.model.mask_id)
        tail = prefix.say(prefix.text(min(len(whole), prefix.last))) if prefix.cut is None else ""
        drawn = sum(prefix.free[: len(told.ids)])
        return Finished(
            handle,
            told.ids,
            told.text,
            completion=told.completion,
            tail=tail,
            nfe=nfe,
            tokens=drawn,
            reason=reason,
        )


def committed(told: Settled, text: str, logprobs: bool) -> Committed:
    """Tokens that have settled, with the text that is new."""
    sure = None
    if logprobs:
        sure = tuple(torch.tensor(told.confidence, dtype=torch.float64).log().tolist())
    return Committed(told.handle, told.position, told.ids, text=text, nfe=told.nfe, logprobs=sure)


def stream(
    model: Trained,
    prompt: Prompt | None,
    generation_config: GenerationConfig | None,
    *,
    suffix: str,
    provisional: bool,
    **options: Any,
) -> Iterator[Event]:
    """The events of a single text; see `Model.stream`."""
    request, config = _single(model, prompt, generation_config, suffix, options=options)
    engine = TextEngine(
        model,
        max_sequences=1,
        max_length=len(request.ids),
        use_cache=None if config.use_cache else False,
    )
    engine.put(request, config, provisional=provisional)
    return _to_the_end(engine)


def _single(
    model: Trained,
    prompt: Prompt | None,
    generation_config: GenerationConfig | None,
    suffix: str,
    *,
    options: dict[str, Any],
) -> tuple[Request, GenerationConfig]:
    """The one text that is asked for, and how to draw it."""
    config = options_of(model, generation_config, options)
    if config.num_return_sequences > 1 or config.output_trajectory:
        raise ValueError(
            "num_return_sequences and output_trajectory are for generate: submit each sample "
            "with a number of its own, and take provisional=True"
        )
    # no ids at all are one empty prompt here, where there are never several
    one: Any = [[]] if isinstance(prompt, list | tuple) and not prompt else prompt
    asked = requests(model, one, suffix, config)
    if len(asked) != 1:
        raise ValueError(f"submit takes one prompt, not {len(asked)}: submit each")
    return asked[0], config


def _to_the_end(engine: TextEngine) -> Iterator[Event]:
    while engine.busy:
        yield from engine.step()
