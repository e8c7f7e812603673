"""What a GPU makes of textdiff, in one call of under nine minutes: a table on the way, one JSON.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --layers 2 --width 128 --heads 4 --length 128 --output /tmp/gpu.json
    python benchmarks/gpu.py --parts generation  # the others stay as they are in the JSON

Training at 12 x 768 and length 1,024 in bf16 (tokens/s, share of the peak that the matrix products
reach, memory, syncs of the host), generation of 512 tokens beside `transformers`' GPT-2 (tokens/s,
NFE, tokens per forward), and every attention kernel against SDPA in float64. Each row is written
when it is done, so that a run that is cut short leaves what it has, and each part says which card
gave it. Without a GPU it says so and ends well.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import training
import transformers
from gpu_generation import generation_rows
from gpu_kernels import kernel_rows
from torch.utils.flop_counter import FlopCounterMode

from textdiff.files import write_json

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s of a card's datasheet."""

WAYS = (("sdpa", False), ("sdpa", True), ("flex", False))
"""Kernel, and whether blocks are compiled."""

TRAINED = ("AR", "absorbing flat", "ε flat", "ε block 16", "γ slide (16, 4)")


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Mean seconds of a call between two events of the device, after two that are not counted."""
    for _ in range(2):
        call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(rounds):
        call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / rounds


def ceiling() -> float:
    """FLOP/s of one large bf16 matrix product: what this card gives today."""
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds(lambda: a @ b, rounds=10)


def syncs(call: Callable[[], object]) -> int:
    """How often the host waits for the device in a call."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def flops(runner: training.Runner) -> int:
    """FLOPs of the matrix products of a step, masks counted as if all were seen."""
    with FlopCounterMode(display=False) as counter:
        runner.step()
    return counter.get_total_flops()


def trained(options: argparse.Namespace, name: str, kernel: str, compiled: bool) -> dict[str, Any]:
    """Speed, memory and syncs of one case's training step."""
    choices = {**vars(options), "device": "cuda", "bf16": True, "attention": kernel}
    runner = training.make(name, argparse.Namespace(**choices, compile=compiled))
    runner.now = time.perf_counter  # its own would wait for the device at every part
    if compiled and name == "GPT-2":
        for block in runner.model.transformer.h:
            block.compile()
    torch.cuda.reset_peak_memory_stats()
    spent = seconds(runner.step, options.rounds)
    peak = torch.cuda.max_memory_allocated()
    return {
        "tokens_per_second": runner.ids.numel() / spent,
        # the same for all ways; flex's cannot be counted
        "flops": flops(runner) if (kernel, compiled) == WAYS[0] else None,
        "seconds": spent,
        "peak_gb": peak / 1e9,
        "parameters": sum(p.numel() for p in runner.model.parameters()),
        "syncs": syncs(runner.step),
    }


def training_rows(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """GPT-2 and every case with SDPA, then compiled; GPT-2 with a vocabulary that a GPU likes; ours
    with flex.
    """
    peak = next((p for card, p in PEAKS.items() if card in torch.cuda.get_device_name()), None)
    whole = {**vars(options), "vocabulary": -(-options.vocabulary // 64) * 64}
    cases = [(name, options, *WAYS[0]) for name in ("GPT-2", *TRAINED)]
    cases += [(name, options, *WAYS[1]) for name in ("GPT-2", *TRAINED)]
    cases += [("GPT-2", argparse.Namespace(**whole), *WAYS[1])]
    cases += [(name, options, *WAYS[2]) for name in TRAINED]
    work: dict[str, float] = {}
    for name, sizes, kernel, compiled in cases:
        label = f"{name}, {kernel}{', compiled' if compiled else ''}"
        if sizes is not options:
            label += f", {sizes.vocabulary:,} tokens"
        try:
            row = trained(sizes, name, kernel, compiled)
        except Exception as error:  # one way that fails must not cost the others
            row = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        else:
            row["flops"] = work.setdefault(name, row["flops"])
            row["mfu"] = None if peak is None else row["flops"] / row["seconds"] / peak
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        yield label, row


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[tuple[str, dict[str, Any]]]]] = {
    "generation": generation_rows,
    "training": training_rows,
    "kernels": kernel_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"layers": 12, "width": 768, "heads": 12, "length": 1024, "vocabulary": 50257}
    sizes |= {"batch": 16, "samples": 16, "drawn": 512, "rounds": 5, "budget": 480}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU here: nothing was measured")
        return
    begin = time.monotonic()
    conditions = {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "settings": {name: getattr(options, name) for name in sizes},
        "matrix product, FLOP/s": ceiling(),
    }
    known = json.loads(options.output.read_text()) if options.output.exists() else {}
    for part in options.parts:
        rows: dict[str, Any] = {}
        for name, row in PARTS[part](options):
            rows[name] = row
            print(f"{time.monotonic() - begin:5.0f} s  {part}: {name}  {row}", flush=True)
            known[part] = {**conditions, "rows": rows}
            write_json(options.output, known)
            if time.monotonic() - begin > options.budget:
                print(f"the budget of {options.budget} s is spent: the rest was left out")
                return


if __name__ == "__main__":
    main()
