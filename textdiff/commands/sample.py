"""`textdiff sample RUN`: draw texts, watch them come about, write them as text, JSON, JSONL or a
page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from ..evaluation.provenance import provenance
from ..files import check_place, write_json, write_text
from ..model.laws import Hyperschedule, Sampler, known
from ..model.model import GenerationConfig, Model, Samples
from ..viewer.terminal import clean
from .common import add_law, law_of, open_run, parser_of

OPTIONS = (
    "max_new_tokens",
    "max_length",
    "num_return_sequences",
    "max_denoising_steps",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "batch_size",
)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(
        "sample", "Draw texts. The same call draws the same texts; --seed draws others."
    )
    parser.set_defaults(seed=None, batch_size=None)  # the model's own, if nothing is said
    parser.epilog = (
        f"samplers: {', '.join(known('sampler'))}; python -c 'help(\"textdiff.samplers\")' says "
        "what they draw from"
    )
    _add_prompts(parser)
    _add_lengths(parser)
    add_law(parser)
    _add_filters(parser)
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="feed settled tokens in every call: the same samples, slower",
    )
    parser.add_argument(
        "--output",
        action="append",
        type=Path,
        help=f"write a file, too; one of {', '.join(WRITERS)}; may be repeated",
    )
    parser.add_argument(
        "--watch", action="store_true", help="show the first sample while it comes about"
    )
    return parser


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    """What the texts are drawn around."""
    parser.add_argument(
        "--prompt",
        action="append",
        help="beginning of a text, or a text with [MASK] to fill; may be repeated",
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="one prompt a line, or .jsonl with 'prompt' and 'suffix'; - is standard input",
    )
    parser.add_argument("--suffix", default="", help="what comes after the drawn tokens")


def _add_lengths(parser: argparse.ArgumentParser) -> None:
    """How many texts, how long, in how many calls."""
    parser.add_argument("--max-new-tokens", type=int, help="tokens to draw for each prompt")
    parser.add_argument(
        "--max-length",
        type=int,
        help="instead, tokens with the prompt; default: the training length",
    )
    parser.add_argument("--num-return-sequences", type=int, help="samples per prompt (default: 1)")
    parser.add_argument(
        "--max-denoising-steps",
        type=int,
        help="network calls of a window; default: the hyperschedule's levels",
    )
    parser.add_argument(
        "--stop-at-eos",
        action="store_true",
        help="a text ends at the tokenizer's end of text, or at one of those of the base",
    )


def _add_filters(parser: argparse.ArgumentParser) -> None:
    """Which tokens may be drawn."""
    parser.add_argument("--top-k", type=int, help="draw among the k likeliest tokens")
    parser.add_argument(
        "--top-p", type=float, help="draw among the likeliest tokens of this probability together"
    )
    parser.add_argument(
        "--min-p", type=float, help="draw among tokens this times as likely as the likeliest"
    )


def _prompts(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Prompts and their suffixes from the command line, a file or standard input."""
    prompts = list(options.prompt or [])
    suffixes = [options.suffix] * len(prompts)
    if options.prompts is not None:
        if options.prompts == "-":
            text = sys.stdin.read()
        else:
            text = Path(options.prompts).read_text(encoding="utf-8")
        for number, line in enumerate(text.split("\n")):
            if not line.strip():
                continue
            if options.prompts.endswith(".jsonl"):
                row = _json(line, number)
                prompts.append(row["prompt"])
                suffixes.append(row.get("suffix", options.suffix))
            else:
                prompts.append(line)
                suffixes.append(options.suffix)
        if not prompts:
            raise ValueError(f"--prompts {options.prompts} holds no prompt")
    if not prompts:
        return [""], [options.suffix]
    return prompts, suffixes


def _json(line: str, number: int) -> dict[str, str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number + 1} of the prompts is not JSON: {error}") from None
    if not isinstance(row, dict):
        row = {}
    if "prompt" not in row or not all(isinstance(value, str) for value in row.values()):
        raise ValueError(
            f"line {number + 1} of the prompts must be an object with 'prompt' and perhaps "
            f"'suffix', got {line[:80]}"
        )
    if unknown := sorted(row.keys() - {"prompt", "suffix"}):
        raise ValueError(
            f"line {number + 1} of the prompts has unknown fields {', '.join(unknown)}"
        )
    return row


