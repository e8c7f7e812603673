"""Zero-shot perplexity of the six models, trained on WikiText-2 with its `<unk>`, on four unseen
texts, and last words of LAMBADA.

    # resumable: what is in results/ is not measured again
    python experiments/zero_shot/run.py --data-dir ../shared/data

Every number is `textdiff evaluate perplexity` or `textdiff evaluate lambada` on a folder of
experiments/six_models/models; the first rows of each split are scored. result.json puts them
together.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from textdiff.commands.cli import main as textdiff

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "six_models" / "models"
NAMES = ("ar", "mdlm", "gamma", "epsilon", "epsilon_block", "gamma_slide")
TEXTS = {"wikitext2": "test", "lambada": "test", "pubmed": "validation", "arxiv": "validation"}


def measured(output: Path, *words: object) -> dict:
    """The JSON that a command writes, made if it is not there."""
    if not output.exists():
        begin = time.perf_counter()
        textdiff([str(word) for word in (*words, "--output", output)])
        found = json.loads(output.read_text(encoding="utf-8"))
        found["seconds"] = time.perf_counter() - begin
        output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return json.loads(output.read_text(encoding="utf-8"))


def short(found: dict) -> dict:
    """A result without its curves."""
    bounds = [
        {key: value for key, value in bound.items() if not key.startswith("by_")}
        for bound in found["bounds"]
    ]
    return {**found, "bounds": bounds}


def main() -> None:
    """Measure what is missing, and put all together."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir", type=Path, help="folder with the benchmarks; default: the Hub"
    )
    parser.add_argument(
        "--rows", type=int, default=192, help="rows of 128 tokens to score of each text"
    )
    parser.add_argument("--draws", type=int, default=4, help="noisy versions of each row")
    parser.add_argument("--passages", type=int, default=300, help="passages of LAMBADA to complete")
    options = parser.parse_args()
    data = ("--data-dir", options.data_dir.resolve()) if options.data_dir else ()
    models: dict = {name: {} for name in NAMES}
    for text, split in TEXTS.items():
        scored = (
            "--split",
            split,
            "--limit",
            options.rows,
            "--draws",
            options.draws,
            "--batch-size",
            16,
        )
        for name in NAMES:
            output = HERE / "results" / f"{name}-{text}.json"
            found = measured(
                output, "evaluate", "perplexity", MODELS / name, "--corpus", text, *data, *scored
            )
            models[name][text] = short(found)
            write(models)
    for name in NAMES:
        output = HERE / "results" / f"{name}-last_word.json"
        words = (
            "evaluate",
            "lambada",
            MODELS / name,
            *data,
            "--limit",
            options.passages,
            "--batch-size",
            64,
        )
        models[name]["last_word"] = measured(output, *words)
        write(models)


def write(models: dict) -> None:
    """result.json with what there is so far."""
    (HERE / "result.json").write_text(
        json.dumps({"models": models}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
