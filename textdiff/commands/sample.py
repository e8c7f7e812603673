"""`textdiff sample RUN`: draw texts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ..evaluation.provenance import provenance
from ..hub import write_json
from ..hyperschedule import Hyperschedule
from ..model import Samples
from ..samplers import Sampler
from ..spec import parse
from .common import open_run, parser_of, progress_bar


def main(arguments: list[str]) -> None:
    """Draw texts from a model folder and print them."""
    parser = parser_of("sample", "Draw texts. Laws and bounds of the samplers are in their documentation.")
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
    model = open_run(options)
    with progress_bar(desc="sampling", unit="call") as bar:
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
