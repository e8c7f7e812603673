"""Requests that come one after the other: an engine in which each has its own clock, beside
`generate` on groups of those that wait, in one run.

    OMP_NUM_THREADS=1 python benchmarks/engine.py
    python benchmarks/engine.py --layers 1 --width 16 --heads 2 --vocabulary 50 --requests 6
    --shortest 8 --longest 16 --group 4 --output /tmp/engine.json

Requests arrive at random (Poisson) at 1.2 times what the groups can serve, lengths are uniform, no
text ends early. Tokens a second cannot exceed what arrives, so the same requests are also served
all at once. Time is this process's CPU time: a request that has not come yet is waited for by
moving the clock. Weights are random: the work does not depend on them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import timing
import torch
from torch.nn.utils.rnn import pad_sequence

from textdiff.files import write_json
from textdiff.generation import Committed, Engine, Finished, Request
from textdiff.generation.engine import denoise
from textdiff.hyperschedule import Block, Flat, Hyperschedule, QuenchedAR
from textdiff.network import Transformer
from textdiff.noise import Noise
from textdiff.process import Absorbing
from textdiff.samplers import Ancestral


class Clock:
    """CPU time of this process since it was made, moved on while nobody has anything to do."""

    def __init__(self) -> None:
        self.begun = time.process_time()
        self.skipped = 0.0

    @property
    def now(self) -> float:
        """Seconds."""
        return time.process_time() - self.begun + self.skipped

    def wait_until(self, moment: float) -> None:
        """Go on at this moment, or now if it has passed."""
        self.skipped += max(0.0, moment - self.now)


@dataclass(frozen=True)
class Load:
    """Requests: when each comes, its tokens, and its schedule."""

    arrivals: list[float]
    lengths: list[int]
    schedules: list[Hyperschedule]


@dataclass(frozen=True)
class Served:
    """When each request had its first settled token, and its last."""

    first: list[float]
    last: list[float]


def in_groups(network: Any, load: Load, group: int) -> Served:
    """`denoise` on those that wait, `group` of one schedule at most; whole texts come back."""
    clock, waiting = Clock(), list(range(len(load.lengths)))
    ends = [0.0] * len(load.lengths)
    N = network.num_tokens
    while waiting:
        clock.wait_until(load.arrivals[waiting[0]])
        first = load.schedules[waiting[0]]
        come = [n for n in waiting if load.arrivals[n] <= clock.now and load.schedules[n] == first]
        batch = come[:group]
        rows = [torch.full((load.lengths[n],), N) for n in batch]
        L = torch.tensor([len(row) for row in rows])
        same = len(set(L.tolist())) == 1
        denoise(
            network,
            Absorbing(),
            first,
            Ancestral(),
            Noise(0, torch.tensor(batch)),
            ids=pad_sequence(rows, batch_first=True),
            use_cache=network.cacheable,
            end=None if same else L,
        )
        for n in batch:
            ends[n] = clock.now
        waiting = [n for n in waiting if n not in batch]
    return Served(ends, ends)


def in_engine(network: Any, load: Load, group: int) -> Served:
    """An engine that holds as many at a time."""
    clock, coming = Clock(), list(range(len(load.lengths)))
    first, last = [0.0] * len(coming), [0.0] * len(coming)
    engine = Engine(network, Absorbing(), max_sequences=group, max_length=max(load.lengths))
    handles: dict[int, int] = {}
    while coming or engine.busy:
        if not engine.busy:
            clock.wait_until(load.arrivals[coming[0]])
        while coming and load.arrivals[coming[0]] <= clock.now:
            n = coming.pop(0)
            ids = torch.full((load.lengths[n],), network.num_tokens)
            asked = Request(ids, load.schedules[n], Ancestral(), seed=0, example=n)
            handles[engine.submit(asked)] = n
        for event in engine.step():
            n = handles[event.handle]
            if isinstance(event, Committed):
                first[n] = first[n] or clock.now
            elif isinstance(event, Finished):
                last[n] = clock.now
    return Served(first, last)


def figures(load: Load, served: Served) -> dict[str, float]:
    """Tokens a second, and the waits."""
    first = [end - come for end, come in zip(served.first, load.arrivals, strict=True)]
    last = [end - come for end, come in zip(served.last, load.arrivals, strict=True)]
    busy = max(served.last) - load.arrivals[0]
    return {
        "tokens_per_second": sum(load.lengths) / busy,
        "first_token_median_s": median(first),
        "whole_median_s": median(last),
    }


def run(
    options: argparse.Namespace, layout: str, schedules: Callable[[int], Hyperschedule]
) -> dict[str, Any]:
    """One mix of schedules, both ways."""
    torch.manual_seed(0)
    shape = Transformer(options.layers, options.width, options.heads, layout=layout)
    network = shape.build(options.vocabulary, sees_time=False, bos=0).eval()
    draw = torch.Generator().manual_seed(options.seed)
    count = options.requests
    lengths = torch.randint(options.shortest, options.longest + 1, (count,), generator=draw)
    gaps = -torch.rand(count, generator=draw, dtype=torch.float64).log()
    mix = [schedules(n) for n in range(count)]
    at_once = Load([0.0] * count, lengths.tolist(), mix)
    in_engine(network, Load([0.0], [options.shortest], mix[:1]), options.group)  # warm
    before = in_groups(network, at_once, options.group)
    together = [figures(at_once, s) for s in (before, in_engine(network, at_once, options.group))]
    capacity = count / max(before.last)
    arrivals = (gaps.cumsum(0) / (1.2 * capacity)).tolist()
    load = Load(arrivals, lengths.tolist(), mix)
    groups = figures(load, in_groups(network, load, options.group))
    engine = figures(load, in_engine(network, load, options.group))
    speeds = [one["tokens_per_second"] for one in together]
    return {
        "all_at_once": dict(zip(("groups", "engine"), together, strict=True)),
        "all_at_once_ratio": speeds[1] / speeds[0],
        "groups": groups,
        "engine": engine,
        "tokens_ratio": engine["tokens_per_second"] / groups["tokens_per_second"],
        "first_token_ratio": engine["first_token_median_s"] / groups["first_token_median_s"],
    }


MIXES = {
    "quenched AR": ("shifted", lambda n: QuenchedAR()),
    "block 16 × 16": ("aligned", lambda n: Block(16, 16)),
    "half flat 64, half quenched AR": ("aligned", lambda n: Flat(64) if n % 2 else QuenchedAR()),
}


def main() -> None:
    """The table and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for name, value in {
        "layers": 6,
        "width": 256,
        "heads": 4,
        "vocabulary": 50257,
        "requests": 32,
        "shortest": 64,
        "longest": 512,
        "group": 16,
        "seed": 0,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.set_defaults(device="cpu")
    parser.add_argument("--mixes", nargs="*", default=list(MIXES))
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("engine.json"))
    options = parser.parse_args()
    results = {}
    heads = ("all at once, tokens/s", "ratio", "arriving, tokens/s", "first token, s", "ratio")
    print(f"{'':32}" + "".join(f"{head:>24}" for head in heads))
    for name in options.mixes:
        one = run(options, *MIXES[name])
        results[name] = one
        ways = ("groups", "engine")
        cells = [
            " → ".join(f"{one['all_at_once'][way]['tokens_per_second']:.0f}" for way in ways),
            f"{one['all_at_once_ratio']:.2f}",
            " → ".join(f"{one[way]['tokens_per_second']:.0f}" for way in ways),
            " → ".join(f"{one[way]['first_token_median_s']:.2f}" for way in ways),
            f"{one['first_token_ratio']:.3f}",
        ]
        print(f"{name:32}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
    write_json(options.output, {"results": results} | timing.described(options, ("output",)))


if __name__ == "__main__":
    main()
