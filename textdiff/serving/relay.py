"""A request that is handed on: to an application in this process; again, if an answer breaks off.

An answer is a pure function of its request and seed, so a stream that breaks off is asked for once
more, and goes on behind what its client has:

    first answer     ROMEO:  Shall I be|            (the server is killed)
    second answer    ROMEO:  Shall I  |be so bold
    to the client    ROMEO:  Shall I be so bold
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from .answers import sse

LOG = logging.getLogger("textdiff.serving")


async def served(app: ASGIApp, scope: Scope, body: bytes) -> AsyncIterator[Message]:
    """The messages by which an application answers a request of this body, as they come; leaving
    the iteration early is the client's going. What it raises behind a whole answer is logged.
    """
    sent: asyncio.Queue[Message | None] = asyncio.Queue()
    gone = asyncio.Event()
    asked = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if asked:
            return asked.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def answer() -> None:
        try:
            await app(scope, receive, sent.put)
        finally:
            await sent.put(None)

    task = asyncio.create_task(answer())
    is_whole = False
    try:
        while (message := await sent.get()) is not None:
            yield message
            body_of_it = message["type"] == "http.response.body"
            is_whole = body_of_it and not message.get("more_body", False)
        try:
            await task
        except Exception:  # as starlette does behind its answer 500
            if not is_whole:
                raise
            LOG.exception("a request failed")
    finally:
        gone.set()
        if not task.done():
            with suppress(Exception):  # it is told to nobody
                await task


class Deltas:
    """What the client of a stream has of it, block by block.

    Args:
        seed: of the request, once a chunk has told it.
    """

    def __init__(self) -> None:
        self.seed: int | None = None
        self._head: dict[str, Any] = {}
        self._has: Counter[tuple[str, int]] = Counter()
        self._seen: Counter[tuple[str, int]] = Counter()

    def again(self) -> None:
        """The stream begins anew."""
        self._seen.clear()

    def new(self, block: bytes) -> bytes:
        """What of a server-sent event the client has not; b"" if it has all of it."""
        lines = dict(line.split(": ", 1) for line in block.decode().strip().split("\n"))
        if lines["data"].startswith("["):  # [DONE]
            return block
        data = json.loads(lines["data"])
        if "event" in lines:
            key = ("event", data["index"])
            return block if self._behind(key, 1) < 1 else b""
        if "error" in data:
            return block
        return self._chunk(data)

    def _chunk(self, data: dict[str, Any]) -> bytes:
        self.seed = data["seed"]
        self._head = self._head or {name: data[name] for name in ("id", "created")}
        data |= self._head
        for choice in data["choices"]:
            index = choice["index"]
            had = self._behind(("text", index), len(choice["text"]))
            choice["text"] = choice["text"][had:]
            drawn = choice["logprobs"]
            if drawn is not None:
                had = self._behind(("tokens", index), len(drawn["tokens"]))
                choice["logprobs"] = {
                    name: values and values[had:] for name, values in drawn.items()
                }
            ends = choice["finish_reason"] is not None
            ends = ends and not self._behind(("end", index), 1)
            tells = choice["text"] or (drawn is not None and choice["logprobs"]["tokens"])
            if not (tells or ends):
                return b""
        return sse(data)

    def _behind(self, key: tuple[str, int], count: int) -> int:
        """How many of the next `count` things of a kind the client has already."""
        had = min(count, max(0, self._has[key] - self._seen[key]))
        self._seen[key] += count
        self._has[key] = max(self._has[key], self._seen[key])
        return had
