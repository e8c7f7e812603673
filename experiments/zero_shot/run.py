"""Zero-shot perplexity of the six models, trained on WikiText-2 with its `<unk>`, on four unseen
texts, and last words of LAMBADA.

    # resumable: what is in results/ is not measured again
    python experiments/zero_shot/run.py --data-dir ../shared/data

Every number is that of benchmarks/perplexity.py, or of `textdiff evaluate lambada`, on a folder of
experiments/six_models/models; the first rows of each split are scored. result.json puts them
together.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks.perplexity import measured, perplexity  # noqa: E402
from textdiff.files import write_json  # noqa: E402

MODELS = HERE.parent / "six_models" / "models"
NAMES = ("ar", "mdlm", "gamma", "epsilon", "epsilon_block", "gamma_slide")
TEXTS = {"wikitext2": "test", "lambada": "test", "pubmed": "validation", "arxiv": "validation"}


def main() -> None:
    """Measure what is missing, and put all together."""
    options = _parser().parse_args()
    data = ("--data-dir", options.data_dir.resolve()) if options.data_dir else ()
    models: dict = {name: {} for name in NAMES}
    scored = ("--limit", options.rows, "--draws", options.draws, "--batch-size", 16)
    for text, split in TEXTS.items():
        for name in NAMES:
            output = HERE / "results" / f"{name}-{text}.json"
            words = (*data, "--split", split, *scored)
            models[name][text] = perplexity(output, MODELS / name, text, *words)
            write(models)
    for name in NAMES:
        output = HERE / "results" / f"{name}-last_word.json"
        words = (*data, "--limit", options.passages, "--batch-size", 64)
        models[name]["last_word"] = measured(output, "evaluate", "lambada", MODELS / name, *words)
        write(models)


def _parser() -> argparse.ArgumentParser:
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
    return parser


def write(models: dict) -> None:
    """result.json with what there is so far."""
    write_json(HERE / "result.json", {"models": models})


if __name__ == "__main__":
    main()
