"""What a caller asks to be drawn, as sequences with MASK where a token is to be drawn."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..generation.watching import ends_free
from ..hyperschedule import Hyperschedule

MASK_TEXT = "[MASK]"


def _batches(given: list[Tensor], batch_size: int, schedule: Hyperschedule) -> list[list[int]]:
    """Rows of like lengths together, at most batch_size of them; of equal ones only, where start
    steps depend on the length.
    """
    order = sorted(range(len(given)), key=lambda row: len(given[row]))
    batches: list[list[int]] = []
    for row in order:
        last = batches[-1] if batches else None
        if (
            last
            and len(last) < batch_size
            and _begins_alike(schedule, len(given[last[0]]), len(given[row]))
        ):
            last.append(row)
        else:
            batches.append([row])
    return batches


def _begins_alike(schedule: Hyperschedule, short: int, long: int) -> bool:
    if short == long:
        return True
    if not (schedule.fits(short) and schedule.fits(long)):
        return False
    start = schedule.start(long)
    return bool((start.diff() >= 0).all()) and torch.equal(schedule.start(short), start[:short])


def _cut(ids: Tensor, free: Tensor, eos: int | None) -> Tensor:
    """A sequence up to the first drawn end of text, which stays; a text with gaps to fill is not
    cut.
    """
    if eos is None or not ends_free(free):
        return ids
    ended = (free & (ids == eos)).nonzero()
    return ids[: int(ended[0]) + 1] if len(ended) else ids


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> None:
    """Raise a ValueError unless the tokenizer has just the network's N ordinary tokens."""
    if len(tokenizer) != num_tokens:
        relation = "larger" if len(tokenizer) > num_tokens else "smaller"
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, {relation} than the model's {num_tokens}: use the tokenizer the model "
            "was trained with"
        )
