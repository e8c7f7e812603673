"""The same application on a Ray cluster: an entrance, and replicas of the model behind it.

    client  ->  Ray's proxy  ->  Entrance  ->  Drawing (a model)
                                           ->  Drawing (a model)    MIN..MAX of them, by load

The entrance hands each request on. One whose replica dies is asked of another: what it answers is a
pure function of the request, so a stream goes on behind what its client has (`relay`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import ray
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.handle import DeploymentHandle
from starlette.types import Message

from .errors import Refused
from .guard import BODY_SECONDS
from .limits import Limits
from .metrics import together
from .relay import Deltas, served
from .service import Service

LOG = logging.getLogger("textdiff.serving")
ATTEMPTS = 6
PAUSE = 0.2  # seconds before the second attempt, twice as many before each later one
TOLD = 1.0  # seconds between the figures that a replica tells
SILENT = 10.0  # seconds after which a replica's figures count no more
FIGURES = "textdiff-figures"
HEALTH = {"health_check_period_s": 2.0, "health_check_timeout_s": 30.0}
Make = Callable[[], tuple[FastAPI, Service]]
"""Opens the model; called in each replica."""


@ray.remote(num_cpus=0)
class Figures:
    """What replicas told last of themselves, for Prometheus."""

    def __init__(self) -> None:
        self.texts: dict[str, tuple[float, bytes]] = {}

    def put(self, replica: str, text: bytes) -> None:
        """Keep a replica's figures."""
        self.texts[replica] = (time.monotonic(), text)

    def text(self) -> bytes:
        """Those of all replicas that live, each with its name as a label."""
        now = time.monotonic()
        return together({n: text for n, (at, text) in self.texts.items() if now - at < SILENT})


def _figures() -> str:
    """The name of the actor of this application."""
    return f"{FIGURES}-{serve.get_replica_context().app_name}"


@serve.deployment
class Drawing:
    """A replica of the model, behind the application's own routes."""

    def __init__(self, make: Make):
        self.app, self.service = make()
        self.service.start()
        self.name = serve.get_replica_context().replica_tag
        self.figures = ray.get_actor(_figures(), FIGURES)
        self.telling = asyncio.get_event_loop().create_task(self._tell())

    async def _tell(self) -> None:
        while True:
            self.figures.put.remote(self.name, self.service.metrics.text())
            await asyncio.sleep(TOLD)

    def check_health(self) -> None:
        """Asked by Ray, which replaces a replica that raises."""
        if not self.service.healthy:
            raise RuntimeError("the engine's thread has ended")

    async def answer(self, scope: dict[str, Any], body: bytes) -> AsyncIterator[Message]:
        """The messages of the application's answer."""
        async for message in served(self.app, scope, body):
            yield message


@serve.deployment
class Entrance:
    """Hands requests on to replicas, again where one dies."""

    def __init__(self, drawing: DeploymentHandle, limits: Limits):
        self.drawing = drawing.options(stream=True)
        self.limits = limits
        self.figures = Figures.options(  # type: ignore[attr-defined]
            name=_figures(), namespace=FIGURES, get_if_exists=True, lifetime="detached"
        ).remote()

    async def __call__(self, request: Request) -> Response:
        """The answer of a replica."""
        scope = {name: request.scope[name] for name in ("type", "method", "path", "query_string")}
        scope |= {"headers": list(request.scope["headers"]), "asgi": {"version": "3.0"}}
        scope |= {"http_version": "1.1", "scheme": "http", "root_path": "", "raw_path": None}
        try:
            body = await self._read(request)
            return await self._answered(_Asked(self.drawing, scope, body, self.limits.deadline))
        except Refused as refused:
            return JSONResponse(refused.body(), refused.status, headers=refused.headers)

    async def _answered(self, asked: _Asked) -> Response:
        while True:
            messages = asked.of_a_replica()
            try:
                start = await anext(messages)
                kind = dict(start["headers"]).get(b"content-type", b"")
                if kind.startswith(b"text/event-stream"):
                    blocks = asked.stream(messages)
                    return StreamingResponse(blocks, start["status"], media_type=kind.decode())
                parts = [message.get("body", b"") async for message in messages]
            except RayError as error:
                await asked.once_more(error)
                continue
            except asyncio.CancelledError:  # the client has gone
                asked.leave()
                raise
            text = b"".join(parts)
            if asked.path == "/metrics" and start["status"] == 200:
                text = await self.figures.text.remote()
            headers = [pair for pair in start["headers"] if pair[0] != b"content-length"]
            answer = Response(text, start["status"])
            answer.raw_headers = [(b"content-length", str(len(text)).encode()), *headers]
            return answer

    async def _read(self, request: Request) -> bytes:
        """The body, or so much of it that a replica sees that it is too large."""
        body = b""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    body += part
                    if len(body) > self.limits.body:
                        break
        except TimeoutError:
            raise Refused(408, f"the body took more than {BODY_SECONDS:.0f} s") from None
        return body


