"""Samplers that know nothing but the training text: what any model must beat, and what copying is
worth.

All draw texts of `tokens` tokens of the judge, as a function of (seed, number of the text).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..data.corpora import Corpus
from ..noise import Stream, uniform
from . import texts
from .judge import Judge

TRAINING = 2_000_000
"""Tokens of the training text that unigram and bigram are counted on, at most."""


def training_ids(judge: Judge, corpus: Corpus, split: str) -> Tensor:
    """The first tokens [n] of a split as running text, in tokens of the judge.

    Raises:
        ValueError: if there are fewer than two.
    """
    ids: list[int] = []
    for document in corpus.documents(split):
        ids += judge.tokenizer.encode(document + judge.end, add_special_tokens=False, verbose=False)
        if len(ids) >= TRAINING:
            break
    if len(ids) < 2:
        raise ValueError(
            f"the {split} split of {corpus.name} has {len(ids)} tokens: give another training text"
        )
    return torch.tensor(ids[:TRAINING])


def unigram(ids: Tensor, count: int, tokens: int, seed: int = 0) -> Tensor:
    """Tokens [count, tokens] drawn independently by their frequency in `ids` [n].

    >>> unigram(torch.tensor([7, 7, 7]), count=1, tokens=2)
    tensor([[7, 7]])
    """
    u = uniform(seed, torch.arange(count)[:, None], 0, torch.arange(tokens), Stream.TOKEN)
    return ids[(u * len(ids)).long()]


def bigram(ids: Tensor, count: int, tokens: int, seed: int = 0) -> Tensor:
    """Chains [count, tokens]: the first token as `unigram`, each other one by how often it follows
    the one before in `ids` [n]; the last token of `ids` is followed by its first.

    >>> bigram(torch.tensor([1, 2, 3]), count=1, tokens=4).diff() % 3
    tensor([[1, 1, 1]])
    """
    order = ids.argsort(stable=True)  # the places of each token, one token after the other
    follower = ids.roll(-1)[order]
    ordered = ids[order]
    drawn = unigram(ids, count, 1, seed)
    for place in range(1, tokens):
        u = uniform(seed, torch.arange(count), 1, place, Stream.TOKEN)
        begin = torch.searchsorted(ordered, drawn[:, -1].contiguous())
        end = torch.searchsorted(ordered, drawn[:, -1].contiguous(), right=True)
        chosen = follower[begin + (u * (end - begin)).long()]
        drawn = torch.cat([drawn, chosen[:, None]], -1)
    return drawn


Draw = Callable[[int, int], list[str]]
"""count, tokens -> that many texts of that many tokens."""


def null_rows(judge: Judge, corpus: Corpus, split: str, seed: int = 0) -> dict[str, Draw]:
    """The null rows by name: `unigram` and `bigram` of a training text, and `training text`: pieces
    of it, verbatim.
    """
    ids = training_ids(judge, corpus, split)

    def decoded(chain: Callable[[Tensor, int, int, int], Tensor]) -> Draw:
        def draw(count: int, tokens: int) -> list[str]:
            return [judge.tokenizer.decode(row) for row in chain(ids, count, tokens, seed)]

        return draw

    def copied(count: int, tokens: int) -> list[str]:
        return texts.human(judge, corpus, split, count, tokens, seed=seed)

    return {"unigram": decoded(unigram), "bigram": decoded(bigram), "training text": copied}
