"""A completion on its way from fields to bytes: from the cache, all at once, or as a stream."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from ..generation.events import Provisional
from ..model.streaming import Committed, Finished
from .answers import DONE, Answer, Choice, Head, sse
from .asking import Asked, asked
from .cache import key_of
from .errors import Refused
from .fields import Completion
from .guard import OUTCOME
from .service import Service
from .worker import Failed, Job, Told


class Gone(Exception):
    """The client is not there any more."""


class Completing:
    """One request for completions.

    Args:
        service: what answers.
        body: what it says.
        request: where it came from.
    """

    def __init__(self, service: Service, body: Completion, request: Request):
        self.service = service
        self.body = body
        self.request = request
        self.queue: asyncio.Queue[tuple[int, Told]] = asyncio.Queue()

    async def answer(self) -> Response:
        """The response.

        Raises:
            Refused: if there is none.
        """
        if self.body.max_tokens == 0 and not self.body.fill_mask:
            return JSONResponse(await self.service.echo(self.body))
        asked = await run_in_threadpool(self._asked)
        key = key_of(self.service.identity, asked.request)
        head = Head(f"cmpl-{key[:24]}", int(time.time()), self.service.name, asked.seed)
        keeps = asked.repeatable and not self._tells_window
        kept = None
        if keeps:
            kept = await run_in_threadpool(self.service.kept, key, Answer.loaded)
        if kept is not None:
            return self._again(head, kept, asked)
        answer = Answer([Choice() for _ in asked.asks], asked.prompt_tokens, asked.seed, asked.law)
        events = self._events(asked)
        try:
            await anext(events)  # accepted; what is refused is refused before a stream begins
        except Gone:
            return Response(status_code=499)  # to nobody
        name = key if keeps else None
        if self.body.stream:
            parts = self._stream(head, answer, asked, events, key=name)
            return StreamingResponse(parts, media_type="text/event-stream")
        with suppress(Gone):
            async for number, event in events:
                answer.choices[number].take(event, self._text_of)
            await self._keep(name, answer)
        return JSONResponse(head.whole(answer, list(asked.echoes)))

    async def _keep(self, key: str | None, answer: Answer) -> None:
        if key is not None:
            await run_in_threadpool(self.service.keep, key, answer.dumped())

    @property
    def _tells_window(self) -> bool:
        options = self.body.stream_options
        return bool(options and options.include_provisional)

    def _asked(self) -> Asked:
        service = self.service
        try:
            return asked(service.model, service.limits, self.body, service.longest)
        except ValueError as error:
            raise Refused(400, str(error)) from None

    async def _events(self, asked: Asked) -> AsyncIterator[tuple[int, Any]]:
        """Number and event of the sequences, until all have ended; `Accepted` comes first. A job
        that is left before its end is cancelled.
        """
        loop = asyncio.get_running_loop()

        def tell(number: int, event: Told) -> None:
            with suppress(RuntimeError):  # the loop has ended: nobody listens
                loop.call_soon_threadsafe(self.queue.put_nowait, (number, event))

        until = time.monotonic() + self.service.limits.deadline
        job = Job(asked.asks, tell, until)
        self.service.worker.submit(job)
        gone = asyncio.create_task(_disconnected(self.request))
        left = len(asked.asks)
        try:
            while left:
                number, event = await self._next(gone)
                if isinstance(event, Failed):
                    raise event.reason
                left -= isinstance(event, Finished)
                yield number, event
        except Gone:
            self.request.scope[OUTCOME] = "gone"
            raise
        finally:
            gone.cancel()
            self.service.worker.cancel(job)

    async def _next(self, gone: asyncio.Task[None]) -> tuple[int, Told]:
        if not self.queue.empty():
            return self.queue.get_nowait()
        come = asyncio.create_task(self.queue.get())
        await asyncio.wait({come, gone}, return_when=asyncio.FIRST_COMPLETED)
        if come.done():
            return come.result()
        come.cancel()
        raise Gone

    async def _stream(
        self,
        head: Head,
        answer: Answer,
        asked: Asked,
        events: AsyncIterator[tuple[int, Any]],
        *,
        key: str | None,
    ) -> AsyncIterator[bytes]:
        """The bytes of a stream, whose answer is kept under `key`, if there is one."""
        self.request.scope[OUTCOME] = "gone"  # until its end has come
        try:
            if self._tells_window:
                for index, ask in enumerate(asked.asks):
                    yield sse({"index": index} | self._given(ask.request.ids.tolist()), "given")
            async for number, event in events:
                choice = answer.choices[number]
                new = choice.take(event, self._text_of)
                if self._tells_window and not isinstance(event, Finished):
                    kind = "committed" if isinstance(event, Committed) else "provisional"
                    yield sse({"index": number} | self._cells(event), kind)
                drawn = None
                if isinstance(event, Committed) and choice.drawn is not None:
                    drawn = choice.drawn[-len(event.ids) :]  # those that it has just taken
                if new or choice.reason or drawn:
                    yield head.chunk(number, new, choice.reason, drawn)
            await self._keep(key, answer)
            if self.body.stream_options and self.body.stream_options.include_usage:
                yield head.usage(answer)
            yield DONE
            self.request.scope[OUTCOME] = "ok"
        except Refused as refused:
            self.request.scope[OUTCOME] = "failed"
            yield sse(refused.body())
        except Gone:
            return

    def _text_of(self, token: int) -> str:
        return self.service.model.decode_token(token)

    def _given(self, row: list[int]) -> dict[str, Any]:
        """The tokens of a sequence before it is drawn, None where one will be."""
        mask = self.service.model.mask_id
        text = [None if token == mask else self._text_of(token) for token in row]
        return {"position": list(range(len(row))), "text": text}

    def _cells(self, event: Committed | Provisional) -> dict[str, Any]:
        """The tokens of an event."""
        cells = self._given(list(event.ids)) | {"position": event.position, "nfe": event.nfe}
        if isinstance(event, Provisional):
            sure = [p if math.isfinite(p) else None for p in event.confidence]
            cells["confidence"] = sure
        return cells

    def _again(self, head: Head, answer: Answer, asked: Asked) -> Response:
        """An answer that was given before."""
        if not self.body.stream:
            return JSONResponse(head.whole(answer, list(asked.echoes)))

        async def parts() -> AsyncIterator[bytes]:
            for index, choice in enumerate(answer.choices):
                yield head.chunk(index, choice.text, choice.reason, choice.drawn)
            if self.body.stream_options and self.body.stream_options.include_usage:
                yield head.usage(answer)
            yield DONE

        return StreamingResponse(parts(), media_type="text/event-stream")


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
