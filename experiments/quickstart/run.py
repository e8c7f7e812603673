"""The quickstart: train a small ε-Hybrid on the embedded corpus, measure it, sample it with
correction and without.

    # what `make quickstart` runs; under 4 minutes on two quiet CPU cores
    python experiments/quickstart/run.py
    python experiments/quickstart/run.py --publish  # and copy the result to result.json beside this
    file, for the README

It fails unless the validation bound is below the unigram entropy of the same tokens: then the
network has learnt from context.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from pathlib import Path

import torch

import textdiff
from textdiff.commands import perplexity
from textdiff.commands.cli import main as textdiff_main
from textdiff.data import TextData, TinyShakespeare
from textdiff.evaluation.perplexity import unigram_entropy
from textdiff.files import write_json
from textdiff.samplers import ACS, Ancestral
from textdiff.training import curves

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parents[1] / "configs"


def train(run: Path, extra: list[str]) -> float:
    """Train through the same command line that users have; seconds taken."""
    if run.exists():  # the quickstart's own folder: each run starts afresh
        shutil.rmtree(run)
    files = ("trainer/quick.yaml", "data/tinyshakespeare.yaml", "model/epsilon.yaml")
    configs = [word for file in files for word in ("--config", str(CONFIGS / file))]
    begin = time.perf_counter()
    textdiff_main(["fit", *configs, f"--trainer.default_root_dir={run}", *extra])
    return time.perf_counter() - begin


def measure(run: Path, rows: int) -> tuple[dict, float]:
    """Bounds of the validation split (its first rows) and the unigram entropy of the same tokens."""
    output = run / "results" / "perplexity.json"
    perplexity.main(
        [
            str(run),
            "--limit",
            str(rows),
            "--draws",
            "4",
            "--batch-size",
            "32",
            "--output",
            str(output),
        ]
    )
    model = textdiff.load(run)
    data = TextData(TinyShakespeare(), length=model.length)
    data.tokenizer = model.tokenizer
    tokens = torch.from_numpy(data.packed("validation").ids[:rows].astype("int64")).flatten()
    return json.loads(output.read_text()), unigram_entropy(torch.bincount(tokens))


def samples(run: Path, length: int) -> dict[str, dict]:
    """Text drawn with the exact ancestral sampler and with ACS."""
    model, drawn = textdiff.load(run), {}
    for name, sampler in (("ancestral", Ancestral()), ("ACS, rate 4", ACS(rate=4.0))):
        found = model.generate("ROMEO:", num_return_sequences=2, max_length=length, sampler=sampler)
        drawn[name] = {
            "texts": found.texts,
            "nfe": max(found.nfe),
            "tokens_per_second": found.tokens_per_second,
        }
    return drawn


def main() -> None:
    """Train, measure, sample, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, default=Path("runs/quickstart"), help="the model folder to make"
    )
    parser.add_argument("--rows", type=int, default=128, help="validation rows to score")
    parser.add_argument("--publish", action="store_true", help="copy the result beside this file")
    options, extra = (
        parser.parse_known_args()
    )  # the rest goes to `textdiff fit`, such as --trainer.max_steps=20

    begin = time.perf_counter()
    training = train(options.run, extra)
    found, entropy = measure(options.run, options.rows)
    model = textdiff.load(options.run)
    drawn = samples(options.run, model.length)
    uniform = math.log(model.network.num_tokens)
    curves.curves(options.run, entropy, uniform).savefig(options.run / "loss.png", dpi=150)

    result = {
        "bounds": found["bounds"],
        "unigram_entropy": entropy,
        "log_N": uniform,
        "samples": drawn,
        "training_seconds": training,
        "total_seconds": time.perf_counter() - begin,
        "threads": torch.get_num_threads(),
        **{key: value for key, value in found.items() if key != "bounds"},
    }
    write_json(options.run / "results" / "quickstart.json", result)
    for name, entry in drawn.items():
        for text in entry["texts"]:
            print(f"\n--- {name}\n{text}")
    bound = found["bounds"][0]
    print(f"\nvalidation NELBO  {bound['nats']:.3f} ± {bound['standard_error']:.3f} nats/token")
    print(
        f"unigram entropy   {entropy:.3f} nats/token of the same {bound['tokens']} tokens (log N = {uniform:.3f})"
    )
    print(
        f"{result['total_seconds']:.0f} s in all, {training:.0f} s training; everything is in {options.run}"
    )
    print(
        f'go on with:  . .venv/bin/activate && textdiff sample {options.run} --prompt "ROMEO:" --sampler "ACS(rate=4)"'
    )
    if options.publish:
        write_json(HERE / "result.json", result)
    if not bound["nats"] < entropy:
        sys.exit(
            "the bound is not below the unigram entropy: the network has learnt nothing from context"
        )


if __name__ == "__main__":
    main()
