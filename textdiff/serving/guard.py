"""What stands before every route: the key, the size of a body, the figures of each request."""

from __future__ import annotations

import asyncio
import hmac
import json
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import Refused
from .limits import Limits
from .metrics import Metrics

OPEN = ("/", "/page.css", "/page.js", "/health")
"""Paths that need no key: they tell nothing of the model."""

ROUTES = ("/v1/completions", "/v1/score", "/v1/decide", "/v1/models", "/health", "/metrics")
BODY_SECONDS = 30.0
OUTCOME = "textdiff.outcome"
"""Where a request's scope says how it went, when its status had to be sent before."""


class Guard:
    """Refuses a request without the key or with too large a body, and counts all of them.

    Args:
        app: what is guarded.
        limits: how large a body may be.
        metrics: where requests are counted.
        api_key: the key; None: none is needed.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, api_key: str | None):
        self.app = app
        self.limits = limits
        self.metrics = metrics
        self.api_key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.monotonic(), 499  # as nginx has it: the client went before an answer

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        path = scope["path"]
        route = path if path in ROUTES else "other"
        try:
            self._check_key(path, Headers(scope=scope))
            body = await self._body(Headers(scope=scope), receive)
            await self.app(scope, _replayed(body, receive), told)
        except Refused as refused:
            await _answer(refused, told)
        finally:
            outcome = scope.get(OUTCOME) or _outcome(status)
            self.metrics.requests.labels(route, outcome).inc()
            self.metrics.latency.labels(route).observe(time.monotonic() - begun)

    def _check_key(self, path: str, headers: Headers) -> None:
        if self.api_key is None or path in OPEN:
            return
        given = headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self.api_key}".encode()):
            raise Refused(
                401,
                "this server needs its key: send Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body, never more of it than is allowed."""
        most = self.limits.body
        too_large = Refused(413, f"the body is larger than the {most} bytes allowed")
        stated = headers.get("content-length", "0")
        if stated.isdecimal() and int(stated[:20]) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Refused(408, f"the body took more than {BODY_SECONDS:.0f} s") from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What an application reads: the body that was read, then what comes after it."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return parts.pop() if parts else await receive()

    return read


async def _answer(refused: Refused, send: Send) -> None:
    """Answer without the application."""
    text = json.dumps(refused.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(text))}
    headers |= {name.lower(): value for name, value in refused.headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": text})


def _outcome(status: int) -> str:
    """Of a status: "ok", "gone", "refused" or "failed"."""
    if status == 499:
        return "gone"
    return {2: "ok", 3: "ok", 4: "refused"}.get(status // 100, "failed")
