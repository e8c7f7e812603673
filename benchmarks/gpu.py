"""What a GPU makes of textdiff, in one call of under nine minutes: a table on the way, one JSON.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --layers 2 --width 128 --heads 4 --length 128 --output /tmp/gpu.json

Training at 12 x 768 and length 1,024 in bf16 (tokens/s, share of the peak that the matrix products
reach, memory, syncs of the host), generation beside `transformers`' GPT-2 (tokens/s, NFE, tokens
per forward), and every attention kernel against SDPA in float64. Each part is written when it is
done, so that a run that is cut short leaves what it has. Without a GPU it says so and ends well.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import training
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from textdiff.denoiser.visibility import window_sight
from textdiff.files import write_json
from textdiff.generation import denoise
from textdiff.hyperschedule import Block, Flat, Hyperschedule, QuenchedAR, Slide
from textdiff.network import Transformer
from textdiff.network.kernels import BACKENDS, check_backend, sdpa
from textdiff.noise import Noise
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid, Process
from textdiff.samplers import ACS, Ancestral, Sampler

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s of a card's datasheet."""

TRAINED = ("AR", "absorbing flat", "ε flat", "ε block 16", "γ slide (16, 4)")
DRAWN: dict[str, tuple[Process, Hyperschedule, Sampler, str]] = {
    "quenched AR": (Absorbing(), QuenchedAR(), Ancestral(), "shifted"),
    "block 16 × 16": (Absorbing(), Block(16, 16), Ancestral(), "aligned"),
    "block 16 × 4": (Absorbing(), Block(16, 4), Ancestral(), "aligned"),
    "ε block 16 × 4, ACS": (EpsilonHybrid(), Block(16, 4), ACS(rate=4.0), "aligned"),
    "γ slide 16, ρ = 4": (GammaHybrid(0.05), Slide(16, 4), Ancestral(), "aligned"),
    "flat 64": (Absorbing(), Flat(64), Ancestral(), "aligned"),
}


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
    torch.cuda.reset_peak_memory_stats()
    spent = seconds(runner.step, options.rounds)
    peak = torch.cuda.max_memory_allocated()
    return {
        "tokens_per_second": runner.ids.numel() / spent,
        "flops": flops(runner) if kernel == "sdpa" else None,
        "seconds": spent,
        "peak_gb": peak / 1e9,
        "parameters": sum(p.numel() for p in runner.model.parameters()),
        "syncs": syncs(runner.step),
    }


