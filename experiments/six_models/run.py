"""Six small models on real text, the common ground of later experiments: AR, MDLM, γ flat, ε flat, ε block 16, γ slide (16, 4).

    python experiments/six_models/run.py --data ../shared/data/wikitext/wikitext-2            # all, resumable
    python experiments/six_models/run.py --data ... --only ar mdlm                            # some of them

Each trains for the same number of steps on wiki.train.tokens and is measured on wiki.valid.tokens. A finished model is not trained again,
an interrupted one goes on from its last checkpoint. Then the model folders with bf16 weights go to models/, the numbers to result.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
NAMES = ("ar", "mdlm", "gamma", "epsilon", "epsilon_block", "gamma_slide")
FILES = {"train": "wiki.train.tokens.xz", "validation": "wiki.valid.tokens.xz", "test": "wiki.test.tokens.xz"}


def textdiff(*words: str | Path) -> None:
    """Run one command of the command line, in a process of its own."""
    subprocess.run([sys.executable, "-c", "from textdiff.cli import main; main()", *map(str, words)], check=True)


def corpus(data: Path, runs: Path) -> list[str]:
    """Options that name the text, copied to a suffix that says it is plain text."""
    options = ["--data.corpus=textdiff.data.Files"]
    for split, name in FILES.items():
        path = runs / name.replace(".tokens.xz", ".txt.xz")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / name, path)
        options.append(f"--data.corpus.{split}={path}")
    return options


def train(name: str, data: Path, runs: Path) -> None:
    """Train one model, or go on with it."""
    run, seconds = runs / name, runs / name / "seconds.json"
    if (run / "loss.png").exists():
        return
    configs = ["--config", HERE / "configs/base.yaml", "--config", HERE / f"configs/{name}.yaml"]
    last = run / "checkpoints/last.ckpt"
    begin = time.perf_counter()
    textdiff(
        "fit",
        *configs,
        *corpus(data, runs),
        f"--trainer.default_root_dir={run}",
        *(["--ckpt_path", last] if last.exists() else []),
    )
    before = json.loads(seconds.read_text()) if seconds.exists() else 0.0
    seconds.write_text(json.dumps(before + time.perf_counter() - begin))


def measure(name: str, runs: Path, rows: int, draws: int) -> dict:
    """Every bound of one model on the validation text."""
    output = runs / name / "results/perplexity.json"
    if not output.exists():
        options = ("--limit", rows, "--draws", draws, "--batch-size", 64, "--output", output)
        textdiff("evaluate", "perplexity", runs / name, *options)
    found = json.loads(output.read_text())
    found["training_seconds"] = json.loads((runs / name / "seconds.json").read_text())
    found["steps"] = int(yaml.safe_load((HERE / "configs/base.yaml").read_text())["trainer"]["max_steps"])
    return found


def publish(name: str, runs: Path) -> None:
    """The model folder with bf16 weights and its pictures, small enough to commit."""
    import torch

    import textdiff as package
    from textdiff.hub import save

    model = package.load(runs / name)
    weights = {key: value.to(torch.bfloat16) for key, value in model.network.state_dict().items()}
    save(model, HERE / "models" / name, weights)
    for extra in ("loss.png", "config.yaml"):
        shutil.copyfile(runs / name / extra, HERE / "models" / name / extra)


def main() -> None:
    """Train, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wiki.{train,valid,test}.tokens.xz")
    parser.add_argument("--runs", type=Path, default=Path("runs/six_models"), help="where the runs are")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="some of the models")
    parser.add_argument("--rows", type=int, default=1024, help="validation rows to score")
    parser.add_argument("--draws", type=int, default=4, help="noisy versions of each row")
    options = parser.parse_args()
    runs = options.runs.resolve()
    for name in options.only:
        train(name, options.data, runs)
        measure(name, runs, options.rows, options.draws)
    if all((runs / name / "results/perplexity.json").exists() for name in NAMES):
        results = {name: measure(name, runs, options.rows, options.draws) for name in NAMES}
        for name in NAMES:
            publish(name, runs)
        (HERE / "result.json").write_text(
            json.dumps({"threads": os.environ.get("OMP_NUM_THREADS"), "models": results}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
