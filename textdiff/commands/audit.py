"""`textdiff evaluate audit RUN`: bounds and samples against a language whose truth is known."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from .. import spec
from ..data import KnownLanguage, Truth
from ..evaluation.audit import AuditedBound, audit_samples
from ..evaluation.perplexity import measure
from ..evaluation.provenance import provenance
from ..evaluation.tables import Table, plus_minus
from ..files import check_place, slug, write_json
from ..model.model import Model
from ..objective import Batch
from .common import add_law, law_of, open_run, parser_of

COLUMNS = ("bound", "nats/text", "entropy", "verdict")


def main(arguments: list[str]) -> None:
    """`textdiff evaluate audit RUN --language 'Addition(3)'`."""
    parser = parser_of(
        "evaluate audit",
        "Every bound and the samples of a model of a known language; writes a JSON into "
        "RUN/results.",
    )
    add_law(parser)
    parser.add_argument(
        "--language", required=True, help="what it was trained on: SmallSudoku or 'Addition(3)'"
    )
    parser.add_argument("--limit", type=int, default=512, help="texts that bounds are measured on")
    parser.add_argument("--draws", type=int, default=16, help="noisy versions of each text")
    parser.add_argument("--samples", type=int, default=1000, help="how many to draw")
    parser.add_argument("--output", type=Path, help="JSON file; default: one in RUN/results")
    options = parser.parse_args(arguments)
    for name in ("limit", "samples"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be >= 1, got {getattr(options, name)}")
    language = spec.parse(options.language, KnownLanguage, options.classes)
    law = law_of(options)
    model = open_run(options)
    output = options.output or options.run.results / f"{slug('audit', options.language)}.json"
    check_place(output)
    truth = Truth(language, model.tokenizer)
    found = bounds_of(model, truth, law, options)
    rows = [
        (name, plus_minus(one.nats, one.standard_error), f"{one.entropy:.3f}", str(one))
        for name, one in found.items()
    ]
    print(Table(COLUMNS, rows, (0, 3)).text())
    ids, nfe = drawn(model, truth, law, options)
    judged = audit_samples(ids, truth)
    print(
        f"\nsamples  {plus_minus(judged.valid, judged.valid_error)} valid, "
        f"{judged.distinct} distinct; KL of the valid ones {judged.kl:.3f} nats; "
        f"NFE {nfe:.1f}"
    )
    result = {
        "language": spec.describe(language),
        "bounds": {name: asdict(one) | {"is_bound": one.is_bound} for name, one in found.items()},
        "samples": asdict(judged) | {"nfe": nfe},
        **provenance(model, options.run, options.seed),
    }
    write_json(output, result)
    print(f"written to {output}")


def bounds_of(
    model: Model, truth: Truth, law: dict[str, Any], options: argparse.Namespace
) -> dict[str, AuditedBound]:
    """Every bound of a model on texts of the language, each with its EOS."""
    texts = list(islice(truth.language.documents("validation"), options.limit))
    ids = truth.encode(texts)
    if model.length != ids.shape[-1] + 1:
        raise ValueError(
            f"the model was trained on rows of {model.length} tokens, a text of "
            f"{truth.language.name} and its EOS are {ids.shape[-1] + 1}: train it with "
            f"--data.length {ids.shape[-1] + 1}"
        )
    ends = torch.full((len(ids), 1), int(model.tokenizer.eos_token_id))
    rows = torch.cat((ids, ends), -1).to(model.device)
    every = torch.arange(len(rows), device=model.device)
    batches = [Batch(rows[some], some, some) for some in every.split(options.batch_size)]
    with torch.no_grad():
        measured = measure(
            model,
            lambda: batches,
            law.get("hyperschedule"),
            draws=options.draws,
            seed=options.seed,
        )
    L = rows.shape[-1]
    return {
        one.name: AuditedBound(one.nats * L, one.standard_error * L, truth.entropy, len(texts))
        for one in measured
    }


def drawn(
    model: Model, truth: Truth, law: dict[str, Any], options: argparse.Namespace
) -> tuple[torch.Tensor, float]:
    """Samples [n, L], EOS behind those that are shorter, and their mean NFE."""
    done = model.generate(
        num_return_sequences=options.samples,
        max_length=truth.language.letters + 1,
        batch_size=options.batch_size,
        seed=options.seed,
        progress=True,
        **law,
    )
    end = float(model.tokenizer.eos_token_id)
    rows = [row.cpu() for row in done.ids]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
    return ids, sum(done.nfe) / len(done.nfe)
