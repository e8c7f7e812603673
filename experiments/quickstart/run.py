"""The quickstart: a small GPT, then the same network as a hybrid between GPT and diffusion.

    # what `make quickstart` runs; under 4 minutes on two quiet CPU cores
    python experiments/quickstart/run.py
    # the rest goes to both trainings
    python experiments/quickstart/run.py --trainer.max_steps=200
    # and copy the result to result.json beside this file, for the READMEs
    python experiments/quickstart/run.py --publish

It trains and measures through the command line that users have. The hybrid is the folder of
`--run`, the GPT stands in `gpt` below it. It fails unless the bounds of both are below the unigram
entropy of the same tokens: then they have learnt from context.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import shutil
import sys
import textwrap
import time
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import torch

import textdiff
from textdiff.commands import perplexity
from textdiff.commands.cli import main as command
from textdiff.data import TextData, TinyShakespeare
from textdiff.evaluation.perplexity import unigram_entropy
from textdiff.evaluation.tables import Table, plus_minus
from textdiff.files import write_json, write_picture
from textdiff.hyperschedule import Block, QuenchedAR, Slide
from textdiff.training import curves

HERE = Path(__file__).resolve().parent
TRAINER = HERE.parents[1] / "configs" / "trainer" / "quick.yaml"
PROMPT = "ROMEO:\n"
FILTER = {"top_p": 0.9}
DRAWS = 4
COLUMNS = 64  # of a text in the table


def fresh(run: Path) -> None:
    """Remove the quickstart that was made here before; exit if the folder is something else."""
    if not run.exists():
        return
    if any(run.iterdir()) and not any((run / name).exists() for name in ("gpt", "config.yaml")):
        sys.exit(f"{run} is not the folder of a quickstart: name another with --run")
    shutil.rmtree(run)


def train(run: Path, name: str, extra: list[str]) -> float:
    """Fit one of the two; seconds taken."""
    files = (TRAINER, HERE / "common.yaml", HERE / f"{name}.yaml")
    configs = [word for file in files for word in ("--config", str(file))]
    begin = time.perf_counter()
    command(["fit", *configs, f"--trainer.default_root_dir={run}", *extra])
    return time.perf_counter() - begin


def measure(run: Path, rows: int) -> dict:
    """What `textdiff evaluate perplexity` finds on the first rows of the validation split."""
    output = run / "results" / "perplexity.json"
    options = {"--limit": rows, "--draws": DRAWS, "--batch-size": 32, "--output": output}
    with redirect_stdout(io.StringIO()):  # one table for both models comes later
        perplexity.main([str(run), *(str(word) for item in options.items() for word in item)])
    return json.loads(output.read_text(encoding="utf-8"))


def entropy(run: Path, rows: int) -> float:
    """Unigram entropy of the same tokens, nats."""
    model = textdiff.load(run)
    data = TextData(TinyShakespeare(), length=model.length)
    data.tokenizer = model.tokenizer
    ids = data.packed("validation").ids[:rows].astype("int64")
    return unigram_entropy(torch.bincount(torch.from_numpy(ids).flatten()))


def bound_table(gpt: list[dict], hybrid: list[dict], unigram: float) -> str:
    """Every bound, per token and per byte of text."""
    tokens = gpt[0]["tokens"]
    bits = tokens / gpt[0]["text_bytes"] / math.log(2)  # per byte, of one nat per token
    rows = [("no context", "unigram entropy", f"{unigram:.3f}", f"{bits * unigram:.3f}")]
    for name, bounds in (("GPT", gpt), ("hybrid", hybrid)):
        for bound in bounds:
            nats = bound["nats"]
            error = bound["standard_error"]
            per_byte = plus_minus(bits * nats, bits * error)
            rows.append((name, bound["name"], plus_minus(nats, error), per_byte))
    return Table(("model", "bound on -log p", "nats/token", "bits/byte"), rows, (0, 1)).text()


def samples(run: Path) -> dict[str, dict]:
    """The same prompt under three hyperschedules, by the network that was trained for it."""
    ways = (
        ("GPT, quenched AR", run / "gpt", QuenchedAR()),
        ("hybrid, block 4", run, Block(4, 2)),
        ("hybrid, slide 4", run, Slide(4, 1)),
    )
    drawn = {}
    for name, folder, schedule in ways:
        model = textdiff.load(folder)
        options = {"hyperschedule": schedule, "max_length": model.length, **FILTER}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            done = model.generate(PROMPT, **options)
        drawn[name] = {
            "hyperschedule": str(schedule),
            "texts": done.texts,
            "nfe": max(done.nfe),
            "tokens_per_forward": done.tokens_per_forward,
            "tokens_per_second": done.tokens_per_second,
            "warnings": [str(warning.message) for warning in caught],
        }
    return drawn


def sample_table(drawn: dict[str, dict]) -> str:
    """Each text beside what it cost."""
    rows = []
    for name, entry in drawn.items():
        first = (name, str(entry["nfe"]), f"{entry['tokens_per_forward']:.2f}")
        lines = entry["texts"][0].rstrip().splitlines()
        wrapped = [part for line in lines for part in textwrap.wrap(line, COLUMNS) or [""]]
        rows += [(*first, wrapped[0]), *(("", "", "", line) for line in wrapped[1:]), ("",) * 4]
    return Table(("drawn by", "NFE", "tokens/forward", "text"), rows[:-1], (0, 3)).text()


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Our options, and those of `textdiff fit`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    run = Path("runs/quickstart")
    parser.add_argument("--run", type=Path, default=run, help="the model folder to make")
    parser.add_argument("--rows", type=int, default=192, help="validation rows to score")
    parser.add_argument("--publish", action="store_true", help="copy the result beside this file")
    return parser.parse_known_args()


def main() -> None:
    """Train twice, measure, draw."""
    options, extra = parse()
    run = options.run
    gpt = run / "gpt"
    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.WARNING)
    begin = time.perf_counter()

    fresh(run)
    print("1/3  a GPT: one network call per token, left to right", flush=True)
    seconds = {"gpt": train(gpt, "gpt", extra)}
    print("2/3  its weights go on as an ε-Hybrid: blocks of 4 tokens, from noise", flush=True)
    seconds["hybrid"] = train(run, "hybrid", [f"--model.init_from={gpt}", *extra])
    print("3/3  bounds on held-out text, and the same prompt three times\n", flush=True)
    unigram = entropy(gpt, options.rows)
    first, second = measure(gpt, options.rows), measure(run, options.rows)
    uniform = math.log(textdiff.load(run).network.num_tokens)
    for folder in (gpt, run):
        write_picture(folder / "loss.png", curves.curves(folder, unigram, uniform))
    drawn = samples(run)
    result = {
        **second,
        "gpt": first,
        "unigram_entropy": unigram,
        "log_N": uniform,
        "samples": drawn,
        "prompt": PROMPT,
        "filter": FILTER,
        "training_seconds": seconds,
        "total_seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time(),
        "threads": torch.get_num_threads(),
    }
    write_json(run / "results" / "quickstart.json", result)
    report(run, result)
    learnt([first["bounds"][0]["nats"], second["bounds"][0]["nats"]], unigram)
    if options.publish:
        write_json(HERE / "result.json", result)


def learnt(bounds: list[float], unigram: float) -> None:
    """Exit with an error unless every bound is below the unigram entropy of the same tokens."""
    for bound in bounds:
        if not bound < unigram:
            sys.exit(
                f"a bound of {bound:.3f} nats is not below the unigram entropy, {unigram:.3f}: "
                "the network has learnt nothing from context"
            )


def report(run: Path, result: dict) -> None:
    """All that a newcomer should see."""
    print(bound_table(result["gpt"]["bounds"], result["bounds"], result["unigram_entropy"]))
    print(f"\n{sample_table(result['samples'])}\n")
    for entry in result["samples"].values():
        for warning in entry["warnings"]:
            print(textwrap.fill(f"note: {warning}", 100))
    training = " and ".join(f"{value:.0f} s" for value in result["training_seconds"].values())
    print(f"time     {result['total_seconds']:.0f} s, of which training {training}")
    for folder in (run / "gpt", run):
        for name in ("loss", "hyperschedule"):
            print(f"picture  {folder / name}.png")
    print(f"numbers  {run / 'results' / 'quickstart.json'}")
    print(
        "go on    . .venv/bin/activate && "
        f'textdiff sample {run} --prompt "ROMEO:" --hyperschedule "Slide(4, 1)" --watch'
    )


if __name__ == "__main__":
    main()
