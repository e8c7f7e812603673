"""What a caller asks to be drawn: prompts become sequences with MASK where a token is to be drawn,
and sequences of like lengths a batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from ..generation.config import GenerationConfig
from ..hyperschedule import Hyperschedule

if TYPE_CHECKING:
    from .model import Model

MASK_TEXT = "[MASK]"

Prompt = str | Tensor | Sequence[int]


def sequences(
    model: Model, prompts: Any, suffix: str | Sequence[str], config: GenerationConfig
) -> list[Tensor]:
    """One sequence [L] for each sample, prompt by prompt.

    Args:
        model: encodes the texts.
        prompts: a prompt, several, or None for the empty one.
        suffix: what comes after the drawn tokens, one for all prompts or one each.
        config: how many tokens, and how many samples of each prompt.

    Raises:
        ValueError: if a prompt is no text and no ids, or is longer than all that was asked for.
    """
    if prompts is None or isinstance(prompts, str):
        prompts = [prompts or ""]
    elif isinstance(prompts, Tensor) and prompts.ndim == 1:
        prompts = [prompts]
    suffixes = [suffix] * len(prompts) if isinstance(suffix, str) else list(suffix)
    if len(suffixes) != len(prompts):
        raise ValueError(
            f"there are {len(prompts)} prompts but {len(suffixes)} suffixes: "
            "give one for all, or one each"
        )
    rows = []
    for prompt, after in zip(prompts, suffixes, strict=True):
        row = _sequence(model, _ids(model, prompt), _ids(model, after), config)
        rows += [row] * config.num_return_sequences
    return rows


def _ids(model: Model, prompt: Prompt) -> Tensor:
    """The ids [L] of a prompt; a warning if the tokenizer does not know all of its text."""
    if isinstance(prompt, str):
        ids = model.encode(prompt)
        _warn_of_unknown(model.tokenizer, prompt, ids)
        return ids
    ids = torch.as_tensor(prompt).cpu()
    if not ids.numel():
        ids = ids.long()
    is_whole = ids.ndim == 1 and not ids.is_floating_point()
    if not is_whole or bool(((ids < 0) | (ids > model.mask_id)).any()):
        raise ValueError(
            f"a prompt must be a text or ids [L] in 0..{model.mask_id} (MASK), got {prompt!r}"
        )
    return ids


def _warn_of_unknown(tokenizer: PreTrainedTokenizerFast, prompt: str, ids: Tensor) -> None:
    if not tokenizer.unk_token:
        return
    if unknown := int((ids == tokenizer.unk_token_id).sum()):
        warnings.warn(
            f"{unknown} tokens of the prompt {prompt!r} are unknown to this model's tokenizer",
            stacklevel=5,
        )


def _sequence(model: Model, prompt: Tensor, suffix: Tensor, config: GenerationConfig) -> Tensor:
    """Prompt, MASK for each new token, suffix."""
    known = len(prompt) + len(suffix)
    if config.max_new_tokens is not None:
        new = config.max_new_tokens
    elif config.max_length is not None:
        new = config.max_length - known
    elif (prompt == model.mask_id).any():  # a text with gaps is as long as it is
        new = 0
    else:
        new = max(model.length - known, 1)
    if new < 0 or known + new < 1:
        raise ValueError(
            f"the prompt and suffix have {known} tokens but max_length is {config.max_length}: "
            "shorten them or raise max_length"
        )
    return torch.cat([prompt, torch.full((new,), model.mask_id), suffix])


@dataclass(frozen=True)
class Batch:
    """Sequences that are drawn together.

    Args:
        numbers: which of all sequences they are.
        ids: [B, L]; shorter ones are padded at their end.
        ends: [B] their lengths.
    """

    numbers: list[int]
    ids: Tensor
    ends: list[int]

    def lengths(self, device: torch.device) -> Tensor | None:
        """[B] lengths; None where all are alike."""
        return torch.tensor(self.ends, device=device) if len(set(self.ends)) > 1 else None


def batches(wanted: list[Tensor], batch_size: int, schedule: Hyperschedule) -> Iterator[Batch]:
    """Sequences of like lengths together, at most batch_size of them; of equal ones only, where
    start steps depend on the length.
    """
    groups: list[list[int]] = []
    for number in sorted(range(len(wanted)), key=lambda number: len(wanted[number])):
        length = len(wanted[number])
        has_room = bool(groups) and len(groups[-1]) < batch_size
        if has_room and _begins_alike(schedule, len(wanted[groups[-1][0]]), length):
            groups[-1].append(number)
        else:
            groups.append([number])
    for numbers in groups:
        rows = [wanted[number] for number in numbers]
        yield Batch(numbers, pad_sequence(rows, batch_first=True), [len(row) for row in rows])


def _begins_alike(schedule: Hyperschedule, short: int, long: int) -> bool:
    if short == long:
        return True
    if not (schedule.fits(short) and schedule.fits(long)):
        return False
    start = schedule.start(long)
    return bool((start.diff() >= 0).all()) and torch.equal(schedule.start(short), start[:short])


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, num_tokens: int) -> None:
    """Raise a ValueError unless the tokenizer has just the network's N ordinary tokens."""
    if len(tokenizer) != num_tokens:
        relation = "larger" if len(tokenizer) > num_tokens else "smaller"
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, {relation} than the model's {num_tokens}: "
            "use the tokenizer the model was trained with"
        )
