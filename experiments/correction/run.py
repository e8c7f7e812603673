"""Where correction pays: the share of samples that are right, on languages whose truth is known.

    # every task, model and seed that is not in points/ yet, four at a time; then tables and plots
    python experiments/correction/run.py --jobs 4
    python experiments/correction/run.py --tasks sudoku --models mdlm "ε 0.1" --seeds 3
    python experiments/correction/run.py --steps 200 --samples 64 --points /tmp/points  # a trial

All models of a task have the same network and see the same number of tokens; each is drawn with
every sampler that its process allows, at 4 to 128 network calls a sequence, those of corrections
among them. A point is (task, model, training seed), a file in points/.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from study import BLOCK, CALLS, MODELS, SAMPLERS, TASKS, Point
from tables import report

from textdiff.data import Characters, Truth
from textdiff.evaluation.audit import AuditedSamples, audit_samples
from textdiff.evaluation.perplexity import measure
from textdiff.files import write_json
from textdiff.model.model import Model
from textdiff.network import Transformer
from textdiff.noise import Noise, permutation
from textdiff.objective import Batch
from textdiff.objective.bounds import bounds

HERE = Path(__file__).resolve().parent
LR, WARMUP = 3e-3, 100
NETWORK = {"layers": 3, "width": 64, "heads": 4, "layout": "aligned"}


def fitted(point: Point, options: argparse.Namespace) -> tuple[Model, Truth, float]:
    """A trained model, the truth about its language, and the seconds that it took.

    AdamW, warm-up and a cosine to zero; batch g is a part of a permutation named by its epoch.
    """
    language = TASKS[point.task]
    tokenizer = Characters().build(language)
    truth = Truth(language, tokenizer)
    texts = truth.encode(list(language.documents("train"))).to(options.device)
    L, N = language.letters, len(tokenizer)
    torch.manual_seed(point.seed)
    shape = Transformer(**NETWORK)
    network = shape.build(N, point.process.needs_time, 0).to(options.device).train()
    schedule = point.schedule(max(CALLS), L)
    bound = bounds(point.process, schedule, L, sees_time=network.sees_time)["nelbo"]
    begin = time.perf_counter()
    optimiser = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: (
            min(1.0, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / options.steps)) / 2
        ),
    )
    size = options.batch
    order = torch.empty(0, dtype=torch.int64)
    epoch = 0
    for step in range(options.steps):
        while len(order) < size:
            fresh = permutation(point.seed, epoch, len(texts))
            order = torch.cat((order, fresh))
            epoch += 1
        rows, order = order[:size].to(options.device), order[size:]
        slot = torch.arange(step * size, (step + 1) * size, device=options.device)
        batch = Batch(texts[rows], rows, slot)
        loss = bound.nats(network, batch, Noise(point.seed, slot)).total / batch.ids.numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        decay.step()
        if step % 1000 == 0:
            print(f"{point.file} {step:5} {loss.item() * L:7.3f} nats", flush=True)
    spent = time.perf_counter() - begin
    network.eval()
    return Model(network, point.process, schedule, tokenizer, L), truth, spent


def told(judged: AuditedSamples) -> dict[str, float]:
    """What was found of samples, as plain values that a JSON can hold."""
    some = judged.valid > 0
    entropy = judged.entropy_of_valid if some else 0.0
    return asdict(judged) | {"valid_error": judged.valid_error, "entropy_of_valid": entropy}


def drawn(model: Model, truth: Truth, point: Point, options: argparse.Namespace) -> list[dict]:
    """A row for every sampler, number of calls and temperature."""
    L = model.length
    rows = []
    cases: list[tuple[str, int, float]] = [
        (name, calls, 1.0) for name in SAMPLERS for calls in CALLS
    ]
    cases += [("Ancestral", 16, heat) for heat in (0.9, 0.8, 0.7, 0.5)]
    for name, calls, heat in cases:
        if point.model == "ar" and (name, calls) != ("Ancestral", 16):
            continue
        stages = 2 if name == "GibbsCorrector" else 1
        schedule = point.schedule(max(1, calls // stages), L)
        group = BLOCK if point.model.endswith("block") else L
        sampler = SAMPLERS[name](group, max(1, calls * group // L))
        try:
            sampler.check(model.process)
        except ValueError:
            continue  # its process has no such sampler
        begin = time.perf_counter()
        with warnings.catch_warnings(action="ignore"):  # other levels than in training
            done = model.generate(
                num_return_sequences=options.samples,
                batch_size=options.samples,
                max_length=L,
                hyperschedule=schedule,
                sampler=sampler,
                seed=point.seed,
                eos_token_id=None,
                temperature=heat,
            )
        spent = time.perf_counter() - begin
        rows.append(
            {
                "sampler": name,
                "calls": calls,
                "temperature": heat,
                "nfe": sum(done.nfe) / len(done.nfe),
                "seconds": spent,
                **told(audit_samples(torch.stack([row.cpu() for row in done.ids]), truth)),
            }
        )
    return rows


def make(work: tuple[Point, argparse.Namespace]) -> str:
    """Train and draw one point; its file is whole or not there."""
    point, options = work
    torch.set_num_threads(1)
    model, truth, spent = fitted(point, options)
    if options.draw_device:
        model = model.to(options.draw_device)
    texts = truth.encode(list(truth.language.documents("validation"))[:288]).to(model.device)
    every = torch.arange(len(texts), device=model.device)
    with torch.no_grad():
        measured = measure(model, lambda: [Batch(texts, every, every)], draws=16, seed=1)
        found: dict[str, Any] = {
            "task": point.task,
            "model": point.model,
            "seed": point.seed,
            "process": str(point.process),
            "steps": options.steps,
            "batch": options.batch,
            "training_seconds": spent,
            "entropy": truth.entropy,
            "bounds": {
                one.name: [one.nats * model.length, one.standard_error * model.length]
                for one in measured
            },
            "drawn": drawn(model, truth, point, options),
        }
    options.points.mkdir(parents=True, exist_ok=True)
    write_json(options.points / point.file, found)
    return point.file


def parse() -> argparse.Namespace:
    """What to make."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--samples", type=int, default=2000, help="of each sampler")
    parser.add_argument("--jobs", type=int, default=1, help="points at a time, a thread each")
    parser.add_argument("--device", default="cpu", help="of training")
    parser.add_argument("--draw-device", help="of sampling; default: that of training")
    parser.add_argument("--points", type=Path, default=HERE / "points")
    return parser.parse_args()


def main() -> None:
    """What is missing, then the tables and plots of all that is there."""
    options = parse()
    points = [
        Point(task, model, seed)
        for seed in range(options.seeds)
        for task in options.tasks
        for model in options.models
    ]
    missing = [point for point in points if not (options.points / point.file).exists()]
    print(f"{len(missing)} of {len(points)} points to make", flush=True)
    work = [(point, options) for point in missing]
    if options.jobs > 1 and work:
        with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
            for count, name in enumerate(pool.imap_unordered(make, work), 1):
                print(f"{count}/{len(work)} {name}", flush=True)
    else:
        for one in work:
            print(make(one), flush=True)
    found = [json.loads(path.read_text()) for path in sorted(options.points.glob("*.json"))]
    report(found, options.points.parent)


if __name__ == "__main__":
    main()
