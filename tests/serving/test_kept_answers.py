"""Answers that were given before: when they are taken, and what a broken cache costs."""

import pickle
import shutil
import socket
import sqlite3
import subprocess
import time

import pytest

pytest.importorskip("fastapi", reason="needs textdiff[serve]")
from live import NAME, serving

from textdiff.serving.cache import Folder, Memory, Redis, key_of, opened

pytestmark = pytest.mark.filterwarnings("ignore")
ASKED = {"prompt": "the ", "max_tokens": 6, "seed": 3, "logprobs": 0}


@pytest.fixture
def redis_server(tmp_path):
    """A real one, on a port of its own; its process and URL."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on this machine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.02)
    yield server, f"redis://127.0.0.1:{port}/0"
    server.kill()
    server.wait()


def counted(live) -> tuple[float, float, float]:
    """Hits, misses, errors."""
    results = ("hit", "miss", "error")
    hits, misses, errors = (live.metric("textdiff_cache_total", result=r) for r in results)
    return hits, misses, errors


def asked_twice(live) -> None:
    """The second answer is the first, streamed or not."""
    first = live.complete(**ASKED)
    again = live.complete(**ASKED)
    assert (first["cached"], again["cached"]) == (False, True)
    assert again["choices"] == first["choices"] and again["usage"] == first["usage"]
    events = live.events(**ASKED, stream_options={"include_usage": True})
    assert events[0][1]["choices"][0]["text"] == first["choices"][0]["text"]
    assert events[0][1]["choices"][0]["logprobs"] == first["choices"][0]["logprobs"]
    assert events[1][1]["usage"] == first["usage"] and events[2][1] == "[DONE]"


def test_memory():
    with serving(cache=Memory()) as live:
        asked_twice(live)
        assert counted(live) == (2, 1, 0)
        live.complete(**ASKED | {"seed": 4})
        live.complete(**ASKED | {"max_tokens": 5})
        live.complete(**{k: v for k, v in ASKED.items() if k != "seed"})  # a fresh seed: not kept
        assert counted(live) == (2, 3, 0)
        # a default that is written out, and who asks, change nothing
        assert live.complete(**ASKED, n=1, temperature=None, user="me")["cached"]


def test_a_stream_is_kept_too():
    with serving(cache=Memory()) as live:
        events = live.events(**ASKED)
        told = live.complete(**ASKED)
        assert told["cached"] and counted(live) == (1, 1, 0)
        chunks = [data["choices"][0] for _, data in events if data != "[DONE]"]
        assert told["choices"][0]["text"] == "".join(chunk["text"] for chunk in chunks)
        assert told["choices"][0]["finish_reason"] == chunks[-1]["finish_reason"]


def test_scores_and_decisions_are_kept():
    score = {"model": NAME, "prompt": "the ", "completions": ["fox", "dog"], "draws": 4}
    decide = {"model": NAME, "text": "the [GAP]", "options": ["fox", "dog"], "draws": 4}
    with serving(cache=Memory()) as live:
        for path, body in (("/v1/score", score), ("/v1/decide", decide)):
            first, again = (live.ask(path, body)[1] for _ in range(2))
            assert (first.pop("cached"), again.pop("cached")) == (False, True)
            assert again == first
            assert not live.ask(path, body | {"seed": 1})[1]["cached"]
        assert counted(live) == (2, 4, 0)


def test_a_number_of_tokens_that_is_left_out_is_no_default_where_gaps_say_it():
    asked = {"prompt": "the [MASK]ick", "fill_mask": True, "seed": 1, "echo": True}
    with serving(cache=Memory()) as live:
        filled, longer = live.complete(**asked), live.complete(**asked, max_tokens=16)
        assert not longer["cached"]
        assert [told["usage"]["completion_tokens"] for told in (filled, longer)] == [1, 17]


def test_the_oldest_go_first():
    memory = Memory(size=10)
    for key in "abc":
        memory.put(key, b"1234")
        memory.get("a")
    assert [memory.get(key) for key in "abc"] == [b"1234", None, b"1234"]
    memory.put("big", b"x" * 11)
    assert memory.get("big") is None


def test_a_folder_is_shared_and_its_pickles_are_not_opened(tmp_path):
    with serving(cache=Folder(tmp_path / "cache", ttl=60)) as live:
        asked_twice(live)
    with serving(cache=opened(str(tmp_path / "cache"), 60)) as live:
        assert live.complete(**ASKED)["cached"]
        with sqlite3.connect(tmp_path / "cache" / "cache.db") as base:
            value = pickle.dumps(print)
            base.execute("update Cache set mode = 4, value = ?, filename = null", (value,))
        assert not live.complete(**ASKED)["cached"]
        assert counted(live)[2] == 1


def test_a_time_to_live(tmp_path):
    folder = Folder(tmp_path, ttl=1)
    folder.put("key", b"value")
    assert folder.get("key") == b"value"
    time.sleep(1.1)
    assert folder.get("key") is None


def test_redis(redis_server):
    server, url = redis_server
    store = opened(url, 3600)
    assert isinstance(store, Redis)
    with serving(cache=store) as live:
        asked_twice(live)
        (key,) = store._store.keys("textdiff:*")
        assert 3500 < store._store.ttl(key) <= 3600
        server.kill()
        server.wait()
        assert not live.complete(**ASKED)["cached"]  # served without
        assert counted(live) == (2, 1, 2)
        assert live.ask("/health")[0] == 200


def test_a_key_is_of_all_that_decides():
    identity, request = {"weights": "a", "version": "1"}, {"prompt": "x", "seed": 1}
    keys = {
        key_of(identity, request),
        key_of(identity | {"weights": "b"}, request),
        key_of(identity | {"version": "2"}, request),
        key_of(identity, request | {"seed": 2}),
        key_of(identity, request | {"top_k": 1}),
    }
    assert len(keys) == 5
    assert key_of(identity, dict(reversed(request.items()))) == key_of(identity, request)


def test_no_cache():
    assert opened("none", 1) is None
    with serving() as live:
        assert not live.complete(**ASKED)["cached"] and not live.complete(**ASKED)["cached"]
        assert counted(live) == (0, 0, 0) and NAME
