"""A stream that breaks off and is asked for again: its client has every part once."""

import asyncio
import json

import pytest
from live import NAME, serving, toy

from textdiff.serving.metrics import Metrics, together
from textdiff.serving.relay import Deltas, served


def blocks_of(text: bytes) -> list[bytes]:
    return [block + b"\n\n" for block in text.split(b"\n\n")[:-1]]


def put_together(blocks: list[bytes]) -> dict:
    """Text, tokens and reasons of each choice; the events, and how it ended."""
    told: dict = {"events": [], "last": blocks[-1]}
    for block in blocks[:-1]:
        lines = dict(line.split(": ", 1) for line in block.decode().strip().split("\n"))
        data = json.loads(lines["data"])
        if "event" in lines:
            told["events"].append((lines["event"], data))
            continue
        for choice in data["choices"]:
            here = told.setdefault(choice["index"], {"text": "", "tokens": [], "reasons": []})
            here["text"] += choice["text"]
            here["tokens"] += (choice["logprobs"] or {"tokens": []})["tokens"]
            here["reasons"] += [choice["finish_reason"]] * (choice["finish_reason"] is not None)
        told["usage"] = data.get("usage")
    return told


ASKED = [
    {"prompt": "the ", "max_tokens": 24, "n": 2, "hyperschedule": "Block(4, 2)"},
    {"prompt": "a", "max_tokens": 12, "logprobs": 1, "hyperschedule": "QuenchedAR()"},
    {"prompt": "", "max_tokens": 16, "stream_options": {"include_provisional": True}},
    {"prompt": "so", "max_tokens": 9, "stream_options": {"include_usage": True}},
]


@pytest.fixture(scope="module")
def live():
    with serving(toy()) as server:
        yield server


@pytest.mark.parametrize("fields", ASKED, ids=str)
def test_wherever_a_stream_breaks_off_its_client_gets_the_whole_once(live, fields):
    body = {"model": NAME, "stream": True, "seed": 5} | fields
    app = live.service

    async def stream(asked: dict) -> list[bytes]:
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b""}
        scope |= {"headers": [(b"content-type", b"application/json")], "asgi": {"version": "3.0"}}
        scope |= {"http_version": "1.1", "scheme": "http", "root_path": "", "raw_path": None}
        from textdiff.serving.app import create_app

        text = b""
        async for message in served(create_app(app), scope, json.dumps(asked).encode()):
            text += message.get("body", b"")
        return blocks_of(text)

    whole = asyncio.run(stream(body))
    first = put_together(whole)
    assert first["last"] == b"data: [DONE]\n\n"
    for kept in (asyncio.run(stream(body)), whole):  # from the cache, if there is one, and drawn
        for cut in range(len(whole)):
            deltas = Deltas()
            got = [deltas.new(block) for block in whole[:cut]]
            deltas.again()
            got += [deltas.new(block) for block in kept]
            again = put_together([block for block in got if block])
            assert again == first
            assert cut == 0 or deltas.seed in (5, None)


def test_a_client_that_goes_is_gone_for_the_application():
    seen = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        seen.append((await receive())["type"])

    async def leave():
        messages = served(app, {"type": "http"}, b"")
        async for message in messages:
            if message.get("body"):
                break
        await messages.aclose()

    asyncio.run(leave())
    assert seen == ["http.disconnect"]


def test_what_is_raised_behind_an_answer_is_no_second_answer():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})
        raise RuntimeError("no")

    async def ask():
        return [message["type"] async for message in served(app, {"type": "http"}, b"")]

    assert asyncio.run(ask()) == ["http.response.start", "http.response.body"]


def test_an_application_that_fails_fails_its_caller():
    async def app(scope, receive, send):
        raise RuntimeError("no")

    async def ask():
        async for _ in served(app, {"type": "http"}, b""):
            pass

    with pytest.raises(RuntimeError, match="no"):
        asyncio.run(ask())


def test_figures_of_replicas_stand_beside_each_other():
    one, other = Metrics(), Metrics()
    one.worked(calls=3, body_rows=5, head_rows=2)
    other.worked(calls=4, body_rows=6, head_rows=1)
    other.latency.labels("/health").observe(0.3)
    lines = together({"a": one.text(), "b": other.text()}).decode().splitlines()
    assert 'textdiff_network_calls_total{replica="a"} 3.0' in lines
    assert 'textdiff_network_calls_total{replica="b"} 4.0' in lines
    bucket = 'textdiff_request_seconds_bucket{le="0.5",replica="b",route="/health"} 1.0'
    assert bucket in lines
    assert sum(line.startswith("# TYPE textdiff_network_calls_total ") for line in lines) == 1
    assert together({}) == b""
