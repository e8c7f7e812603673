"""Last-word prediction (LAMBADA): is every token of a passage's last word right, at the known
number of tokens?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ..denoiser.prediction import require
from ..generation.engine import denoise
from ..hyperschedule import Hyperschedule
from ..model import text
from ..model.model import Model
from ..noise import Noise
from ..samplers import Filter, Sampler, Step
from ..samplers.filters import identity
from . import ranks
from .tables import plus_minus


@dataclass(frozen=True)
class _Greedy(Sampler):
    """Each call gives its argmax to the most certain free token of its window, and to all that the
    schedule settles in it.

    Autoregression: the argmax of each token in turn. No draw is made and no bound describes it.
    """

    def rows(self, step: Step) -> Tensor:
        """Every free token of the window."""
        return step.moving

    def move(
        self, step: Step, rows: Tensor, logits: Tensor, filter: Filter = identity
    ) -> tuple[Tensor, Tensor]:
        """Fill them; the others stay as they are."""
        best, token = filter(logits, step.where(rows)).double().log_softmax(-1).max(-1)
        certainty = torch.full_like(step.t, -math.inf, dtype=torch.float64)
        certainty = certainty.masked_scatter(rows, best)
        # Rounding errors depend on the batch: of what agrees to four decimals the left one is
        # taken.
        first = certainty.mul(1e4).round().argsort(dim=-1, descending=True, stable=True)[:, :1]
        filled = rows & (torch.zeros_like(rows).scatter(-1, first, True) | (step.s == 0))
        z = torch.where(filled, step.z.masked_scatter(rows, token), step.z)
        return z, torch.where(filled, 0.0, torch.where(rows, step.s, step.t))


@dataclass(frozen=True)
class Accuracy:
    """How many of `passages` have their last word right; `tokens` of all last words."""

    correct: int
    passages: int
    tokens: int

    def __str__(self) -> str:
        error = self.standard_error
        share = plus_minus(100 * self.accuracy, None if error is None else 100 * error, 2)
        return f"{self.correct} of {self.passages}, {share} %"

    @property
    def accuracy(self) -> float:
        """The share."""
        return self.correct / self.passages

    @property
    def standard_error(self) -> float | None:
        """Of the share as an estimate for other passages like these, binomial; None: not known, for
        all or none were right.
        """
        if self.correct in (0, self.passages):
            return None
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.passages)


def cut(tokenizer: PreTrainedTokenizerFast, passage: str, length: int) -> tuple[list[int], int]:
    """The tokens of a passage, at most the last `length`, and how many of them are the last word
    with the space before it.

    Raises:
        ValueError: if the passage is a single word, or its last word has `length` tokens or more.
    """
    ids, last = text.last_word(tokenizer, passage)
    if not 0 < last < len(ids) or last >= length:
        raise ValueError(f"no last word to predict in rows of {length} tokens: {passage[-80:]!r}")
    return ids[-length:], last


@torch.no_grad()
def last_word(
    model: Model,
    passages: Iterable[str],
    hyperschedule: Hyperschedule | None = None,
    length: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    on_batch: Callable[[int], object] = lambda done: None,
) -> Accuracy:
    """Fill the last word of each passage under `_Greedy`, given the words before it and its number
    of tokens.

    Right is a word of which every token is right. It is the same for every model: autoregressive
    ones fill from left to right, others in the order of their certainty as far as their
    hyperschedule leaves it open. The result does not depend on the batch size; under
    `torch.distributed` each process fills its share.

    Args:
        model: the model.
        passages: texts; the last word follows the last space.
        hyperschedule: default: that of training.
        length: tokens of a passage at most, its beginning is cut off; default: the training length.
        batch_size: passages per network call.
        seed: key of the noise that a process without MASK begins with; others draw nothing.
        on_batch: called with the number of passages of each batch that is done.

    Raises:
        ValueError: if there is no passage, or one without a last word.
    """
    require(model.prediction, _Greedy.prediction, "last-word prediction")
    schedule = hyperschedule or model.hyperschedule
    items = [cut(model.tokenizer, passage, length or model.length) for passage in passages]
    if not items:
        raise ValueError("there is no passage to complete")
    by_shape: dict[tuple[int, int], list[int]] = {}
    for number in range(ranks.rank(), len(items), ranks.world_size()):
        tokens, last = items[number]
        by_shape.setdefault((len(tokens), last), []).append(number)
    counts = torch.zeros(3, dtype=torch.float64)
    for (_, last), numbers in by_shape.items():
        for begin in range(0, len(numbers), batch_size):
            part = numbers[begin : begin + batch_size]
            ids = torch.tensor([items[number][0] for number in part], device=model.device)
            noise = Noise(seed, torch.tensor(part, device=model.device))
            right = _right(model, schedule, ids, last, noise)
            counts += torch.tensor([float(right), len(part), last * len(part)], dtype=torch.float64)
            on_batch(len(part))
    correct, count, tokens = ranks.total(counts).tolist()
    return Accuracy(int(correct), int(count), int(tokens))


def _right(model: Model, schedule: Hyperschedule, ids: Tensor, last: int, noise: Noise) -> Tensor:
    """How many of the passages ids [B, L] get their `last` tokens right."""
    asked = ids.clone()
    asked[:, -last:] = model.network.num_tokens
    done = denoise(
        model.network, model.process, schedule, _Greedy(), noise, ids=asked, apart=model.apart
    )
    return (done.ids == ids).all(-1).sum()
