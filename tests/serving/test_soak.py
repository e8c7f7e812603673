"""Clients of every kind at once for a while, while redis comes and goes: no wrong answer, nothing
left behind, every request accounted for. TEXTDIFF_SOAK=600 is the long one.
"""

import contextlib
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time

import pytest

pytest.importorskip("fastapi", reason="needs textdiff[serve]")
from live import NAME, SMALL, serving, toy

from textdiff.serving.cache import Redis
from textdiff.serving.metrics import resident

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1200)]
SECONDS = float(os.environ.get("TEXTDIFF_SOAK", "6"))
LAWS = [
    {"hyperschedule": "QuenchedAR"},
    {"hyperschedule": "Block(4, 3)"},
    {"hyperschedule": "Flat(6)", "sampler": "ACS(rate=4.0)"},
    {"hyperschedule": "Slide(4, 1)", "temperature": 0.7},
]


def redis_at(port: int, folder) -> subprocess.Popen:
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*words, "--dir", str(folder)], **quiet)


class Client(threading.Thread):
    """Asks until it is told to stop; `sent` counts what the server must have counted."""

    def __init__(self, live, expected, number: int):
        super().__init__()
        self.live, self.expected = live, expected
        self.draw = random.Random(number)
        self.sent, self.right, self.fault = 0, 0, None
        self.over = False

    def run(self):
        try:
            while not self.over:
                self.draw.choice([self.whole, self.whole, self.stream, self.leave, self.broken])()
        except Exception as error:  # shown by the test
            self.fault = repr(error)

    def asked(self):
        key = self.draw.choice(list(self.expected))
        prompt, law, seed = key
        fields = {"model": NAME, "prompt": prompt, "seed": seed, "max_tokens": 12} | LAWS[law]
        return fields, self.expected[key]

    def whole(self):
        fields, text = self.asked()
        self.sent += 1
        status, told, _ = self.live.ask("/v1/completions", fields)
        if status == 429:
            return
        assert status == 200 and told["choices"][0]["text"] == text, (fields, told)
        self.right += 1

    def stream(self):
        fields, text = self.asked()
        self.sent += 1
        status, told, _ = self.live.ask("/v1/completions", fields | {"stream": True})
        if status == 429:
            return
        rows = [json.loads(row[6:]) for row in told.split("\n\n") if row.startswith("data: {")]
        assert "".join(row["choices"][0]["text"] for row in rows) == text, (fields, told)
        self.right += 1

    def leave(self):
        fields, _ = self.asked()
        self.sent += 1
        line = http.client.HTTPConnection("127.0.0.1", self.live.port, timeout=60)
        body = json.dumps(fields | {"stream": True, "seed": self.draw.randrange(10**9)})
        line.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        time.sleep(self.draw.random() * 0.03)
        line.close()

    def broken(self):
        self.sent += 1
        body = self.draw.choice([b"{", b"[]", b'{"model": 1}', b'{"model": "toy", "n": -1}'])
        status, told, _ = self.live.ask("/v1/completions", body)
        assert status == 400, told


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on this machine")
def test_a_soak(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    redis = redis_at(port, tmp_path)
    model = toy()
    expected = {}
    for law, options in enumerate(LAWS):
        for seed, prompt in ((1, "the "), (2, "quick brown"), (3, "")):
            told = toy().generate(
                prompt, max_new_tokens=12, seed=seed, eos_token_id=model.ends, **options
            )
            expected[prompt, law, seed] = told.completions[0]
    try:
        with serving(model, SMALL, cache=Redis(f"redis://127.0.0.1:{port}", ttl=2)) as live:
            clients = [Client(live, expected, number) for number in range(6)]
            for client in clients:
                client.start()
            begun, memory = time.monotonic(), 0.0
            while time.monotonic() - begun < SECONDS:
                time.sleep(SECONDS / 6)
                memory = memory or resident()  # warm
                redis.kill()
                redis.wait()
                time.sleep(min(1.0, SECONDS / 12))
                redis = redis_at(port, tmp_path)
            for client in clients:
                client.over = True
            for client in clients:
                client.join()
            live.wait_until_idle()
            assert [client.fault for client in clients] == [None] * len(clients)
            sent = sum(client.sent for client in clients)
            right = sum(client.right for client in clients)

            def counted() -> float:
                outcomes = ("ok", "gone", "refused", "failed")
                route = {"route": "/v1/completions"}
                name = "textdiff_requests_total"
                return sum(live.metric(name, outcome=one, **route) for one in outcomes)

            with contextlib.suppress(AssertionError):
                until = time.monotonic() + 10
                while counted() < sent and time.monotonic() < until:
                    time.sleep(0.05)
            print(f"{sent} requests, {right} compared, memory {memory:.3g} -> {resident():.3g}")
            assert counted() == sent and right > sent / 4
            failed = live.metric(
                "textdiff_requests_total", route="/v1/completions", outcome="failed"
            )
            assert failed == 0
            assert resident() < 1.05 * memory + 30e6
    finally:
        redis.kill()
        redis.wait()
