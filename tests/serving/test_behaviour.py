"""What a server does when clients go, queues fill, steps fail, keys are wrong and time is up."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
import yaml

pytest.importorskip("fastapi", reason="needs textdiff[serve]")
from live import NAME, SMALL, Live, serving, toy
from prometheus_client.parser import text_string_to_metric_families

from textdiff.serving.limits import Limits

pytestmark = pytest.mark.filterwarnings("ignore")
SLOWLY = {"hyperschedule": "QuenchedAR", "ignore_eos": True}
CONFIGS = tiny.CONFIGS / "serve"


def slowed(seconds: float):
    """A toy whose network takes a while for each call."""
    model = toy()
    body = model.network.body

    def slow(*arguments, **options):
        time.sleep(seconds)
        return body(*arguments, **options)

    model.network.body = slow
    return model


def poisoned(letter: str):
    """A toy whose network fails on sequences that have a letter."""
    model = toy()
    body, bad = model.network.body, int(model.encode(letter)[0])

    def picky(ids, *arguments, **options):
        if bool((ids == bad).any()):
            raise RuntimeError("the network cannot take this letter")
        return body(ids, *arguments, **options)

    model.network.body = picky
    return model


def begun(live: Live, **fields) -> http.client.HTTPConnection:
    """A stream of which nothing was read yet."""
    line = http.client.HTTPConnection("127.0.0.1", live.port, timeout=60)
    body = json.dumps({"model": NAME, "stream": True} | fields)
    line.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    return line


def test_a_client_that_goes_is_given_up():
    with serving(slowed(0.02)) as live:
        line = begun(
            live, prompt="the ", max_tokens=40, hyperschedule="QuenchedAR", ignore_eos=True
        )
        answer = line.getresponse()
        answer.readline()
        assert live.metric("textdiff_running_sequences") == 1
        answer.close()
        line.close()
        live.wait_until_idle()
        assert live.metric("textdiff_committed_tokens_total") < 30
        # one that waits for its whole answer, too
        line = http.client.HTTPConnection("127.0.0.1", live.port)
        fields = {"model": NAME, "prompt": "a", "max_tokens": 60} | SLOWLY
        head = {"Content-Type": "application/json"}
        line.request("POST", "/v1/completions", json.dumps(fields), head)
        time.sleep(0.2)
        line.close()
        live.wait_until_idle()
        assert live.metric("textdiff_committed_tokens_total") < 60
        gone = {"route": "/v1/completions", "outcome": "gone"}
        assert live.becomes(2, "textdiff_requests_total", **gone)


def test_a_full_queue_says_when_to_come_again():
    limits = Limits(length=64, sequences=1, queue=1, calls=256, deadline=30)
    with serving(slowed(0.02), limits) as live:
        lines = [
            begun(live, prompt="a", max_tokens=20, hyperschedule="QuenchedAR") for _ in range(2)
        ]
        until = time.monotonic() + 10
        while live.service.worker._held < 2 and time.monotonic() < until:
            time.sleep(0.01)
        status, told, headers = live.ask("/v1/completions", {"model": NAME, "prompt": "a"})
        assert status == 429 and told["error"]["type"] == "rate_limit_error"
        assert int(headers["retry-after"]) >= 1
        assert all(line.getresponse().read().endswith(b"[DONE]\n\n") for line in lines)
        assert live.ask("/v1/completions", {"model": NAME, "prompt": "a"})[0] == 200


def test_a_request_has_a_deadline():
    with serving(slowed(0.05), Limits(length=64, sequences=2, deadline=0.4)) as live:
        status, told, _ = live.ask(
            "/v1/completions", {"model": NAME, "prompt": "a", "max_tokens": 60, "ignore_eos": True}
        )
        assert status == 504 and "not done in 0.4 s" in told["error"]["message"]
        events = live.events(prompt="a", max_tokens=60, **SLOWLY)
        assert events[-1][1]["error"]["type"] == "timeout_error"
        live.wait_until_idle()
        failed = {"route": "/v1/completions", "outcome": "failed"}
        assert live.becomes(2, "textdiff_requests_total", **failed)


def test_a_failing_request_fails_alone():
    """Others in the same steps get their own texts, a stream goes on where it stood."""
    model = poisoned("z")
    prompts = ["the ", "quick", "lazy", "fox "]
    asked = {"max_tokens": 16, "hyperschedule": "QuenchedAR", "ignore_eos": True, "top_k": 1}
    with serving(model) as live, ThreadPoolExecutor(4) as pool:
        clean = toy()

        def ask(prompt):
            return live.ask("/v1/completions", {"model": NAME, "prompt": prompt, "seed": 1} | asked)

        answers = dict(zip(prompts, pool.map(ask, prompts), strict=True))
        events = live.events(prompt="the ", seed=1, **asked)
        assert live.ask("/health")[0] == 200
    for prompt, (status, told, _) in answers.items():
        alone = clean.generate(
            prompt, max_new_tokens=16, hyperschedule="QuenchedAR", top_k=1, seed=1
        )
        if "z" in alone.texts[0][:-1]:
            assert status == 500 and told["error"]["type"] == "server_error"
        else:
            assert status == 200 and told["choices"][0]["text"] == alone.completions[0]
    assert answers["lazy"][0] == 500 and answers["the "][0] == 200
    text = "".join(d["choices"][0]["text"] for _, d in events if d != "[DONE]" and d["choices"])
    assert text == answers["the "][1]["choices"][0]["text"]


def test_a_stream_goes_on_when_another_request_fails():
    model = poisoned("z")
    body = model.network.body

    def gated(ids, *arguments, **options):
        time.sleep(0.02)
        return body(ids, *arguments, **options)

    model.network.body = gated
    asked = {"max_tokens": 24, "hyperschedule": "QuenchedAR", "ignore_eos": True, "top_k": 1}
    with serving(model) as live:
        line = begun(live, prompt="the ", seed=1, **asked)
        answer = line.getresponse()
        first = answer.readline()
        assert (
            live.ask("/v1/completions", {"model": NAME, "prompt": "lazy", "seed": 1} | asked)[0]
            == 500
        )
        rest = answer.read()
        blocks = (first + rest).decode().split("\n\n")
        chunks = [json.loads(b.removeprefix("data: ")) for b in blocks if b.startswith("data: {")]
        text = "".join(c["choices"][0]["text"] for c in chunks)
    alone = toy().generate("the ", max_new_tokens=24, hyperschedule="QuenchedAR", top_k=1, seed=1)
    assert text == alone.completions[0]


def test_the_key_is_asked_for():
    with serving(api_key="säcret") as live:
        status, told, headers = live.ask("/v1/models", Authorization="Bearer wrong")
        assert status == 401 and told["error"]["type"] == "authentication_error"
        assert headers["www-authenticate"] == "Bearer"
        assert live.ask("/metrics", Authorization="")[0] == 401
        assert live.ask("/v1/completions", {"model": NAME}, Authorization="Bearer ")[0] == 401
        assert live.ask("/health", Authorization="")[0] == 200 and live.ask("/")[0] == 200


def test_a_key_opens():
    with serving(api_key="secret") as live:
        assert live.ask("/v1/models")[0] == 200
        assert live.complete(prompt="a", max_tokens=2)["choices"]


def test_large_and_broken_bodies():
    with serving() as live:
        big = json.dumps({"model": NAME, "prompt": "a" * SMALL.body}).encode()
        assert live.ask("/v1/completions", big)[0] == 413
        # without a length, in pieces
        with socket.create_connection(("127.0.0.1", live.port)) as line:
            line.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            line.sendall(b"4000\r\n" + b"a" * 0x4000 + b"\r\n")
            for _ in range(4):
                line.sendall(b"4000\r\n" + b"a" * 0x4000 + b"\r\n")
            assert line.recv(64).startswith(b"HTTP/1.1 413")
        deep = b"[" * 30_000 + b"]" * 30_000
        for body in (b"", b"{", b"null", b"[]", b"\xff\xfe", b"{}", deep, b'{"model": NaN}'):
            status, told, _ = live.ask("/v1/completions", body)
            assert status == 400 and told["error"]["message"], body[:9]
        huge = b'{"model": "toy", "prompt": "a", "seed": ' + b"9" * 5000 + b"}"
        assert live.ask("/v1/completions", huge)[0] == 400
        assert live.ask("/v1/completions")[0] == 405 and live.ask("/v2/x", {})[0] == 404
        assert live.complete(prompt="a", max_tokens=2)["choices"]


def test_what_the_metrics_count():
    with serving() as live:
        told = live.complete(prompt="the ", max_tokens=8, seed=1, hyperschedule="Block(4, 2)")
        live.refused(prompt="a", sed=1)
        text = live.ask("/metrics")[1]
        samples = {
            (s.name, *sorted(s.labels.items())): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
        }
        route = ("route", "/v1/completions")
        assert samples["textdiff_requests_total", ("outcome", "ok"), route] == 1
        assert samples["textdiff_requests_total", ("outcome", "refused"), route] == 1
        usage = told["usage"]
        assert samples["textdiff_committed_tokens_total",] == usage["completion_tokens"]
        assert samples["textdiff_network_calls_total",] == usage["network_calls"]
        assert samples["textdiff_first_token_seconds_count",] == 1
        assert samples["textdiff_body_rows_total",] > samples["textdiff_head_rows_total",] > 0
        assert samples["textdiff_memory_bytes",] > 1e7
        names = {family.name for family in text_string_to_metric_families(text)}
    board = (CONFIGS / "grafana.json").read_text()
    rules = (CONFIGS / "alerts.yaml").read_text()
    gpu = {"textdiff_gpu_memory_ratio"}  # told where there is one
    for used in {w for t in (board, rules) for w in _names(t)}:
        base = used.removesuffix("_total").removesuffix("_bucket")
        assert base in names | gpu, used
    assert json.loads(board)["panels"] and yaml.safe_load(rules)["groups"]


def _names(text: str) -> set[str]:
    return set(re.findall(r"textdiff_[a-z_]+", text))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")
def test_the_alerts_fire():
    test = Path(__file__).parent / "alerts.test.yaml"
    done = subprocess.run(["promtool", "test", "rules", test], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_sigterm_drains(tmp_path):
    """What was begun is finished, and the process ends well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "textdiff", "serve", str(tiny.run()), "--port", str(port)]
    environment = {**os.environ, "TEXTDIFF_API_KEY": "k"}
    server = subprocess.Popen(
        [*command, "--max-length", "600", "--name", NAME, "--cache", "none"],
        stderr=subprocess.PIPE,
        env=environment,
    )
    try:
        until = time.monotonic() + 60
        while True:
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                line.request("GET", "/health")
                assert line.getresponse().read() == b'{"status":"ok"}'
                break
            except OSError:
                assert time.monotonic() < until and server.poll() is None
                time.sleep(0.1)
        fields = {"model": NAME, "prompt": "the ", "max_tokens": 500, "ignore_eos": True}
        fields |= {"stream": True, "hyperschedule": "QuenchedAR"}
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        head = {"Content-Type": "application/json", "Authorization": "Bearer k"}
        line.request("POST", "/v1/completions", json.dumps(fields), head)
        answer = line.getresponse()
        answer.readline()
        server.send_signal(signal.SIGTERM)
        assert answer.read().endswith(b"data: [DONE]\n\n")
        assert server.wait(30) == -signal.SIGTERM  # as it was asked to
    finally:
        server.kill()
        server.wait()
