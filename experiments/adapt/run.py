"""A pretrained Llama becomes a block ε-Hybrid: its bound before, during and after, its samples and
their speed beside its own AR.

    # resumable: what is there is not made again
    python experiments/adapt/run.py --data ../shared/data

The base is stories260K (260,032 parameters), the text the heads of TinyStories. Windows are 8
tokens wide; ρ = 8 / T tokens settle a call.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from transformers import AutoModelForCausalLM

import textdiff as package
from textdiff.data import Files, PretrainedTokenizer
from textdiff.files import new_file, write_json, write_picture
from textdiff.hyperschedule import Block, QuenchedAR
from textdiff.model.model import Model
from textdiff.network import Pretrained
from textdiff.process import Absorbing, EpsilonHybrid
from textdiff.training.curves import read_metrics

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parents[1] / "configs"
LENGTH, WIDTH, RHO = 255, 8, (1, 2, 4)
PROMPT = "Once upon a time"


def textdiff(*words: str | Path) -> None:
    """Run one command of the command line, in a process of its own."""
    subprocess.run(
        [sys.executable, "-c", "from textdiff.commands.cli import main; main()", *map(str, words)],
        check=True,
    )


def text(data: Path, runs: Path, split: str) -> Path:
    """The stories of a split, copied to a place that the config can name."""
    path = runs / f"{split}.txt.xz"
    if not path.exists():
        with new_file(path) as aside:
            shutil.copyfile(data / "tinystories" / f"tinystories.{split}.head.txt.xz", aside)
    return path


def untrained(base: Path, runs: Path) -> None:
    """The base as it is, as quenched AR (`ar`) and under the process and schedule of the adaptation
    (`before`).
    """
    tokenizer = PretrainedTokenizer(str(base)).build(Files(train=""))
    for name, process, schedule in (
        ("ar", Absorbing(), QuenchedAR()),
        ("before", EpsilonHybrid(0.01), Block(WIDTH, WIDTH)),
    ):
        network = Pretrained(str(base)).build(
            len(tokenizer), process.needs_time, tokenizer.bos_token_id
        )
        package.save(Model(network, process, schedule, tokenizer, LENGTH), runs / name)


def train(base: Path, data: Path, runs: Path) -> None:
    """Adapt, or go on with it; the CPU seconds of all sessions are added up."""
    run, seconds = runs / "after", runs / "seconds.json"
    if (run / "loss.png").exists():
        return
    configs = (CONFIGS / "trainer/quick.yaml", CONFIGS / "adapt/block.yaml", HERE / "config.yaml")
    last = run / "checkpoints/last.ckpt"
    before, begin = (
        json.loads(seconds.read_text()) if seconds.exists() else 0.0,
        os.times().children_user,
    )
    try:
        textdiff(
            "fit",
            *(word for path in configs for word in ("--config", path)),
            f"--model.network.source={base}",
            "--data.corpus=textdiff.data.Files",
            f"--data.corpus.train={text(data, runs, 'train')}",
            f"--data.corpus.validation={text(data, runs, 'valid')}",
            f"--trainer.default_root_dir={run}",
            *(["--ckpt_path", last] if last.exists() else []),
        )
    finally:
        write_json(seconds, before + os.times().children_user - begin)


def bounds_of(run: Path, corpus: Path, schedule: str, rows: int, draws: int) -> list[dict]:
    """Every bound of one model folder under one schedule, on the first rows of a corpus."""
    output = run.parent / f"{run.name}-{schedule.replace(', ', '_')}-{rows}-{draws}.json"
    if not output.exists():
        what = ("--corpus", corpus, "--hyperschedule", schedule, "--limit", rows, "--draws", draws)
        textdiff("evaluate", "perplexity", run, *what, "--output", output)
    return json.loads(output.read_text())["bounds"]


def all_bounds(data: Path, runs: Path, rows: int, draws: int) -> dict[str, dict[str, list[dict]]]:
    """The bounds before and after the adaptation, by tokens per call, and those of the base."""
    held_out = text(data, runs, "valid")
    bounds: dict[str, dict[str, list[dict]]] = {}
    for name in ("before", "after"):
        bounds[name] = {}
        for rho in RHO:
            schedule = f"Block({WIDTH}, {WIDTH // rho})"
            bounds[name][str(rho)] = bounds_of(runs / name, held_out, schedule, rows, draws)
    bounds["ar"] = {"1": bounds_of(runs / "ar", held_out, "QuenchedAR", rows, draws)}
    return bounds


def curve(runs: Path, before: list[dict]) -> list[dict]:
    """The bounds during the adaptation, by step; those `before` it are step 0."""
    nats = (bound["nats"] for bound in before)
    points: dict[int, dict] = {0: dict(zip(("nelbo", "b1", "b2"), nats, strict=True))}
    for name, values in read_metrics(runs / "after").items():
        if name.startswith("val/"):
            for step, value in values:
                points.setdefault(step + 1, {})[name.removeprefix("val/")] = value
    return [{"step": step, **values} for step, values in sorted(points.items())]


def ways(base: Path, runs: Path, new: int) -> dict[str, Callable[[int, int], list[Tensor]]]:
    """Ways to draw `new` tokens behind the prompt: each takes a batch size and a seed and gives the
    ids of a batch.
    """
    theirs, ar, after = (
        AutoModelForCausalLM.from_pretrained(base),
        package.load(runs / "ar"),
        package.load(runs / "after"),
    )
    theirs.generation_config.eos_token_id = None
    beginning = pad(ar.encode(PROMPT), (1, 0), value=ar.network.bos)

    def generate(batch: int, seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        ids = theirs.generate(
            beginning.repeat(batch, 1), max_new_tokens=new, do_sample=True, top_k=0, pad_token_id=0
        )
        return list(ids[:, 1:])

    def ours(model: Model, schedule: object) -> Callable[[int, int], list[Tensor]]:
        options = {"max_new_tokens": new, "hyperschedule": schedule}
        return lambda batch, seed: (
            model.generate(
                PROMPT, num_return_sequences=batch, batch_size=batch, seed=seed, **options
            ).ids
        )

    by_name = {"transformers generate": generate, "quenched AR": ours(ar, QuenchedAR())}
    return by_name | {
        f"ε block 8, ρ = {rho}": ours(after, Block(WIDTH, WIDTH // rho)) for rho in RHO
    }


def draw(base: Path, runs: Path, new: int, batch: int, repeats: int) -> dict[str, dict]:
    """Samples of each way, what the base thinks of them, and tokens per second at batch 1 and
    `batch`, interleaved in one run.
    """
    all_ways, judge = ways(base, runs, new), AutoModelForCausalLM.from_pretrained(base)
    decode = package.load(runs / "ar").decode
    seconds: dict[tuple[str, int], list[float]] = {}
    numbers: dict[str, dict] = {}
    for size in (1, batch):
        for repeat in range(repeats + 1):  # the first warms up
            for name, way in all_ways.items():
                begin = time.process_time()
                ids = way(size, repeat)
                seconds.setdefault((name, size), []).append(time.process_time() - begin)
                if size == batch and repeat == 0:
                    rows = torch.stack(ids)
                    with torch.no_grad():
                        logits = judge(pad(rows[:, :-1], (1, 0), value=1)).logits.transpose(1, 2)
                    nats = cross_entropy(logits, rows, reduction="none")[:, -new:]
                    error = float(nats.mean(1).std() / len(rows) ** 0.5)
                    numbers[name] = {
                        "texts": [decode(row) for row in rows[:2]],
                        "judge_nats": float(nats.mean()),
                        "judge_error": error,
                    }
    for (name, size), times in seconds.items():
        numbers[name][f"tokens_per_second_{size}"] = size * new / statistics.median(times[1:])
    return numbers


def picture(result: dict) -> None:
    """The bound during adaptation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for name, label in (("nelbo", "NELBO"), ("b1", "B1: masking alone")):
        points = [point for point in result["curve"] if name in point]
        axes.plot(
            [p["step"] for p in points],
            [p[name] for p in points],
            marker="o",
            markersize=3,
            label=label,
        )
    ar = result["bounds"]["ar"]["1"][0]["nats"]
    axes.axhline(
        ar, color="#777777", linestyle="--", linewidth=1, label=f"the base as AR, {ar:.2f}"
    )
    axes.set(
        xlabel="step of adaptation",
        ylabel="nats per token",
        title=f"stories260K as ε block {WIDTH}, ρ = 1",
    )
    axes.legend(fontsize=8, frameon=False)
    write_picture(HERE / "curve.png", figure)