class _Asked:
    """A request on its way to an answer that is whole.

    Args:
        drawing: the replicas.
        scope, body: what it says.
        seconds: that it may take.
    """

    def __init__(self, drawing: Any, scope: dict[str, Any], body: bytes, seconds: float):
        self.drawing = drawing
        self.scope = scope
        self.body = body
        self.path = scope["path"]
        self.until = time.monotonic() + seconds
        self.attempts = 0
        self.answer: Any = None

    def of_a_replica(self) -> Any:
        """The messages of an answer, which may break off."""
        self.attempts += 1
        self.answer = self.drawing.answer.remote(self.scope, self.body)
        return aiter(self.answer)

    def leave(self) -> None:
        """Nobody listens any more: the replica gives the request up."""
        if self.answer is not None:
            self.answer.cancel()

    async def once_more(self, error: RayError) -> None:
        """Wait until it may be asked again.

        Raises:
            Refused: if it was asked often enough, or for long enough, or the application itself
                failed, which it would again.
        """
        if isinstance(error, RayTaskError):
            LOG.error("a request failed: %s", error)
            raise Refused(500, "this request failed; the log of the server says why") from None
        LOG.warning("a replica broke off (attempt %s): %s", self.attempts, error)
        pause = PAUSE * 2 ** (self.attempts - 1)
        if self.attempts == ATTEMPTS or time.monotonic() + pause > self.until:
            raise Refused(503, "no replica could answer: try again later") from None
        await asyncio.sleep(pause)

    async def stream(self, messages: Any) -> AsyncIterator[bytes]:
        """The blocks of a stream, each once."""
        is_whole = False
        try:
            async for block in self._blocks(messages):
                yield block
            is_whole = True
        except Refused as refused:
            yield f"data: {json.dumps(refused.body())}\n\n".encode()
        finally:
            if not is_whole:
                self.leave()

    async def _blocks(self, messages: Any) -> AsyncIterator[bytes]:
        deltas = Deltas()
        while True:
            try:
                async for message in messages:
                    block = message.get("body")
                    if block and (new := deltas.new(block)):
                        yield new
                return
            except RayError as error:
                await self.once_more(error)
            deltas.again()
            if deltas.seed is not None:  # a fresh one was taken: that of the first answer
                self.body = json.dumps(json.loads(self.body) | {"seed": deltas.seed}).encode()
            messages = self.of_a_replica()


def application(make: Make, limits: Limits, least: int, most: int, gpus: float) -> Any:
    """The application for `ray.serve.run`.

    Args:
        make: opens the model and its application, in each replica.
        limits: of a request, and of what a replica holds.
        least, most: replicas.
        gpus: of each.
    """
    held = limits.sequences + limits.queue
    deployments: tuple[Any, Any] = (Drawing, Entrance)
    drawing = (
        deployments[0]
        .options(
            autoscaling_config={
                "min_replicas": least,
                "max_replicas": most,
                "target_ongoing_requests": limits.sequences,
            },
            max_ongoing_requests=held + 8,  # beyond the queue, so that what is full says so
            graceful_shutdown_timeout_s=limits.deadline,
            ray_actor_options={"num_cpus": 1, "num_gpus": gpus},
            **HEALTH,
        )
        .bind(make)
    )
    entrance = deployments[1].options(
        max_ongoing_requests=most * (held + 8) + 64, ray_actor_options={"num_cpus": 0}, **HEALTH
    )
    return entrance.bind(drawing, limits)


def run(built: Any, host: str, port: int, said: str) -> None:
    """Serve an application until SIGTERM or SIGINT, on the cluster of RAY_ADDRESS or one that is
    started for it.

    Raises:
        ValueError: if `port` is 0, which Ray cannot choose.
    """
    if port == 0:
        raise ValueError("--port 0 does not go with --ray: give a port")
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    stop = threading.Event()  # after Ray has put its own handlers in place
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve.start(http_options={"host": host, "port": port})
    serve.run(built, name="textdiff")
    print(said, file=sys.stderr, flush=True)
    stop.wait()
    serve.shutdown()
    ray.shutdown()
