"""What a completion is told as, in OpenAI's shapes: one JSON, or chunks of a stream."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any

from ..model.streaming import Committed, Event, Finished

REASONS = {"eos": "stop", "stop": "stop", "length": "length"}
"""Why a text ended -> OpenAI's word."""


@dataclass
class Choice:
    """A drawn text, as far as it has come.

    Args:
        text: what has settled, without a gap.
        reason: why it ended, "stop" or "length"; None while it goes on.
        tokens: drawn tokens that have settled.
        nfe: network calls.
        drawn: position, text and log-probability of each drawn token, if they were asked for.
    """

    text: str = ""
    reason: str | None = None
    tokens: int = 0
    nfe: int = 0
    drawn: list[tuple[int, str, float | None]] | None = None

    def take(self, event: Event, text_of: Callable[[int], str]) -> str:
        """Go on with an event of the sequence; the text that is new."""
        self.nfe = event.nfe
        if isinstance(event, Committed):
            self.tokens += len(event.ids)
            self.text += event.text
            if event.logprobs is not None:
                self.drawn = (self.drawn or []) + placed(event, text_of)
            return event.text
        if isinstance(event, Finished):
            self.tokens, self.reason = event.tokens, REASONS[event.reason]
            self.text += event.tail
            return event.tail
        return ""


def placed(event: Committed, text_of: Callable[[int], str]) -> list[tuple[int, str, float | None]]:
    """Position, text and log-probability of the tokens of an event."""
    found = zip(event.position, event.ids, event.logprobs or (), strict=True)
    return [
        (place, text_of(token), logprob if math.isfinite(logprob) else None)
        for place, token, logprob in found
    ]


def logprobs(
    drawn: Sequence[tuple[int, str, float | None]] | None, offset: int = 0
) -> dict[str, Any] | None:
    """Log-probabilities as OpenAI has them, in the order of the text, which begins at `offset`."""
    if drawn is None:
        return None
    in_order = sorted(drawn)
    tokens = [text for _, text, _ in in_order]
    return {
        "tokens": tokens,
        "token_logprobs": [logprob for _, _, logprob in in_order],
        "top_logprobs": None,
        "text_offset": list(accumulate(map(len, tokens), initial=offset))[:-1],
    }


@dataclass
class Answer:
    """All choices of a request; what a cache keeps.

    Args:
        choices: n for each prompt, prompt by prompt.
        prompt_tokens: of all prompts and suffixes, each once.
        seed: key of the draws.
        law: the sampler and hyperschedule that drew it.
    """

    choices: list[Choice]
    prompt_tokens: int
    seed: int
    law: str
    cached: bool = field(default=False, compare=False)

    def usage(self) -> dict[str, Any]:
        """Tokens, as OpenAI counts them, and network calls."""
        drawn = sum(choice.tokens for choice in self.choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": drawn,
            "total_tokens": self.prompt_tokens + drawn,
            "network_calls": sum(choice.nfe for choice in self.choices),
        }

    def dumped(self) -> bytes:
        """Bytes from which `loaded` makes it again."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def loaded(cls, data: bytes) -> Answer:
        """The answer of these bytes.

        Raises:
            ValueError, TypeError, KeyError: if they hold none.
        """
        values = json.loads(data)
        choices = [Choice(**choice) for choice in values.pop("choices")]
        for choice in choices:
            choice.drawn = choice.drawn and [(place, text, p) for place, text, p in choice.drawn]
        return cls(choices, **values | {"cached": True})


@dataclass(frozen=True)
class Head:
    """What every part of an answer begins with."""

    id: str
    created: int
    model: str
    seed: int

    def whole(self, answer: Answer, echoes: list[str]) -> dict[str, Any]:
        """The answer to a request that does not stream; `echoes` stand before the choices."""
        told = zip(answer.choices, echoes, strict=True)
        choices = [
            _choice(index, echo + choice.text, choice.reason)
            | {"logprobs": logprobs(choice.drawn, len(echo))}
            for index, (choice, echo) in enumerate(told)
        ]
        fields = {"usage": answer.usage(), "law": answer.law, "cached": answer.cached}
        return self._fields() | {"choices": choices} | fields

    def chunk(self, index: int, text: str, reason: str | None, drawn: Any = None) -> bytes:
        """Text that has settled behind that of the chunks before."""
        choice = _choice(index, text, reason) | {"logprobs": logprobs(drawn)}
        return sse(self._fields() | {"choices": [choice]})

    def usage(self, answer: Answer) -> bytes:
        """The chunk that counts."""
        return sse(self._fields() | {"choices": [], "usage": answer.usage()})

    def _fields(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "seed": self.seed,
        }


DONE = b"data: [DONE]\n\n"


def sse(data: dict[str, Any], kind: str | None = None) -> bytes:
    """A server-sent event."""
    name = f"event: {kind}\n" if kind else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": reason}
