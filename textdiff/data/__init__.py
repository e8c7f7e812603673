"""Corpora, tokenizers, packing and the data module. `TextData` imports Lightning, so it is loaded
on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .addition import Addition
from .benchmarks import Benchmark
from .corpora import Corpus, Files, HubDataset, TinyShakespeare
from .mixture import Mixture
from .packing import Packed, pack, pack_stream
from .sudoku import SmallSudoku
from .tokenising import tokenise
from .tokenizers import BPE, Characters, PretrainedTokenizer, TokenizerSpec, tokenizer_hash
from .truth import KnownLanguage, Truth

if TYPE_CHECKING:
    from .datamodule import TextData

__all__ = [
    "BPE",
    "Addition",
    "Benchmark",
    "Characters",
    "Corpus",
    "Files",
    "HubDataset",
    "KnownLanguage",
    "Mixture",
    "Packed",
    "PretrainedTokenizer",
    "SmallSudoku",
    "TextData",
    "TinyShakespeare",
    "TokenizerSpec",
    "Truth",
    "pack",
    "pack_stream",
    "tokenise",
    "tokenizer_hash",
]


def __getattr__(name: str) -> Any:
    if name == "TextData":
        from .datamodule import TextData

        return TextData
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