def main() -> None:
    """Adapt, measure, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with models/stories260K and tinystories"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/adapt"), help="where the runs are")
    parser.add_argument("--rows", type=int, default=64, help="held-out rows to score")
    parser.add_argument("--draws", type=int, default=4, help="noisy versions of each row")
    parser.add_argument("--new", type=int, default=120, help="tokens to draw")
    parser.add_argument("--batch", type=int, default=16, help="samples of each way")
    parser.add_argument("--repeats", type=int, default=3, help="timed repetitions")
    o = parser.parse_args()
    torch.set_num_threads(1)
    data = o.data.resolve()
    runs = o.runs.resolve()
    base = data / "models/stories260K"
    untrained(base, runs)
    train(base, data, runs)
    bounds = all_bounds(data, runs, o.rows, o.draws)
    result = {
        "curve": curve(runs, bounds["before"]["1"]),
        "bounds": bounds,
        "drawn": draw(base, runs, o.new, o.batch, o.repeats),
        "training_cpu_seconds": json.loads((runs / "seconds.json").read_text()),
        "settings": {
            "rows": o.rows,
            "draws": o.draws,
            "new": o.new,
            "batch": o.batch,
            "prompt": PROMPT,
            "threads": 1,
        },
    }
    picture(result)
    write_json(HERE / "result.json", result)


if __name__ == "__main__":
    main()
