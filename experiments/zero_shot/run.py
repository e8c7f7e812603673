"""Zero-shot perplexity of the six models, trained on WikiText-2 with its `<unk>`, on four texts they have not seen, and LAMBADA's last words.

    python experiments/zero_shot/run.py --data-dir ../shared/data            # resumable: what is in results/ is not measured again

Every number is `textdiff evaluate perplexity` or `textdiff evaluate lambada` on a folder of experiments/six_models/models; the first
rows of each split are scored. result.json puts them together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "six_models" / "models"
NAMES = ("ar", "mdlm", "gamma", "epsilon", "epsilon_block", "gamma_slide")
TEXTS = {"wikitext2": "test", "lambada": "test", "pubmed": "validation", "arxiv": "validation"}


def textdiff(*words: object) -> None:
    """Run one command of the command line, in a process of its own."""
    subprocess.run([sys.executable, "-m", "textdiff", *map(str, words)], check=True)


def measured(output: Path, *words: object) -> dict:
    """The JSON that a command writes, made if it is not there."""
    if not output.exists():
        begin = time.perf_counter()
        textdiff(*words, "--output", output)
        found = json.loads(output.read_text(encoding="utf-8"))
        found["seconds"] = time.perf_counter() - begin
        output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return json.loads(output.read_text(encoding="utf-8"))


def short(found: dict) -> dict:
    """A result without its curves."""
    bounds = [{key: value for key, value in bound.items() if not key.startswith("by_")} for bound in found["bounds"]]
    return {**found, "bounds": bounds}


def main() -> None:
    """Measure what is missing, and put all together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with the benchmarks; default: the Hub")
    parser.add_argument("--rows", type=int, default=256, help="rows of 128 tokens to score of each text")
    parser.add_argument("--draws", type=int, default=4, help="noisy versions of each row")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="some of the models")
    options = parser.parse_args()
    data = ("--data-dir", options.data_dir.resolve()) if options.data_dir else ()
    result: dict = {"rows": options.rows, "draws": options.draws, "models": {}}
    for name in options.only:
        result["models"][name] = {}
        for text, split in TEXTS.items():
            output = HERE / "results" / f"{name}-{text}.json"
            scored = ("--split", split, "--limit", options.rows, "--draws", options.draws, "--batch-size", 64)
            found = measured(output, "evaluate", "perplexity", MODELS / name, "--corpus", text, *data, *scored)
            result["models"][name][text] = short(found)
        output = HERE / "results" / f"{name}-last_word.json"
        words = measured(output, "evaluate", "lambada", MODELS / name, *data, "--batch-size", 64)
        result["models"][name]["last_word"] = words
    if set(options.only) == set(NAMES):
        (HERE / "result.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
