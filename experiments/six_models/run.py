"""Six small models on real text, the common ground of later experiments: AR, MDLM, γ flat, ε flat,
ε block 16, γ slide (16, 4).

    # all, resumable
    python experiments/six_models/run.py --data ../shared/data/wikitext/wikitext-2
    # some of them
    python experiments/six_models/run.py --data ... --only ar mdlm

Each trains for the same number of steps on wiki.train.tokens and is measured on wiki.valid.tokens.
A finished model is not trained again, an interrupted one goes on from its last checkpoint. Its
folder with bf16 weights goes to models/; what is measured is that folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

import textdiff as package
from textdiff.files import new_file, write_json
from textdiff.model.folder import save

HERE = Path(__file__).resolve().parent
NAMES = ("ar", "mdlm", "gamma", "epsilon", "epsilon_block", "gamma_slide")
FILES = {
    "train": "wiki.train.tokens.xz",
    "validation": "wiki.valid.tokens.xz",
    "test": "wiki.test.tokens.xz",
}


def textdiff(*words: str | Path) -> None:
    """Run one command of the command line, in a process of its own."""
    subprocess.run(
        [sys.executable, "-c", "from textdiff.commands.cli import main; main()", *map(str, words)],
        check=True,
    )


def corpus(data: Path, runs: Path) -> list[str]:
    """Options that name the text, copied to a suffix that says it is plain text."""
    options = ["--data.corpus=textdiff.data.Files"]
    for split, name in FILES.items():
        path = runs / name.replace(".tokens.xz", ".txt.xz")
        if not path.exists():
            with new_file(path) as aside:
                shutil.copyfile(data / name, aside)
        options.append(f"--data.corpus.{split}={path}")
    return options


def train(name: str, data: Path, runs: Path) -> None:
    """Train one model, or go on with it; the seconds of all its sessions are added up."""
    run = runs / name
    seconds = run / "seconds.json"
    if (run / "loss.png").exists():
        return
    configs = ["--config", HERE / "configs/base.yaml", "--config", HERE / f"configs/{name}.yaml"]
    last = run / "checkpoints/last.ckpt"
    resume = ["--ckpt_path", last] if last.exists() else []
    before = json.loads(seconds.read_text()) if seconds.exists() else 0.0
    begin = time.perf_counter()
    try:
        textdiff("fit", *configs, *corpus(data, runs), f"--trainer.default_root_dir={run}", *resume)
    finally:
        if run.exists():
            write_json(seconds, before + time.perf_counter() - begin)


def publish(name: str, runs: Path) -> None:
    """The model folder with bf16 weights, small enough to commit, without paths of this machine."""
    model = package.load(runs / name)
    weights = {key: value.to(torch.bfloat16) for key, value in model.network.state_dict().items()}
    data = {key: value for key, value in model.data.items() if key != "corpus"}
    save(dataclasses.replace(model, data=data), HERE / "models" / name, weights)
    shutil.copyfile(runs / name / "loss.png", HERE / "models" / name / "loss.png")


def measure(name: str, runs: Path, rows: int, draws: int) -> dict:
    """Every bound of one published model on the validation text."""
    output = HERE / "models" / name / "results/perplexity.json"
    result = json.loads(output.read_text()) if output.exists() else {"data": {}, "bounds": [{}]}
    if result["data"].get("rows") != rows or result["bounds"][0].get("draws") not in (1, draws):
        text = runs / FILES["validation"].replace(".tokens.xz", ".txt.xz")
        options = (
            "--corpus",
            text,
            "--limit",
            rows,
            "--draws",
            draws,
            "--batch-size",
            64,
            "--output",
            output,
        )
        textdiff("evaluate", "perplexity", HERE / "models" / name, *options)
        result = json.loads(output.read_text().replace(f"{runs}/", ""))
        write_json(output, result)
    config = yaml.safe_load((runs / name / "config.yaml").read_text())
    seconds = json.loads((runs / name / "seconds.json").read_text())
    return {**result, "training_seconds": seconds, "steps": config["trainer"]["max_steps"]}


def main() -> None:
    """Train, measure, publish."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with wiki.{train,valid,test}.tokens.xz"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/six_models"), help="where the runs are"
    )
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, help="some of the models"
    )
    parser.add_argument("--rows", type=int, default=1024, help="validation rows to score")
    parser.add_argument("--draws", type=int, default=4, help="noisy versions of each row")
    options = parser.parse_args()
    runs = options.runs.resolve()
    results = HERE / "result.json"
    models = json.loads(results.read_text())["models"] if results.exists() else {}
    for name in options.only:
        train(name, options.data, runs)
        publish(name, runs)
        models[name] = measure(name, runs, options.rows, options.draws)
        ordered = {key: models[key] for key in NAMES if key in models}
        write_json(results, {"models": ordered})


if __name__ == "__main__":
    main()
