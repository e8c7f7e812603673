"""Speed of generation beside GPT-2's own `generate` with its cache, interleaved in one run: a table
and a JSON.

    # the shape of our claims: 6 x 256, vocabulary 50,257, 256 new tokens, batches of 1 and 4
    python benchmarks/generation.py
    python benchmarks/generation.py --layers 2 --vocabulary 1000 --length 64 --rounds 1 --output
    /tmp/generation.json

Weights are random: time does not depend on them, except that a trained hybrid corrects more or
less. Ratios to GPT-2's tokens/s of the same batch carry over between machines, seconds do not. With
one thread (OMP_NUM_THREADS=1) seconds are this process's CPU time, which other work on the machine
disturbs least; else wall time. Rows are those that went through body and head for one whole batch.
Memory is the peak above the weights, in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import timing
import torch

from textdiff.files import write_json
from textdiff.generation.engine import denoise
from textdiff.hyperschedule import Block, Flat, Hyperschedule, QuenchedAR, Slide
from textdiff.network import Transformer
from textdiff.noise import Noise
from textdiff.process import Absorbing, EpsilonHybrid, Process
from textdiff.samplers import ACS, Ancestral, Sampler


@dataclass(frozen=True)
class Case:
    """A way to generate."""

    schedule: Hyperschedule
    process: Process = field(default_factory=Absorbing)
    sampler: Sampler = field(default_factory=Ancestral)
    layout: str = "aligned"
    use_cache: bool = True


CASES = {
    "quenched AR": Case(QuenchedAR(), layout="shifted"),
    "quenched AR, no cache": Case(QuenchedAR(), layout="shifted", use_cache=False),
    "block 16 × 16": Case(Block(16, 16)),
    "block 16 × 16, no cache": Case(Block(16, 16), use_cache=False),
    "block 16 × 4": Case(Block(16, 4)),
    "block 16 × 16, ACS": Case(Block(16, 16), EpsilonHybrid(), ACS(eta=0.01)),
    "block 16 × 4, ACS": Case(Block(16, 4), EpsilonHybrid(), ACS(eta=0.01)),
    "slide 16, ρ = 1": Case(Slide(16, 1)),
    "slide 16, ρ = 1, no cache": Case(Slide(16, 1), use_cache=False),
    "slide 16, ρ = 2": Case(Slide(16, 2)),
    "slide 16, ρ = 4": Case(Slide(16, 4)),
    "slide 16, ρ = 4, ACS": Case(Slide(16, 4), EpsilonHybrid(), ACS(eta=0.01)),
    "flat 64": Case(Flat(64)),
    "flat 64, ACS": Case(Flat(64), EpsilonHybrid(), ACS(eta=0.01)),
    "flat 256": Case(Flat(256)),
}


class GPT2:
    """`transformers`' GPT-2 and its `generate`, plain sampling with the cache."""

    def __init__(self, options: argparse.Namespace):
        from transformers import GPT2Config, GPT2LMHeadModel

        o = options
        shape = {
            "n_layer": o.layers,
            "n_embd": o.width,
            "n_head": o.heads,
            "n_positions": o.length + 1,
            "vocab_size": o.vocabulary,
        }
        self.network = (
            GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=None))
            .eval()
            .to(o.device)
        )
        self.options = o

    @torch.no_grad()
    def __call__(self, batch: int, seed: int) -> dict[str, float]:
        torch.manual_seed(seed)
        o, ids = self.options, torch.zeros(batch, 1, dtype=torch.int64, device=self.options.device)
        length = {"max_new_tokens": o.length, "min_new_tokens": o.length}
        mask = torch.ones_like(ids)
        self.network.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            use_cache=True,
            pad_token_id=0,
            **length,
        )
        return {"nfe": o.length, "body_rows": batch * o.length, "head_rows": batch * o.length}