def training_rows(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every case with SDPA, compiled, and with flex."""
    peak = next((p for card, p in PEAKS.items() if card in torch.cuda.get_device_name()), None)
    ways = [("sdpa", False), ("sdpa", True), ("flex", False)]
    for name in ("GPT-2", *TRAINED):
        work = None
        for kernel, compiled in ways[:1] if name == "GPT-2" else ways:
            label = f"{name}, {kernel}{', compiled' if compiled else ''}"
            try:
                row = trained(options, name, kernel, compiled)
            except Exception as error:  # one way that fails must not cost the others
                row = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            else:
                work = work or row["flops"]  # that of SDPA: flex's cannot be counted
                row["mfu"] = None if peak is None else work / row["seconds"] / peak
            torch._dynamo.reset()
            torch.cuda.empty_cache()
            yield label, row


def gpt2_speed(options: argparse.Namespace) -> dict[str, float]:
    """`transformers`' own generate with its cache, in bf16."""
    model = training.GPT2(argparse.Namespace(**{**vars(options), "device": "cuda"})).model
    model = model.to(torch.bfloat16).eval()
    prompt = torch.zeros(options.samples, 1, dtype=torch.int64, device="cuda")
    length = options.length - 1

    def draw() -> None:
        choices = {"min_new_tokens": length, "max_new_tokens": length, "pad_token_id": 0}
        model.generate(prompt, do_sample=True, **choices)

    spent = seconds(draw, rounds=1)
    return {"tokens_per_second": length * options.samples / spent, "nfe": length}


def drawn(options: argparse.Namespace, name: str) -> dict[str, float]:
    """Tokens/s of one way of drawing with its cache, in bf16 with float64 draws."""
    process, schedule, sampler, layout = DRAWN[name]
    shape = Transformer(options.layers, options.width, options.heads, tie=True, layout=layout)
    network = shape.build(options.vocabulary, process.needs_time, 0)
    network = network.to("cuda", torch.bfloat16).eval()
    example = torch.arange(options.samples, device="cuda")
    ids = torch.full((options.samples, options.length), options.vocabulary, device="cuda")
    nfe = []

    def draw() -> None:
        noise = Noise(0, example)
        cached = not schedule.plan(options.length, torch.device("cpu")).flat
        call = denoise(network, process, schedule, sampler, noise, ids=ids, use_cache=cached)
        nfe.append(float(call.nfe.double().mean()))

    spent = seconds(draw, rounds=1)
    return {
        "tokens_per_second": ids.numel() / spent,
        "nfe": nfe[-1],
        "tokens_per_forward": options.length / nfe[-1],
    }


def generation_rows(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """GPT-2, then ours."""
    yield "GPT-2", gpt2_speed(options)
    for name in DRAWN:
        try:
            row = drawn(options, name)
        except Exception as error:
            row = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        yield name, row


def masks(length: int) -> dict[str, tuple[Tensor | None, bool]]:
    """What training asks of a kernel: none, causal, two streams of blocks and of a slide."""
    found: dict[str, tuple[Tensor | None, bool]] = {"full": (None, False), "causal": (None, True)}
    for schedule in (Block(16, 16), Slide(16, 4)):
        plan = schedule.plan(length, torch.device("cpu"))
        tiling = plan.tiling(torch.zeros(1, 1))
        sight = window_sight(plan.start, schedule.T, tiling.window, tiling.call)
        found[str(schedule)] = (sight.cuda(), False)
    return found


def agreement(kernel: str, mask: Tensor | None, causal: bool, dtype: torch.dtype) -> float:
    """The largest of ‖out - ref‖/‖ref‖ over the output and the three gradients; ref: float64."""
    rows = 256 if mask is None else mask.shape[1]
    keys = rows if mask is None else mask.shape[2]
    draw = torch.Generator("cuda").manual_seed(0)
    sizes = (rows, keys, keys)
    inputs = [
        torch.randn(2, 4, n, 64, device="cuda", dtype=torch.float64, generator=draw) for n in sizes
    ]
    results = []
    for run, kind in ((BACKENDS[kernel], dtype), (sdpa, torch.float64)):
        own = [x.to(dtype).to(kind).requires_grad_() for x in inputs]
        out = run(*own, mask, causal, 0.0)
        out.square().sum().backward()
        results.append([out.detach().double(), *(x.grad.double() for x in own)])
    return max(float((a - b).norm() / b.norm()) for a, b in zip(*results, strict=True))


def kernel_rows(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Relative error of every kernel that is installed, by mask and precision."""
    for kernel in BACKENDS:
        for name, (mask, causal) in masks(128).items():
            row: dict[str, Any] = {}
            for dtype in (torch.float32, torch.bfloat16):
                key = str(dtype).removeprefix("torch.")
                try:
                    check_backend(kernel)
                    row[key] = agreement(kernel, mask, causal, dtype)
                except Exception as error:
                    row[key] = f"{type(error).__name__}: {str(error)[:200]}"
            yield f"{kernel}, {name}", row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"layers": 12, "width": 768, "heads": 12, "length": 1024, "vocabulary": 50257}
    sizes |= {"batch": 16, "samples": 16, "rounds": 5, "budget": 480}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU here: nothing was measured")
        return
    begin = time.monotonic()
    result: dict[str, Any] = {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "settings": {name: getattr(options, name) for name in sizes},
        "matrix product, FLOP/s": ceiling(),
    }
    parts = {"generation": generation_rows, "training": training_rows, "kernels": kernel_rows}
    for part, rows in parts.items():
        result[part] = {}
        for name, row in rows(options):
            result[part][name] = row
            print(f"{time.monotonic() - begin:5.0f} s  {part}: {name}  {row}", flush=True)
            write_json(options.output, result)
            if time.monotonic() - begin > options.budget:
                print(f"the budget of {options.budget} s is spent: the rest was left out")
                return


if __name__ == "__main__":
    main()
