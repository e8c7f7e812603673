"""Training speed beside GPT-2 of the same shape, interleaved in one run: a table and a JSON.

    # the shape of our claims: 6 x 256, context 256, vocabulary 50,257, batch 8
    python benchmarks/training.py
    python benchmarks/training.py --layers 2 --vocabulary 1000 --rounds 2 --output
    /tmp/training.json

A step is draw, forward, backward, AdamW. Ratios to GPT-2's tokens/s carry over between machines,
seconds do not. With one thread (OMP_NUM_THREADS=1) seconds are this process's CPU time, which other
work on the machine disturbs least; else wall time. "body" holds the whole backward pass; we make
the head's gradient in the forward pass, so ours is in "head", GPT-2's in "body".

Memory is the peak above weights, gradients and AdamW's moments (4 x the weights), in a process of
its own: of what is alive (on the CPU resident memory while glibc hands freed blocks of 1 MB and
more back at once), and "resident" as glibc hoards by default.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import timing
import torch
from torch import nn

from textdiff.files import write_json
from textdiff.hyperschedule import Block, Flat, Hyperschedule, QuenchedAR, Slide
from textdiff.network import Transformer
from textdiff.noise import Noise
from textdiff.objective import (
    Batch,
    Bound,
    Estimator,
    MaskCount,
    Nelbo,
    Objective,
    Stratified,
    WeightedCrossEntropy,
)
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid, Process

CASES: dict[str, tuple[Process, Hyperschedule, Objective, Estimator, str]] = {
    "AR": (Absorbing(), QuenchedAR(), Nelbo(), Stratified(), "shifted"),
    "absorbing flat": (Absorbing(), Flat(64), Nelbo(), MaskCount(), "aligned"),
    "absorbing block 16": (Absorbing(), Block(16, 16), Nelbo(), MaskCount(), "aligned"),
    "ε flat": (EpsilonHybrid(), Flat(64), WeightedCrossEntropy(), MaskCount(), "aligned"),
    "ε block 16": (EpsilonHybrid(), Block(16, 16), WeightedCrossEntropy(), MaskCount(), "aligned"),
    "γ flat": (GammaHybrid(0.05), Flat(64), Nelbo(), Stratified(), "aligned"),
    "γ block 16": (GammaHybrid(0.05), Block(16, 16), Nelbo(), Stratified(), "aligned"),
    "γ slide (16, 4)": (GammaHybrid(0.05), Slide(16, 4), Nelbo(), Stratified(), "aligned"),
    "absorbing slide (16, 4)": (Absorbing(), Slide(16, 4), Nelbo(), Stratified(), "aligned"),
}


class Runner:
    """One model and its step; keeps the seconds of each part."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.steps = options, 0
        self.seconds = dict.fromkeys(("step", "body", "head", "backward", "optimizer"), 0.0)
        self.supervised = 0
        self.model = self.build().to(options.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        shape = (options.batch, options.length)
        self.ids = torch.randint(
            0, options.vocabulary, shape, generator=torch.Generator().manual_seed(0)
        ).to(options.device)

    def build(self) -> nn.Module:
        raise NotImplementedError

    def loss(self) -> torch.Tensor:
        raise NotImplementedError

    def timed(self, part: str, call: Callable) -> object:
        begin = self.now()
        result = call()
        self.seconds[part] += self.now() - begin
        return result

    def now(self) -> float:
        return timing.now(self.options)

    def step(self) -> None:
        begin = self.now()
        with torch.autocast(self.options.device, torch.bfloat16, enabled=self.options.bf16):
            loss = self.loss()
        self.timed("backward", loss.backward)
        self.timed("optimizer", self.optimizer.step)
        self.optimizer.zero_grad()
        self.seconds["step"] += self.now() - begin
        self.steps += 1

    def row(self) -> dict[str, float]:
        total = self.seconds["step"]
        tokens = self.steps * self.ids.numel()
        body = self.seconds["body"] + self.seconds["backward"]
        return {
            "tokens_per_second": tokens / total,
            "supervised_per_second": self.supervised / total,
            "body": body / total,
            "head": self.seconds["head"] / total,
            "optimizer": self.seconds["optimizer"] / total,
        }


class GPT2(Runner):
    """`transformers`' GPT-2 with its own loss."""

    def build(self) -> nn.Module:
        from transformers import GPT2Config, GPT2LMHeadModel

        o = self.options
        shape = {
            "n_layer": o.layers,
            "n_embd": o.width,
            "n_head": o.heads,
            "n_positions": o.length,
            "vocab_size": o.vocabulary,
        }
        return GPT2LMHeadModel(
            GPT2Config(
                **shape, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, loss_type="ForCausalLM"
            )
        )

    def loss(self) -> torch.Tensor:
        self.supervised += self.ids.numel() - len(self.ids)
        hidden = self.timed("body", lambda: self.model.transformer(self.ids).last_hidden_state)

        def head() -> torch.Tensor:
            logits = self.model.lm_head(hidden)
            return self.model.loss_function(logits, self.ids, vocab_size=self.options.vocabulary)

        return self.timed("head", head)


class Ours(Runner):
    """A textdiff case."""

    def __init__(self, options: argparse.Namespace, name: str):
        self.process, self.schedule, self.objective, self.estimator, self.layout = CASES[name]
        super().__init__(options)
        body = self.model.body
        self.model.body = lambda *call: self.timed("body", lambda: body(*call))
        if options.compile:
            self.model.compile()

    def build(self) -> nn.Module:
        o = self.options
        shape = Transformer(
            o.layers, o.width, o.heads, tie=True, layout=self.layout, attention=o.attention
        )
        return shape.build(o.vocabulary, self.process.needs_time, 0)

    def loss(self) -> torch.Tensor:
        rows = torch.arange(len(self.ids), device=self.ids.device)
        batch = Batch(self.ids, rows, rows + self.steps * len(rows))
        draw = self.estimator(
            batch, self.process, self.schedule, self.options.vocabulary, Noise(0, batch.slot)
        )
        before, begin = self.seconds["body"], self.now()
        bound = Bound("loss", self.process, self.schedule, self.objective, self.estimator)
        nats = bound.at(self.model, batch, draw)
        self.seconds["head"] += self.now() - begin - (self.seconds["body"] - before)
        self.supervised += int((nats.values != 0).sum())
        return nats.total / self.ids.numel()


def make(name: str, options: argparse.Namespace) -> Runner:
    return GPT2(options) if name == "GPT-2" else Ours(options, name)


def memory(name: str, options: argparse.Namespace) -> float:
    """Peak bytes above weights, gradients and moments during two steps, in this process."""
    small = {"layers": 1, "vocabulary": 64, "width": 2 * options.heads}
    make(name, argparse.Namespace(**{**vars(options), **small})).step()

    def steps(runner: Runner) -> None:
        runner.step()
        runner.step()

    cuda = options.device == "cuda"
    runner, peak = timing.peak_during(lambda: make(name, options), steps, cuda)
    return peak - 4 * timing.size(runner.model)


def measured(name: str, environment: dict[str, str]) -> float:
    """`memory` in a process with these environment variables, GB."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.split()[-1]) / 1e9


def speeds(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Every case once a round, after a step that is not counted."""
    runners = {name: make(name, options) for name in ("GPT-2", *CASES)}
    for runner in runners.values():
        runner.step()
        runner.seconds = dict.fromkeys(runner.seconds, 0.0)
        runner.supervised = 0
        runner.steps = 0
    for round_ in range(options.rounds):
        for name, runner in runners.items():
            timing.told(f"round {round_ + 1}/{options.rounds}: {name}")
            runner.step()
    return {name: runner.row() for name, runner in runners.items()}


def show(rows: dict[str, dict[str, float]]) -> None:
    """The table on the screen."""
    print(
        f"{'case':<24} {'tokens/s':>9} {'ratio':>6} {'superv./s':>13} {'alive GB':>9} "
        f"{'resident':>9} {'body':>5} {'head':>6} {'adamw':>5}"
    )
    for name, row in rows.items():
        shares = " ".join(f"{100 * row[part]:5.0f}%" for part in ("body", "head", "optimizer"))
        print(
            f"{name:<24} {row['tokens_per_second']:9.0f} {row['ratio']:6.2f} "
            f"{row['supervised_per_second']:13.0f} {row['memory_gb']:9.2f} "
            f"{row['resident_gb']:9.2f} {shares}"
        )


SHAPE = {"layers": 6, "width": 256, "heads": 4, "length": 256, "vocabulary": 50257}
SHAPE |= {"batch": 8, "rounds": 6}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in SHAPE.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--attention", default="sdpa", help="kernel of our cases")
    parser.add_argument(
        "--bf16", action="store_true", help="autocast matrix products to bfloat16, for GPT-2 too"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile our blocks")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("training.json"))
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # the child that measures memory
    return parser


def main() -> None:
    options = _parser().parse_args()
    if options.memory_of:
        print(memory(options.memory_of, options))
        return
    rows = speeds(options)
    given_back = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    for name, row in rows.items():
        timing.told(f"memory: {name}")
        row["memory_gb"] = measured(name, given_back)
        row["resident_gb"] = measured(name, dict(os.environ))
        row["ratio"] = row["tokens_per_second"] / rows["GPT-2"]["tokens_per_second"]
    print(file=sys.stderr)
    show(rows)
    result = {**timing.described(options, ("memory_of", "output")), "cases": rows}
    write_json(options.output, result)


if __name__ == "__main__":
    main()
