"""Corpora, tokenizers, packing and the data module. `TextData` imports Lightning, so it is loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textdiff.data.benchmarks import Benchmark
from textdiff.data.corpora import Corpus, Files, HubDataset, TinyShakespeare
from textdiff.data.packing import Packed, pack, pack_stream
from textdiff.data.tokenising import tokenise
from textdiff.data.tokenizers import BPE, Characters, PretrainedTokenizer, TokenizerSpec, tokenizer_hash

if TYPE_CHECKING:
    from textdiff.data.datamodule import TextData

__all__ = [
    "BPE",
    "Benchmark",
    "Characters",
    "Corpus",
    "Files",
    "HubDataset",
    "Packed",
    "PretrainedTokenizer",
    "TextData",
    "TinyShakespeare",
    "TokenizerSpec",
    "pack",
    "pack_stream",
    "tokenise",
    "tokenizer_hash",
]


def __getattr__(name: str) -> Any:
    if name == "TextData":
        from textdiff.data.datamodule import TextData

        return TextData
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
