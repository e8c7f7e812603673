"""`textdiff score RUN --input pairs.jsonl`: how likely completions are."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..evaluation.provenance import provenance
from ..evaluation.tables import Table, plus_minus
from ..files import write_json
from ..model.scoring import Score
from .common import open_run, parser_of, schedule_of

FIELDS = {"prompt", "completion", "suffix"}


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "score",
        "-log p of completions, in nats, each with the law that it is of: exact for autoregressive "
        "and masking models, else a bound with its standard error.",
    )
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="FILE",
        help=".jsonl with 'completion' and perhaps 'prompt' and 'suffix' in each line",
    )
    parser.add_argument(
        "--order",
        choices=["left-to-right", "all"],
        default="left-to-right",
        help="of masking models: the law of drawing in that order, or of `sample` (all alike)",
    )
    parser.add_argument("--eos", action="store_true", help="score an end of text behind each, too")
    parser.add_argument("--draws", type=int, default=16, help="noisy versions of each, even")
    parser.add_argument("--output", type=Path, help="JSON file, too")
    return parser


def _pairs(path: Path) -> list[dict[str, str]]:
    """The lines of the input."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
        texts = isinstance(row, dict) and all(isinstance(value, str) for value in row.values())
        if not texts or "completion" not in row or row.keys() - FIELDS:
            raise ValueError(
                f"{path}, line {number}: an object with 'completion' and perhaps 'prompt' and "
                f"'suffix', texts all, was expected, got {line[:80]}"
            )
        pairs.append(row)
    if not pairs:
        raise ValueError(f"{path} holds no completion to score")
    return pairs


def _table(pairs: list[dict[str, str]], scores: list[Score]) -> Table:
    header = ["completion", "nats", "tokens", "bits/byte"]
    rows = []
    for pair, score in zip(pairs, scores, strict=True):
        bits = score.bits_per_byte
        shown = " ".join(pair["completion"].split())
        shown = shown if len(shown) <= 40 else f"{shown[:39]}…"
        nats = plus_minus(score.nats, score.standard_error)
        rows.append([shown, nats, str(score.tokens), "-" if bits is None else f"{bits:.3f}"])
    return Table(header, rows)


def main(arguments: list[str]) -> None:
    """Score the completions of a file."""
    options = _parser().parse_args(arguments)
    pairs = _pairs(options.input)
    model = open_run(options)
    columns: dict[str, Any] = {
        name: [pair.get(name, "") for pair in pairs] for name in ("prompt", "completion", "suffix")
    }
    scores = model.score(
        columns["prompt"],
        columns["completion"],
        suffix=columns["suffix"],
        order="left to right" if options.order == "left-to-right" else None,
        eos=options.eos,
        hyperschedule=schedule_of(options),
        draws=options.draws,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    print(_table(pairs, scores).text())
    for law in dict.fromkeys(("exact: " if one.exact else "bound: ") + one.law for one in scores):
        print(law)
    if options.output:
        rows = [pair | asdict(score) for pair, score in zip(pairs, scores, strict=True)]
        settings = provenance(model, options.run, options.seed)
        write_json(options.output, {"scores": rows, "eos": options.eos, **settings})
        print(f"written to {options.output}")
