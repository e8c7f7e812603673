"""`textdiff evaluate perplexity RUN`: bounds with standard errors on one text or many, as a table
and a JSON each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from ..data import Benchmark, Corpus, TextData
from ..data.benchmarks import BENCHMARKS, DATA
from ..data.text_bytes import text_bytes, unknown
from ..evaluation import perplexity, ranks
from ..evaluation.curves import figure
from ..evaluation.provenance import provenance
from ..files import check_place, slug, write_json, write_picture
from ..model.model import Model
from ..objective import Batch, Measured
from ..objective.batch import check_packing, goes_on
from ..objective.measuring import MOST
from ..spec import build
from .common import open_run, parser_of, progress_bar, schedule_of
from .corpus import add_column, corpus_of


@dataclass(frozen=True)
class Text:
    """One text to score: what the command line calls it, its rows and the split."""

    given: str | None
    data: TextData
    split: str

    @property
    def name(self) -> str:
        """For the table and the progress bar."""
        return self.given or self.data.corpus.name


def _text(model: Model, given: str | None, options: argparse.Namespace) -> Text:
    if given is None and "corpus" not in model.data:
        raise ValueError(
            f"{options.run} does not say which text it was trained on: give one with --corpus"
        )
    if given is None:
        corpus = build(model.data["corpus"], Corpus, options.classes)
    else:
        corpus = corpus_of(given, options.data_dir, options.classes, options.column)
    # The rule of the zero-shot suite is the benchmark's own; any other text is put into rows as in
    # training.
    rules = {**model.data, "documents": model.documents}
    length = model.length if options.length is None else options.length
    schedule = schedule_of(options) or model.hyperschedule
    if isinstance(corpus, Benchmark):
        ignores = goes_on(schedule.plan(length))
        rules = {
            "documents": "separate" if model.apart is not None else "joined",
            "padding": "ignored" if ignores else "learnt",
        }
    data = TextData(
        corpus,
        length=length,
        batch_size=options.batch_size * ranks.world_size(),
        documents=rules["documents"],
        padding=rules.get("padding", "learnt"),
        cache_dir=options.shared,
    )
    check_packing(schedule, length, data.documents, data.padding)
    data.tokenizer = model.tokenizer
    split = corpus.origin.scored if isinstance(corpus, Benchmark) else "validation"
    return Text(given, data, options.split or split)


def result_name(options: argparse.Namespace, text: Text) -> str:
    """A file name of its own for each text and way of measuring."""
    parts = [
        "perplexity",
        text.name,
        text.split,
        options.hyperschedule,
        "discrete" if options.discrete else None,
        f"length{options.length}" if options.length else None,
        f"first{options.limit}" if options.limit else None,
        f"draws{options.draws}" if options.draws != 8 else None,
        f"se{options.until_se}" if options.until_se else None,
        "any_order" if options.any_order else None,
        f"seed{options.seed}" if options.seed else None,
    ]
    return f"{slug(*parts)}.json"


def _batches(text: Text, options: argparse.Namespace) -> Callable[[], Iterator[Batch]]:
    def batches() -> Iterator[Batch]:
        loader = text.data.eval_dataloader(text.split, options.limit)
        shown = (
            nullcontext()
            if ranks.rank()
            else progress_bar(total=len(loader), desc=f"scoring {text.name}", unit="batch")
        )
        with shown as bar:
            for batch in loader:
                yield Batch.of({name: rows.to(options.device) for name, rows in batch.items()})
                if bar is not None:
                    bar.update()

    return batches


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "evaluate perplexity",
        "Bounds on -log p of texts with standard errors; writes a JSON each into RUN/results.",
    )
    _add_text(parser)
    _add_estimate(parser)
    parser.add_argument(
        "--plot",
        action="store_true",
        help="also draw where the nats are, by position and noise level: a PNG by the JSON",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="JSON file; default: one in RUN/results named after these options",
    )
    return parser


def _add_text(parser: argparse.ArgumentParser) -> None:
    """What is scored."""
    parser.add_argument(
        "--corpus",
        nargs="+",
        help=f"texts: {', '.join(BENCHMARKS)}; files; corpora such as TinyShakespeare; "
        "default: that of training",
    )
    parser.add_argument(
        "--data-dir",
        help=f"folder with the benchmarks, for use without network; default: what {DATA} names",
    )
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        help="default: what the zero-shot suite scores, else validation",
    )
    add_column(parser)
    parser.add_argument("--length", type=int, help="tokens of a row; default: the training length")
    parser.add_argument("--limit", type=int, help="score only the first rows")


def _add_estimate(parser: argparse.ArgumentParser) -> None:
    """Which bounds, and how precisely."""
    parser.add_argument(
        "--draws", type=int, default=8, help="noisy versions of each sequence, even"
    )
    parser.add_argument(
        "--until-se",
        type=float,
        help=f"spend draws, up to {MOST}, until the s.e. of nats/token is no larger",
    )
    parser.add_argument(
        "--any-order",
        action="store_true",
        help="also the exact chain rule along random orders, L calls each",
    )
    parser.add_argument(
        "--discrete",
        action="store_true",
        help="the T-step bound of a flat schedule: the law of `sample`",
    )


def main(arguments: list[str]) -> None:
    """`textdiff evaluate perplexity RUN`; under `torchrun` all its processes together."""
    options = _parser().parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"--limit must be >= 1, got {options.limit}")
    if options.output and options.corpus and len(options.corpus) > 1:
        raise ValueError(
            "--output is one file: leave it out for several texts, "
            "each has a file of its own in RUN/results"
        )
    with ranks.joined(options.device) as options.device, ranks.shared_folder() as options.shared:
        _run(options)


def _run(options: argparse.Namespace) -> None:
    schedule = schedule_of(options)
    model = open_run(options)
    texts = [_text(model, given, options) for given in dict.fromkeys(options.corpus or [None])]
    for text in texts:  # whatever is wrong with one is said before anything is measured
        with ranks.one_first():
            text.data.packed(text.split)
        if not ranks.rank():
            check_place(_place(text, options))
    model.warn_if_unseen(schedule or model.hyperschedule, texts[0].data.length)
    tables: dict[str, list[Measured]] = {}
    try:
        _measure(model, texts, tables, options)
    finally:  # what is measured is said, also if it could not be written
        if tables and not ranks.rank():
            print(perplexity.table(tables))
            _remark(tables, options)


def _measure(
    model: Model,
    texts: Sequence[Text],
    tables: dict[str, list[Measured]],
    options: argparse.Namespace,
) -> None:
    """Put the bounds of each text into `tables`, and write them down."""
    for text in texts:
        rows = text.data.packed(text.split).first(options.limit)
        size = text_bytes(model.tokenizer, rows)
        measured = perplexity.measure(
            model,
            _batches(text, options),
            schedule_of(options),
            discrete=options.discrete,
            draws=options.draws,
            seed=options.seed,
            until_se=options.until_se,
            any_order=options.any_order,
        )
        tables[text.name] = bounds = [replace(bound, text_bytes=size) for bound in measured]
        if not ranks.rank():
            _write(model, text, bounds, options)


def _place(text: Text, options: argparse.Namespace) -> Path:
    """Where the result of a text belongs."""
    return Path(options.output or options.run.results / result_name(options, text))


def _write(model: Model, text: Text, bounds: list[Measured], options: argparse.Namespace) -> None:
    rows = text.data.packed(text.split).first(options.limit)
    result = {
        "bounds": [bound.as_dict() for bound in bounds],
        "data": {
            **text.data.provenance(text.split),
            "split": text.split,
            "rows": len(rows),
            "eos": model.tokenizer.eos_token,
        },
        "until_se": options.until_se,
        "world_size": ranks.world_size(),
        **provenance(model, options.run, options.seed),
    }
    size = bounds[0].text_bytes
    known = f"of {size} bytes"
    if size is None:
        lost = unknown(model.tokenizer, rows)
        known = f"of which {lost} unknown to the tokenizer, so no bits per byte"
    print(
        f"{text.name}, {text.split} split: {bounds[0].tokens} tokens (EOS counted) {known}, "
        f"in {bounds[0].sequences} rows"
    )
    output = _place(text, options)
    write_json(output, json.loads(json.dumps(result, default=str)))
    print(f"written to {output}")
    if options.plot:
        curves = {
            f"{bound.name}, {bound.estimator}": (bound.by_position, bound.by_level)
            for bound in bounds
            if bound.by_position is not None and bound.by_level is not None
        }
        picture = figure(curves, f"{options.run} on {text.name}, {text.split} split")
        write_picture(output.with_suffix(".png"), picture)
        print(f"plot in {output.with_suffix('.png')}")


def _remark(tables: dict[str, list[Measured]], options: argparse.Namespace) -> None:
    for name, bounds in tables.items():
        for bound in bounds:
            if bound.is_rough:
                print(
                    f"{name}, {bound.name}: the standard error rests on {bound.rows_of_error:.1f} "
                    f"of {bound.sequences} rows: tails are heavy, and it may be too small; take "
                    "more draws"
                )
            if options.until_se is not None and bound.standard_error > options.until_se:
                print(
                    f"{name}, {bound.name}: {bound.draws} draws, the most there are, "
                    f"leave a standard error of {bound.standard_error:.4f}, "
                    f"above {options.until_se}: score more text"
                )
