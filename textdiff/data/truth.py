"""Languages whose truth is known: which texts belong to them, how probable each is, and their
entropy. Bounds and samplers can be judged against these without another model.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .corpora import Corpus

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast


class KnownLanguage(Corpus):
    """A corpus whose law can be stated; every text of it has `letters` characters."""

    @property
    @abstractmethod
    def letters(self) -> int:
        """Characters of a text."""

    @property
    @abstractmethod
    def entropy(self) -> float:
        """H of the law of a text, in nats: no bound of a model can be below it."""

    @abstractmethod
    def wrong(self, text: str) -> int:
        """How many characters of a text break a rule; 0: the text belongs to the language."""

    def log_prob(self, text: str) -> float:
        """log p of a text in nats, -inf for one that does not belong to the language; every text
        that belongs is equally likely.
        """
        return -math.inf if self.wrong(text) else -self.entropy


@dataclass(frozen=True)
class Truth:
    """A known language in the tokens of a tokenizer that gives each character one.

    >>> from textdiff.data import Characters, SmallSudoku
    >>> grids = SmallSudoku()
    >>> truth = Truth(grids, Characters().build(grids))
    >>> ids = truth.encode(["1234341221434321", "1234341221434311"])
    >>> truth.valid(ids).tolist(), truth.wrong(ids).tolist()
    ([True, False], [0, 3])

    Args:
        language: whose law it is.
        tokenizer: what the ids mean.
    """

    language: KnownLanguage
    tokenizer: PreTrainedTokenizerFast

    @property
    def entropy(self) -> float:
        """H of the language, nats a text."""
        return self.language.entropy

    def encode(self, texts: list[str]) -> Tensor:
        """Texts -> ids [B, letters].

        Raises:
            ValueError: if a text is not of `letters` tokens.
        """
        import torch

        rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        letters = self.language.letters
        for text, row in zip(texts, rows, strict=True):
            if len(row) != letters:
                raise ValueError(
                    f"{text!r} has {len(row)} tokens, a text of {self.language.name} {letters}: "
                    "use textdiff.data.Characters"
                )
        return torch.tensor(rows, dtype=torch.int64)

    def texts(self, ids: Tensor) -> list[str]:
        """ids [B, L] -> texts up to the first EOS."""
        decoded = self.tokenizer.batch_decode(ids.tolist())
        return [text.split(str(self.tokenizer.eos_token))[0] for text in decoded]

    def wrong(self, ids: Tensor) -> Tensor:
        """ids [B, L] -> [B] int64: the tokens that break a rule."""
        import torch

        return torch.tensor([self.language.wrong(text) for text in self.texts(ids)])

    def valid(self, ids: Tensor) -> Tensor:
        """ids [B, L] -> [B] bool: whether the text belongs to the language."""
        return self.wrong(ids) == 0

    def log_prob(self, ids: Tensor) -> Tensor:
        """ids [B, L] -> [B] float64: log p in nats, -inf where it does not belong."""
        import torch

        logs = [self.language.log_prob(text) for text in self.texts(ids)]
        return torch.tensor(logs, dtype=torch.float64)
