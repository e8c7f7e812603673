"""Sets of texts: samples in files, samples drawn from a model, human texts of a given length."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..data.corpora import Corpus
from ..generation.config import GenerationConfig
from ..hyperschedule import Hyperschedule
from ..model.model import Model
from ..model.source import Source
from ..samplers import Ancestral, Sampler
from .judge import Judge
from .provenance import provenance


def read_texts(path: Path) -> list[str]:
    """The texts of a file: .jsonl (an object with "text", or a string, a line), or .json (a list of
    these, or under "samples").

    Raises:
        ValueError: if it cannot be read as such.
    """
    try:
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            items = [json.loads(line) for line in content.split("\n") if line.strip()]
        else:
            items = json.loads(content)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as JSON ({error}): give a .json or .jsonl file, or a model "
            "folder"
        ) from None
    if isinstance(items, dict):
        items = items.get("samples")
    texts: list[Any] = []
    if isinstance(items, list):
        texts = [item.get("text") if isinstance(item, dict) else item for item in items]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f'{path} holds no list of texts: lines or items are strings or {{"text": ...}}, or a '
            'list under "samples"'
        )
    return texts


def draw(
    model: Model,
    run: str | Path | Source,
    num_samples: int,
    length: int | None,
    hyperschedule: Hyperschedule | None,
    sampler: Sampler | None,
    seed: int = 0,
    batch_size: int = 16,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Samples of a model with their settings, in the form that `textdiff sample --output x.json`
    writes; every EOS that was drawn stands in them.
    """
    samples = model.generate(
        None,
        # not what is stored with the model: a measured law is the one that is written down
        GenerationConfig(),
        num_return_sequences=num_samples,
        max_length=length,
        hyperschedule=hyperschedule,
        sampler=sampler or Ancestral(),
        temperature=temperature,
        seed=seed,
        batch_size=batch_size,
    )
    settings = {
        "hyperschedule": str(hyperschedule or model.hyperschedule),
        "sampler": str(sampler or "Ancestral()"),
        "num_samples": num_samples,
        "length": length or model.length,
        "temperature": temperature,
        "batch_size": batch_size,
        "nfe": sum(samples.nfe) / len(samples.nfe),
        "tokens_per_forward": samples.tokens_per_forward,
        "seconds": samples.seconds,
        "tokens": samples.tokens,
    }
    drawn = {"samples": samples.running, "eos": model.tokenizer.eos_token}
    return {**drawn, "settings": settings, **provenance(model, run, seed)}


def read_by(judge: Judge, samples: Sequence[str], eos: str | None) -> list[str]:
    """Samples in which documents end with `eos` (None: with nothing), as a judge reads them: each
    ends with its own EOS.
    """
    return [text.replace(eos, judge.end) for text in samples] if eos else list(samples)


def _pieces(judge: Judge, documents: Iterable[str], tokens: int) -> Iterator[str]:
    """Running text, each document with its end, in pieces of `tokens` tokens; the rest is left."""
    marks = len(judge.tokenizer.encode(judge.end, add_special_tokens=False))
    piece, size = "", 0
    for document in documents:
        encoded = judge.tokenizer(
            document, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        places = [*encoded["offset_mapping"], *[(len(document), len(document))] * marks]
        first = 0
        while first < len(places):
            here = places[first : first + tokens - size]
            first += len(here)
            size += len(here)
            piece += document[here[0][0] : here[-1][1]]
            piece += judge.end if first == len(places) else ""
            if size == tokens:
                yield piece
                piece, size = "", 0


def human(
    judge: Judge, corpus: Corpus, split: str, count: int, tokens: int, seed: int = 0
) -> list[str]:
    """`count` pieces of a corpus split as running text, each of `tokens` tokens of the judge, drawn
    in random order from all pieces.

    They are cut as samples of joined documents are, and as SEDD and MDLM cut their text: documents
    stand one after another, verbatim, each ended by the judge's EOS, wherever a piece begins.

    Raises:
        ValueError: if the split has fewer pieces.
    """
    pieces = list(_pieces(judge, corpus.documents(split), tokens))
    if len(pieces) < count:
        raise ValueError(
            f"the {split} split of {corpus.name} has {len(pieces)} texts of {tokens} tokens, but "
            f"{count} are needed (as many for the reference as for the ceiling): take fewer "
            "samples, shorter texts or another split"
        )
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed)).tolist()
    return [pieces[number] for number in islice(order, count)]
