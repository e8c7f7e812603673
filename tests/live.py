"""A server of a toy model in this process, on a port of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import tiny
import uvicorn

import textdiff
from textdiff.model.identity import identity_of
from textdiff.model.source import find
from textdiff.serving.app import create_app
from textdiff.serving.limits import Limits
from textdiff.serving.service import Service

NAME = "toy"
SMALL = Limits(length=64, sequences=4, queue=8, calls=256, body=1 << 16, deadline=60.0)


def toy() -> textdiff.Model:
    """A model in float64, so that whoever shares a call changes no draw."""
    model = textdiff.load(tiny.run())
    model.network.double()
    return model


class Live:
    """The server, and a client that says what came back.

    Args:
        service: what answers.
        port: where.
    """

    def __init__(self, service: Service, port: int, api_key: str | None):
        self.service = service
        self.model = service.model
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.api_key = api_key

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON (or text) and headers of an answer; a body of bytes is sent as it is."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} | headers
        if self.api_key:
            sent.setdefault("Authorization", f"Bearer {self.api_key}")
        line.request("GET" if data is None else "POST", path, data, sent)
        answer = line.getresponse()
        text = answer.read().decode()
        line.close()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text), dict(answer.getheaders())
        return answer.status, text, dict(answer.getheaders())

    def complete(self, **fields: Any) -> Any:
        """The answer to a completion that succeeds."""
        status, told, _ = self.ask("/v1/completions", {"model": NAME} | fields)
        assert status == 200, told
        return told

    def refused(self, path: str = "/v1/completions", **fields: Any) -> tuple[int, str, str | None]:
        """Status, message and field of a refusal."""
        status, told, _ = self.ask(path, {"model": NAME} | fields)
        assert status >= 400, told
        return status, told["error"]["message"], told["error"]["param"]

    def events(self, **fields: Any) -> list[tuple[str, Any]]:
        """Type and data of the events of a stream; its last is ("message", "[DONE]")."""
        status, text, _ = self.ask("/v1/completions", {"model": NAME, "stream": True} | fields)
        assert status == 200, text
        events = []
        for block in text.split("\n\n")[:-1]:
            lines = dict(line.split(": ", 1) for line in block.split("\n"))
            data = lines["data"]
            events.append(
                (lines.get("event", "message"), data if data[0] == "[" else json.loads(data))
            )
        return events

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric now."""
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0

    def becomes(self, value: float, name: str, **labels: str) -> bool:
        """Whether a metric gets to a value soon: requests are counted behind their answers."""
        until = time.monotonic() + 5
        while self.metric(name, **labels) != value and time.monotonic() < until:
            time.sleep(0.01)
        return self.metric(name, **labels) == value

    def wait_until_idle(self) -> None:
        """Until no sequence is held."""
        until = time.monotonic() + 20
        while self.service.worker._held and time.monotonic() < until:
            time.sleep(0.01)
        assert not self.service.worker._held and not self.service.worker.engine.busy


@contextlib.contextmanager
def serving(
    model: textdiff.Model | None = None,
    limits: Limits = SMALL,
    *,
    api_key: str | None = None,
    cache: Any = None,
    extend: Any = None,
) -> Iterator[Live]:
    """A server, until the block ends."""
    model = model or toy()
    identity = identity_of(model, find(tiny.run()))
    service = Service(model, limits, name=NAME, identity=identity, cache=cache)
    app = create_app(service, api_key)
    if extend is not None:
        extend(app)
    config = uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Live(service, port, api_key)
    finally:
        server.should_exit = True
        thread.join()
