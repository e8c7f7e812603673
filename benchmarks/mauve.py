"""The quality table: MAUVE, generative perplexity with entropy, and null rows, of any models.

    python benchmarks/mauve.py RUN ...       # 1,000 samples of each, judged by gpt2-large
    python benchmarks/mauve.py RUN --judge JUDGE --hyperschedule "Flat(64)" "Flat(16)" --sampler
    Ancestral "ACS(rate=4)" --num-samples 256 --max-tokens 96

RUN is a model folder, a .ckpt or a Hub id. The null rows know only the training text: unigram and
bigram of the judge's tokens, and pieces of the text itself; `human` is one half of the reference
against the other. What is in --output already is neither drawn nor measured again.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

from textdiff.commands.corpus import corpus_of
from textdiff.commands.frontier import opener
from textdiff.data import Corpus
from textdiff.data.benchmarks import DATA
from textdiff.evaluation import frontier, sweep
from textdiff.evaluation.judge import FIELD_JUDGE, Judge
from textdiff.evaluation.mauve_score import ADVISED
from textdiff.evaluation.null_rows import null_rows
from textdiff.evaluation.provenance import software
from textdiff.evaluation.tables import Table, plus_minus
from textdiff.files import write_json

SHOWN = ("MAUVE", "gen-PPL (corpus)", "gen-PPL (per sequence)", "token entropy", "distinct-2")
DIGITS = {"gen-PPL (corpus)": 1, "gen-PPL (per sequence)": 1}
SPARE = 2  # null rows are so many times as long as what counts of them: tokenizers differ


def nulls(
    study: frontier.Study, corpus: Corpus, split: str, folder: Path, judges: Any
) -> dict[str, dict[str, Any]]:
    """The measures of the null rows, kept in `folder`/nulls.json."""
    path = folder / "nulls.json"
    wanted = {**study.measuring, **study.drawing, "train": corpus.provenance(split)}
    wanted = json.loads(json.dumps(wanted, default=str))
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["settings"] == wanted:
            return stored["rows"]
    opened: sweep.Judges = judges()
    judge: Judge = opened.judge
    rows = {}
    for name, draw in null_rows(judge, corpus, split, study.seed).items():
        texts = draw(study.num_samples, SPARE * study.max_tokens)
        measured = sweep.measures(study, texts, folder, opened, judge.end)
        rows[name] = frontier.numbers(measured["quality"], measured["mauve"])
    write_json(path, {"settings": wanted, "rows": rows})
    return rows


def table(
    rows: list[dict[str, Any]], null: dict[str, dict[str, Any]], human: dict[str, Any]
) -> Table:
    """Models first, then null rows, then the human ceiling; errors as in `textdiff evaluate`."""
    header = ["model", "sampler", "hyperschedule", "NFE", *SHOWN]
    named = [
        *(
            (row, (row["run"], row["sampler"], row["hyperschedule"], f"{row['nfe']:.0f}"))
            for row in rows
        ),
        *((row, (f"null: {name}", "", "", "")) for name, row in null.items()),
        (human, ("human", "", "", "")),
    ]
    lines = [
        [*words, *(plus_minus(*row[name], DIGITS.get(name, 3)) for name in SHOWN)]
        for row, words in named
    ]
    return Table(header, lines, words=(0, 1, 2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", help="model folder, .ckpt or Hub id")
    add("--sampler", nargs="+", default=["Ancestral"], help="such as 'ACS(rate=4)'")
    add("--hyperschedule", nargs="+", help="such as 'Flat(64)'; default: that of training")
    add("--judge", default=FIELD_JUDGE, help="causal LM: id, folder, or folder:file.gguf")
    add("--features", help="network of MAUVE's features; default: the judge")
    add("--reference", default="wikitext103", help="human texts: a benchmark, file or corpus")
    add("--split", default="validation", help="which part of it")
    add("--train", help="training text of the null rows; default: the reference's train split")
    add("--data-dir", help=f"folder with the texts; default: what {DATA} names, else the Hub")
    add("--num-samples", type=int, default=ADVISED, help="of a row")
    add("--length", type=int, help="tokens of a sample; default: the training length")
    add("--max-tokens", type=int, default=frontier.LENGTH_OF_TEXTS, help="that count of a text")
    add("--buckets", type=int, help="of MAUVE; default: a tenth of the number of samples")
    add("--dtype", default="float32", help="precision of judge and features")
    add("--seed", type=int, default=0, help="key of all draws")
    add("--batch-size", type=int, default=64, help="samples per network call")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--output", type=Path, default=Path("runs/mauve"), help="folder of the results")
    return parser


def studied(options: argparse.Namespace, opened: Any) -> frontier.Study:
    """The study that the options describe, each model under its own schedule unless told."""
    points = []
    for run in options.runs:
        schedules = options.hyperschedule or [str(opened(run).hyperschedule)]
        points += frontier.points([run], options.sampler, schedules)
    shared = ("judge", "reference", "split", "features", "num_samples", "length", "seed")
    shared += ("batch_size", "max_tokens", "buckets", "dtype")
    study = frontier.Study(tuple(points), **{name: getattr(options, name) for name in shared})
    study.check("the command line")
    return study


def main(arguments: list[str] | None = None) -> None:
    """Draw and measure what is missing, print the table."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        run(options)
    except ValueError as error:
        parser.error(str(error))


def run(options: argparse.Namespace) -> None:
    """Null rows first, which are cheap and find what is wrong; then the models."""
    opened = opener(options.device)
    study = studied(options, opened)
    corpus = corpus_of(options.reference, options.data_dir)
    train = corpus_of(options.train, options.data_dir) if options.train else corpus
    judges = cache(lambda: sweep.open_judges(study, corpus, options.device))
    null = nulls(study, train, "train", options.output, judges)
    results = list(sweep.sweep(study, options.output, judges, opened, lambda p: print(p.name)))
    rows = [frontier.row(result) for result in results]
    human = frontier.human_row(results[0])
    reference = {**corpus.provenance(options.split), "split": options.split}
    result = {"rows": rows, "null": null, "human": human, "reference": reference}
    write_json(options.output / "mauve.json", {**result, "study": study.measuring, **software()})
    print(f"\n{table(rows, null, human).text()}")
    ceiling = f"{study.num_samples} texts a row, {study.max_tokens} tokens of the judge each"
    print(f"{ceiling}; results in {options.output}")


if __name__ == "__main__":
    main()
