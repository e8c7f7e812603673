"""Every attention kernel against SDPA in float64, by mask and precision."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from textdiff.denoiser.visibility import window_sight
from textdiff.hyperschedule import Block, Slide
from textdiff.network.kernels import BACKENDS, check_backend, sdpa


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
