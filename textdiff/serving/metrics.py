"""What a server tells Prometheus: outcomes, queue, times, tokens, calls, cache, memory."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping
from typing import Any

import torch
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from ..model.streaming import Committed, Event, Finished

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
PER_TOKEN = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
OF_FORWARD = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry}
        self.requests = Counter(
            "textdiff_requests", "Requests by route and outcome", ["route", "outcome"], **own
        )
        self.waiting = Gauge("textdiff_queue_length", "Sequences that wait for a place", **own)
        self.running = Gauge("textdiff_running_sequences", "Sequences being drawn", **own)
        self.first = Histogram(
            "textdiff_first_token_seconds",
            "From a request to its first settled token",
            buckets=SECONDS,
            **own,
        )
        self.each = Histogram(
            "textdiff_token_seconds",
            "Seconds for each settled token of a sequence",
            buckets=PER_TOKEN,
            **own,
        )
        self.latency = Histogram(
            "textdiff_request_seconds",
            "From a request to the end of its answer",
            ["route"],
            buckets=SECONDS,
            **own,
        )
        self.tokens = Counter("textdiff_committed_tokens", "Drawn tokens that settled", **own)
        self.calls = Counter("textdiff_network_calls", "Calls of the network", **own)
        self.forward = Histogram(
            "textdiff_tokens_per_forward",
            "Drawn tokens of a sequence for each call that it needed",
            buckets=OF_FORWARD,
            **own,
        )
        self.body_rows = Counter("textdiff_body_rows", "Rows fed to the network's body", **own)
        self.head_rows = Counter("textdiff_head_rows", "Rows fed to its head", **own)
        self.cache = Counter("textdiff_cache", "Answers by hit, miss and error", ["result"], **own)
        memory = Gauge("textdiff_memory_bytes", "Resident memory of the process", **own)
        memory.set_function(resident)
        if torch.cuda.is_available():
            share = Gauge("textdiff_gpu_memory_ratio", "GPU memory in use, of all of it", **own)
            share.set_function(gpu_share)

    def watch(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        """Read the queue when asked, from these."""
        self.waiting.set_function(waiting)
        self.running.set_function(running)

    def worked(self, calls: int, body_rows: int, head_rows: int) -> None:
        """Count what a step has fed."""
        self.calls.inc(calls)
        self.body_rows.inc(body_rows)
        self.head_rows.inc(head_rows)

    def told(self, event: Event, seconds: float, is_first: bool) -> None:
        """Count an event so long after its request came, which may settle the first tokens."""
        if isinstance(event, Committed):
            self.tokens.inc(len(event.ids))
            if is_first:
                self.first.observe(seconds)
        elif isinstance(event, Finished) and event.tokens:
            self.each.observe(seconds / event.tokens)
            self.forward.observe(event.tokens / max(event.nfe, 1))

    def text(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self.registry)


def resident() -> float:
    """Resident bytes of this process; the peak where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return float(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def gpu_share() -> float:
    """GPU memory in use, of all of it."""
    free, total = torch.cuda.mem_get_info()
    return 1 - free / total


class _Labelled:
    """A collector of the figures of several servers."""

    def __init__(self, texts: Mapping[str, bytes]):
        self.texts = texts

    def collect(self) -> list[Metric]:
        found: dict[str, Metric] = {}
        for name, text in sorted(self.texts.items()):
            for family in text_string_to_metric_families(text.decode()):
                same = Metric(family.name, family.documentation, family.type)
                found.setdefault(family.name, same).samples += [
                    sample._replace(labels=sample.labels | {"replica": name})
                    for sample in family.samples
                ]
        return list(found.values())


def together(texts: Mapping[str, bytes]) -> bytes:
    """The figures of several servers as Prometheus reads them, each with its name as the label
    `replica`; texts are those of `Metrics.text` by name.
    """
    registry = CollectorRegistry()
    registry.register(_Labelled(texts))
    return generate_latest(registry)
