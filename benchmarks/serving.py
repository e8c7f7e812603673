"""`textdiff serve` under load: requests that arrive at random, at several rates, beside the same
server drawing one at a time, and beside `transformers serve` with a GPT-2 of the same shape.

    python benchmarks/serving.py
    python benchmarks/serving.py --peer ENVIRONMENT/bin/python     # has transformers[serving]
    python benchmarks/serving.py --requests 4 --rates 2 --layers 1 --width 16 --vocabulary 60
    --longest 12 --shortest 4 --output /tmp/serving.json

An open loop: when a request is sent does not depend on answers (Poisson). Each asks for a stream of
a random number of tokens under a block schedule. The server is a process of its own with one
thread, the clients are threads of this one; times are wall time, so nothing else may run.
Weights are random: the work does not depend on them. A rate is a multiple of what the server does
when it draws one request at a time. The autoregressive network is shifted, as GPT-2 is; the peer
batches continuously.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import timing
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import textdiff
from textdiff.data import Characters, TinyShakespeare
from textdiff.files import write_json
from textdiff.hyperschedule import Block, QuenchedAR
from textdiff.network import Transformer
from textdiff.process import Absorbing


@dataclass(frozen=True)
class Timed:
    """A request: seconds to its first text and to its end, its tokens and network calls."""

    first: float
    whole: float
    tokens: int
    calls: int


@dataclass(frozen=True)
class Case:
    """A server: what it is called, its command behind the port, and its model's name in requests.

    Args:
        name: in the table.
        folder: of the model.
        sequences: drawn at a time; None: of the peer.
    """

    name: str
    folder: Path
    sequences: int | None

    def command(self, options: argparse.Namespace, port: int) -> list[str]:
        """How it is started."""
        where = ["--host", "127.0.0.1", "--port", str(port)]
        if self.sequences is None:
            code = "from transformers.cli.transformers import main; main()"
            peer = [options.peer, "-W", "ignore", "-c", code, "serve", str(self.folder), *where]
            return [*peer, "--continuous-batching", "--device", "cpu", "--dtype", "float32"]
        held = ["--max-sequences", str(self.sequences), "--max-queue", "100000"]
        words = ["serve", str(self.folder), *where, "--name", str(self.folder), "--cache", "none"]
        command = [sys.executable, "-W", "ignore", "-m", "textdiff", *words, *held]
        return [*command, "--deadline", "3600"]


def make_models(options: argparse.Namespace, place: Path) -> None:
    """Random models over characters, with as many tokens as are asked for in their heads."""
    tokenizer = Characters().build(TinyShakespeare())
    tokenizer.add_tokens([f"<{n}>" for n in range(options.vocabulary - len(tokenizer))])
    N = len(tokenizer)
    for name, layout, schedule in (
        ("block", "aligned", Block(16, 16)),
        ("ar", "shifted", QuenchedAR()),
    ):
        torch.manual_seed(0)
        shape = Transformer(options.layers, options.width, options.heads, layout=layout)
        network = shape.build(N, sees_time=False, bos=0)
        model = textdiff.Model(network, Absorbing(), schedule, tokenizer, 1024)
        textdiff.save(model, place / name)
    sizes = {"n_layer": options.layers, "n_embd": options.width, "n_head": options.heads}
    config = GPT2Config(vocab_size=N, n_positions=1024, bos_token_id=0, eos_token_id=None, **sizes)
    GPT2LMHeadModel(config).save_pretrained(place / "gpt2")
    tokenizer.save_pretrained(place / "gpt2")


@contextlib.contextmanager
def served(case: Case, options: argparse.Namespace) -> Iterator[int]:
    """A server; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(case.command(options, port), env=environment)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                line.request("GET", "/health")
                line.getresponse().read()
                break
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(60)


