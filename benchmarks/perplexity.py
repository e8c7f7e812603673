"""The zero-shot table of the field: bounds of any models on WikiText, LAMBADA, PubMed and arXiv.

    python benchmarks/perplexity.py RUN ...              # all rows of each text, as in the papers
    python benchmarks/perplexity.py RUN ... --limit 192 --draws 4 --unit nats

RUN is a model folder, a .ckpt or a Hub id. Every number is `textdiff evaluate perplexity`'s, with
its Monte Carlo standard error; what is in --output already is not measured again. Below stand the
rows that the papers printed, for scale: models of some 110 million parameters, trained on
OpenWebText, GPT-2's tokens, rows of 1,024. A perplexity per token compares models of one tokenizer
only, bits per byte compare all.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textdiff.commands.cli import main as textdiff
from textdiff.data import Benchmark
from textdiff.data.benchmarks import DATA
from textdiff.evaluation.tables import Table, plus_minus
from textdiff.files import sha256, write_json
from textdiff.model.source import find
from textdiff.model.weights import WEIGHTS

TEXTS = {"wikitext103": "WikiText", "lambada": "LAMBADA", "pubmed": "PubMed", "arxiv": "arXiv"}
PUBLISHED = {  # zero-shot perplexities in Fathi, Scholak and Noël, arXiv:2504.06416
    "Transformer": (25.8, 51.3, 49.0, 41.7),
    "SEDD": (36.0, 48.9, 45.4, 40.0),
    "MDLM": (33.2, 48.3, 43.1, 37.9),
    "BD3-LM": (31.3, 50.0, 42.5, 39.2),
    "γ-Hybrid": (30.0, 45.4, 46.6, 40.6),
    "ε-Hybrid": (32.5, 50.2, 41.2, 37.8),
}
UNITS = ("perplexity", "nats", "bits-per-byte")


def measured(output: Path, *words: object) -> dict[str, Any]:
    """The JSON that a command of `textdiff` writes to `output`, made if it is not there."""
    if not output.exists():
        begin = time.perf_counter()
        textdiff([str(word) for word in (*words, "--output", output)])
        result = json.loads(output.read_text(encoding="utf-8"))
        write_json(output, result | {"seconds": time.perf_counter() - begin})
    return json.loads(output.read_text(encoding="utf-8"))


def perplexity(output: Path, run: str | Path, text: str, *words: object) -> dict[str, Any]:
    """Every bound of a model on a text, without the curves of where the nats are."""
    command = ("evaluate", "perplexity", run, "--corpus", text)
    result = measured(output, *command, *words)
    bounds = [
        {name: value for name, value in bound.items() if not name.startswith("by_")}
        for bound in result["bounds"]
    ]
    return {**result, "bounds": bounds}


def place(folder: Path, run: str, text: str, how: Sequence[object]) -> Path:
    """The file of a result: other weights or another way to measure are another file."""
    source = find(run)
    weights = sha256(source.checkpoint or source.whole / WEIGHTS)[:12]
    words = "-".join(str(word).lstrip("-") for word in how)
    name = re.sub(r"[^\w.=-]+", "_", f"{source.name}-{weights}-{text}-{words}")
    return folder / f"{name.strip('_-')}.json"


def cell(bound: dict[str, Any] | None, unit: str) -> str:
    """A bound ± its standard error in a unit, by the delta method."""
    if bound is None:
        return ""
    nats, error = bound["nats"], bound["standard_error"]
    if unit == "nats":
        return plus_minus(nats, error)
    if unit == "perplexity":
        return plus_minus(math.exp(nats), math.exp(nats) * error, 1)
    bits = bound["bits_per_byte"]
    return "" if bits is None else plus_minus(bits, bits * error / nats)


def table(results: dict[str, dict[str, dict[str, Any]]], unit: str = UNITS[0]) -> Table:
    """Model -> text -> result as rows, one for each bound; then the published ones, where the unit
    allows.
    """
    header = ["model", "bound", *TEXTS.values()]
    rows = []
    for name, by_text in results.items():
        for number, bound in enumerate(next(iter(by_text.values()))["bounds"]):
            of = [by_text[text]["bounds"][number] if text in by_text else None for text in TEXTS]
            cells = [cell(one, unit) for one in of]
            rows.append(["" if number else name, bound["name"], *cells])
    return Table(header, [*rows, *published(unit)], words=(0, 1))


def published(unit: str) -> list[list[str]]:
    """The published rows; none in bits per byte, which nobody printed."""
    if unit == "bits-per-byte":
        return []
    shown = {
        name: [
            f"{value:.1f}" if unit == "perplexity" else f"{math.log(value):.3f}" for value in row
        ]
        for name, row in PUBLISHED.items()
    }
    return [[name, "published", *cells] for name, cells in shown.items()]


def checked(texts: Sequence[str], data_dir: str | None) -> None:
    """Look for each text before anything is measured.

    Raises:
        ValueError: if one is not to be had; it says where it should be.
    """
    for text in texts:
        corpus = Benchmark(text, data_dir)
        next(iter(corpus.documents(corpus.origin.scored)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="model folder, .ckpt or Hub id")
    parser.add_argument(
        "--texts", nargs="+", choices=list(TEXTS), default=list(TEXTS), help="some of the texts"
    )
    parser.add_argument(
        "--data-dir", help=f"folder with the texts; default: what {DATA} names, else the Hub"
    )
    parser.add_argument("--limit", type=int, help="score only the first rows of each text")
    parser.add_argument("--draws", type=int, default=8, help="noisy versions of each row, even")
    parser.add_argument("--unit", choices=UNITS, default=UNITS[0], help="of the table")
    parser.add_argument("--batch-size", type=int, default=16, help="rows per network call")
    parser.add_argument("--device", help="where the networks run")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/perplexity"), help="folder of the results"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing, print the table."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        checked(options.texts, options.data_dir)
        how = ["--draws", options.draws]
        how += ["--limit", options.limit] if options.limit else []
        places = {
            (run, text): place(options.output, run, text, how)
            for run in options.runs
            for text in options.texts
        }
    except ValueError as error:
        parser.error(str(error))
    more = ["--batch-size", options.batch_size]
    more += ["--data-dir", options.data_dir] if options.data_dir else []
    more += ["--device", options.device] if options.device else []
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for (run, text), output in places.items():
        result = perplexity(output, run, text, *how, *more)
        results.setdefault(find(run).name, {})[text] = result
        write_json(options.output / "perplexity.json", results)
    print(f"\n{options.unit}\n{table(results, options.unit).text()}")
    print(f"results in {options.output}")


if __name__ == "__main__":
    main()
