"""A model that answers requests: its worker, its cache, scores and decisions, its card."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from starlette.concurrency import run_in_threadpool

from ..model import laws
from ..model.model import Model
from ..model.requests import literal
from ..model.token_scores import token_scores
from .answers import logprobs
from .cache import Cache, key_of
from .errors import Refused
from .fields import Completion, DecideOf, ScoreOf, Scoring
from .limits import Limits
from .metrics import Metrics
from .worker import Worker

T = TypeVar("T")
LOG = logging.getLogger("textdiff.serving")
SCORERS = 1  # scores are drawn beside the engine, one request at a time


class Service:
    """A model that answers requests.

    Args:
        model: what draws and scores.
        limits: what a request may cost.
        name: the model's name in requests.
        identity: all of the model that decides an answer.
        cache: of answers; None: none.
    """

    def __init__(
        self,
        model: Model,
        limits: Limits,
        *,
        name: str,
        identity: dict[str, Any],
        cache: Cache | None = None,
    ):
        self.model = model
        self.limits = limits
        self.name = name
        self.identity = identity
        self.cache = cache
        self.metrics = Metrics()
        self.worker = Worker(model, limits, self.metrics)
        self.begun = int(time.time())
        self.longest = max(map(len, model.tokenizer.get_vocab()))
        self.samplers = laws.samplers(model, alone=False)
        self._scorers = ThreadPoolExecutor(SCORERS, thread_name_prefix="textdiff-score")
        self._scoring = 0

    @property
    def healthy(self) -> bool:
        """Whether the engine's thread runs."""
        return self.worker.is_alive()

    def start(self) -> None:
        """Begin to draw."""
        self.worker.start()

    def stop(self) -> None:
        """Draw no more."""
        self.worker.stop()
        self._scorers.shutdown(wait=False, cancel_futures=True)

    def check_model(self, name: str) -> None:
        """Refuse a request for another model."""
        if name != self.name:
            raise Refused(404, f"model: there is no {name!r} here, only {self.name!r}", "model")

    def card(self) -> dict[str, Any]:
        """The model and the laws that it can be drawn by."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.begun,
            "owned_by": "textdiff",
            "process": str(self.model.process),
            "hyperschedule": str(self.model.hyperschedule),
            "sampler": str(self.model.generation_config.sampler),
            "length": self.model.length,
            "max_length": self.limits.length,
            "hyperschedules": laws.hyperschedules(),
            "samplers": self.samplers,
        }

    def kept(self, key: str, read: Callable[[bytes], T]) -> T | None:
        """The answer of a key as `read` reads it, if the cache has it; one that fails has none."""
        if self.cache is None:
            return None
        try:
            data = self.cache.get(key)
            answer = None if data is None else read(data)
        except Exception:  # redis, sqlite, the disk, or an entry of somebody else's
            LOG.warning("the cache failed; the request is answered without", exc_info=True)
            self.metrics.cache.labels("error").inc()
            return None
        self.metrics.cache.labels("miss" if answer is None else "hit").inc()
        return answer

    def keep(self, key: str, answer: bytes) -> None:
        """Give the cache an answer; one that fails loses it."""
        if self.cache is None:
            return
        try:
            self.cache.put(key, answer)
        except Exception:  # as above
            LOG.warning("the cache failed; the answer is not kept", exc_info=True)
            self.metrics.cache.labels("error").inc()

    async def score(self, body: ScoreOf) -> dict[str, Any]:
        """-log p of completions."""
        return await self._once(body, "score", lambda: self._scores(body))

    def _scores(self, body: ScoreOf) -> dict[str, Any]:
        longest = max(body.completions, key=len)
        self._check(body, [body.prompt, longest, body.suffix], len(body.completions))
        scores = self.model.score(
            body.prompt,
            body.completions,
            suffix=body.suffix,
            eos=body.eos,
            **self._options(body),
        )
        rows = [asdict(one) | {"bits_per_byte": one.bits_per_byte} for one in scores]
        return {"object": "list", "model": self.name, "data": rows}

    async def echo(self, body: Completion) -> dict[str, Any]:
        """Prompts as they are; log p of each of their tokens if that is asked for, and exact."""
        return await self._aside(lambda: self._echoes(body))

    def _echoes(self, body: Completion) -> dict[str, Any]:
        named = self.limits.named("hyperschedule", body.hyperschedule)
        choices, tokens = [], 0
        for index, prompt in enumerate(body.prompts):
            self._check_size([prompt], len(body.prompts))
            ids = literal(self.model, prompt)
            said = None
            if body.logprobs is not None:
                ids, nats = token_scores(self.model, ids, named)
                cells = zip(range(len(ids)), map(self.model.decode_token, ids), nats, strict=True)
                said = logprobs(list(cells))
            tokens += len(ids)
            text = prompt if isinstance(prompt, str) else self.model.decode(torch.tensor(ids))
            choice = {"index": index, "text": text, "finish_reason": "length"}
            choices.append(choice | {"logprobs": said})
        usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
        head = {"id": "cmpl-echo", "object": "text_completion", "created": int(time.time())}
        return head | {"model": self.name, "choices": choices, "usage": usage}

    async def decide(self, body: DecideOf) -> dict[str, Any]:
        """Probabilities of options at a gap."""
        return await self._once(body, "decide", lambda: self._decision(body))

    def _decision(self, body: DecideOf) -> dict[str, Any]:
        self._check(body, [body.text, max(body.options, key=len)], len(body.options))
        lengths = None
        if body.lengths is not None:
            if bad := [key for key in body.lengths if not key.isdecimal() or len(key) > 9]:
                raise Refused(400, f"lengths: {bad[0]!r} is no number of tokens", "lengths")
            lengths = {int(key): value for key, value in body.lengths.items()}
        decision = self.model.decide(
            body.text, body.options, lengths=lengths, **self._options(body)
        )
        return {"object": "decision", "model": self.name, "best": decision.best} | asdict(decision)

    def _options(self, body: Scoring) -> dict[str, Any]:
        return {
            "order": None if body.order == "all" else body.order,
            "hyperschedule": self.limits.named("hyperschedule", body.hyperschedule),
            "draws": body.draws,
            "seed": body.seed,
            "batch_size": self.limits.sequences,
        }

    def _check(self, body: Scoring, texts: list[str | list[int]], count: int) -> None:
        """As `_check_size`, and refuse what takes too many calls."""
        length = self._check_size(texts, count)
        calls = body.draws * length if body.order == "all" else body.draws
        if calls > self.limits.calls:
            raise Refused(
                400, f"draws: {calls} calls are more than the {self.limits.calls} allowed", "draws"
            )

    def _check_size(self, texts: list[str | list[int]], count: int) -> int:
        """Refuse what is too long or too many: `texts` stand in one sequence, of which there are
        `count`; its tokens.
        """
        limits, most = self.limits, self.limits.sequences + self.limits.queue
        if count > most:
            raise Refused(400, f"{count} texts are more than the {most} allowed: ask for fewer")
        for text in texts:
            limits.check_text(text, self.longest)
        length = 1 + sum(len(literal(self.model, text)) for text in texts)
        if length > limits.length:
            raise Refused(
                400, f"{length} tokens are more than the {limits.length} allowed: shorten the text"
            )
        return length

    async def _once(
        self, body: Scoring, route: str, answer: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """An answer from the cache, or `_aside`; every one has a seed, so every one is kept."""
        self.check_model(body.model)
        key = key_of(self.identity, {"route": route} | body.model_dump())
        kept = await run_in_threadpool(self.kept, key, json.loads)
        if kept is not None:
            return kept | {"cached": True}
        told = await self._aside(answer)
        await run_in_threadpool(self.keep, key, json.dumps(told).encode())
        return told | {"cached": False}

    async def _aside(self, answer: Callable[[], T]) -> T:
        """What takes network calls beside the engine, one request after the other.

        Raises:
            Refused: 400 for what the model cannot do, 429 if too many wait, 504 if it takes long.
        """
        if self._scoring >= self.limits.queue + 1:
            raise Refused(
                429, "too many scores wait: try again later", headers={"Retry-After": "1"}
            )
        self._scoring += 1
        try:
            done = asyncio.get_running_loop().run_in_executor(self._scorers, answer)
            return await asyncio.wait_for(done, self.limits.deadline)
        except TimeoutError:
            raise Refused(504, f"not done in {self.limits.deadline:g} s: give it up") from None
        except ValueError as error:
            raise Refused(400, str(error)) from None
        finally:
            self._scoring -= 1