def ask(case: Case, port: int, tokens: int, seed: int) -> Timed:
    """One request, timed."""
    body = {"model": str(case.folder), "prompt": "ROMEO:", "max_tokens": tokens, "seed": seed}
    body |= {"stream": True}
    if case.sequences is not None:
        body |= {"ignore_eos": True, "stream_options": {"include_usage": True}}
    begun, first = time.perf_counter(), 0.0
    calls: int | None = None
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=3600)
    line.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = line.getresponse()
    if answer.status != 200:
        raise RuntimeError(answer.read().decode())
    for row in answer:
        if row.startswith(b"data: {"):
            first = first or time.perf_counter() - begun
            usage = json.loads(row[6:]).get("usage") or {}
            tokens = usage.get("completion_tokens", tokens)
            calls = usage.get("network_calls", calls)
    return Timed(first, time.perf_counter() - begun, tokens, calls or tokens)


def load(case: Case, port: int, options: argparse.Namespace, rate: float) -> dict[str, float]:
    """Requests at a rate (a second), and what came of them."""
    draw, done, threads = random.Random(options.seed), [], []
    begun = time.perf_counter()
    moment = 0.0
    for number in range(options.requests):
        moment += draw.expovariate(rate)
        tokens = draw.randint(options.shortest, options.longest)
        time.sleep(max(0.0, begun + moment - time.perf_counter()))
        work = threading.Thread(
            target=lambda n=number, t=tokens: done.append(ask(case, port, t, n))
        )
        work.start()
        threads.append(work)
    for work in threads:
        work.join()
    seconds = time.perf_counter() - begun
    tokens = sum(one.tokens for one in done)
    if len(done) < options.requests:
        raise RuntimeError(f"{options.requests - len(done)} requests failed")
    return {
        "requests_per_second": rate,
        "tokens_per_second": tokens / seconds,
        "tokens_per_forward": tokens / sum(one.calls for one in done),
        **shares("first", [one.first for one in done]),
        **shares("whole", [one.whole for one in done]),
    }


def shares(name: str, seconds: list[float]) -> dict[str, float]:
    """P50, P95, P99."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"{name}_p{p}_s": cuts[p - 1] for p in (50, 95, 99)}


def alone(case: Case, port: int, options: argparse.Namespace) -> float:
    """Requests a second when one is drawn after the other."""
    draw = random.Random(options.seed)
    count = min(options.requests, 8)
    ask(case, port, options.shortest, 0)  # warm
    begun = time.perf_counter()
    for number in range(count):
        ask(case, port, draw.randint(options.shortest, options.longest), number)
    return count / (time.perf_counter() - begun)


HEADS = ("tokens/s", "tokens per forward", "first P50", "P95", "P99", "whole P50", "P95", "P99")
KEYS = ("tokens_per_second", "tokens_per_forward")
KEYS += tuple(f"{what}_p{p}_s" for what in ("first", "whole") for p in (50, 95, 99))


def main() -> None:
    """The table and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    sizes = {"layers": 6, "width": 256, "heads": 4, "vocabulary": 8192, "requests": 32}
    sizes |= {"shortest": 32, "longest": 192, "sequences": 16, "seed": 0}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 1.0, 2.0, 3.0])
    parser.add_argument("--peer", metavar="PYTHON", help="of an environment that has the peer")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("serving.json"))
    parser.set_defaults(device="cpu")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    print(f"{'':36}" + "".join(f"{head:>20}" for head in HEADS), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_models(options, place)
        many = options.sequences
        cases = [Case("block, 1 at a time", place / "block", 1)]
        cases += [Case(f"{name}, {many} at a time", place / name, many) for name in ("block", "ar")]
        if options.peer is not None:
            cases.append(Case("transformers serve, GPT-2", place / "gpt2", None))
        with served(cases[0], options) as port:
            capacity = alone(cases[0], port, options)
        for case in cases:
            with served(case, options) as port:
                ask(case, port, options.shortest, 0)
                for rate in options.rates:
                    row = load(case, port, options, rate=rate * capacity)
                    results.append({"case": case.name, "rate": rate} | row)
                    cells = "".join(f"{row[key]:20.2f}" for key in KEYS)
                    print(f"{f'{case.name}, rate {rate:g}':36}{cells}", flush=True)
    about = timing.described(options, ("output", "peer")) | {
        "clock": "wall",
        "alone_per_second": capacity,
    }
    write_json(options.output, {"results": results} | about)


if __name__ == "__main__":
    main()
