"""`textdiff sample` and `textdiff evaluate`: commands on a model folder."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .data import Corpus, Files, TextData
from .estimator import Batch
from .evaluation import perplexity
from .evaluation.provenance import provenance
from .hub import load, write_json
from .hyperschedule import Hyperschedule
from .model import Model, Samples
from .samplers import Sampler
from .spec import build, descendants, parse


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"textdiff {prog}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="model folder that `textdiff fit` wrote")
    parser.add_argument("--seed", type=int, default=0, help="key of all draws")
    parser.add_argument("--batch-size", type=int, default=16, help="sequences per network call; changes no result")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where the network runs")
    parser.add_argument("--hyperschedule", help="such as 'Flat(64)' or 'Block(16, 16)'; default: that of training")
    return parser


def _open(options: argparse.Namespace) -> Model:
    if options.batch_size < 1:
        raise ValueError(f"--batch-size must be >= 1, got {options.batch_size}")
    model = load(options.run)
    try:
        model.network.to(options.device)  # type: ignore[attr-defined]
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {options.device} cannot be used: {error}") from None
    return model


def _bar(**options: Any) -> Any:
    """A progress bar on a terminal, nothing in a file."""
    return tqdm(file=sys.stderr, leave=False, disable=None, **options)


def sample(arguments: list[str]) -> None:
    """Draw texts from a model folder and print them."""
    parser = _parser("sample", "Draw texts. Laws and bounds of the samplers are in their documentation.")
    parser.add_argument("--prompt", action="append", help="beginning of the text, or a text with [MASK] to fill; may be repeated")
    parser.add_argument("--num-samples", type=int, default=1, help="samples per prompt")
    parser.add_argument("--length", type=int, help="tokens with the prompt; default: the training length")
    parser.add_argument("--sampler", default="Ancestral", help="such as 'Ancestral', 'ACS(eta=0.01)', 'PublishedACS(eta=0.01)'")
    parser.add_argument("--temperature", type=float, default=1.0, help="1 is the model's own law")
    parser.add_argument("--json", type=Path, help="write samples and settings to this file, too")
    options = parser.parse_args(arguments)
    if options.num_samples < 1:
        raise ValueError(f"--num-samples must be >= 1, got {options.num_samples}")
    sampler = parse(options.sampler, Sampler)
    schedule = parse(options.hyperschedule, Hyperschedule) if options.hyperschedule else None
    model = _open(options)
    with _bar(desc="sampling", unit="call") as bar:
        samples = model.generate(
            options.prompt,
            num_samples=options.num_samples,
            length=options.length,
            hyperschedule=schedule,
            sampler=sampler,
            temperature=options.temperature,
            seed=options.seed,
            batch_size=options.batch_size,
            on_call=_advance(bar),
        )
    for number, text in enumerate(samples.texts):
        print(f"--- sample {number}\n{text}")
    print(_summary(samples, schedule or model.hyperschedule, sampler), file=sys.stderr)
    if options.json:
        settings = {"hyperschedule": str(schedule or model.hyperschedule), "sampler": str(sampler)}
        settings |= {"temperature": options.temperature, "nfe": samples.nfe, "seconds": samples.seconds}
        write_json(options.json, {"samples": samples.texts, "settings": settings, **provenance(model, options.run, options.seed)})


def _advance(bar: Any) -> Callable[[int, int, Tensor], None]:
    def on_call(call: int, calls: int, _: Tensor) -> None:
        bar.total = calls
        bar.update(call - bar.n)

    return on_call


def _summary(samples: Samples, schedule: Hyperschedule, sampler: Sampler) -> str:
    return (
        f"{len(samples.texts)} samples, {sampler}, {schedule}: {samples.nfe} network calls a batch, "
        f"{samples.tokens} tokens in {samples.seconds:.2f} s ({samples.tokens_per_second:.0f} tokens/s)"
    )


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


def evaluate(arguments: list[str]) -> None:
    """`textdiff evaluate perplexity RUN`."""
    usage = "usage: textdiff evaluate perplexity RUN [options]; see textdiff evaluate perplexity --help"
    if arguments in (["-h"], ["--help"]):
        print(usage)
        return
    if not arguments or arguments[0] != "perplexity":
        raise ValueError(usage)
    parser = _parser("evaluate perplexity", "Bounds on -log p of a text with standard errors; writes a JSON into RUN/results.")
    parser.add_argument("--corpus", help="file, or corpus such as TinyShakespeare; default: that of training")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="validation", help="which part of it")
    parser.add_argument("--length", type=int, help="tokens of a row; default: the training length")
    parser.add_argument("--draws", type=int, default=8, help="noisy versions of each sequence, even")
    parser.add_argument("--discrete", action="store_true", help="the T-step bound of a flat schedule: the law of `sample`")
    parser.add_argument("--limit", type=int, help="score only the first rows")
    parser.add_argument("--output", type=Path, help="JSON file; default: one in RUN/results named after these options")
    options = parser.parse_args(arguments[1:])
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"--limit must be >= 1, got {options.limit}")
    schedule = parse(options.hyperschedule, Hyperschedule) if options.hyperschedule else None
    model = _open(options)
    data = _data(model, options)
    model.warn_if_unseen(schedule or model.hyperschedule, data.length)
    rows = min(len(data.packed(options.split)), options.limit or sys.maxsize)

    def batches() -> Iterator[Batch]:
        loader = data.val_dataloader() if options.split == "validation" else data.test_dataloader()
        if options.split == "train":
            loader = data._eval_loader("train")
        left = rows
        with _bar(total=rows, desc="scoring", unit="row") as bar:
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
    output = options.output or options.run / "results" / _result_name(options, data.corpus.name)
    write_json(output, json.loads(json.dumps(result, default=str)))
    print(f"written to {output}")
