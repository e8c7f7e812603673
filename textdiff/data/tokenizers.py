"""Tokenizers by name: a pretrained one, a byte-level BPE or the characters of the corpus.

The network appends MASK as id N, the largest id + 1; a tokenizer's own mask token stays an ordinary
token.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ..files import reason
from .corpora import Corpus

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_BYTES = 256
LONGEST = 64  # letters in a row that BPE is trained on
_RUN = re.compile(rf"[^\W\d_]{{{LONGEST}}}(?=[^\W\d_])|\d{{{LONGEST}}}(?=\d)")


class TokenizerSpec(ABC):
    """How to make the tokenizer of a corpus; `build` is deterministic."""

    @abstractmethod
    def build(self, corpus: Corpus) -> PreTrainedTokenizerFast:
        """The tokenizer for a corpus; it always has eos, bos and pad tokens."""


@dataclass(frozen=True)
class PretrainedTokenizer(TokenizerSpec):
    """Any fast tokenizer of the Hugging Face Hub (id) or of a local folder."""

    name_or_path: str

    def build(self, corpus: Corpus) -> PreTrainedTokenizerFast:
        """As `load`, whatever the corpus."""
        return self.load()

    def load(self) -> PreTrainedTokenizerFast:
        """Load it; a separator may stand in for EOS. ValueError if it cannot be loaded, is slow or
        has neither.
        """
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.name_or_path, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"tokenizer {self.name_or_path!r} cannot be loaded ({reason(error)}): check the "
                "name and the network, set HF_HUB_OFFLINE=1 to use what is cached, or give a local "
                "folder"
            ) from error
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ValueError(
                f"tokenizer {self.name_or_path!r} has no fast version: choose one with a "
                "tokenizer.json"
            )
        end = tokenizer.eos_token or tokenizer.sep_token
        if end is None:
            raise ValueError(
                f"tokenizer {self.name_or_path!r} has neither an EOS nor a separator token to end "
                "documents with: set eos_token in its tokenizer_config.json"
            )
        # Existing tokens only: the vocabulary does not grow.
        tokenizer.eos_token = end
        tokenizer.bos_token = tokenizer.bos_token or tokenizer.cls_token or end
        tokenizer.pad_token = tokenizer.pad_token or end
        return tokenizer


@dataclass(frozen=True)
class BPE(TokenizerSpec):
    """Byte-level BPE trained on the train split; any text comes back exactly.

    A small corpus may give fewer than `vocab_size` tokens. `documents` limits training to the first
    so many, which a streaming corpus needs.
    """

    vocab_size: int
    documents: int | None = None

    def build(self, corpus: Corpus) -> PreTrainedTokenizerFast:
        """Train it; ValueError if vocab_size is below 257, or for a streaming corpus without
        `documents`.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        if self.vocab_size <= _BYTES:
            raise ValueError(
                f"vocab_size must be at least {_BYTES + 1} (256 bytes and {END}), got "
                f"{self.vocab_size}"
            )
        if corpus.streaming and self.documents is None:
            raise ValueError(
                f"{corpus.name} is a stream: set documents, the number to train the BPE on (e.g. "
                "100000)"
            )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=[END],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=sys.stderr.isatty(),
        )
        documents = islice(corpus.documents("train"), self.documents)
        tokenizer.train_from_iterator(_cut(documents), trainer)
        return _fast(tokenizer)


def _cut(documents: Iterator[str]) -> Iterator[str]:
    """The documents, cut inside runs of more than `LONGEST` letters or digits.

    A training costs the square of the longest run, and where there are no spaces (DNA, Chinese) a
    whole document is one.
    """
    for document in documents:
        begin = 0
        for run in _RUN.finditer(document):
            yield document[begin : run.end()]
            begin = run.end()
        yield document[begin:]


@dataclass(frozen=True)
class Characters(TokenizerSpec):
    """One token per character (code point) of the train split; any other character becomes U+FFFD,
    which is id 1.
    """

    def build(self, corpus: Corpus) -> PreTrainedTokenizerFast:
        """Collect the characters; ValueError for a streaming corpus."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

        if corpus.streaming:
            raise ValueError(
                f"{corpus.name} is a stream: its characters are not known beforehand; use BPE"
            )
        characters: set[str] = set()
        for document in corpus.documents("train"):
            characters.update(document)
        ordered = [END, UNKNOWN, *sorted(characters - {UNKNOWN})]
        tokenizer = Tokenizer(
            models.WordLevel({token: i for i, token in enumerate(ordered)}, unk_token=UNKNOWN)
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        return _fast(tokenizer, unk_token=UNKNOWN)


def num_tokens_of(tokenizer: PreTrainedTokenizerFast) -> int:
    """N, the number of ids: where some of them stand for no token, these are tokens that no text
    holds.
    """
    return 1 + max(tokenizer.get_vocab().values())


def tokenizer_hash(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 of the serialised backend and the end token, without padding and truncation; the same
    after saving.
    """
    serialised = json.loads(tokenizer.backend_tokenizer.to_str())
    serialised |= {"padding": None, "truncation": None, "eos": tokenizer.eos_token}
    return hashlib.sha256(json.dumps(serialised, sort_keys=True).encode()).hexdigest()


def _fast(tokenizer: Tokenizer, **tokens: str) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        bos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,  # decoding must give the text back
        **tokens,
    )
