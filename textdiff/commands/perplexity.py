"""`textdiff evaluate perplexity RUN`: bounds with standard errors, as a table and a JSON."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ..data import Corpus, Files, TextData
from ..estimator import Batch
from ..evaluation import perplexity
from ..evaluation.provenance import provenance
from ..hub import write_json
from ..hyperschedule import Hyperschedule
from ..model import Model
from ..spec import build, descendants, parse
from .common import open_run, parser_of, progress_bar


def _corpus(text: str) -> Corpus:
    """A corpus from the command line: a file, or a class call such as `TinyShakespeare` or `HubDataset('id')`."""
    if Path(text).suffix and Path(text).exists():
        return Files(train=text, validation=text, test=text)
    known = {cls.__name__ for cls in descendants(Corpus)}
    if text.split("(")[0].strip() in known:
        return parse(text, Corpus)
    raise ValueError(
        f"there is no corpus {text!r}: give a .txt, .jsonl, .csv or parquet file, or one of {', '.join(sorted(known))}"
    )


def _data(model: Model, options: argparse.Namespace) -> TextData:
    if not options.corpus and "corpus" not in model.data:
        raise ValueError(f"{options.run} does not say which text it was trained on: give one with --corpus")
    corpus = _corpus(options.corpus) if options.corpus else build(model.data["corpus"], Corpus)
    data = TextData(
        corpus,
        length=model.length if options.length is None else options.length,
        batch_size=options.batch_size,
        documents=model.data.get("documents", "joined"),
        padding=model.data.get("padding", "learnt"),
    )
    data.tokenizer = model.tokenizer
    return data


def _result_name(options: argparse.Namespace, corpus: str) -> str:
    """A file name of its own for each text and way of measuring."""
    text = Path(options.corpus).name if options.corpus else corpus
    parts = ["perplexity", text, options.split, options.hyperschedule, "discrete" if options.discrete else None]
    parts += [f"length{options.length}" if options.length else None, f"first{options.limit}" if options.limit else None]
    return re.sub(r"[^\w.=-]+", "_", "-".join(part for part in parts if part)).strip("_") + ".json"


def main(arguments: list[str]) -> None:
    """`textdiff evaluate perplexity RUN`."""
    parser = parser_of("evaluate perplexity", "Bounds on -log p of a text with standard errors; writes a JSON into RUN/results.")
    parser.add_argument("--corpus", help="file, or corpus such as TinyShakespeare; default: that of training")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="validation", help="which part of it")
    parser.add_argument("--length", type=int, help="tokens of a row; default: the training length")
    parser.add_argument("--draws", type=int, default=8, help="noisy versions of each sequence, even")
    parser.add_argument("--discrete", action="store_true", help="the T-step bound of a flat schedule: the law of `sample`")
    parser.add_argument("--limit", type=int, help="score only the first rows")
    parser.add_argument("--output", type=Path, help="JSON file; default: one in RUN/results named after these options")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"--limit must be >= 1, got {options.limit}")
    schedule = parse(options.hyperschedule, Hyperschedule) if options.hyperschedule else None
    model = open_run(options)
    data = _data(model, options)
    model.warn_if_unseen(schedule or model.hyperschedule, data.length)
    rows = min(len(data.packed(options.split)), options.limit or sys.maxsize)

    def batches() -> Iterator[Batch]:
        loader = data.val_dataloader() if options.split == "validation" else data.test_dataloader()
        if options.split == "train":
            loader = data._eval_loader("train")
        left = rows
        with progress_bar(total=rows, desc="scoring", unit="row") as bar:
            for batch in loader:
                part = {name: value[:left].to(options.device) for name, value in batch.items()}
                yield Batch(**part)
                left -= len(part["ids"])
                bar.update(len(part["ids"]))
                if not left:
                    return

    found = perplexity.measure(model, batches, schedule, options.discrete, options.draws, options.seed)
    print(perplexity.table(found))
    print(f"{found[0].tokens} tokens in {found[0].sequences} rows of {data.corpus.name}, {options.split} split")
    result = {
        "bounds": [bound.as_dict() for bound in found],
        "data": {**data.provenance(options.split), "split": options.split, "rows": rows, "eos": model.tokenizer.eos_token},
        **provenance(model, options.run, options.seed),
    }
    output = options.output or options.run.results / _result_name(options, data.corpus.name)
    write_json(output, json.loads(json.dumps(result, default=str)))
    print(f"written to {output}")
