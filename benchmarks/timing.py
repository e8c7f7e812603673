"""What the speed benchmarks share: a clock, the peak of memory, and what is said of the machine."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def one_thread(options: argparse.Namespace) -> bool:
    """Then CPU time is what a step costs, whatever else the machine does."""
    return options.device == "cpu" and torch.get_num_threads() == 1


def now(options: argparse.Namespace) -> float:
    """Seconds: CPU time of this process where it has one thread, else wall time."""
    if options.device == "cuda":
        torch.cuda.synchronize()
    return time.process_time() if one_thread(options) else time.perf_counter()


def peak_bytes() -> int:
    """This process's peak resident memory (not ru_maxrss, which a child inherits)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def peak_during(make: Callable[[], Any], work: Callable[[Any], object], cuda: bool) -> tuple:
    """What `make` made, and the peak bytes while it was made and did its work; on a GPU of the work
    alone, with what was alive before.
    """
    before = 0 if cuda else peak_bytes()
    made = make()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    work(made)
    return made, (torch.cuda.max_memory_allocated() if cuda else peak_bytes()) - before


def size(network: torch.nn.Module) -> int:
    """Bytes of its weights."""
    return sum(p.numel() * p.element_size() for p in network.parameters())


def told(what: str) -> None:
    """One line on the screen that the next one replaces."""
    print(f"\r{what:<60}", end="", file=sys.stderr, flush=True)


def described(options: argparse.Namespace, left_out: tuple[str, ...]) -> dict[str, Any]:
    """Settings and machine, for the JSON."""
    settings = {name: str(value) for name, value in vars(options).items() if name not in left_out}
    return {
        "settings": settings,
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "clock": "CPU time of the process" if one_thread(options) else "wall",
        "torch": torch.__version__,
    }