class Ours:
    """A textdiff case."""

    def __init__(self, options: argparse.Namespace, case: Case):
        o = options
        shape = Transformer(
            o.layers, o.width, o.heads, tie=True, layout=case.layout, attention=o.attention
        )
        self.network = shape.build(o.vocabulary, case.process.needs_time, 0).eval().to(o.device)
        self.options, self.case = options, case

    def __call__(self, batch: int, seed: int) -> dict[str, float]:
        o, c = self.options, self.case
        given = torch.full((batch, o.length), o.vocabulary, device=o.device)
        noise = Noise(seed, torch.arange(batch, device=o.device))
        done = denoise(
            self.network,
            c.process,
            c.schedule,
            sampler=c.sampler,
            noise=noise,
            ids=given,
            use_cache=c.use_cache,
        )
        return {
            "nfe": float(done.nfe.double().mean()),
            "body_rows": done.body_rows,
            "head_rows": done.head_rows,
        }


def make(name: str, options: argparse.Namespace) -> GPT2 | Ours:
    return GPT2(options) if name == "GPT-2" else Ours(options, CASES[name])


def memory(name: str, options: argparse.Namespace) -> float:
    """Peak bytes above the weights, in this process."""
    small = {"layers": 1, "vocabulary": 64, "width": 2 * options.heads, "length": 16}
    make(name, argparse.Namespace(**{**vars(options), **small}))(1, 0)
    runner, peak = timing.peak_during(
        lambda: make(name, options),
        lambda runner: runner(max(options.batches), 0),
        options.device == "cuda",
    )
    return peak - timing.size(runner.network)


def speed(name: str, batch: int, round_: int, options: argparse.Namespace) -> dict[str, float]:
    """One batch of a case: its counts and tokens a second."""
    timing.told(f"round {round_ + 1}/{options.rounds}: {name}, batch {batch}")
    runner = make(name, options)
    begin = timing.now(options)
    counts = runner(batch, round_)
    return {**counts, "tokens_per_second": batch * options.length / (timing.now(options) - begin)}


def measure(options: argparse.Namespace) -> dict[str, dict]:
    """Every case once a round for each batch; the fastest round counts, GPT-2's too."""
    names = ["GPT-2", *(name for name in CASES if not options.only or name in options.only)]
    rows: dict[str, dict] = {name: {} for name in names}
    for round_ in range(options.rounds):
        for name in names:
            for batch in options.batches:
                known = rows[name].get(str(batch), {"tokens_per_second": 0.0})
                speeds = speed(name, batch, round_, options)
                fastest = max(speeds["tokens_per_second"], known["tokens_per_second"])
                rows[name][str(batch)] = {**speeds, "tokens_per_second": fastest}
    for name in names:
        timing.told(f"memory: {name}")
        child = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
        done = subprocess.run(child, capture_output=True, text=True, check=True)
        rows[name]["memory_gb"] = float(done.stdout.split()[-1]) / 1e9
        for batch in map(str, options.batches):
            base = rows["GPT-2"][batch]["tokens_per_second"]
            rows[name][batch]["ratio"] = rows[name][batch]["tokens_per_second"] / base
    print(file=sys.stderr)
    return rows


def show(rows: dict[str, dict], options: argparse.Namespace) -> None:
    speeds = "".join(f"{f'tokens/s, B={b}':>15}{'ratio':>7}" for b in options.batches)
    print(f"{'case':<28}{speeds}{'NFE':>7}{'body rows':>11}{'head rows':>11}{'memory GB':>11}")
    for name, row in rows.items():
        speeds = "".join(
            f"{row[str(b)]['tokens_per_second']:15.1f}{row[str(b)]['ratio']:7.2f}"
            for b in options.batches
        )
        last = row[str(options.batches[-1])]
        counts = f"{last['nfe']:7.0f}{last['body_rows']:11,}{last['head_rows']:11,}"
        print(f"{name:<28}{speeds}{counts}{row['memory_gb']:11.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shape = {"layers": 6, "width": 256, "heads": 4, "length": 256, "vocabulary": 50257, "rounds": 3}
    for name, value in shape.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--only", nargs="+", choices=list(CASES), help="these cases only")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--attention", default="sdpa", help="kernel of our cases")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("generation.json"))
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # the child that measures memory
    options = parser.parse_args()
    if options.memory_of:
        print(memory(options.memory_of, options))
        return
    rows = measure(options)
    show(rows, options)
    result = {**timing.described(options, ("memory_of", "output", "only")), "cases": rows}
    write_json(options.output, result)


if __name__ == "__main__":
    main()