def _config(model: Model, options: argparse.Namespace) -> GenerationConfig:
    """The model's own options with those of the command line."""
    stated = {name: getattr(options, name) for name in OPTIONS}
    chosen = {name: value for name, value in stated.items() if value is not None}
    chosen |= law_of(options)
    if options.no_cache:
        chosen["use_cache"] = False
    if options.stop_at_eos:
        if not model.ends:
            raise ValueError("--stop-at-eos: this model's tokenizer has no end of text")
        chosen["eos_token_id"] = model.ends
    chosen["output_trajectory"] = any(path.suffix == ".html" for path in options.output or [])
    return model.generation_config.but(**chosen)


def _text(path: Path, samples: Samples, settings: dict[str, Any], model: Model) -> None:
    texts = (f"--- sample {n}\n{text}\n" for n, text in enumerate(samples.texts))
    write_text(path, "".join(texts))


def _whole(path: Path, samples: Samples, settings: dict[str, Any], model: Model) -> None:
    drawn = {"samples": samples.running, "eos": model.tokenizer.eos_token}
    write_json(path, {**drawn, "nfe_of_samples": samples.nfe, **settings})


def _lines(path: Path, samples: Samples, settings: dict[str, Any], model: Model) -> None:
    rows = zip(samples.texts, samples.ids, samples.nfe, strict=True)
    lines = (
        json.dumps({"text": text, "ids": ids.tolist(), "nfe": nfe}, ensure_ascii=False)
        for text, ids, nfe in rows
    )
    write_text(path, "".join(f"{line}\n" for line in lines))


def _page(path: Path, samples: Samples, settings: dict[str, Any], model: Model) -> None:
    from ..viewer import page

    shown = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in settings["settings"].items()
    }
    html = page(
        samples.trajectories or [],
        decode=model.decode_token,
        num_tokens=model.mask_id,
        title=settings["run"],
        settings=shown,
    )
    write_text(path, html)


WRITERS: dict[str, Callable[[Path, Samples, dict[str, Any], Model], None]] = {
    ".txt": _text,
    ".json": _whole,
    ".jsonl": _lines,
    ".html": _page,
}


def _check(options: argparse.Namespace) -> None:
    for path in options.output or []:
        if path.suffix not in WRITERS:
            raise ValueError(
                f"--output {path}: the ending says what is written, one of {', '.join(WRITERS)}"
            )
        check_place(path)


def _draw(
    model: Model, config: GenerationConfig, prompts: list[str], suffixes: list[str], watch: bool
) -> Samples:
    """The samples, which are watched or whose progress is shown."""
    if not watch:
        return model.generate(prompts, config, suffix=suffixes, progress=True)
    from ..viewer import Watcher

    with Watcher(model.decode_token, model.mask_id) as watcher:
        return model.generate(prompts, config, suffix=suffixes, on_call=watcher)


def main(arguments: list[str]) -> None:
    """Draw texts from a model folder and print them."""
    options = _parser().parse_args(arguments)
    _check(options)
    prompts, suffixes = _prompts(options)
    model = open_run(options)
    config = _config(model, options)
    samples = _draw(model, config, prompts, suffixes, watch=options.watch)
    for number, text in enumerate(samples.texts):
        print(f"--- sample {number}\n{clean(text) if sys.stdout.isatty() else text}")
    schedule = config.schedule(model.hyperschedule)
    print(_summary(samples, schedule, config.sampler), file=sys.stderr)
    settings = {
        "hyperschedule": str(schedule),
        "sampler": str(config.sampler),
        "temperature": config.temperature,
        "nfe": sum(samples.nfe) / len(samples.nfe),
        "tokens_per_forward": samples.tokens_per_forward,
        "seconds": samples.seconds,
        "tokens_per_second": samples.tokens_per_second,
    }
    record = {
        "settings": settings,
        "generation_config": config.as_dict(),
        **provenance(model, options.run, cast(int, config.seed)),  # as_dict refuses the rest
    }
    for path in options.output or []:
        WRITERS[path.suffix](path, samples, record, model)
        print(f"written to {path}", file=sys.stderr)


def _summary(samples: Samples, schedule: Hyperschedule, sampler: Sampler) -> str:
    nfe = str(min(samples.nfe))
    if min(samples.nfe) < max(samples.nfe):
        nfe = f"{min(samples.nfe)} to {max(samples.nfe)}"
    return (
        f"{len(samples.texts)} samples, {sampler}, {schedule}: {nfe} network calls each "
        f"({samples.tokens_per_forward:.2f} tokens a call), {samples.tokens} tokens in "
        f"{samples.seconds:.2f} s ({samples.tokens_per_second:.0f} tokens/s)"
    )
