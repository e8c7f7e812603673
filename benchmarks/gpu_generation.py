"""Generation on a GPU beside `transformers`' GPT-2: tokens/s, NFE, tokens per forward, memory."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import training

from textdiff.generation import denoise
from textdiff.hyperschedule import Block, Flat, Hyperschedule, QuenchedAR, Slide
from textdiff.network import Transformer
from textdiff.noise import Noise
from textdiff.process import Absorbing, EpsilonHybrid, GammaHybrid, Process
from textdiff.samplers import ACS, Ancestral, Sampler

WARM = 32
"""Tokens of the draw that is not counted."""

DRAWN: dict[str, tuple[Process, Hyperschedule, Sampler, str]] = {
    "quenched AR": (Absorbing(), QuenchedAR(), Ancestral(), "shifted"),
    "block 16 × 16": (Absorbing(), Block(16, 16), Ancestral(), "aligned"),
    "block 16 × 4": (Absorbing(), Block(16, 4), Ancestral(), "aligned"),
    "ε block 16 × 4, ACS": (EpsilonHybrid(), Block(16, 4), ACS(rate=4.0), "aligned"),
    "γ slide 16, ρ = 4": (GammaHybrid(0.05), Slide(16, 4), Ancestral(), "aligned"),
    "flat 64": (Absorbing(), Flat(64), Ancestral(), "aligned"),
}


def spent(draw: Callable[[int], object], length: int) -> dict[str, float]:
    """Wall seconds and peak memory of drawing `length` tokens, after a few that are not counted."""
    draw(WARM)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    draw(length)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 1e9
    return {"seconds": time.perf_counter() - begin, "peak_gb": peak}


def gpt2_speed(options: argparse.Namespace) -> dict[str, float]:
    """`transformers`' own generate with its cache, in bf16."""
    model = training.GPT2(argparse.Namespace(**{**vars(options), "device": "cuda"})).model
    model = model.to(torch.bfloat16).eval()
    prompt = torch.zeros(options.samples, 1, dtype=torch.int64, device="cuda")

    def draw(length: int) -> None:
        choices = {"min_new_tokens": length, "max_new_tokens": length, "pad_token_id": 0}
        model.generate(prompt, do_sample=True, top_k=0, **choices)

    row = spent(draw, options.drawn)
    return described(row, options, options.drawn)


def described(row: dict[str, float], options: argparse.Namespace, nfe: float) -> dict[str, float]:
    """The row with its rates."""
    return {
        "tokens_per_second": options.samples * options.drawn / row["seconds"],
        "nfe": nfe,
        "tokens_per_forward": options.drawn / nfe,
        **row,
    }


def drawn(options: argparse.Namespace, name: str) -> dict[str, float]:
    """Tokens/s of one way of drawing with its cache, in bf16 with float64 draws."""
    process, schedule, sampler, layout = DRAWN[name]
    shape = Transformer(options.layers, options.width, options.heads, tie=True, layout=layout)
    network = shape.build(options.vocabulary, process.needs_time, 0)
    network = network.to("cuda", torch.bfloat16).eval()
    example = torch.arange(options.samples, device="cuda")
    nfe = []

    def draw(length: int) -> None:
        ids = torch.full((options.samples, length), options.vocabulary, device="cuda")
        noise = Noise(0, example)
        done = denoise(network, process, schedule, sampler, noise=noise, ids=ids, use_cache=True)
        nfe.append(float(done.nfe.double().mean()))

    return described(spent(draw, options.drawn), options, nfe[-1])


def generation_rows(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """GPT-2, as it is and without cuDNN's attention, which plans every new length; then ours."""
    yield "GPT-2", gpt2_speed(options)
    torch.backends.cuda.enable_cudnn_sdp(False)
    yield "GPT-2, without cuDNN", gpt2_speed(options)
    torch.backends.cuda.enable_cudnn_sdp(True)
    for name in DRAWN:
        try:
            row = drawn(options, name)
        except Exception as error:  # one way that fails must not cost the others
            row = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        torch.cuda.empty_cache()
        yield name, row
