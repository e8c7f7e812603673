"""Replicas behind Ray: one is killed under load, every request is answered, and it comes back."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import tiny
import yaml

import textdiff

ray = pytest.importorskip("ray", reason="needs textdiff[serve,ray]")
psutil = pytest.importorskip("psutil")

WHOLE, TOKENS, LAW = 24, 40, "Block(4, 8)"


@contextmanager
def cluster(*options):
    """The port of `textdiff serve --ray`, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "textdiff", "serve", str(tiny.run()), "--name", "toy"]
    command += ["--port", str(port), "--ray", "2", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        for line in server.stderr:
            if line.startswith("serving"):
                break
        else:
            pytest.fail("the server did not start")
        yield port, server
    finally:
        server.terminate()
        assert server.wait(60) == 0


def ask(port, path="/v1/completions", timeout=120, **fields):
    body = {"model": "toy", "prompt": "the ", "max_tokens": TOKENS, "hyperschedule": LAW}
    body |= {"ignore_eos": True} | fields
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return answer.read().decode()


def running(port, count, seconds):
    """Whether so many sequences are drawn soon, over all replicas, which tell of it every second;
    a killed one is heard of for ten more.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.5)
        figures = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        lines = [line for line in figures.splitlines() if "running_sequences{" in line]
        if lines and sum(float(line.split()[-1]) for line in lines) == count:
            return True
    return False


def text_of(port, seed, stream):
    told = ask(port, seed=seed, stream=stream)
    if not stream:
        return json.loads(told)["choices"][0]["text"]
    blocks = [block.removeprefix("data: ") for block in told.split("\n\n")[:-1]]
    assert blocks[-1] == "[DONE]", told
    chunks = [json.loads(block)["choices"][0] for block in blocks[:-1]]
    assert [chunk["finish_reason"] for chunk in chunks if chunk["finish_reason"]] == ["length"]
    return "".join(chunk["text"] for chunk in chunks)


def replicas(server):
    """The processes of the model's replicas."""
    family = psutil.Process(server.pid).children(recursive=True)
    found = []
    for process in family:
        try:
            if process.cmdline()[:1] and "Drawing" in process.cmdline()[0]:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_the_config_for_serve_run_builds_the_application():
    path = tiny.CONFIGS / "serve/ray.yaml"
    [app] = yaml.safe_load(path.read_text())["applications"]
    module, name = app["import_path"].split(":")
    build = getattr(importlib.import_module(module), name)
    arguments = app["args"] | {"run": str(tiny.run())}
    assert type(build(arguments)).__name__ == "Application"
    with pytest.raises(ValueError, match="there is no option --colour"):
        build(arguments | {"colour": "red"})
    with pytest.raises(ValueError, match="say run"):
        build({})


def test_a_replica_is_killed_under_load():
    model = textdiff.load(tiny.run())
    with cluster("--cache", "none") as (port, server), ThreadPoolExecutor(8) as pool:
        assert len(replicas(server)) == 2
        answers = [pool.submit(text_of, port, seed, seed % 2 == 0) for seed in range(WHOLE)]
        while sum(answer.done() for answer in answers) < WHOLE // 6:
            time.sleep(0.05)
        os.kill(replicas(server)[0], signal.SIGKILL)
        texts = [answer.result() for answer in answers]
        for seed, text in enumerate(texts):
            options = {
                "max_new_tokens": TOKENS,
                "hyperschedule": textdiff.hyperschedule.Block(4, 8),
            }
            expected = model.generate("the ", seed=seed, **options)
            assert text == expected.completions[0], seed
        until = time.monotonic() + 90
        while len(replicas(server)) < 2 and time.monotonic() < until:
            time.sleep(0.5)
        assert len(replicas(server)) == 2
        assert running(port, 0, seconds=20)
        with pytest.raises(OSError):  # it goes: the replica gives it up
            ask(port, timeout=0.2, max_tokens=60, hyperschedule="Flat(4000)")
        time.sleep(1.2)
        assert running(port, 0, seconds=3)
        figures = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        assert 'replica="' in figures and "textdiff_requests_total" in figures
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(port, colour="red")
