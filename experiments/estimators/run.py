"""How much an estimate of the bound varies, by the way it draws, at equal cost; and whether the
stated standard error is right.

    # about 10 minutes on one thread; result.json, estimators.png
    python experiments/estimators/run.py --data-dir ../shared/data

Spread: the same 16 rows of WikiText-2 (validation) are estimated under many seeds, each with 16
network calls of one row (32 for ε-Hybrid, whose reconstruction is a second one). Chain rule along
random orders: 128 calls a row, so its variance is multiplied by 128 to compare.
Coverage: `measure` itself under many seeds; the share of estimates whose distance from the mean of
all is below 1.96 standard errors.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

import textdiff
from textdiff.data import Benchmark, TextData
from textdiff.evaluation.perplexity import measure
from textdiff.files import write_json, write_picture
from textdiff.model.model import Model
from textdiff.noise import RUN, Noise
from textdiff.objective import Batch, Bound, MaskCount, Stratified
from textdiff.objective.bounds import bounds
from textdiff.objective.chain_rule import RandomOrders

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "six_models" / "models"
ROWS = 16


def rows(model: Model, count: int, data_dir: str | None) -> Batch:
    """The first rows of the text."""
    data = TextData(Benchmark("wikitext2", data_dir), length=model.length, batch_size=count)
    data.tokenizer = model.tokenizer
    return Batch(**next(iter(data.eval_dataloader("validation", count))))


def alone(batch: Batch, seed: int) -> Batch:
    """Every draw in a run of its own: nothing is stratified."""
    return replace(batch, slot=(batch.example + seed * ROWS) * RUN)


def beside(batch: Batch, seed: int) -> Batch:
    """The rows are neighbours: their times are stratified over the batch."""
    return replace(batch, slot=batch.example + seed * RUN)


WAYS = {
    "iid times": (Stratified(), alone),
    "stratified times": (Stratified(), beside),
    "iid mask counts": (MaskCount(), alone),
    "stratified mask counts": (MaskCount(), beside),
}


def spread(estimates: list[float], calls: float) -> dict[str, float]:
    """Mean, and variance per network call, with the error that so many estimates leave."""
    values = torch.tensor(estimates, dtype=torch.float64)
    centred = values - values.mean()
    variance = float(centred.square().sum() / (len(values) - 1))
    kurtosis = float(centred.pow(4).mean() / centred.square().mean() ** 2)
    error = variance * math.sqrt(max(kurtosis - 1, 0) / len(values))
    return {
        "mean": float(values.mean()),
        "standard_error": math.sqrt(variance / len(values)),
        "deviation": math.sqrt(variance),
        "variance_per_call": variance * calls,
        "variance_per_call_error": error * calls,
        "seeds": len(values),
    }


def spreads(name: str, data_dir: str | None, seeds: int) -> dict[str, dict[str, float]]:
    """Every way of drawing, on one model's own bound."""
    model = textdiff.load(MODELS / name)
    batch = rows(model, ROWS, data_dir)
    tokens = int(batch.scored.sum())
    nelbo = bounds(model.process, model.hyperschedule, model.length)["nelbo"]
    orders = RandomOrders.of(nelbo, "random orders")

    def one(bound: Bound, placed: Callable[[Batch, int], Batch], seed: int) -> float:
        here, noise = placed(batch, seed), Noise(seed, batch.example)
        return float(bound.nats(model.network, here, noise).values.sum()) / tokens

    each: dict[str, tuple[Callable[[int], float], float]] = {}
    for way, (estimator, placed) in WAYS.items():
        drawn = replace(nelbo, estimator=estimator)
        each[way] = (partial(one, drawn, placed), 1 + bool(model.process.atom))
    if not model.process.atom:
        each["chain rule of random orders"] = (partial(one, orders, alone), model.length)
    by_way = {}
    for way, (one, calls) in each.items():
        count = max(8, round(seeds / calls)) if calls > 2 else seeds
        by_way[way] = spread(
            [one(seed) for seed in tqdm(range(count), desc=f"{name}, {way}")], ROWS * calls
        )
    return by_way


def coverage(name: str, data_dir: str | None, seeds: int) -> dict[str, dict[str, float]]:
    """Is the stated standard error that of the estimates?"""
    model = textdiff.load(MODELS / name)
    batch = rows(model, ROWS, data_dir)
    runs = [
        measure(model, lambda: [batch], draws=2, seed=seed)
        for seed in tqdm(range(seeds), desc=f"{name}, coverage")
    ]
    by_bound = {}
    for measured in zip(*runs, strict=True):
        nats = torch.tensor([bound.nats for bound in measured], dtype=torch.float64)
        stated = torch.tensor([bound.standard_error for bound in measured], dtype=torch.float64)
        inside = ((nats - nats.mean()).abs() < 1.96 * stated).double()
        by_bound[measured[0].name] = {
            "deviation": float(nats.std()),
            "stated": float(stated.square().mean().sqrt()),
            "within_1.96": float(inside.mean()),
            "within_error": float(inside.std() / math.sqrt(seeds)),
            "seeds": seeds,
        }
    return by_bound


def plot(result: dict, path: Path) -> None:
    """Variance per call as bars, and what is stated against what is seen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    ways = list(result["spread"]["mdlm"])
    for shift, (name, by_way) in zip((-0.2, 0.2), result["spread"].items(), strict=True):
        shown = [way for way in ways if way in by_way]
        places = [ways.index(way) + shift for way in shown]
        heights = [by_way[way]["variance_per_call"] for way in shown]
        left.barh(
            places,
            heights,
            0.38,
            xerr=[by_way[way]["variance_per_call_error"] for way in shown],
            label=name,
        )
    left.set_yticks(range(len(ways)), ways, fontsize=8)
    left.invert_yaxis()
    left.set(xlabel="variance of nats per token x network calls of one row", xscale="log")
    left.legend(frameon=False, fontsize=8)
    for name, by_bound in result["coverage"].items():
        for bound, numbers in by_bound.items():
            right.plot(
                numbers["deviation"], numbers["stated"], "o", label=f"{name} {bound.split(':')[0]}"
            )
    top = 1.1 * max(
        n[key]
        for by_bound in result["coverage"].values()
        for n in by_bound.values()
        for key in ("deviation", "stated")
    )
    right.plot([0, top], [0, top], color="#999999", linewidth=1)
    right.set(
        xlabel="spread over seeds", ylabel="stated standard error", xlim=(0, top), ylim=(0, top)
    )
    right.legend(frameon=False, fontsize=7)
    write_picture(path, figure)


def main() -> None:
    """Both studies on the two flat models; what is in result.json is not done again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="folder with the benchmarks; default: the Hub")
    parser.add_argument("--seeds", type=int, default=200, help="estimates by each way of drawing")
    parser.add_argument("--coverage-seeds", type=int, default=100, help="runs of `measure`")
    options = parser.parse_args()
    path = HERE / "result.json"
    result = (
        json.loads(path.read_text(encoding="utf-8"))
        if path.exists()
        else {"rows": ROWS, "spread": {}, "coverage": {}}
    )
    for name in ("mdlm", "epsilon"):
        for study, make, seeds in (
            ("spread", spreads, options.seeds),
            ("coverage", coverage, options.coverage_seeds),
        ):
            if name not in result[study]:
                with torch.no_grad():
                    result[study][name] = make(name, options.data_dir, seeds)
                write_json(path, result)
    plot(result, HERE / "estimators.png")


if __name__ == "__main__":
    main()
