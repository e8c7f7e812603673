"""Sets of texts: samples in files, samples drawn from a model, human texts of a given length."""

from __future__ import annotations

import json
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
    writes.
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
        "seconds": samples.seconds,
        "tokens": samples.tokens,
    }
    return {"samples": samples.texts, "settings": settings, **provenance(model, run, seed)}


def human(
    judge: Judge, corpus: Corpus, split: str, count: int, tokens: int, seed: int = 0
) -> list[str]:
    """`count` pieces of a corpus split, each of `tokens` tokens of the judge and verbatim, drawn in
    random order from all pieces.

    Raises:
        ValueError: if the split has fewer pieces.
    """
    pieces: list[str] = []
    for document in corpus.documents(split):
        encoded = judge.tokenizer(
            document, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        places = encoded["offset_mapping"]
        for first in range(0, len(places) - tokens + 1, tokens):
            begin = places[first][0]
            end = places[first + tokens - 1][1]
            pieces.append(document[begin:end])
    if len(pieces) < count:
        raise ValueError(
            f"the {split} split of {corpus.name} has {len(pieces)} texts of {tokens} tokens, but "
            f"{count} are needed (as many for the reference as for the ceiling): take fewer "
            "samples, shorter texts or another split"
        )
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed)).tolist()
    return [pieces[number] for number in islice(order, count)]
